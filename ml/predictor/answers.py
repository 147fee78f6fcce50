"""What the predictor answers with; plain values, times in seconds, boxes in pixels of the picture as it was given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Guess:
    label: str
    probability: float


@dataclass(frozen=True)
class PicturedObject(Guess):
    box: tuple[int, int, int, int]  # x0, y0, x1, y1; the last two are exclusive


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
    """What is pictured; what the probabilities lack to 1 is the probability of nothing known."""

    objects: list[PicturedObject]


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
