"""One row of measured facts per picture and per recording: `python -m data_checks.facts SOURCE MODALITY`.

What is measured is rounded to fixed digits and summed exactly or in double precision, so two machines write the same
bytes. `picture_facts` and `recording_facts` measure what is already decoded; the prediction log uses them too.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ml import media
from ml.config import MODALITIES, SOURCES, Paths, UserError, project_root
from ml.files import one_line_faults, whole_file

LARGEST_SIDE_PX = 1024  # larger pictures are measured on a block-averaged copy
LONGEST_RECORDING_S = 600.0
SILENT_DB = -120.0  # written for the level of digital silence
QUIET_BELOW_LOUDEST_DB = 40.0  # a frame this far below the loudest one counts as silence
BANDWIDTH_BELOW_PEAK_DB = 50.0  # the band ends where the spectrum stays this far below its peak
FLAT_TOP_SAMPLES = 3  # successive samples at the peak that make a clipped top
SPECTRUM_FRAMES = 1000  # spectral facts use at most this many frames, evenly spread
NOISE_QUANTILE = 0.1
LOWEST_SNR_DB, HIGHEST_SNR_DB = -10.0, 80.0
BATCH_ROWS = 256
BATCH_BYTES = 32 << 20
PARALLEL_FROM_ROWS = {"images": 10_000, "audio": 2_000}  # below this a second process costs more than it saves

KEYS = [("id", pa.string()), ("label", pa.string()), ("source", pa.string()), ("split", pa.string())]
KEYS += [("group", pa.string()), ("shard", pa.string()), ("size_bytes", pa.int64()), ("sha256", pa.string())]
KEYS += [("decodable", pa.bool_()), ("error", pa.string()), ("content_sha256", pa.string())]
NUMBERS = {
    "images": (("width_px", "height_px", "channels"), ("aspect", "brightness", "contrast", "blur", "information_bits")),
    "audio": (
        ("sample_rate_hz", "channels", "declared_samples", "decoded_samples"),
        (
            "duration_s",
            "peak_db",
            "clipping_share",
            "silence_share",
            "dc_offset",
            "loudness_db",
            "snr_db",
            "bandwidth_hz",
        ),
    ),
}
TEXTS = {"images": ("format", "mode", "dhash"), "audio": ("format", "subtype")}


def facts_schema(modality: str) -> pa.Schema:
    """Columns of the facts table of a modality; every measured column is null where the item cannot be decoded."""
    whole, real = NUMBERS[modality]
    columns = [(name, pa.string()) for name in TEXTS[modality]]
    columns += [(name, pa.int64()) for name in whole] + [(name, pa.float64()) for name in real]
    return pa.schema(KEYS + columns)


def picture_facts(pixels: np.ndarray) -> dict:
    """Facts of one decoded picture.

    pixels: uint8 (height, width) or (height, width, channels), channels 1 (grey) or 3 (RGB).
    Returns width_px, height_px, channels, aspect (width / height), brightness and contrast (mean and standard deviation
    of the grey levels, 0-1), blur (0 = every pixel differs from its neighbours, 1 = no detail at all: 1 / (1 + variance
    of the Laplacian / variance)), information_bits (entropy of the grey levels) and dhash (64 bits, hexadecimal).
    """
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    return stacked_picture_facts(pixels[None])[0]


def stacked_picture_facts(pixels: np.ndarray) -> list[dict]:
    """The facts of `picture_facts` for pictures of one size: uint8 (n, height, width, channels)."""
    count, height, width, channels = pixels.shape
    grey = _grey(pixels)  # (n, h, w) int32
    total, squares = _sum(grey), _sum(grey * grey)
    area = grey[0].size
    variance = (squares * area - total * total) / area**2
    detail = _laplacian_variance(grey)
    moving = detail + variance > 0
    columns = {
        "brightness": total / area / 255,
        "contrast": np.sqrt(variance) / 255,
        "blur": np.where(moving, variance / np.where(moving, detail + variance, 1), 1.0),
        "information_bits": _entropy_bits(grey),
    }
    shape = {"width_px": width, "height_px": height, "channels": channels, "aspect": round(width / height, 4)}
    rounded = {name: np.round(values, 4).tolist() for name, values in columns.items()}
    hashes = _dhash(grey)
    return [
        {**shape, **{name: values[i] for name, values in rounded.items()}, "dhash": hashes[i]} for i in range(count)
    ]


def _grey(pixels: np.ndarray) -> np.ndarray:
    """Grey levels 0-255, int32 (n, height, width), of pictures (n, height, width, channels); large ones shrunk."""
    if pixels.shape[-1] == 1:
        grey = pixels[..., 0]
    else:
        red, green, blue = (pixels[..., i].astype(np.int32) for i in range(3))
        grey = (299 * red + 587 * green + 114 * blue + 500) // 1000  # Rec. 601, in whole numbers
    step = -(-max(grey.shape[1:]) // LARGEST_SIDE_PX)
    return (_block_means(grey, step) if step > 1 else grey).astype(np.int32)


def _block_means(grey: np.ndarray, step: int) -> np.ndarray:
    """Means of blocks of step x step pixels; what is left over at the right and below is cut off."""
    count, height, width = grey.shape
    rows, columns = max(height // step, 1), max(width // step, 1)
    down, across = min(step, height), min(step, width)
    blocks = grey[:, : rows * down, : columns * across].reshape(count, rows, down, columns, across)
    return blocks.sum((2, 4), dtype=np.int64) // (down * across)


def _sum(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).sum(1, dtype=np.int64)


def _laplacian_variance(grey: np.ndarray) -> np.ndarray:
    """Variance of the 4-neighbour Laplacian inside each picture (n, h, w); 0 where there is no inside."""
    inside = grey[:, 1:-1, 1:-1]
    if inside[0].size == 0:
        return np.zeros(len(grey))
    laplacian = 4 * inside - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
    total, squares = _sum(laplacian), _sum(laplacian * laplacian)
    return (squares * inside[0].size - total * total) / inside[0].size ** 2


def _entropy_bits(grey: np.ndarray) -> np.ndarray:
    """Shannon entropy of the 256 grey levels of each picture (n, h, w)."""
    count = len(grey)
    levels = (grey.reshape(count, -1) + 256 * np.arange(count)[:, None]).ravel()
    share = np.bincount(levels, minlength=256 * count).reshape(count, 256) / grey[0].size
    return -(share * np.log2(np.where(share > 0, share, 1))).sum(1)


def _dhash(grey: np.ndarray) -> list[str]:
    """Difference hash of each picture (n, h, w): 8 rows of 8 comparisons of neighbouring cells of an 8 x 9 grid."""
    cells = grey.astype(np.int64)
    for axis, parts in ((1, 8), (2, 9)):
        edges = np.arange(parts) * grey.shape[axis] // parts
        widths = np.maximum(np.diff(edges, append=grey.shape[axis]), 1)
        shape = [1, 1, 1]
        shape[axis] = parts
        cells = np.add.reduceat(cells, edges, axis=axis) / widths.reshape(shape)
    bits = cells[:, :, 1:] > cells[:, :, :-1]
    return [row.tobytes().hex() for row in np.packbits(bits.reshape(len(grey), 64), axis=1)]


def recording_facts(waveform: np.ndarray, rate_hz: int) -> dict:
    """Facts of one decoded recording.

    waveform: float (samples,), full scale 1; rate_hz: its sample rate.
    Returns duration_s, peak_db and loudness_db (dB below full scale; the loudness is the level of the frames that are
    not silent), clipping_share (samples in flat tops), silence_share (frames of 20 ms), dc_offset (mean), snr_db
    (against the stationary floor of every frequency, minimum statistics after Martin 2001, IEEE TSAP 9(5)) and
    bandwidth_hz (where the spectrum ends).
    """
    wave = np.asarray(waveform, dtype=np.float64)
    if not wave.size:
        level = dict.fromkeys(("peak_db", "loudness_db"), SILENT_DB)
        return {**dict.fromkeys(NUMBERS["audio"][1], 0.0), **level, "silence_share": 1.0}
    peak = float(np.abs(wave).max())
    loudness, silence = _loudness_and_silence(wave, max(rate_hz // 50, 1))
    snr, bandwidth = _snr_and_bandwidth(wave, rate_hz)
    measured = {
        "duration_s": wave.size / rate_hz,
        "peak_db": max(20 * np.log10(peak), SILENT_DB) if peak else SILENT_DB,
        "clipping_share": _flat_tops(wave, peak),
        "silence_share": silence,
        "dc_offset": float(wave.mean()),
        "loudness_db": loudness,
        "snr_db": snr,
        "bandwidth_hz": bandwidth,
    }
    return {name: round(float(value), 4) for name, value in measured.items()}


def _flat_tops(wave: np.ndarray, peak: float) -> float:
    """Share of samples that stand in a run at the recording's own peak: what clipping leaves, also after a gain."""
    if peak < 1e-3:
        return 0.0
    loud = np.flatnonzero(np.abs(wave) >= 0.999 * peak)
    if loud.size < FLAT_TOP_SAMPLES:
        return 0.0
    runs = np.split(loud, np.flatnonzero(np.diff(loud) > 1) + 1)
    return sum(len(run) for run in runs if len(run) >= FLAT_TOP_SAMPLES) / wave.size


