"""Raw data as Parquet shards: one row per picture or recording, its bytes untouched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from ml.config import Paths, UserError
from ml.files import whole_folder

BATCH_ROWS = 256
BATCH_BYTES = 32 << 20
ADDED_ID = re.compile(r"(\d{8}T\d{6}Z)/")
ROW_GROUP_BYTES = 4 << 20  # what is held while shards are written or read
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
        for number, groups in groupby(_row_groups(items, shard_rows), key=itemgetter(0)):
            # zstd, because one version of it writes the same bytes on every machine
            file = new / f"shard-{number:05d}.parquet"
            with pq.ParquetWriter(file, SCHEMA, compression="zstd", use_dictionary=False) as writer:
                for _, rows in groups:
                    writer.write_table(table_of(rows, source, listing.licence))
                    written += len(rows)
        if written == 0:
            raise UserError(f"{source}: no {place.name} found, expected at least one")


def shard_files(place: Path) -> list[Path]:
    """The shards of a folder in order. Raises UserError where there are none."""
    files = sorted(place.glob("*.parquet"))
    if not files:
        raise UserError(f"{place}: no shards found; run `dvc repro` for this source first")
    return files


def added_shards(paths: Paths, modality: str) -> list[Path]:
    """The shards added later, oldest first: those with a .dvc file, which is written when a shard is whole.

    Raises UserError where one is tracked and not here.
    """
    files = [file.with_suffix("") for file in sorted(paths.added(modality).glob("*.parquet.dvc"))]
    for file in files:
        if not file.is_file():
            raise UserError(f"{file}: an added shard that is not here; run `.venv/bin/dvc pull {file}.dvc`")
    return files


def added_at(name: str) -> str:
    """When the item with this id was added, in words that sort by time; "" where it is the source's own."""
    return found[1] if (found := ADDED_ID.match(name)) else ""


def stored_shards(paths: Paths, modality: str) -> list[Path]:
    """Everything stored of one modality: the source's shards, then the added ones in order.

    Raises UserError where the source has none, or an added one is missing.
    """
    return shard_files(paths.raw(modality)) + added_shards(paths, modality)


def item_batches(
    paths: Paths,
    modality: str,
    columns: Sequence[str] = tuple(SCHEMA.names),
    most_rows: int = BATCH_ROWS,
    most_bytes: int = BATCH_BYTES,
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Every item as it stands now, with the name of its shard, some at a time and never more than about `most_bytes`.

    Of rows that share an id the one added last counts; where that one has no bytes, the item was removed.
    Raises UserError as stored_shards does.
    """
    added = added_shards(paths, modality)
    yield from amended_batches(shard_files(paths.raw(modality)), added, columns, most_rows, most_bytes)


def amended_batches(
    base: Sequence[Path],
    added: Sequence[Path],
    columns: Sequence[str] = tuple(SCHEMA.names),
    most_rows: int = BATCH_ROWS,
    most_bytes: int = BATCH_BYTES,
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """The rows of the shards `base` as the shards `added` amend them; see item_batches."""
    last = last_rows(added)
    amended = pa.array(last, pa.string())
    names = list(dict.fromkeys(["id", *columns])) if added else list(columns)
    for shard in base:
        for _, batch in _read(shard, names, most_rows, most_bytes):
            if added:
                batch = batch.filter(pc.invert(pc.is_in(batch["id"], value_set=amended)))  # type: ignore[attr-defined]
            if len(batch):
                yield shard.name, batch.select(list(columns))
    for number, shard in enumerate(added):
        for first, batch in _read(shard, names, most_rows, most_bytes):
            stands = [last[name] == (number, row) for row, name in enumerate(batch["id"].to_pylist(), start=first)]
            if any(stands):
                yield shard.name, batch.filter(pa.array(stands)).select(list(columns))


def last_rows(added: Sequence[Path]) -> dict[str, tuple[int, int] | None]:
    """Where each id of the added shards stands last, as (shard, row); None where that row removes the item."""
    last: dict[str, tuple[int, int] | None] = {}
    for number, shard in enumerate(added):
        removes = _removes(shard)
        for first, batch in _read(shard, ["id", "bytes"] if removes else ["id"], BATCH_ROWS, BATCH_BYTES):
            kept = batch["bytes"].is_valid().to_pylist() if removes else [True] * len(batch)
            for row, (name, whole) in enumerate(zip(batch["id"].to_pylist(), kept, strict=True), start=first):
                last[name] = (number, row) if whole else None
    return last


@contextmanager
def opened(shard: Path) -> Iterator[pq.ParquetFile]:
    """A shard to be read. Raises UserError naming it where it is damaged or cannot be read."""
    try:
        with pq.ParquetFile(shard) as file:
            yield file
    except (pa.ArrowException, OSError) as fault:
        said = " ".join(str(fault).split())
        raise UserError(
            f"{shard}: cannot be read as a shard: {said}; `.venv/bin/dvc checkout` brings it back"
        ) from None


def rows_of(shard: Path) -> int:
    with opened(shard) as file:
        return file.metadata.num_rows


def _removes(shard: Path) -> bool:
    """Whether rows of a shard may lack bytes, as its own statistics say; reading the bytes to see would cost more."""
    with opened(shard) as file:
        place = file.schema_arrow.names.index("bytes")
        columns = [file.metadata.row_group(group).column(place) for group in range(file.num_row_groups)]
    return any(column.statistics is None or column.statistics.null_count != 0 for column in columns)


def _read(shard: Path, columns: Sequence[str], most_rows: int, most_bytes: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Batches of a shard's rows in order, each with the number of its first row."""
    first = 0
    with opened(shard) as file:
        average = max(shard.stat().st_size // max(file.metadata.num_rows, 1), 1)
        for batch in file.iter_batches(max(1, min(most_rows, most_bytes // average)), columns=list(columns)):
            yield first, batch
            first += len(batch)


def _row_groups(items: Iterable[Item], shard_rows: int) -> Iterator[tuple[int, list[Item]]]:
    """The items in order with the number of their shard; one group at a time is held, about ROW_GROUP_BYTES."""
    shard, inside, size, group = 0, 0, 0, []
    for item in items:
        group.append(item)
        inside, size = inside + 1, size + len(item.content)
        full = inside >= max(shard_rows, 1)
        if full or size >= ROW_GROUP_BYTES:
            yield shard, group
            size, group = 0, []
        if full:
            shard, inside = shard + 1, 0
    if group:
        yield shard, group


def table_of(rows: Sequence[Item], source: str, licence: str) -> pa.Table:
    """Items as rows of a shard."""
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
