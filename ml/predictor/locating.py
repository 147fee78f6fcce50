"""From soft answers to places: activity to intervals of time, ink to a box in the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy import ndimage

from ml.predictor.answers import Interval, Word

LEAST_CONTRAST = 8.0  # grey levels of 255 between ink and paper
INK_SHARE = 0.35  # of the strongest contrast in the picture
PEAK_SHARE = 1.2  # of the activity threshold
LEAST_PART = 0.05  # of the largest part's area; smaller ones are specks


@dataclass(frozen=True)
class IntervalRule:
    """A word begins and ends where its activity passes `release`, if it reaches `threshold` in between."""

    threshold: float
    release: float
    least_s: float = 0.1
    gap_s: float = 0.08

    @classmethod
    def of(cls, threshold: float) -> IntervalRule:
        """The rule for a threshold chosen frame by frame: there a word ends, and some frame of it lies well above."""
        return cls(threshold=min(PEAK_SHARE * threshold, (1 + threshold) / 2), release=threshold)


def active_intervals(activity: np.ndarray, hop_s: float, duration_s: float, rule: IntervalRule) -> list[Interval]:
    """Intervals of one recording's activity (frames,), whose frame i is centred at i * hop_s; scores are means.

    An edge lies where the straight line between two neighbouring frames passes `release`.
    """
    spans: list[Interval] = []
    for start, end in _merged(_runs(activity >= rule.release), rule.gap_s / hop_s):
        start_s = hop_s * _crossing(activity, start - 1, start, rule.release)
        end_s = min(duration_s, hop_s * _crossing(activity, end, end - 1, rule.release))
        if activity[start:end].max() >= rule.threshold and end_s - start_s >= rule.least_s:
            spans.append(Interval(start_s, end_s, float(activity[start:end].mean())))
    return spans


def _crossing(activity: np.ndarray, outside: int, inside: int, level: float) -> float:
    """Where, in frames, activity reaches level between two neighbours; the recording's own edge has none outside."""
    if not 0 <= outside < len(activity):
        return float(inside)
    low, high = float(activity[outside]), float(activity[inside])
    return outside + (inside - outside) * (level - low) / (high - low)


def _merged(runs: list[tuple[int, int]], most_frames: float) -> list[tuple[int, int]]:
    """Runs of frames, those joined that lie at most so many frames apart."""
    merged: list[tuple[int, int]] = []
    for start, end in runs:
        if merged and start - merged[-1][1] <= most_frames:
            start = merged.pop()[0]
        merged.append((start, end))
    return merged


def _runs(active: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], active.astype(np.int8), [0]))))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def without_conflicts(words: list[Word], same_iou: float = 0.7) -> list[Word]:
    """Words in order of time; of those on the same interval (intersection over union from same_iou) the likeliest."""
    kept: list[Word] = []
    for word in sorted(words, key=lambda word: -word.probability):
        if all(_iou(word, other) < same_iou for other in kept):
            kept.append(word)
    return sorted(kept, key=lambda word: (word.start_s, word.end_s, word.label))


def _iou(first: Word, second: Word) -> float:
    shared = max(0.0, min(first.end_s, second.end_s) - max(first.start_s, second.start_s))
    return shared / ((first.end_s - first.start_s) + (second.end_s - second.start_s) - shared)


def ink_box(pixels: np.ndarray) -> tuple[int, int, int, int] | None:
    """Bounding box (x0, y0, x1, y1) of what stands out from the border of pixels uint8 (h, w, c), if anything does."""
    paper = np.median(_border(pixels), axis=0)
    contrast = np.abs(pixels.astype(np.float32) - paper).max(axis=-1)
    if contrast.max() < LEAST_CONTRAST:
        return None
    inked = contrast >= INK_SHARE * contrast.max()
    parts = cast(tuple[np.ndarray, int], ndimage.label(inked, structure=np.ones((3, 3))))[0]
    areas = np.bincount(parts.ravel())[1:]
    large = np.isin(parts, np.flatnonzero(areas >= LEAST_PART * areas.max()) + 1)
    rows, columns = np.flatnonzero(large.any(axis=1)), np.flatnonzero(large.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _border(pixels: np.ndarray) -> np.ndarray:
    """The outermost pixels (n, c)."""
    sides = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
    return np.concatenate(sides)