def _loudness_and_silence(wave: np.ndarray, frame_samples: int) -> tuple[float, float]:
    """Level in dB of the frames that are not silent, and the share of those that are."""
    frame_samples = min(frame_samples, wave.size)
    frames = wave[: wave.size // frame_samples * frame_samples].reshape(-1, frame_samples)
    power = np.einsum("fs,fs->f", frames, frames) / frame_samples
    active = power > max(power.max() * 10 ** (-QUIET_BELOW_LOUDEST_DB / 10), 10 ** (SILENT_DB / 10))
    if not active.any():
        return SILENT_DB, 1.0
    return float(10 * np.log10(power[active].mean())), float(1 - active.mean())


def _snr_and_bandwidth(wave: np.ndarray, rate_hz: int) -> tuple[float, float]:
    """SNR in dB over the quietest tenth of the frames at each frequency, and where the spectrum ends in Hz."""
    power = _power_spectra(wave, rate_hz)  # (frames, frequencies)
    mean = power.mean(0)
    if mean.max() <= 0:
        return 0.0, 0.0
    lowest = np.partition(power, int(NOISE_QUANTILE * (len(power) - 1)), axis=0)[int(NOISE_QUANTILE * (len(power) - 1))]
    noise = min(lowest.sum() / -np.log1p(-NOISE_QUANTILE), mean.sum())  # a noise bin's power is exponential
    signal = max(mean.sum() - noise, noise * 10 ** (LOWEST_SNR_DB / 10))
    snr = min(10 * np.log10(signal / noise), HIGHEST_SNR_DB) if noise > 0 else HIGHEST_SNR_DB
    last = np.flatnonzero(mean >= mean.max() * 10 ** (-BANDWIDTH_BELOW_PEAK_DB / 10))[-1]
    return float(snr), float(last / (len(mean) - 1) * rate_hz / 2)


def _power_spectra(wave: np.ndarray, rate_hz: int) -> np.ndarray:
    """Power of Hann-windowed frames of about 32 ms, half overlapping: (frames, frequencies), 0 at 0 Hz."""
    size = 1 << max(int(np.ceil(np.log2(0.032 * rate_hz))), 4)
    wave = np.pad(wave, (0, max(size - wave.size, 0)))
    frames = np.lib.stride_tricks.sliding_window_view(wave, size)[:: size // 2]
    if len(frames) > SPECTRUM_FRAMES:
        frames = frames[np.arange(SPECTRUM_FRAMES) * len(frames) // SPECTRUM_FRAMES]
    spectra = np.fft.rfft(frames * np.hanning(size), axis=1)
    power = spectra.real**2 + spectra.imag**2
    power[:, 0] = 0.0  # an offset is neither signal nor noise
    return power


def measure_picture(data: bytes) -> dict:
    """Every fact of an encoded picture; `decodable` false with the reason in `error` where it cannot be decoded."""
    row, pixels = _opened_picture(data)
    return row if pixels is None else {**row, **picture_facts(pixels)}


def measure_recording(data: bytes) -> dict:
    """Every fact of an encoded recording; `decodable` false with the reason in `error` where it cannot be decoded."""
    import soundfile

    row = _encoded(data)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            row |= {"format": file.format, "subtype": file.subtype, "channels": file.channels}
            row |= {"sample_rate_hz": file.samplerate, "declared_samples": _declared_samples(file)}
            if row["declared_samples"] != file.frames:
                row["decoded_samples"] = file.frames
        waveform, rate_hz = media.decode_recording(data, LONGEST_RECORDING_S)
    except (soundfile.LibsndfileError, UserError) as fault:
        return {**row, "decodable": False, "error": _one_line(fault)}
    row |= {"decodable": True, "error": None, "decoded_samples": len(waveform), "sample_rate_hz": rate_hz}
    content = hashlib.sha256(np.int64(rate_hz).tobytes() + media.to_int16(waveform).tobytes())
    return {**row, "content_sha256": content.hexdigest(), **recording_facts(waveform, rate_hz)}


def _opened_picture(data: bytes) -> tuple[dict, np.ndarray | None]:
    from PIL import Image

    row = _encoded(data)
    try:
        with Image.open(io.BytesIO(data)) as picture:
            row |= {"format": picture.format, "mode": picture.mode}
        pixels = media.decode_picture(data)
    except (OSError, Image.DecompressionBombError, UserError) as fault:
        return {**row, "decodable": False, "error": _one_line(fault)}, None
    return {**row, "decodable": True, "error": None, "content_sha256": _content_sha256(pixels)}, pixels


def _content_sha256(pixels: np.ndarray) -> str:
    """Digest of what is seen, however it was encoded: grey pictures stored as RGB count as grey."""
    grey = pixels.shape[2] == 1 or bool((pixels == pixels[:, :, :1]).all())
    seen = pixels[:, :, :1] if grey else pixels
    return hashlib.sha256(np.array(seen.shape, np.int64).tobytes() + seen.tobytes()).hexdigest()


def _encoded(data: bytes) -> dict:
    return {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _one_line(fault: Exception) -> str:
    return re.sub(r"<_io\.BytesIO[^>]*>", "it", " ".join(str(fault).split())).strip(" :") or type(fault).__name__


def _declared_samples(file) -> int:
    """Samples that the file says it holds: of a WAV its data chunk, since libsndfile quietly reports what is left."""
    chunk = re.search(r"^data : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    align = re.search(r"Block Align\s*: (\d+)", file.extra_info)
    if chunk and align and int(chunk[1]) < 2**32 - 2**16:  # a stream of unknown length declares the largest size
        return int(chunk[1]) // int(align[1])
    return file.frames


def _measure_pictures(items: list[bytes]) -> list[dict]:
    """measure_picture for many: those of one size are measured together, ten times faster for small ones."""
    opened = [_opened_picture(data) for data in items]
    alike: dict[tuple, list[tuple[dict, np.ndarray]]] = {}
    for row, pixels in opened:
        if pixels is not None:
            alike.setdefault(pixels.shape, []).append((row, pixels))
    for shape, pictures in alike.items():
        together = max(1, 250_000 // int(np.prod(shape)))
        for start in range(0, len(pictures), together):
            rows, pixels = zip(*pictures[start : start + together], strict=True)
            for row, facts in zip(rows, stacked_picture_facts(np.stack(pixels)), strict=True):
                row.update(facts)
    return [row for row, _ in opened]


MEASURE: dict[str, Callable[[list[bytes]], list[dict]]] = {
    "images": _measure_pictures,
    "audio": lambda items: [measure_recording(data) for data in items],
}


def measure_shards(folder: Path, modality: str, out: Path) -> int:
    """Write the facts of every item of the Parquet shards in `folder` to `out`; returns the number of rows.

    Raises UserError where the folder holds no shards.
    """
    shards = sorted(folder.glob("*.parquet"))
    if not shards:
        raise UserError(f"{folder}: expected Parquet shards with raw {modality}, found none")
    rows = sum(pq.read_metadata(shard).num_rows for shard in shards)
    schema = facts_schema(modality)
    with (
        whole_file(out) as new,
        _workers(rows, modality) as pool,
        pq.ParquetWriter(new, schema, compression="zstd") as writer,
    ):
        for table in _in_order(pool, modality, _batches(shards)):
            writer.write_table(table)
    return rows


def _workers(rows: int, modality: str):
    cores = os.cpu_count() or 1
    if rows < PARALLEL_FROM_ROWS[modality] or cores == 1:
        return nullcontext(None)
    return ProcessPoolExecutor(min(cores, 8), mp_context=get_context("spawn"))


def _batches(shards: Iterable[Path]) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Rows of the shards in order, a few at a time, never more than about BATCH_BYTES of encoded items."""
    columns = ["id", "bytes", "label", "source", "split", "group"]
    for shard in shards:
        with pq.ParquetFile(shard) as file:
            average = max(shard.stat().st_size // max(file.metadata.num_rows, 1), 1)
            rows = max(1, min(BATCH_ROWS, BATCH_BYTES // average))
            for batch in file.iter_batches(rows, columns=columns):
                yield shard.name, batch


def _in_order(pool: Executor | None, modality: str, batches: Iterable) -> Iterator[pa.Table]:
    """Measured batches in the order they came, with a few under way at a time."""
    if pool is None:
        yield from (_measured(modality, shard, batch) for shard, batch in batches)
        return
    under_way: deque[Future] = deque()
    for shard, batch in batches:
        under_way.append(pool.submit(_measured, modality, shard, batch))
        if len(under_way) > 2 * (os.cpu_count() or 1):
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _measured(modality: str, shard: str, batch: pa.RecordBatch) -> pa.Table:
    keys = batch.drop_columns(["bytes"]).to_pylist()
    facts = MEASURE[modality](batch.column("bytes").to_pylist())
    rows = [{**key, "shard": shard, **fact} for key, fact in zip(keys, facts, strict=True)]
    return pa.Table.from_pylist(rows, schema=facts_schema(modality))


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] not in SOURCES or arguments[1] not in MODALITIES:
        print(f"usage: python -m data_checks.facts {{{','.join(SOURCES)}}} {{{','.join(MODALITIES)}}}", file=sys.stderr)
        return 2
    source, modality = arguments
    paths = Paths(project_root(), source)
    with one_line_faults():
        rows = measure_shards(paths.raw(modality), modality, paths.facts(modality))
    print(f"{rows} {modality} measured")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
