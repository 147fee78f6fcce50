"""Raw shards that passed their checks → packed integers: decoded, of one size or rate, and split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml import media
from ml.config import Data, Paths, UserError
from ml.datasets.sets import near_copies, raw_digest, require_validated
from ml.datasets.splits import SPLITS, Division, Row, Shares, divide
from ml.files import beside, empty_beside, publish, sha256_of, write_json
from ml.sources.shards import added_at, added_shards, item_batches
from ml.workers import in_order

LARGEST_SIDE = 64
HIGHEST_RATE_HZ = 16000
KEYS = ("id", "content_sha256", "label", "split", "group")  # facts that make a Row
SHAPE = {"images": ("width_px", "height_px", "channels"), "audio": ("sample_rate_hz",)}
BATCH_ROWS, BATCH_BYTES = 500, 1 << 20  # encoded items that are decoded together


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
    digest = raw_digest(paths.raw(modality), added_shards(paths, modality))
    require_validated(paths, modality, digest)
    facts, division = _divided(paths, modality, data)
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


def _divided(paths: Paths, modality: str, data: Data) -> tuple[pa.Table, Division]:
    """The facts of the accepted items, and how they are divided.

    What was set aside is drawn too, so that nothing changes sides when it is released, or others are set aside.
    """
    facts = pq.read_table(paths.facts(modality), columns=[*KEYS, *SHAPE[modality]])
    facts = facts.filter(pc.and_(facts["content_sha256"].is_valid(), facts["label"].is_valid()))  # type: ignore[attr-defined]
    shares = Shares(data.validation_share, data.gate_share, data.test_share)
    whole = divide(_rows(facts, near_copies(paths, modality)), shares, data.seed)
    accepted = _outside(facts["id"], _held(paths, modality)).to_pylist()
    splits = [split for split, kept in zip(whole.splits, accepted, strict=True) if kept]
    return facts.filter(pa.array(accepted)), replace(whole, splits=splits)


def _held(paths: Paths, modality: str) -> pa.Array:
    """The ids that validation set aside."""
    return pq.read_table(paths.validated(modality) / "quarantine.parquet", columns=["id"])["id"].combine_chunks()


def _outside(ids: pa.Array | pa.ChunkedArray, held: pa.Array) -> pa.Array | pa.ChunkedArray:
    return pc.invert(pc.is_in(ids, value_set=held))  # type: ignore[attr-defined]


def _rows(facts: pa.Table, near: dict[str, int]) -> list[Row]:
    """What decides each item's split; near copies have the content of the first of them, so that they fall together."""
    first: dict[int, str] = {}
    columns = (facts[name].to_pylist() for name in KEYS)
    rows = [Row(*values, added=added_at(values[0])) for values in zip(*columns, strict=True)]
    return [
        replace(row, content=first.setdefault(near[row.id], row.content)) if row.id in near else row for row in rows
    ]


def _write_index(folder: Path, facts: pa.Table, division: Division, columns: dict[str, list[int]]) -> None:
    index = pa.table({"id": facts["id"], "label": facts["label"], "split": division.splits, "group": facts["group"]})
    for name, values in columns.items():
        index = index.append_column(name, pa.array(values, pa.int64()))
    pq.write_table(index, folder / "index.parquet", compression="zstd")


def _pack_pictures(folder: Path, paths: Paths, facts: pa.Table, data: Data) -> tuple[dict, dict]:
    longer = np.maximum(facts["width_px"].to_numpy(), facts["height_px"].to_numpy())
    side = data.image_side or min(int(np.median(longer)), LARGEST_SIDE)
    channels = pc.max(facts["channels"]).as_py()  # type: ignore[attr-defined]
    about = f"{paths.source} prepared images"
    pack_pictures(folder / "pixels.npy", _batches(paths, "images", facts), len(facts), side, channels, about)
    return {}, {"side": side, "channels": channels}


