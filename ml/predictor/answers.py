"""What the predictor answers with; plain values, times in seconds, boxes in pixels of the picture as it was given."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ml.config import UserError


@dataclass(frozen=True)
class Guess:
    label: str
    probability: float


@dataclass(frozen=True)
class PicturedObject(Guess):
    """One thing in a picture; probabilities are those of every label, given that it is the thing in this box."""

    box: tuple[int, int, int, int]  # x0, y0, x1, y1; the last two are exclusive
    probabilities: dict[str, float] = field(repr=False)


@dataclass(frozen=True)
class Word(Guess):
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Heard(Guess):
    """The word that a separated sound says, and the probabilities of all words."""

    probabilities: dict[str, float]


@dataclass(frozen=True)
class Interval:
    start_s: float
    end_s: float
    score: float


@dataclass(frozen=True)
class Classification:
    """The likeliest label, None where there is nothing to name; embedding (d,) float32."""

    label: str | None
    probabilities: dict[str, float]
    embedding: np.ndarray


@dataclass(frozen=True)
class Picture(Classification):
    """What is pictured; what the probabilities lack to 1 is the probability of nothing known.

    objects: all that was found, the largest first. Of several the largest is what is pictured, unless another is asked
    for.
    """

    objects: list[PicturedObject]
    asked: int = 0  # which of the objects label and probabilities are of

    def of_object(self, number: int) -> Picture:
        """The same picture with another of its objects as what is pictured. Raises UserError where there is none."""
        if not 0 <= number < len(self.objects):
            several = f"one of the picture's objects, 0 to {len(self.objects) - 1}"
            there = {0: "none, since nothing known is pictured", 1: "0, the picture's only object"}
            raise UserError(f"object {number}: expected {there.get(len(self.objects), several)}")
        one = self.objects[number]
        return replace(self, label=one.label, probabilities=one.probabilities, asked=number)


@dataclass(frozen=True)
class Recognition(Classification):
    """Which word a recording says as a whole (None: it is silent), and which words it holds, in order of time."""

    words: list[Word]


@dataclass(frozen=True)
class Finding:
    """Whether and when a recording of `duration_s` says what is pictured."""

    pictured: Picture
    present: bool
    presence: float
    intervals: list[Interval]
    heard: Heard | None
    duration_s: float


@dataclass(frozen=True)
class Extraction(Finding):
    """With the pictured word's own sound (samples,) float32, of the recording's length, rate and level; all zeros
    where it is absent."""

    estimate: np.ndarray
    rate_hz: int
