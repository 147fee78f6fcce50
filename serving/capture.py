"""The prediction log: what was asked and answered, measured, as Parquet; never the picture or the voice itself.

Those are kept beside it only where serving.keep_media_days says for how long (serving.keeping).

Rows are buffered and written in the background, one new file per flush, so that a reader only ever sees whole files and
a log that fails never fails a request. Monitoring reads what is written here; nothing else passes between the two.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

logger = logging.getLogger("seehear.log")

TIME = pa.timestamp("us", tz="UTC")
PREDICTION_SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("time", TIME),
        ("endpoint", pa.string()),
        ("model", pa.string()),
        ("pictured", pa.string()),
        ("pictured_confidence", pa.float64()),
        ("heard", pa.string()),
        ("heard_confidence", pa.float64()),
        ("presence", pa.float64()),
        ("present", pa.bool_()),
        ("image_brightness", pa.float64()),
        ("image_bright_share", pa.float64()),
        ("image_contrast", pa.float64()),
        ("image_blur", pa.float64()),
        ("image_objects", pa.int64()),
        ("audio_loudness_db", pa.float64()),
        ("audio_snr_db", pa.float64()),
        ("audio_bandwidth_hz", pa.float64()),
        ("audio_clipping", pa.float64()),
        ("audio_duration_s", pa.float64()),
        ("image_embedding", pa.list_(pa.float32())),
        ("speech_embedding", pa.list_(pa.float32())),
        ("pictured_probabilities", pa.map_(pa.string(), pa.float32())),
        ("heard_probabilities", pa.map_(pa.string(), pa.float32())),
        ("latency_ms", pa.float64()),
    ]
)
IMAGE_FACTS = ("brightness", "bright_share", "contrast", "blur")
FEEDBACK_SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("time", TIME),
        ("pictured", pa.string()),
        ("heard", pa.string()),
        ("consent", pa.bool_()),
    ]
)


class RowLog:
    """Rows of one schema, flushed in the background to `folder/date=YYYY-MM-DD/HH-<pid>-<n>.parquet`.

    folder: where to write; None keeps nothing and counts nothing. flush_rows, flush_s: whichever comes first starts a
    flush. max_rows: rows kept while writing fails; beyond it the oldest are dropped and counted.
    on_dropped: called with the number of rows just dropped.
    """

    def __init__(
        self,
        folder: Path | None,
        schema: pa.Schema,
        flush_rows: int = 200,
        flush_s: float = 2.0,
        max_rows: int = 10_000,
        on_dropped: Callable[[int], object] | None = None,
    ):
        self.folder, self.schema = folder, schema
        self.flush_rows, self.flush_s, self.max_rows = flush_rows, flush_s, max_rows
        self.written = self.dropped = 0
        self._on_dropped = on_dropped
        self._rows: list[dict] = []
        self._guard, self._writing = threading.Lock(), threading.Lock()
        self._due, self._closed = threading.Event(), threading.Event()
        self._numbers = itertools.count()
        self._thread = threading.Thread(target=self._run, name=f"log-{folder and folder.name}", daemon=True)
        if folder is not None:
            self._thread.start()

    def record(self, row: dict) -> None:
        """Take one row; returns at once and never touches the disk. Raises KeyError for a column the schema lacks."""
        if unknown := row.keys() - set(self.schema.names):
            raise KeyError(f"the log has no column {', '.join(sorted(unknown))}")
        if self.folder is None:
            return
        with self._guard:
            self._rows.append({"time": datetime.now(UTC), **row})
            waiting = len(self._rows)
        self._drop_excess()
        if waiting >= self.flush_rows:
            self._due.set()

    def flush(self) -> bool:
        """Write everything buffered; whether that succeeded. Rows that could not be written stay for the next flush."""
        with self._writing:
            with self._guard:
                rows, self._rows = self._rows, []
            left = self._write(rows)
            with self._guard:
                self._rows = left + self._rows
        self._drop_excess()
        return not left

    def close(self) -> None:
        """Write what is left and stop; what still cannot be written is counted as dropped."""
        if self.folder is None or self._closed.is_set():
            return
        self._closed.set()
        self._due.set()
        self._thread.join()
        if not self.flush():
            self._drop_excess(keep=0)

    def _run(self) -> None:
        while not self._closed.is_set():
            self._due.wait(self.flush_s)
            self._due.clear()
            self.flush()

    def _drop_excess(self, keep: int | None = None) -> None:
        with self._guard:
            excess = len(self._rows) - (self.max_rows if keep is None else keep)
            if excess <= 0:
                return
            del self._rows[:excess]
        self._count_dropped(excess)

    def _write(self, rows: list[dict]) -> list[dict]:
        """Write rows, one file per day they fall on; the rows that could not be written."""
        left: list[dict] = []
        for day, of_day in _by_day(rows).items():
            try:
                self.written += self._write_file(day, of_day)
            except Exception as fault:  # whatever it is, the rows are kept and the thread lives on
                logger.error("%s: %d rows not written yet: %s", self.folder, len(of_day), fault)
                left += of_day
        return left

    def _write_file(self, day: str, rows: list[dict]) -> int:
        """One new whole file: written beside its place, then linked to the first free name, so none is overwritten.

        Returns how many rows it holds; those that do not fit the schema are dropped, or they would hold up the others.
        """
        assert self.folder is not None
        folder = self.folder / f"date={day}"
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{os.getpid()}-{threading.get_ident()}.part"
        try:
            table = self._table(rows)
            pq.write_table(table, beside)
            for number in self._numbers:  # an earlier process of the same id may have used some names
                if _link(beside, folder / f"{rows[0]['time']:%H}-{os.getpid()}-{number}.parquet"):
                    break
            self._count_dropped(len(rows) - len(table))
            return len(table)
        finally:
            beside.unlink(missing_ok=True)

    def _table(self, rows: list[dict]) -> pa.Table:
        try:
            return pa.Table.from_pylist(rows, schema=self.schema)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            return pa.Table.from_pylist([row for row in rows if _fits(row, self.schema)], schema=self.schema)

    def _count_dropped(self, rows: int) -> None:
        if rows:
            self.dropped += rows
            if self._on_dropped:
                self._on_dropped(rows)


def _fits(row: dict, schema: pa.Schema) -> bool:
    try:
        pa.Table.from_pylist([row], schema=schema)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as fault:
        logger.error("a row does not fit the log and is dropped: %s", fault)
        return False
    return True


def _by_day(rows: Iterable[dict]) -> dict[str, list[dict]]:
    days = defaultdict(list)
    for row in rows:
        days[f"{row['time'].astimezone(UTC):%Y-%m-%d}"].append(row)
    return days


def _link(source: Path, target: Path) -> bool:
    """Give a whole file its final name unless that name is taken."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    return True


