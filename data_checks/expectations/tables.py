"""The tables that expectations are held against: facts and prepared sets, with the columns that compare rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data_checks.comparisons.columns import stored_contents, with_comparisons
from data_checks.comparisons.signatures import Signatures, unpacked
from data_checks.expectations.outliers import with_outliers
from ml.config import Paths, UserError

if TYPE_CHECKING:
    import pandas as pd

ROW = "row"  # position in the table, since ids may repeat
SIGNATURE = "signature"  # large, needed to compare items only, and never part of a table


class Derived(NamedTuple):
    """A column made from others; where one of those is missing it is left out, and the expectation on it says so."""

    column: str
    needs: tuple[str, ...]
    make: Callable[[pd.DataFrame], pd.Series]


def _distinct(frame: pd.DataFrame, by: str, of: str) -> pd.Series:
    """For each row, how many different values of `of` stand beside its value of `by`; null where `by` is."""
    return frame.groupby(by)[of].transform("nunique")


def _class_rows(frame: pd.DataFrame) -> pd.Series:
    return frame.groupby("label")["label"].transform("size")


def _share_of_mean(frame: pd.DataFrame) -> pd.Series:
    return _class_rows(frame) / (frame["label"].notna().sum() / max(frame["label"].nunique(), 1))


def _is_commonest(column: str) -> Callable[[pd.DataFrame], pd.Series]:
    """1.0 where a row has the column's most common value, 0.0 where another, null where none."""

    def make(frame: pd.DataFrame) -> pd.Series:
        common = frame[column].mode()
        return (frame[column] == (common.iloc[0] if len(common) else None)).where(frame[column].notna()).astype(float)

    return make


def _earlier_copies(frame: pd.DataFrame) -> pd.Series:
    """How often the same content came before in the same split of the publisher's."""
    by = [frame["content_sha256"], frame["split"].fillna("")]
    return frame.groupby(by).cumcount().where(frame["content_sha256"].notna())


ITEM_COLUMNS = (
    Derived("other_labels", ("content_sha256", "label"), lambda f: _distinct(f, "content_sha256", "label") - 1),
    Derived("earlier_copies", ("content_sha256", "split"), _earlier_copies),
)
SET_COLUMNS = (
    Derived("class_rows", ("label",), _class_rows),
    Derived("class_share_of_mean", ("label",), _share_of_mean),
    Derived("splits_with_content", ("content_sha256", "split"), lambda f: _distinct(f, "content_sha256", "split")),
    Derived("splits_with_near_copy", ("cluster", "split"), lambda f: _distinct(f, "cluster", "split").fillna(1)),
    Derived("has_common_channels", ("channels",), _is_commonest("channels")),
    Derived("has_common_rate", ("sample_rate_hz",), _is_commonest("sample_rate_hz")),
    Derived(
        "bandwidth_share",
        ("bandwidth_hz", "sample_rate_hz"),
        lambda f: f["bandwidth_hz"] / (f["sample_rate_hz"] / 2),
    ),
)


def _with(frame: pd.DataFrame, columns: tuple[Derived, ...]) -> pd.DataFrame:
    made = {d.column: d.make(frame) for d in columns if set(d.needs) <= set(frame.columns)}
    return frame.assign(**made)


def items_table(paths: Paths, modality: str) -> pd.DataFrame:
    """The facts of every item, with what compares an item with the others; raises UserError where there are none."""
    import pyarrow as pa

    facts = paths.facts(modality)
    if not facts.is_file():
        raise UserError(f"{facts}: expected measured facts, found none; run `dvc repro`")
    frame, signatures = _facts(facts)
    numbered = frame.assign(**{ROW: np.arange(len(frame))})
    compared = with_comparisons(numbered, signatures, modality, stored_contents(paths, modality))
    del signatures
    pa.default_memory_pool().release_unused()  # Great Expectations comes next and needs its own
    return with_outliers(_with(compared, ITEM_COLUMNS))


