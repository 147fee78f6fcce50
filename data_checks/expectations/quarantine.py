"""Items set aside: what each looks or sounds like, and the reviewed list by which one is released all the same."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ml.config import MODALITIES, Paths, UserError

QUARANTINE = "quarantine.parquet"
RELEASED = "released.parquet"
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "label", "split", "shard", "reason")] + [("preview", pa.binary())]
)
RELEASED_SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "label", "shard", "reason", "review")])
NEVER_RELEASED = ("decodable", "labelled")  # what fails these cannot be prepared at all
LINE = re.compile(r"(?P<modality>\S+)\s+(?P<id>\S(?:.*\S)?)\s+#\s*(?P<review>\S.*)")
MOST_PREVIEWS = 200
SIDE_PX = 64
FRAMES, FREQUENCIES = 96, 48  # of a spectrogram
RANGE_DB = 60.0


def released_list(paths: Paths) -> Path:
    """The reviewed list of a source: lines `<modality> <id>  # reason`."""
    return paths.root / "sources" / paths.source / "released.txt"


def how_to_release(source: str, modality: str) -> str:
    """What a person does to let an item go on although it fails."""
    return (
        f"To release an item, add the line `{modality} <id>  # why` to sources/{source}/released.txt, "
        "have it reviewed and commit it; `dvc repro` or a run of the raw asset takes it in."
    )


def read_released(paths: Paths, modality: str, known: Collection[str]) -> dict[str, str]:
    """The released ids of a modality, each with its reviewer's reason; none where there is no list.

    Raises UserError naming the line that is malformed or names an item that is not there.
    """
    file = released_list(paths)
    if not file.is_file():
        return {}
    released, there = {}, set(known)
    for number, line in enumerate(_lines_of(file), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"sources/{paths.source}/{file.name}, line {number}"
        found = LINE.fullmatch(line.strip())
        if not found or found["modality"] not in MODALITIES:
            raise UserError(f"{where}: expected `{'|'.join(MODALITIES)} <id>  # reason`, got {line.strip()!r}")
        if found["modality"] != modality:
            continue
        if found["id"] not in there:
            raise UserError(f"{where}: {modality} {found['id']}: no such item; correct or remove the line")
        released[found["id"]] = found["review"]
    return released


def _lines_of(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except UnicodeError as fault:
        raise UserError(f"{file}: {fault}; expected text in UTF-8") from None


def write_quarantine(rows: list[dict], paths: Paths, modality: str, folder: Path) -> None:
    """Write folder/quarantine.parquet: rows of id, label, split, shard and reason, with a preview (PNG) of each.

    The first MOST_PREVIEWS of those that can be decoded have one.
    """
    shown = previews(paths, modality, [row["id"] for row in rows])
    table = pa.Table.from_pylist([{**row, "preview": shown.get(row["id"])} for row in rows], SCHEMA)
    pq.write_table(table, folder / QUARANTINE, compression="zstd")


def write_released(rows: list[dict], reviews: dict[str, str], folder: Path) -> None:
    """Write folder/released.parquet: the items that go on although they fail, with both reasons."""
    named = [{**row, "review": reviews[row["id"]]} for row in rows]
    pq.write_table(pa.Table.from_pylist(named, RELEASED_SCHEMA), folder / RELEASED, compression="zstd")


def previews(paths: Paths, modality: str, ids: list[str]) -> dict[str, bytes]:
    """A small PNG of each of the first items of `ids` that can be decoded."""
    from ml.sources.shards import item_batches

    wanted, found = set(ids[:MOST_PREVIEWS]), {}
    for _, batch in item_batches(paths, modality, ("id", "bytes")) if wanted else ():
        for place, name in enumerate(batch["id"].to_pylist()):
            if name in wanted and (made := preview(batch["bytes"][place].as_py(), modality)):
                found[name] = made
    return found


def preview(content: bytes, modality: str) -> bytes | None:
    """A picture made small, or the spectrogram of a recording, as PNG; None where it cannot be decoded."""
    from ml import media

    try:
        if modality == "images":
            return media.encode_png(media.resize_square(media.decode_picture(content), SIDE_PX))
        waveform, _ = media.decode_recording(content, max_s=600)
    except UserError:
        return None  # the reason stands beside it
    return media.encode_png(_spectrogram(waveform))


def _spectrogram(waveform: np.ndarray) -> np.ndarray:
    """Levels over time (to the right) and frequency (upwards), uint8 (FREQUENCIES, FRAMES)."""
    size = 2 * FREQUENCIES
    padded = np.pad(np.asarray(waveform, np.float64), (0, max(size - len(waveform), 0)))
    starts = np.linspace(0, len(padded) - size, FRAMES).astype(int)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[starts]
    power = np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)[:, 1:]) ** 2
    level_db = 10 * np.log10(np.maximum(power / max(power.max(), 1e-12), 10 ** (-RANGE_DB / 10)))
    return np.rint((level_db.T[::-1] + RANGE_DB) * (255 / RANGE_DB)).astype(np.uint8)
