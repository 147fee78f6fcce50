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
FILLS_SHARE = 0.55  # of a picture's longer side, that its one thing takes up
OFF_CENTRE = 0.12  # of it, that the thing may lie off the middle
SAME_IOU, ALIKE = 0.5, 0.6  # by F1 on validation scenes, where 0.7 and the likeliest alone gave 0.854 instead of 0.903
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
    """Intervals of one recording's activity (frames,), whose frame i is centred at i * hop_s; scores are means."""
    tracker = IntervalTracker(hop_s, duration_s, rule)
    return tracker.feed(activity) + tracker.finish()


@dataclass(frozen=True)
class _Run:
    """Frames start..end at or above the release level, those of short gaps included.

    before and upto are the sums of all activity before its first frame and up to its end.
    """

    start: int
    end: int
    start_s: float
    end_s: float
    peak: float
    before: float
    upto: float

    def joined(self, later: _Run) -> _Run:
        peak = max(self.peak, later.peak)
        return _Run(self.start, later.end, self.start_s, later.end_s, peak, self.before, later.upto)


class IntervalTracker:
    """Finds the intervals of a recording's activity as it goes by, the same however it is cut into parts.

    An edge lies where the straight line between two neighbouring frames passes the rule's release level. Holds one run
    and one frame, whatever the length of the recording.
    """

    def __init__(self, hop_s: float, duration_s: float, rule: IntervalRule):
        self._hop_s, self._duration_s, self._rule = hop_s, duration_s, rule
        self._open: _Run | None = None
        self._frame, self._sum = 0, 0.0  # the first frame not judged yet, and the sum of those before it
        self._before: float | None = None  # the frame before that
        self._held = np.zeros(0, np.float32)  # the newest frame; its right neighbour is yet to come

    def feed(self, activity: np.ndarray) -> list[Interval]:
        """The intervals that are found to have ended, given the next frames (frames,) of activity."""
        frames = np.concatenate((self._held, activity))
        self._held = frames[-1:]
        return self._judge(frames[:-1], float(frames[-1])) if len(frames) else []

    def finish(self) -> list[Interval]:
        """The intervals that are left at the end of the recording."""
        return self._judge(self._held, None) + self._close()

    @property
    def settled_s(self) -> float:
        """Before this time no later interval begins."""
        return self._open.start_s if self._open else max(0, self._frame - 1) * self._hop_s

    def _judge(self, frames: np.ndarray, after: float | None) -> list[Interval]:
        closed: list[Interval] = []
        most_frames = self._rule.gap_s / self._hop_s
        for run in self._runs(frames, after):
            if self._open and run.start - self._open.end <= most_frames:
                self._open = self._open.joined(run)
            else:
                closed += self._close()
                self._open = run
        if len(frames):
            self._frame, self._before = self._frame + len(frames), float(frames[-1])
            self._sum += float(frames.sum(dtype=np.float64))
        if self._open and self._frame - self._open.end > most_frames:
            closed += self._close()
        return closed

    def _runs(self, frames: np.ndarray, after: float | None) -> list[_Run]:
        """The runs among frames that are next to be judged; one that a cut goes through is two that touch."""
        level, sums = self._rule.release, self._sum + np.concatenate(([0.0], np.cumsum(frames, dtype=np.float64)))
        around = [self._before, *frames.tolist(), after]  # the frame i of these is around[i + 1]
        found = []
        for start, end in _spans(frames >= level):
            first = self._frame + start - _beyond(around[start], around[start + 1], level)
            last = self._frame + end - 1 + _beyond(around[end + 1], around[end], level)
            edges = self._frame + start, self._frame + end, self._hop_s * first, self._hop_s * last
            found.append(_Run(*edges, float(frames[start:end].max()), float(sums[start]), float(sums[end])))
        return found

    def _close(self) -> list[Interval]:
        """The open run as an interval, if it is high and long enough for one."""
        run, self._open = self._open, None
        if run is None or run.peak < self._rule.threshold:
            return []
        end_s = min(self._duration_s, run.end_s)
        score = (run.upto - run.before) / (run.end - run.start)
        return [Interval(run.start_s, end_s, score)] if end_s - run.start_s >= self._rule.least_s else []


def _beyond(outside: float | None, inside: float | None, level: float) -> float:
    """How far, in frames, activity stays above level from a frame inside towards its neighbour outside.

    Nothing lies beyond the recording's own edge, nor is there a crossing where the neighbour is above it as well.
    """
    if outside is None or inside is None or outside >= level:
        return 0.0
    return (inside - level) / (inside - outside)


def _spans(active: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], active.astype(np.int8), [0]))))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def without_conflicts(words: list[Word]) -> list[Word]:
    """Words in order of time; of those on one interval (intersection over union from SAME_IOU) the likeliest, and
    others that are nearly as likely (from ALIKE times as much), for words may be said at once."""
    kept = [word for group in _overlapping(words) for word in _likeliest(group)]
    return sorted(kept, key=lambda word: (word.start_s, word.end_s, word.label))


def _overlapping(words: list[Word]) -> list[list[Word]]:
    """Groups of words of which none overlaps one of another group; so hours of words need not all be compared."""
    groups: list[list[Word]] = []
    end_s = 0.0
    for word in sorted(words, key=lambda word: word.start_s):
        if not groups or word.start_s >= end_s:
            groups.append([])
        groups[-1].append(word)
        end_s = max(end_s, word.end_s)
    return groups


def _likeliest(words: list[Word]) -> list[Word]:
    kept: list[Word] = []
    for word in sorted(words, key=lambda word: (-word.probability, word.start_s, word.end_s, word.label)):
        if all(_iou(word, other) < SAME_IOU or word.probability >= ALIKE * other.probability for other in kept):
            kept.append(word)
    return kept


def _iou(first: Word, second: Word) -> float:
    shared = max(0.0, min(first.end_s, second.end_s) - max(first.start_s, second.start_s))
    return shared / ((first.end_s - first.start_s) + (second.end_s - second.start_s) - shared)


Box = tuple[int, int, int, int]  # x0, y0, x1, y1


def whole_box(box: np.ndarray) -> Box:
    """The pixels that a box (4,) touches by half or more; at least one."""
    x0, y0, x1, y1 = (round(float(edge)) for edge in box)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def fills(box: Box, pixels: np.ndarray) -> bool:
    """Whether a thing in this box fills pixels (h, w, c) as the one thing of a picture does, and lies in its middle."""
    sides = np.array(pixels.shape[1::-1])
    low, high = np.array(box[:2]), np.array(box[2:])
    is_large = (high - low).max() >= FILLS_SHARE * sides.max()
    return bool(is_large and (np.abs((low + high) / 2 - sides / 2) <= OFF_CENTRE * sides.max()).all())


def ink_box(pixels: np.ndarray) -> Box | None:
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
