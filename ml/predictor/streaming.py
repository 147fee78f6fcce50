"""Recordings of any length in constant memory: read a piece at a time, with the result of reading them whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ml import media
from ml.config import UserError
from ml.extraction import recording_gain
from ml.predictor.answers import Interval

SILENCE = 1 / 32768  # peak below one step of 16 bits
WHOLE_S = 60.0  # recordings up to this length are held in memory and classified as a whole
LONGEST_WORD_S = 5.0  # of a longer interval its end is listened to
BLOCK_SAMPLES = 1 << 17
BEYOND_SOUND = 1e9  # of full scale; the square of much more is no number in single precision
TOLD_WITHIN_S = 4.0  # from its end, a word that others do not overlap without end


@dataclass(frozen=True)
class Piece:
    """A stretch of a recording: `own` samples from `start` on, behind `before` samples of what comes earlier.

    samples (before + own + after,); `last` says that nothing follows the own samples.
    """

    samples: np.ndarray
    start: int
    before: int
    own: int
    last: bool


def pieces(blocks: Iterable[np.ndarray], own_samples: int, context_samples: int) -> Iterator[Piece]:
    """Cut a recording (samples,) in blocks into pieces of `own_samples` with up to `context_samples` on either side.

    The last piece may be shorter, or longer by up to the context. A recording without a sample has one empty piece.
    """
    waiting: list[np.ndarray] = []
    start = before = there = 0
    for block in blocks:
        waiting.append(block)
        there += len(block)
        while there - before > own_samples + context_samples:
            held = _joined(waiting)
            yield Piece(held[: before + own_samples + context_samples], start, before, own_samples, False)
            start, end = start + own_samples, before + own_samples
            before = min(context_samples, end)
            waiting = [held[end - before :]]
            there = len(waiting[0])
    yield Piece(_joined(waiting), start, before, there - before, True)


def _joined(blocks: list[np.ndarray]) -> np.ndarray:
    """The blocks as one array; a single one is not copied."""
    if not blocks:
        return np.zeros(0, np.float32)
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def resampled(blocks: Iterable[np.ndarray], from_hz: int, to_hz: int) -> Iterator[np.ndarray]:
    """What `media.resample` makes of a recording, in blocks of float32."""
    if from_hz == to_hz:
        yield from blocks
        return
    step, reach = media.resampling_step(from_hz, to_hz)
    most = max(1, min(BLOCK_SAMPLES, BLOCK_SAMPLES * from_hz // to_hz))  # so that neither side of it is larger
    own, context = (-(-least // step) * step for least in (most, reach))
    for piece in pieces(blocks, own, context):
        sound = media.resample(piece.samples, from_hz, to_hz) if len(piece.samples) else piece.samples
        first, count = (samples * to_hz // from_hz for samples in (piece.before, piece.own))
        yield sound[first:] if piece.last else sound[first : first + count]


def of_length(blocks: Iterable[np.ndarray], samples: int) -> Iterator[np.ndarray]:
    """The first `samples` of a recording in blocks, followed by zeros where it has fewer."""
    for block in blocks:
        yield block[:samples]
        samples -= min(samples, len(block))
    while samples:
        yield np.zeros(min(samples, BLOCK_SAMPLES), np.float32)
        samples -= min(samples, BLOCK_SAMPLES)


class Sound:
    """A recording at the model's rate, in blocks, as often as it is gone through; measured once before.

    blocks: float (samples,) of one channel at rate_hz, of any lengths, and the same each time they are gone through: a
    list of arrays, or a `media.RecordingFile`. What lasts up to WHOLE_S is read once and kept.
    Raises UserError where the recording is empty, not finite, or not the same the second time.
    """

    def __init__(self, blocks: Iterable[np.ndarray], rate_hz: int, model_rate_hz: int, window_samples: int):
        if not 1 <= rate_hz < np.inf or int(rate_hz) != rate_hz:
            raise UserError(f"recording: expected a rate in whole Hz from 1 up, got {rate_hz!r}")
        self._blocks, self.rate_hz, self._model_rate_hz = blocks, int(rate_hz), model_rate_hz
        self._window_samples = window_samples
        self._kept: list[np.ndarray] | None = None
        self.samples: int | None = None  # of the recording at its own rate
        self._measure()

    def _measure(self) -> None:
        kept: list[np.ndarray] = []
        self.peak, self.gain, count, most = 0.0, np.inf, 0, WHOLE_S * self._model_rate_hz
        for piece in pieces(self._read(), BLOCK_SAMPLES // self._window_samples * self._window_samples, 0):
            self.peak = max(self.peak, float(np.abs(piece.samples).max()))
            gain = recording_gain(torch.from_numpy(piece.samples)[None], self._window_samples)
            self.gain = min(self.gain, float(gain))  # the loudest window sets it
            count += piece.own
            kept = [*kept, piece.samples] if count <= most else []
        self._kept = kept or None

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._read() if self._kept is None else iter(self._kept)

    @property
    def is_short(self) -> bool:
        """Whether it is held in memory."""
        return self._kept is not None

    @property
    def is_silent(self) -> bool:
        return self.peak < SILENCE

    @property
    def duration_s(self) -> float:
        assert self.samples is not None
        return self.samples / self.rate_hz

    def between(self, start: int, end: int) -> np.ndarray:
        """The samples (end - start,) from `start` on, at the model's rate; fewer where the recording ends before."""
        found, at = [], 0
        for block in self:
            found.append(block[max(0, start - at) : max(0, end - at)])
            at += len(block)
            if at >= end:
                break
        return _joined(found)

    def whole(self) -> np.ndarray:
        return _joined(list(self))

    def _read(self) -> Iterator[np.ndarray]:
        """At the model's rate, and at least one window long."""
        count = 0
        for block in resampled(self._checked(), self.rate_hz, self._model_rate_hz):
            count += len(block)
            yield block
        if count < self._window_samples:
            yield np.zeros(self._window_samples - count, np.float32)

    def _checked(self) -> Iterator[np.ndarray]:
        samples = 0
        for block in self._blocks:
            samples += len(block)
            yield checked_block(block)
        if not samples:
            raise UserError("recording: expected at least one sample, got none")
        if self.samples not in (None, samples):
            raise UserError(f"recording: held {self.samples} samples at first, then {samples}; it changed meanwhile")
        self.samples = samples