def log_folders() -> tuple[Path | None, Path | None]:
    """Folders of the prediction log and of the feedback.

    Both lie in the folder that SEEHEAR_LOG names, else in `var` under SEEHEAR_ROOT.
    Where neither is set (a Bento served on its own) nothing is kept: None, None.
    """
    if named := os.environ.get("SEEHEAR_LOG"):
        folder = Path(named).resolve()
    elif root := os.environ.get("SEEHEAR_ROOT"):
        folder = Path(root).resolve() / "var"
    else:
        return None, None
    return folder / "prediction_log", folder / "feedback"


def measured(pixels=None, waveform=None, rate_hz: int = 0) -> dict:
    """The columns of the prediction log that describe the input.

    pixels: uint8 (h, w, c) or None; waveform: float32 (samples,) at rate_hz, or None.
    """
    from data_checks.facts import picture_facts, recording_facts

    columns: dict[str, float] = {}
    if pixels is not None:
        facts = picture_facts(pixels)
        columns |= {f"image_{name}": facts[name] for name in IMAGE_FACTS}
    if waveform is not None:
        facts = recording_facts(waveform, rate_hz)
        names = ("loudness_db", "snr_db", "bandwidth_hz", "duration_s")
        columns |= {f"audio_{name}": facts[name] for name in names} | {"audio_clipping": facts["clipping_share"]}
    return columns
