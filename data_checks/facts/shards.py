"""Facts of every item of the raw shards, as one Parquet file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_checks.facts.columns import facts_schema
from data_checks.facts.items import measure_pictures, measure_recording
from ml.config import UserError
from ml.files import whole_file
from ml.sources.shards import amended_batches, rows_of
from ml.workers import in_order

BATCH_ROWS, BATCH_BYTES = 256, 4 << 20

Batch = tuple[str, pa.RecordBatch]  # with the name of its shard
MEASURE: dict[str, Callable[[list[bytes]], list[dict]]] = {
    "images": measure_pictures,
    "audio": lambda items: [measure_recording(data) for data in items],
}


def measure_shards(folder: Path, modality: str, out: Path, added: Sequence[Path] = ()) -> int:
    """Write the facts of every item of the Parquet shards in `folder`, as the shards `added` amend them, to `out`.

    Returns the number of rows. Raises UserError where the folder holds no shards.
    """
    shards = sorted(folder.glob("*.parquet"))
    if not shards:
        raise UserError(f"{folder}: expected Parquet shards with raw {modality}, found none")
    rows = sum(rows_of(shard) for shard in [*shards, *added])
    schema = facts_schema(modality)
    batches = amended_batches(
        shards, added, ["id", "bytes", "label", "source", "split", "group"], BATCH_ROWS, BATCH_BYTES
    )
    measured = 0
    with (
        whole_file(out) as new,
        pq.ParquetWriter(new, schema, compression="zstd") as writer,
    ):
        for table in in_order(partial(_measured, modality), batches, rows, f"facts {modality}", _rows):
            writer.write_table(table)
            measured += len(table)
    return measured


def _rows(batch: Batch) -> int:
    return len(batch[1])


def _measured(modality: str, shard_and_batch: Batch) -> pa.Table:
    shard, batch = shard_and_batch
    keys = batch.drop_columns(["bytes"]).to_pylist()
    facts = MEASURE[modality](batch.column("bytes").to_pylist())
    rows = [{**key, "shard": shard, **fact} for key, fact in zip(keys, facts, strict=True)]
    return pa.Table.from_pylist(rows, schema=facts_schema(modality))
