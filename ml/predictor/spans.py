"""From a recording's soft answers to the spans of time in which a word is said."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ml import spotting
from ml.predictor.answers import Interval

LEAST_S = 0.05  # of an interval


def located(places: np.ndarray, hop_s: float, duration_s: float, least: float) -> list[Interval]:
    """Intervals of one label in a recording's places (4 or 5, frames).

    The score of each is that of `spotting.scores_at`, lowered by what it shares with a surer one.
    """
    tracker = SpanTracker(hop_s, duration_s, least)
    return tracker.feed(places) + tracker.finish()


def told(spans: list[Interval], threshold: float) -> list[Interval]:
    """Of all that may be a word that is present, what passes the threshold; where nothing does, the surest alone.

    So words of two speakers left out of training were recognised in 82 and 83 % of 300 scenes, not in 75 and 76 %.
    """
    spans = sorted(spans, key=lambda span: (span.start_s, span.end_s))
    return [span for span in spans if span.score > threshold] or sorted(spans, key=lambda span: -span.score)[:1]


class SpanTracker:
    """Finds the words of one label in a recording's places as they go by, the same however these are cut into parts.

    Frame i is centred at i * hop_s. least: what a score is to pass. Holds the frames that a span
    may depend on, and the spans that one yet to come may overlap.
    """

    def __init__(self, hop_s: float, duration_s: float, least: float):
        self._hop_s, self._duration_s, self._least = hop_s, duration_s, least
        self._held, self._from = np.zeros((4, 0), np.float32), 0  # the last frames, and which is the first of them
        self._next = 0  # the first frame that was not judged yet
        self._open: list[Interval] = []  # spans whose score is not settled
        self._near: list[Interval] = []  # these, and all that overlap them or may overlap a later one

    def feed(self, places: np.ndarray) -> list[Interval]:
        """The intervals that are settled, given the next frames of places (4 or 5, frames)."""
        self._held = np.concatenate((self._held, places), axis=1) if self._held.size else places
        self._judge(self._from + self._held.shape[1] - spotting.CONTEXT_FRAMES)
        first = max(0, self._next - spotting.CONTEXT_FRAMES)
        self._held, self._from = self._held[:, first - self._from :], first
        return self._close(self._coming_s)

    def finish(self) -> list[Interval]:
        """The intervals that are left at the end of the recording."""
        self._judge(self._from + self._held.shape[1])
        return self._close(math.inf)

    @property
    def settled_s(self) -> float:
        """Before this time no later interval begins."""
        return max(0.0, min([self._coming_s, *(span.start_s for span in self._open)]))

    @property
    def _coming_s(self) -> float:
        """Before this time no span begins whose centre is yet to come."""
        return (self._next - spotting.CONTEXT_FRAMES) * self._hop_s

    def _judge(self, end: int) -> None:
        """Opens the spans of the centres before frame `end`."""
        centres = spotting.peaks(self._held)
        fresh = (centres + self._from >= self._next) & (centres + self._from < end)
        centres = centres[fresh & (self._held[0, centres] > self._least)]
        spans = spotting.spans_at(self._held, centres)
        scores = spotting.scores_at(self._held, centres, spans).tolist()
        for (start_s, end_s), score in zip((self._hop_s * (self._from + spans)).tolist(), scores, strict=True):
            start_s, end_s = max(0.0, start_s), min(self._duration_s, end_s)
            if end_s - start_s >= LEAST_S and score > self._least:
                self._open.append(Interval(start_s, end_s, score))
                self._near.append(self._open[-1])
        self._next = max(self._next, end)

    def _close(self, before_s: float) -> list[Interval]:
        """The words among the open spans that end before this time, from which on nothing overlaps them."""
        edges, scores = [(span.start_s, span.end_s) for span in self._near], [span.score for span in self._near]
        closed = [
            replace(span, score=own)
            for span, own in zip(self._near, spotting.own_scores(edges, scores), strict=True)
            if span in self._open and span.end_s <= before_s and own > self._least
        ]
        self._open = [span for span in self._open if span.end_s > before_s]
        self._near = [span for span in self._near if span.end_s > self.settled_s]
        return closed
