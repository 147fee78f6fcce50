"""Signatures: a picture or a recording in a few hundred bytes that hardly change when it is resized or encoded anew.

They are compared to find near copies and serve as features where labels are doubted. All sums over pixels are of whole
numbers and what is measured in sounds is rounded to whole steps, so two machines write the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

CELLS = 16  # a picture's grey levels, as means over a grid of CELLS x CELLS
COLOUR_CELLS = 4  # its two colour differences, over a coarser grid
BLOCK = CELLS // COLOUR_CELLS
NO_COLOUR = bytes([128]) * (2 * COLOUR_CELLS**2)
PICTURE_BYTES = CELLS**2 + len(NO_COLOUR)
ROWS_AT_ONCE = 1024  # of a large picture, so that no whole copy of it in floating point is made

FRAMES, BANDS = 64, 24  # a recording's levels in time and frequency
RECORDING_BYTES = FRAMES * BANDS
HOP_S, WINDOW_S = 0.016, 0.064  # of a word; in a longer recording the frames lie further apart
LOWEST_HZ, HIGHEST_HZ = 100.0, 3800.0  # what a telephone carries, so that a changed sample rate changes nothing
RANGE_DB = 40.0  # below the loudest cell; what lies lower counts as silence
STEPS_PER_DB = 6
OUTSIDE = 0  # stands for a frame before the beginning or after the end; the lowest level is 1
ACTIVE_DB = 30.0  # a slice this far below the loudest one does not move the middle
SLICE_S = 0.004
SILENT_POWER = 1e-12
PART_ROWS = 1024  # items of which a comparison holds more than the signature at a time


def picture_signature(pixels: np.ndarray) -> bytes:
    """Signature of one decoded picture, uint8 (height, width, channels), channels 1 (grey) or 3 (RGB).

    Returns PICTURE_BYTES bytes: the mean grey levels of CELLS x CELLS equal areas, whatever the picture's own shape,
    then both colour differences (Cb, Cr; 128 = none) of COLOUR_CELLS x COLOUR_CELLS areas.
    """
    return picture_signatures(pixels[None])[0]


def picture_signatures(pixels: np.ndarray) -> list[bytes]:
    """The signatures of `picture_signature` for pictures of one size: uint8 (n, height, width, channels)."""
    count, height, width, channels = pixels.shape
    area = height * width
    sums = [_area_sums(pixels[..., channel]) for channel in range(channels)]  # each mean times area, whole numbers
    if channels == 1:
        levels = _divided(sums[0], area).reshape(count, -1)
        return [row.tobytes() + NO_COLOUR for row in levels.astype(np.uint8)]
    red, green, blue = sums
    luma = 299 * red + 587 * green + 114 * blue  # thousandths, Rec. 601
    planes = [
        _divided(luma, 1000 * area),
        128 + _divided(564 * _coarse(1000 * blue - luma), 1_000_000 * area * BLOCK**2),
        128 + _divided(713 * _coarse(1000 * red - luma), 1_000_000 * area * BLOCK**2),
    ]
    flat = np.concatenate([plane.reshape(count, -1) for plane in planes], axis=1)
    return [row.tobytes() for row in np.clip(flat, 0, 255).astype(np.uint8)]


def _coarse(cells: np.ndarray) -> np.ndarray:
    """Sums over blocks of the grid: (n, CELLS, CELLS) to (n, COLOUR_CELLS, COLOUR_CELLS)."""
    return cells.reshape(len(cells), COLOUR_CELLS, BLOCK, COLOUR_CELLS, BLOCK).sum((2, 4))


def _area_sums(plane: np.ndarray) -> np.ndarray:
    """Sums of uint8 (n, height, width) over a grid of areas, each times CELLS² so that they are whole: int64."""
    _, height, width = plane.shape
    down, across = _overlaps(height), _overlaps(width).T
    # sums below 2^24 are exact in single precision, others in double: the order of summing does not matter
    kind = np.float32 if 255 * height * width < 2**24 else np.float64
    down, across = down.astype(kind), across.astype(kind)
    starts = range(0, height, ROWS_AT_ONCE)
    parts = [down[:, at : at + ROWS_AT_ONCE] @ plane[:, at : at + ROWS_AT_ONCE].astype(kind) for at in starts]
    return (sum(parts[1:], parts[0]) @ across).astype(np.int64)


@lru_cache(maxsize=64)
def _overlaps(size: int) -> np.ndarray:
    """How much of each of `size` pixels lies in each of CELLS cells: (CELLS, size), in units of 1 / CELLS pixel."""
    cells, pixels = np.arange(CELLS)[:, None] * size, np.arange(size)[None] * CELLS
    return np.clip(np.minimum(cells + size, pixels + CELLS) - np.maximum(cells, pixels), 0, None)


def _divided(numerator: np.ndarray, denominator: int) -> np.ndarray:
    """Whole numbers divided and rounded, halves up."""
    return (2 * numerator + denominator) // (2 * denominator)


def recording_signature(waveform: np.ndarray, rate_hz: int) -> bytes:
    """Signature of one decoded recording, float (samples,), full scale 1.

    Returns RECORDING_BYTES bytes: the levels of FRAMES frames around the middle of what is heard, in BANDS mel bands
    each, in steps of 1 / STEPS_PER_DB dB up from RANGE_DB below the loudest; OUTSIDE where the recording has not begun
    or is over, and everywhere where nothing is heard.
    """
    wave = np.asarray(waveform, np.float64)
    heard = _heard(wave, rate_hz)
    if heard is None:
        return bytes(RECORDING_BYTES)
    middle_samples, length_samples = heard
    window = max(round(WINDOW_S * rate_hz), 8)
    hop = max(HOP_S * rate_hz, length_samples / FRAMES)
    middles = middle_samples + (np.arange(FRAMES) - (FRAMES - 1) / 2) * hop
    levels = _levels(_frames(wave - wave.mean(), middles, window), rate_hz)
    levels[(middles < 0) | (middles >= wave.size)] = OUTSIDE
    return levels.tobytes()


def _frames(wave: np.ndarray, middles: np.ndarray, window: int) -> np.ndarray:
    """Windows (n, window) around the sample positions `middles` (n,), in rising order; zeros beyond the ends."""
    starts = np.rint(middles - window / 2).astype(np.int64)
    before, after = max(-int(starts[0]), 0), max(int(starts[-1]) + window - wave.size, 0)
    return np.lib.stride_tricks.sliding_window_view(np.pad(wave, (before, after)), window)[starts + before]


def _heard(wave: np.ndarray, rate_hz: int) -> tuple[float, float] | None:
    """The middle (centre of energy) and the length of what is heard, in samples; None where nothing is."""
    size = max(round(SLICE_S * rate_hz), 1)
    if wave.size == 0:
        return None
    slices = np.pad(wave - wave.mean(), (0, -wave.size % size)).reshape(-1, size)
    power = np.einsum("ts,ts->t", slices, slices)
    if power.max() <= SILENT_POWER:
        return None
    active = np.flatnonzero(power > power.max() * 10 ** (-ACTIVE_DB / 10))
    middle = (active + 0.5) @ power[active] / power[active].sum()
    return float(middle * size), float((active[-1] + 1 - active[0]) * size)


def _levels(frames: np.ndarray, rate_hz: int) -> np.ndarray:
    """Levels of frames (FRAMES, samples) in mel bands: uint8 (FRAMES, BANDS)."""
    size = frames.shape[1]
    spectra = np.fft.rfft(frames * np.hanning(size), axis=1)
    power = (spectra.real**2 + spectra.imag**2) @ _mel_bands(rate_hz, size)
    loudest = power.max()
    if loudest <= 0:
        return np.full((FRAMES, BANDS), OUTSIDE, np.uint8)
    level_db = 10 * np.log10(np.maximum(power / loudest, 10 ** (-RANGE_DB / 10)))
    return (1 + np.rint((level_db + RANGE_DB) * STEPS_PER_DB)).astype(np.uint8)


@lru_cache(maxsize=16)
def _mel_bands(rate_hz: int, size: int) -> np.ndarray:
    """Triangular mel filters (frequencies, BANDS) between LOWEST_HZ and HIGHEST_HZ."""
    edges_mel = np.linspace(_mel(LOWEST_HZ), _mel(HIGHEST_HZ), BANDS + 2)
    edges_hz = 700 * (10 ** (edges_mel / 2595) - 1)
    at_hz = np.fft.rfftfreq(size, 1 / rate_hz)[:, None]
    low, centre, high = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    return np.maximum(np.minimum((at_hz - low) / (centre - low), (high - at_hz) / (high - centre)), 0)


def _mel(hz: float) -> float:
    return 2595 * float(np.log10(1 + hz / 700))


class Signatures(NamedTuple):
    """rows: the signatures of one kind that are there, uint8 (known, bytes); known: which are, bool (n,)."""

    rows: np.ndarray
    known: np.ndarray


def unpacked(signatures: Sequence[bytes | None] | pa.ChunkedArray | Signatures) -> Signatures:
    """Signatures as rows; those of an Arrow column never become Python objects."""
    import pyarrow as pa

    if isinstance(signatures, Signatures):
        return signatures
    column: pa.ChunkedArray = (
        signatures if isinstance(signatures, pa.ChunkedArray) else pa.chunked_array([pa.array(signatures, pa.binary())])
    )
    known = column.is_valid().to_numpy()
    there = column.drop_null().cast(pa.large_binary())  # 2 GB and more of them may come
    if not len(there):
        return Signatures(np.zeros((0, 0), np.uint8), known)
    flat = there.combine_chunks()
    _, starts, content = flat.buffers()
    places = np.frombuffer(starts, np.int64)[flat.offset : flat.offset + len(flat) + 1]
    return Signatures(np.frombuffer(content, np.uint8)[places[0] : places[-1]].reshape(len(flat), -1), known)


def parts(places: np.ndarray) -> list[np.ndarray]:
    """Places in parts of PART_ROWS and a rest."""
    return [places[at : at + PART_ROWS] for at in range(0, len(places), PART_ROWS)]
