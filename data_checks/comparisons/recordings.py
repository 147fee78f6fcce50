"""Near copies of recordings: made louder, shifted, or encoded anew.

Signatures name the candidates, and the waveforms decide: those of a copy agree sample by sample at one lag, those of a
word said twice by one voice do not. The correlation is half whitened (a generalised cross-correlation, Knapp and Carter
1976, IEEE TASSP 24(4)): by level alone two recordings of one hum or one vowel would agree too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from data_checks.comparisons.neighbours import NEIGHBOURS, neighbours, pairs, reduced, unit
from data_checks.comparisons.signatures import HIGHEST_HZ, LOWEST_HZ, OUTSIDE, parts
from ml import media
from ml.workers import in_order

SEARCHED_DIMENSIONS = 20
LEAST_LIKENESS = 0.9  # of two signatures, as a cosine; copies of FSDD and of the starter have 0.92 and more
LEAST_CORRELATION = 0.87  # those copies have 0.92 and more, words said twice up to 0.8
COMPARED_HZ = 8000
LONGEST_S = 8.0  # what follows is not compared
WHITENED = 0.5  # power of the magnitude that every frequency is divided by
BATCH_BYTES = 4 << 20
PART_SAMPLES = 2 << 20  # of spectra that are held at a time


def copied_recordings(
    rows: np.ndarray, contents: Callable[[np.ndarray], Iterable[bytes]]
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of near copies among distinct signatures (n, bytes); `contents` gives the files of rising places."""
    first, second = _candidates(rows)
    if not len(first):
        return first, second
    with _Waveforms(np.unique(np.append(first, second)), contents) as waveforms:
        same = np.concatenate([_agreeing(part, first, second, waveforms) for part in waveforms.parts(first, second)])
    return first[same], second[same]


def _candidates(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    all_parts = parts(np.arange(len(rows)))
    searched = reduced(lambda: (_levels(rows[part]) for part in all_parts), SEARCHED_DIMENSIONS)
    first, second = pairs(*neighbours(searched, NEIGHBOURS))
    alike = [
        np.einsum("nd,nd->n", _levels(rows[first[part]]), _levels(rows[second[part]]))
        for part in parts(np.arange(len(first)))
    ]
    near = np.concatenate([np.zeros(0), *alike]) >= LEAST_LIKENESS
    return first[near], second[near]


def _levels(rows: np.ndarray) -> np.ndarray:
    """Levels above the floor as unit vectors: silence before or after is no different from a file that is over."""
    return unit(np.where(rows == OUTSIDE, 0, rows.astype(np.float32) - 1))


class _Waveforms:
    """Recordings at COMPARED_HZ and full scale, in a file of its own, so that memory does not grow with their number.

    places: which, rising; they are asked for by the same places.
    """

    def __init__(self, places: np.ndarray, contents: Callable[[np.ndarray], Iterable[bytes]]):
        self._file = tempfile.TemporaryFile()  # noqa: SIM115, closed by __exit__
        lengths: list[int] = []
        for waves in in_order(_compared, _batches(contents(places)), len(places), "near copies audio"):
            for wave in waves:
                self._file.write(wave.tobytes())
                lengths.append(len(wave))
        self._file.flush()
        self._length = np.zeros(int(places[-1]) + 1, np.int64)
        self._start = np.zeros(int(places[-1]) + 1, np.int64)
        self._length[places], self._start[places] = lengths, np.cumsum([0, *lengths[:-1]])

    def __enter__(self) -> _Waveforms:
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def of(self, place: int) -> np.ndarray:
        self._file.seek(2 * int(self._start[place]))
        return np.frombuffer(self._file.read(2 * int(self._length[place])), np.int16)

    def parts(self, first: np.ndarray, second: np.ndarray) -> Iterator[np.ndarray]:
        """Pairs that are compared together, the short ones first: positions in `first` and `second`."""
        longest = np.maximum(self._length[first], self._length[second])
        order = np.argsort(longest, kind="stable")
        at = 0
        while at < len(order):
            several = order[at : at + PART_SAMPLES]
            held = 2 * longest[several] * np.arange(1, len(several) + 1)
            count = max(1, int(np.searchsorted(held, PART_SAMPLES)))
            yield several[:count]
            at += count


def _batches(contents: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch, size = [], 0
    for content in contents:
        batch.append(content)
        size += len(content)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _compared(contents: list[bytes]) -> list[np.ndarray]:
    """Recordings as int16 (samples,) at COMPARED_HZ and full scale."""
    waves = []
    for content in contents:
        wave, rate_hz = media.decode_recording(content)
        wave = media.resample(wave[: int(LONGEST_S * rate_hz)], rate_hz, COMPARED_HZ)
        wave = wave - wave.mean()
        waves.append(np.rint(wave * (32767 / max(float(np.abs(wave).max()), 1e-9))).astype(np.int16))
    return waves


def _agreeing(part: np.ndarray, first: np.ndarray, second: np.ndarray, waveforms: _Waveforms) -> np.ndarray:
    """The pairs of this part that have the same waveform at some lag, either way up."""
    from scipy.fft import next_fast_len

    places, position = np.unique(np.append(first[part], second[part]), return_inverse=True)
    waves = [waveforms.of(place) for place in places]
    size = int(next_fast_len(2 * max(map(len, waves)), real=True))  # type: ignore[arg-type]
    spectra = np.stack([_spectrum(wave, size) for wave in waves])
    products = spectra[position[: len(part)]] * spectra[position[len(part) :]].conj()
    return part[np.abs(np.fft.irfft(products, size)).max(1) >= LEAST_CORRELATION]


def _spectrum(wave: np.ndarray, size: int) -> np.ndarray:
    """The half whitened spectrum of an int16 wave, complex64 (frequencies,), of energy 1 once transformed back."""
    spectrum = np.fft.rfft(wave.astype(np.float32), size)
    at_hz = np.arange(len(spectrum)) * (COMPARED_HZ / size)
    magnitude = np.abs(spectrum)
    spectrum *= (at_hz >= LOWEST_HZ) & (at_hz <= HIGHEST_HZ)
    spectrum /= np.maximum(magnitude, 1e-3) ** WHITENED
    energy = 2 / size * float(np.vdot(spectrum, spectrum).real)
    return spectrum / np.float32(max(energy, 1e-12) ** 0.5)
