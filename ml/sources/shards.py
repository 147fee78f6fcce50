"""Raw data as Parquet shards: one row per picture or recording, its bytes untouched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ml.config import UserError
from ml.files import whole_folder

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("bytes", pa.binary()),
        ("label", pa.string()),
        ("source", pa.string()),
        ("split", pa.string()),
        ("group", pa.string()),
        ("captured_at", pa.timestamp("us", tz="UTC")),
        ("licence", pa.string()),
    ]
)


@dataclass(frozen=True)
class Item:
    """One picture or recording as its publisher gives it: `split` is the publisher's, `group` its speaker or writer."""

    id: str
    content: bytes
    label: str
    split: str | None = None
    group: str | None = None
    captured_at: datetime | None = None


@dataclass(frozen=True)
class Listing:
    """What a source holds of one modality; `items` are made as they are asked for."""

    items: Iterable[Item]
    total: int
    licence: str


def write_shards(place: Path, source: str, listing: Listing, shard_rows: int) -> None:
    """Write a listing as the folder `place` of shard-NNNNN.parquet; the folder appears when it is whole.

    Raises UserError where the listing is empty; OSError where the disk is full, with `place` as it was.
    """
    items = tqdm(listing.items, total=listing.total, desc=f"{source} {place.name}", unit="", disable=None)
    with whole_folder(place) as new:
        written = 0
        for number, rows in enumerate(_batches(items, shard_rows)):
            table = _table(rows, source, listing.licence)
            # zstd, because one version of it writes the same bytes on every machine
            pq.write_table(table, new / f"shard-{number:05d}.parquet", compression="zstd", use_dictionary=False)
            written += len(rows)
        if written == 0:
            raise UserError(f"{source}: no {place.name} found, expected at least one")


def shard_files(place: Path) -> list[Path]:
    """The shards of a folder in order. Raises UserError where there are none."""
    files = sorted(place.glob("*.parquet"))
    if not files:
        raise UserError(f"{place}: no shards found; run `dvc repro` for this source first")
    return files


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) >= max(size, 1):
            yield batch
            batch = []
    if batch:
        yield batch


def _table(rows: list[Item], source: str, licence: str) -> pa.Table:
    columns = {
        "id": [row.id for row in rows],
        "bytes": [row.content for row in rows],
        "label": [row.label for row in rows],
        "source": [source] * len(rows),
        "split": [row.split for row in rows],
        "group": [row.group for row in rows],
        "captured_at": [row.captured_at for row in rows],
        "licence": [licence] * len(rows),
    }
    return pa.table(columns, schema=SCHEMA)
