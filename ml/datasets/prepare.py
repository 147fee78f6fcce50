"""Raw shards that passed their checks → packed integers: decoded, of one size or rate, and split."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ml import media
from ml.config import Data, Paths, UserError
from ml.datasets.sets import raw_digest, require_validated
from ml.datasets.splits import SPLITS, Division, Row, Shares, divide
from ml.files import beside, empty_beside, publish, sha256_of, write_json

LARGEST_SIDE = 64
HIGHEST_RATE_HZ = 16000
KEYS = ("id", "content_sha256", "label", "split", "group")  # facts that make a Row
SHAPE = {"images": ("width_px", "height_px", "channels"), "audio": ("sample_rate_hz",)}
BATCH_ROWS = 500
PART_ROWS = 50  # decoded by one thread at a time; one by one the threads' hand-over costs as much as the work


class ArrayFile:
    """A .npy file that grows by appending; disk full is an OSError here, where a memory map would end the process."""

    def __init__(self, file: BinaryIO, dtype: type, row_shape: tuple[int, ...] = ()):
        self._file, self._dtype, self._row_shape, self.rows = file, np.dtype(dtype), row_shape, 0
        self._write_header()

    def append(self, rows: np.ndarray) -> None:
        if rows.dtype != self._dtype or rows.shape[1:] != self._row_shape:
            raise ValueError(f"rows {rows.dtype} {rows.shape[1:]}: expected {self._dtype} {self._row_shape}")
        self._file.write(np.ascontiguousarray(rows).data)
        self.rows += len(rows)

    def finish(self) -> None:
        self._file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        # NumPy pads the header so that it keeps its length while the first axis grows
        shape = (self.rows, *self._row_shape)
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)


def prepare(paths: Paths, modality: str, data: Data) -> Path:
    """Write the prepared set beside its place and return that folder; `publish` puts it there once it is checked.

    Raises UserError unless the raw shards passed validation, and where they cannot be decoded or divided.
    """
    digest = raw_digest(paths.raw(modality))
    require_validated(paths, modality, digest)
    facts = _accepted_facts(paths, modality)
    shares = Shares(data.validation_share, data.gate_share, data.test_share)
    division = divide(_rows(facts), shares, data.seed)
    folder = empty_beside(paths.prepared(modality))
    pack = {"images": _pack_pictures, "audio": _pack_recordings}[modality]
    columns, described = pack(folder, paths, facts, data)
    _write_index(folder, facts, division, columns)
    files = sorted(file.name for file in folder.iterdir())
    meta = {
        "modality": modality,
        "source": paths.source,
        "classes": sorted(set(facts["label"].to_pylist())),
        "raw_digest": digest,
        "split_rule": division.rule,
        "split_about": division.about,
        "rows": {split: division.splits.count(split) for split in SPLITS},
        "digests": {name: sha256_of(folder / name) for name in files},
    }
    write_json(folder / "meta.json", meta | described)
    return folder


def publish_prepared(paths: Paths, modality: str) -> None:
    """Put the set that `prepare` wrote in its place. Raises UserError where there is none, or it was not checked."""
    place = paths.prepared(modality)
    if not (beside(place) / "verdict.json").is_file():
        raise UserError(f"{beside(place)}: no checked set to publish; prepare and check it first")
    publish(beside(place), place)


def _accepted_facts(paths: Paths, modality: str) -> pa.Table:
    facts = pq.read_table(paths.facts(modality), columns=[*KEYS, *SHAPE[modality]])
    held = set(pq.read_table(paths.validated(modality) / "quarantine.parquet", columns=["id"])["id"].to_pylist())
    return facts.filter(pa.array([name not in held for name in facts["id"].to_pylist()], pa.bool_()))


def _rows(facts: pa.Table) -> list[Row]:
    columns = (facts[name].to_pylist() for name in KEYS)
    return [Row(*values) for values in zip(*columns, strict=True)]


def _write_index(folder: Path, facts: pa.Table, division: Division, columns: dict[str, list[int]]) -> None:
    index = pa.table({"id": facts["id"], "label": facts["label"], "split": division.splits, "group": facts["group"]})
    for name, values in columns.items():
        index = index.append_column(name, pa.array(values, pa.int64()))
    pq.write_table(index, folder / "index.parquet", compression="zstd")


def _pack_pictures(folder: Path, paths: Paths, facts: pa.Table, data: Data) -> tuple[dict, dict]:
    longer = np.maximum(facts["width_px"].to_numpy(), facts["height_px"].to_numpy())
    side = data.image_side or min(int(np.median(longer)), LARGEST_SIDE)
    channels = int(max(facts["channels"].to_pylist()))

    def decode(name: str, content: bytes) -> np.ndarray:
        pixels = media.decode_picture(content, name=name)
        return media.resize_square(np.repeat(pixels, channels // pixels.shape[2], axis=2), side)

    with (folder / "pixels.npy").open("wb") as file:
        array = ArrayFile(file, np.uint8, (side, side, channels))
        for batch in _decoded(paths, "images", facts, decode):
            array.append(np.stack(batch))
        array.finish()
    return {}, {"side": side, "channels": channels}


def _pack_recordings(folder: Path, paths: Paths, facts: pa.Table, data: Data) -> tuple[dict, dict]:
    counted = Counter(facts["sample_rate_hz"].to_pylist())
    common_hz = max(counted, key=lambda hz: (counted[hz], hz))
    rate_hz = data.sample_rate_hz or min(common_hz, HIGHEST_RATE_HZ)
    lengths: list[int] = []

    def decode(name: str, content: bytes) -> np.ndarray:
        waveform, own_hz = media.decode_recording(content, name=name)
        return media.to_int16(media.resample(waveform, own_hz, rate_hz))

    with (folder / "samples.npy").open("wb") as file:
        array = ArrayFile(file, np.int16)
        for batch in _decoded(paths, "audio", facts, decode):
            lengths += [len(clip) for clip in batch]
            array.append(np.concatenate(batch))
        array.finish()
    offsets = np.cumsum([0, *lengths[:-1]]).tolist()
    return {"offset": offsets, "length": lengths}, {"sample_rate_hz": rate_hz}


def _decoded(
    paths: Paths, modality: str, facts: pa.Table, decode: Callable[[str, bytes], np.ndarray]
) -> Iterator[list[np.ndarray]]:
    """The accepted items in the order of the facts, decoded in batches on every core."""
    wanted = facts["id"].to_pylist()
    seen = 0
    bar = tqdm(total=len(wanted), desc=f"{paths.source} prepared {modality}", unit="", disable=None)
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for batch in _batches(paths.raw(modality), set(wanted)):
            if [name for name, _ in batch] != wanted[seen : seen + len(batch)]:
                raise UserError(f"{paths.facts(modality)}: its rows are not those of the shards; run `dvc repro`")
            parts = [batch[at : at + PART_ROWS] for at in range(0, len(batch), PART_ROWS)]
            decoded = pool.map(lambda part: [decode(name, content) for name, content in part], parts)
            yield [item for part in decoded for item in part]
            seen += len(batch)
            bar.update(len(batch))


def _batches(folder: Path, accepted: set[str]) -> Iterator[list[tuple[str, bytes]]]:
    """Names and bytes of the accepted items, some hundred at a time."""
    for shard in sorted(folder.glob("*.parquet")):
        with pq.ParquetFile(shard) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=["id", "bytes"]):
                rows = zip(batch["id"].to_pylist(), batch["bytes"].to_pylist(), strict=True)
                if kept := [row for row in rows if row[0] in accepted]:
                    yield kept