def _pack_recordings(folder: Path, paths: Paths, facts: pa.Table, data: Data) -> tuple[dict, dict]:
    counted = Counter(facts["sample_rate_hz"].to_pylist())
    common_hz = max(counted, key=lambda hz: (counted[hz], hz))
    rate_hz = data.sample_rate_hz or min(common_hz, HIGHEST_RATE_HZ)
    about = f"{paths.source} prepared audio"
    lengths = pack_recordings(folder / "samples.npy", _batches(paths, "audio", facts), len(facts), rate_hz, about)
    offsets = np.cumsum([0, *lengths[:-1]]).tolist()
    return {"offset": offsets, "length": lengths}, {"sample_rate_hz": rate_hz}


def pack_pictures(
    place: Path, batches: Iterable[pa.RecordBatch], rows: int, side: int, channels: int, about: str
) -> None:
    """Decode batches of encoded pictures (columns id, bytes) into one array, uint8 (rows, side, side, channels).

    Raises UserError naming the picture that cannot be decoded.
    """
    with place.open("wb") as file:
        array = ArrayFile(file, np.uint8, (side, side, channels))
        for pictures in in_order(partial(_pictures, side=side, channels=channels), batches, rows, about):
            array.append(pictures)
        array.finish()


def pack_recordings(place: Path, batches: Iterable[pa.RecordBatch], rows: int, rate_hz: int, about: str) -> list[int]:
    """Decode batches of encoded recordings (columns id, bytes) one behind the other into one array, int16 (total,).

    Returns the samples of each. Raises UserError naming the recording that cannot be decoded.
    """
    lengths: list[int] = []
    with place.open("wb") as file:
        array = ArrayFile(file, np.int16)
        for samples, counts in in_order(partial(_recordings, rate_hz=rate_hz), batches, rows, about):
            array.append(samples)
            lengths += counts
        array.finish()
    return lengths


def _pictures(items: pa.RecordBatch, side: int, channels: int) -> np.ndarray:
    """The pictures of encoded items as uint8 (n, side, side, channels)."""
    pictures = np.empty((len(items), side, side, channels), np.uint8)
    alike = media.stored_pictures(items["bytes"].to_pylist())
    if alike is not None and alike.shape[1:3] == (side, side):
        pictures[:] = alike
        return pictures
    for place, (name, content) in enumerate(_named(items)):
        # grey fills every channel of a set that has colour
        pictures[place] = media.resize_square(media.decode_picture(content, name=name), side)
    return pictures


def _recordings(items: pa.RecordBatch, rate_hz: int) -> tuple[np.ndarray, list[int]]:
    """The recordings of encoded items one behind the other, int16 (total,), and the samples of each."""
    clips = []
    for name, content in _named(items):
        waveform, own_hz = media.decode_recording(content, name=name)
        sound = media.resample(waveform, own_hz, rate_hz)
        clips.append(media.to_int16(sound / np.abs(sound).max(initial=1.0)))  # floats may go beyond full scale
    return np.concatenate(clips), [len(clip) for clip in clips]


def _named(items: pa.RecordBatch) -> Iterator[tuple[str, bytes]]:
    yield from zip(items["id"].to_pylist(), items["bytes"].to_pylist(), strict=True)


def _batches(paths: Paths, modality: str, facts: pa.Table) -> Iterator[pa.RecordBatch]:
    """Ids and bytes of the accepted items, some hundred at a time."""
    held, seen = _held(paths, modality), 0
    for _, stored in item_batches(paths, modality, ("id", "bytes"), BATCH_ROWS, BATCH_BYTES):
        batch = stored.filter(_outside(stored["id"], held))
        expected = facts["id"].slice(seen, len(batch))
        if not expected.equals(pa.chunked_array([batch["id"]])):
            raise UserError(f"{paths.facts(modality)}: its rows are not those of the shards; run `dvc repro`")
        seen += len(batch)
        if len(batch):
            yield batch
    if seen != len(facts):
        raise UserError(f"{paths.facts(modality)}: its rows are not those of the shards; run `dvc repro`")
