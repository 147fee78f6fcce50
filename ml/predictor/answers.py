"""What the predictor answers with; plain values, times in seconds, boxes in pixels of the picture as it was given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PicturedObject:
    label: str
    probability: float
    box: tuple[int, int, int, int]  # x0, y0, x1, y1; the last two are exclusive


@dataclass(frozen=True)
class Picture:
    """What is pictured; what the probabilities lack to 1 is the probability of nothing known."""

    label: str | None
    probabilities: dict[str, float]
    objects: list[PicturedObject]
    embedding: np.ndarray  # (d,) float32


@dataclass(frozen=True)
class Interval:
    start_s: float
    end_s: float
    score: float


@dataclass(frozen=True)
class Word:
    label: str
    probability: float
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Recognition:
    """Which word a recording says as a whole (None: it is silent), and which words it holds, in order of time."""

    label: str | None
    probabilities: dict[str, float]
    words: list[Word]
    embedding: np.ndarray  # (d,) float32


@dataclass(frozen=True)
class Heard:
    label: str
    probability: float


@dataclass(frozen=True)
class Extraction:
    """The pictured word's own sound, of the recording's length, rate and level; all zeros where it is absent."""

    pictured: Picture
    present: bool
    presence: float
    intervals: list[Interval]
    heard: Heard | None
    estimate: np.ndarray  # (samples,) float32
    rate_hz: int
