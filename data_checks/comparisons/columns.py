"""What comparing items with each other adds to the table of their facts, and the clusters later steps keep together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ml.config import Paths, UserError
from ml.sources.shards import item_batches

if TYPE_CHECKING:
    import pandas as pd

    from data_checks.comparisons.signatures import Signatures

Contents = Callable[[np.ndarray], Iterable[bytes]]

SIMILAR = "similar.parquet"
LABEL_ERRORS = "label_errors.parquet"
ADDED = ("cluster", "label_doubted", "label_suggested", "label_quality")
SIMILAR_SCHEMA = pa.schema([("id", pa.string()), ("cluster", pa.int64())])
LABEL_ERRORS_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "shard", "label", "suggested")] + [("quality", pa.float64())]
)
NEEDED = {
    "images": ("content_sha256", "label", "split", "format", "width_px", "height_px"),
    "audio": ("content_sha256", "label", "split"),
}


def stored_contents(paths: Paths, modality: str) -> Contents:
    """What gives the files of items by their rising places in the table of facts, which has the order of the shards."""

    def contents(places: np.ndarray) -> Iterator[bytes]:
        seen, wanted = 0, iter(places.tolist())
        place = next(wanted, None)
        for _, batch in item_batches(paths, modality, ("bytes",)) if place is not None else ():
            while place is not None and place < seen + len(batch):
                yield batch["bytes"][place - seen].as_py()
                place = next(wanted, None)
            if place is None:
                return
            seen += len(batch)
        if place is not None:
            raise UserError(f"{paths.facts(modality)}: its rows are not those of the shards; run `dvc repro`")

    return contents


def with_comparisons(
    items: pd.DataFrame, signatures: Signatures | None, modality: str, contents: Contents
) -> pd.DataFrame:
    """Adds `cluster` (of near copies; null for none), `near_copies` (earlier ones in the same split of the publisher's,
    exact ones not counted), `near_labels` (others in its cluster), `label_doubted`, `label_suggested`, `label_quality`.

    signatures: as measured, one for each item. contents: gives the files of rising places. Where signatures or a column
    that this needs are missing nothing is added, and the expectations on it say so.
    """
    import pandas as pd

    from data_checks.comparisons.label_errors import doubted_labels

    if signatures is None or not set(NEEDED[modality]) <= set(items.columns):
        return items
    found = _near_copies(items, signatures, modality, contents)
    doubts = doubted_labels(signatures, [one if isinstance(one, str) else None for one in items["label"]], modality)
    cluster = pd.Series(found, items.index).astype("Int64").mask(found < 0)
    first = ~items.assign(cluster=cluster).duplicated(["cluster", "split", "content_sha256"])
    grouped = pd.DataFrame({"cluster": cluster, "split": items["split"].fillna(""), "label": items["label"]})
    earlier = grouped.assign(first=first.astype(np.int64)).groupby(["cluster", "split"])["first"].cumsum()
    labels = grouped.groupby("cluster")["label"].transform("nunique")
    return items.assign(
        cluster=cluster,
        near_copies=earlier.fillna(1).to_numpy(np.int64) - 1,
        near_labels=np.maximum(labels.fillna(1).to_numpy(np.int64) - 1, 0),
        label_doubted=doubts.doubted.astype(np.int64),
        label_suggested=doubts.suggested,
        label_quality=doubts.quality,
    )


def _near_copies(items: pd.DataFrame, signatures: Signatures, modality: str, contents: Contents) -> np.ndarray:
    from data_checks.comparisons.pictures import Encoded
    from data_checks.comparisons.similar import near_copies_of_pictures, near_copies_of_recordings

    if modality == "audio":
        return near_copies_of_recordings(signatures, contents)
    size = items[["width_px", "height_px"]].fillna(0).to_numpy(np.int64)
    return near_copies_of_pictures(signatures, Encoded(contents, (items["format"] == "JPEG").to_numpy(bool), size))


def write_comparisons(items: pd.DataFrame, folder: Path) -> None:
    """Write similar.parquet (id, cluster: members of clusters only) and label_errors.parquet (the likeliest first)."""
    import pyarrow.parquet as pq

    there = items if "cluster" in items else items.head(0).reindex(columns=["id", "label", "shard", *ADDED])
    members = there[there["cluster"].notna()]
    similar = pa.table({"id": members["id"].tolist(), "cluster": members["cluster"].tolist()}, schema=SIMILAR_SCHEMA)
    pq.write_table(similar, folder / SIMILAR, compression="zstd")
    doubted = there[there["label_doubted"] == 1]
    doubted = doubted.iloc[np.argsort(np.asarray(doubted["label_quality"]), kind="stable")]
    named = {"id": "id", "shard": "shard", "label": "label", "suggested": "label_suggested", "quality": "label_quality"}
    columns = {name: doubted[column].tolist() for name, column in named.items()}
    pq.write_table(pa.table(columns, schema=LABEL_ERRORS_SCHEMA), folder / LABEL_ERRORS, compression="zstd")
