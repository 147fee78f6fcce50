"""Reading the prediction log, the corrections that belong to it, and the reference they are compared with."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ml.config import UserError

VECTOR = pa.list_(pa.float32())
PROBABILITIES = pa.map_(pa.string(), pa.float32())  # of every label that the model knows, rounded to float32
LOG_SCHEMA = pa.schema(
    {
        "request_id": pa.string(),
        "time": pa.timestamp("us", tz="UTC"),
        "endpoint": pa.string(),
        "model": pa.string(),
        "pictured": pa.string(),
        "pictured_confidence": pa.float64(),
        "heard": pa.string(),
        "heard_confidence": pa.float64(),
        "presence": pa.float64(),
        "present": pa.bool_(),
        "image_brightness": pa.float64(),
        "image_bright_share": pa.float64(),
        "image_contrast": pa.float64(),
        "image_blur": pa.float64(),
        "image_objects": pa.int64(),
        "audio_loudness_db": pa.float64(),
        "audio_snr_db": pa.float64(),
        "audio_bandwidth_hz": pa.float64(),
        "audio_clipping": pa.float64(),
        "audio_duration_s": pa.float64(),
        "image_embedding": VECTOR,
        "speech_embedding": VECTOR,
        "pictured_probabilities": PROBABILITIES,
        "heard_probabilities": PROBABILITIES,
        "latency_ms": pa.float64(),
    }
)
FEEDBACK_SCHEMA = pa.schema(
    {
        "request_id": pa.string(),
        "time": pa.timestamp("us", tz="UTC"),
        "pictured": pa.string(),
        "heard": pa.string(),
        "consent": pa.bool_(),
    }
)
_OF_ANSWERS = ("request_id", "time", "endpoint", "pictured", "heard", "image_objects")
ANSWERED = pa.schema([LOG_SCHEMA.field(name) for name in _OF_ANSWERS])
# The reference is made of labelled data, so it knows what the answers should have been.
REFERENCE_SCHEMA = pa.schema([*LOG_SCHEMA, ("corrected_pictured", pa.string()), ("corrected_heard", pa.string())])
REQUIRED = ("request_id", "time")


def read_log(folder: Path, start: date | datetime, end: date | datetime) -> pd.DataFrame:
    """The answers of start <= time < end (UTC), one row per request, with their corrections.

    Columns are those of LOG_SCHEMA, then corrected_pictured, corrected_heard and consent, from the newest row in the
    folder `feedback` beside `folder`, however late it came and whatever its clock said. Columns that an older shard
    lacks are null. A shard that cannot be read stays where it is and is named, with the reason, in
    `attrs["unreadable"]`, a tuple of lines; a missing folder is an empty log.
    """
    first, last = _instant(start), _instant(end)
    answers, unreadable = _read_partitions(folder, LOG_SCHEMA, first.date(), last.date())
    answers = (
        answers.loc[answers["time"].between(first, last, inclusive="left")]
        .sort_values(["time", "request_id"])
        .drop_duplicates("request_id", keep="last")
    )
    # All of it: a correction may be dated before its answer, where a clock was set back between the two.
    feedback, lost = _read_partitions(folder.parent / "feedback", FEEDBACK_SCHEMA, date.min, date.max)
    feedback = feedback.sort_values("time").drop_duplicates("request_id", keep="last").drop(columns="time")
    feedback = feedback.rename(columns={"pictured": "corrected_pictured", "heard": "corrected_heard"})
    joined = answers.merge(feedback, on="request_id", how="left").reset_index(drop=True)
    joined.attrs["unreadable"] = unreadable + lost
    return joined


def read_corrections(folder: Path) -> pd.DataFrame:
    """Every correction that ever came, the newest of each request, with the answer that it corrects; oldest first.

    Columns are those of FEEDBACK_SCHEMA, then answered_at, endpoint, answered_pictured, answered_heard and
    image_objects, which are null where no answer of that id is in the log. Unreadable shards are named as by
    `read_log`.
    """
    answers, unreadable = _read_partitions(folder, ANSWERED, date.min, date.max)
    feedback, lost = _read_partitions(folder.parent / "feedback", FEEDBACK_SCHEMA, date.min, date.max)
    newest = feedback.sort_values("time").drop_duplicates("request_id", keep="last")
    told = {"time": "answered_at", "pictured": "answered_pictured", "heard": "answered_heard"}
    answers = answers.sort_values("time").drop_duplicates("request_id", keep="last").rename(columns=told)
    joined = newest.merge(answers, on="request_id", how="left").reset_index(drop=True)
    joined.attrs["unreadable"] = unreadable + lost
    return joined


def reference_from_evaluation(file: Path) -> pd.DataFrame:
    """What the champion answered to labelled data, as the evaluation wrote it: the schema of the log, and the labels.

    Raises UserError where there is none or it cannot be read.
    """
    if not file.is_file():
        raise UserError(f"{file}: no reference to compare the prediction log with; `make run` writes it")
    try:
        return _read_shard(file, REFERENCE_SCHEMA, required=())
    except (pa.ArrowException, OSError, KeyError) as fault:
        raise UserError(f"{file}: not a readable reference ({_line(fault)}); `make run` writes it again") from None


def _read_partitions(folder: Path, schema: pa.Schema, first: date, last: date) -> tuple[pd.DataFrame, tuple[str, ...]]:
    frames, unreadable = [schema.empty_table().to_pandas()], []
    for shard in sorted(folder.glob("date=*/*.parquet")):
        try:
            if first <= date.fromisoformat(shard.parent.name.removeprefix("date=")) <= last:
                frames.append(_read_shard(shard, schema, REQUIRED))
        except (pa.ArrowException, OSError, KeyError, ValueError) as fault:
            unreadable.append(f"{shard.relative_to(folder.parent).as_posix()}: {_line(fault)}")
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    return pd.concat(filled, ignore_index=True), tuple(unreadable)


def _read_shard(file: Path, schema: pa.Schema, required: tuple[str, ...]) -> pd.DataFrame:
    # Read as one file: read_table would take the folder's date=... for a column.
    shard = pq.ParquetFile(file)
    table = shard.read([name for name in schema.names if name in shard.schema_arrow.names])
    if missing := [name for name in required if name not in table.column_names]:
        raise KeyError(f"column {missing[0]} is missing")
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema).to_pandas()


def _instant(moment: date | datetime) -> datetime:
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, time.min)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _line(fault: Exception) -> str:
    return " ".join(str(fault.args[0] if isinstance(fault, KeyError) else fault).split())