def checked_block(block: np.ndarray) -> np.ndarray:
    """A block of a recording as float32; UserError unless it is one channel of floating-point samples of sense."""
    block = np.asarray(block)
    if block.ndim != 1:
        raise UserError(f"recording: expected one channel (samples,), got shape {block.shape}")
    if not np.issubdtype(block.dtype, np.floating) or not (np.abs(block) < BEYOND_SOUND).all():
        raise UserError(
            "recording: expected finite floating-point samples, full scale at 1, got something else "
            f"(NaN, infinity, integers, or samples from {BEYOND_SOUND:g} up)"
        )
    return np.require(block, np.float32, ("C", "W"))


class SurestStretch:
    """Holds on to the sound of the surest interval so far, while a recording goes by."""

    def __init__(self, rate_hz: int):
        self.span: Interval | None = None
        self.samples = np.zeros(0, np.float32)
        self._rate_hz, self._recent, self._from = rate_hz, np.zeros(0, np.float32), 0

    def feed(self, block: np.ndarray, closed: list[Interval], settled_s: float) -> None:
        """block (samples,): what comes next; closed: intervals found to end in it; no later one starts before
        settled_s."""
        self._recent = np.concatenate((self._recent, block))
        for span in closed:
            if self.span is None or span.score > self.span.score:
                start, end = stretch(span.start_s, span.end_s, self._rate_hz)
                first = max(0, start - self._from)
                self.span, self.samples = span, self._recent[first : end - self._from].copy()
        now = self._from + len(self._recent)
        needed = max(int(settled_s * self._rate_hz), now - round((LONGEST_WORD_S + TOLD_WITHIN_S) * self._rate_hz))
        self._recent, self._from = self._recent[max(0, needed - self._from) :], max(needed, self._from)


def stretch(start_s: float, end_s: float, rate_hz: int) -> tuple[int, int]:
    """First and last sample (exclusive) of what is listened to of an interval."""
    start, end = (round(edge_s * rate_hz) for edge_s in (start_s, end_s))
    return max(start, end - round(LONGEST_WORD_S * rate_hz)), end