def _facts(file: Path) -> tuple[pd.DataFrame, Signatures | None]:
    """The facts but for the signatures, and those, where there are any."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as there:  # threads would hold many row groups at a time
        columns = there.schema_arrow.names
        table = there.read([name for name in columns if name != SIGNATURE], use_threads=False)
        measured = there.read([SIGNATURE], use_threads=False)[SIGNATURE] if SIGNATURE in columns else None
    return table.to_pandas(use_threads=False), None if measured is None else unpacked(measured)


def set_table(items: pd.DataFrame, set_aside: np.ndarray) -> pd.DataFrame:
    """The same items seen as a whole: every column null where the item is set aside, but for `set_aside` (0 or 1)."""
    kept = _with(items.loc[~set_aside], SET_COLUMNS)
    whole = kept.reindex(items.index).assign(set_aside=set_aside.astype(float))
    return whole.assign(id=items["id"]) if "id" in items else whole


SPLITS = ("train", "validation", "gate", "test")


def prepared_table(folder: Path, modality: str, near: Mapping[str, int]) -> tuple[pd.DataFrame, str]:
    """One row per prepared item, with what compares it with the others and with meta.json; and the raw data's digest.

    near: the cluster of near copies of every item that is in one.

    Raises UserError where index.parquet, meta.json or the packed array cannot be read.
    """
    import pandas as pd

    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        index = pd.read_parquet(folder / "index.parquet")
        packed = np.load(folder / ("pixels.npy" if modality == "images" else "samples.npy"), mmap_mode="r")
        frame = _with_pixels(index, packed, meta) if modality == "images" else _with_clips(index, packed, meta)
        return _compared(frame.assign(cluster=[near.get(name) for name in frame["id"]]), meta), meta["raw_digest"]
    except (OSError, ValueError, KeyError, TypeError) as fault:
        said = " ".join(str(fault).split())
        raise UserError(f"{folder}: cannot be read as prepared {modality}: {type(fault).__name__}: {said}") from None


def _with_pixels(index: pd.DataFrame, pixels: np.ndarray, meta: dict) -> pd.DataFrame:
    """Adds what the packed pictures (n, height, width, channels) say."""
    rows = [pixels[i] for i in range(min(len(pixels), len(index)))]
    return _with_contents(index, rows).assign(
        rows_unaccounted=abs(len(pixels) - len(index)),
        height_surplus_px=abs(pixels.shape[1] - meta["side"]),
        width_surplus_px=abs(pixels.shape[2] - meta["side"]),
        channels_surplus=abs(pixels.shape[3] - meta["channels"]),
    )


def _with_clips(index: pd.DataFrame, samples: np.ndarray, meta: dict) -> pd.DataFrame:
    """Adds what the packed clips, one behind the other in samples (total,), say."""
    offset, length = index["offset"].to_numpy(np.int64), index["length"].to_numpy(np.int64)
    expected = np.concatenate([[0], (offset + length)[:-1]])
    end = int(offset[-1] + length[-1]) if len(index) else 0
    clips = [samples[a : a + n] for a, n in zip(offset, length, strict=True)]
    return _with_contents(index, clips).assign(
        rows_unaccounted=abs(len(samples) - end),
        offset_gap_samples=offset - expected,
        duration_s=length / meta["sample_rate_hz"],
    )


def _with_contents(index: pd.DataFrame, contents: list[np.ndarray]) -> pd.DataFrame:
    """Adds each item's digest and how many different values it holds, counted up to 2."""
    import pandas as pd

    digests = [hashlib.sha256(content.tobytes()).hexdigest() for content in contents]
    differing = [1 + int(content.size > 0 and bool((content != content.flat[0]).any())) for content in contents]
    place = index.index[: len(contents)]
    return index.assign(content=pd.Series(digests, place), different_values=pd.Series(differing, place))


def _compared(frame: pd.DataFrame, meta: dict) -> pd.DataFrame:
    """Adds what compares rows with each other: classes, splits, groups and contents."""
    classes = list(meta["classes"])
    whole = frame["label"].dtype.kind in "iu"
    known = frame["label"].between(0, len(classes) - 1) if whole else frame["label"].isin(classes)
    groups = frame["group"].where(frame["group"].notna() & (frame["group"] != ""))
    apart = frame.assign(group=groups if meta.get("split_rule") != "shared_groups" else None)
    return frame.assign(
        **{ROW: np.arange(len(frame))},
        label_known=known.astype(float),
        splits_present=frame.loc[frame["split"].isin(SPLITS), "split"].nunique(),
        classes_missing_in_split=len(classes) - _distinct(frame, "split", "label"),
        classes_missing_in_train=len(classes) - frame.loc[frame["split"] == "train", "label"].nunique(),
        splits_with_group=_distinct(apart, "group", "split").fillna(1),
        splits_with_content=_distinct(frame, "content", "split"),
        splits_with_near_copy=_distinct(frame, "cluster", "split").fillna(1),
    )


def pairs_table(folders: Mapping[str, Path]) -> tuple[pd.DataFrame, str]:
    """One row per label with how many of the prepared sets (by modality) have it, and both sets' digest.

    Raises UserError where a set cannot be read.
    """
    import pandas as pd

    classes, digests = {}, []
    for modality, folder in folders.items():
        try:
            text = (folder / "meta.json").read_text(encoding="utf-8")
            classes[modality] = set(json.loads(text)["classes"])
        except (OSError, ValueError, KeyError, TypeError) as fault:
            raise UserError(f"{folder}: cannot be read as prepared {modality}: {type(fault).__name__}") from None
        digests.append(hashlib.sha256(text.encode()).hexdigest())
    labels = sorted(set().union(*classes.values()))
    frame = pd.DataFrame({"id": labels, **{name: [label in own for label in labels] for name, own in classes.items()}})
    modalities = frame[list(folders)].sum(axis=1).astype(int)
    frame = frame.assign(modalities=modalities, shared_labels=int((modalities == len(folders)).sum()))
    return frame.assign(**{ROW: np.arange(len(frame))}), hashlib.sha256("".join(digests).encode()).hexdigest()
