"""How loud a clip is and where, and how long a scene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ml.datasets import SpeechSet

ACTIVE_DB = -40.0


def active_range(waveform: np.ndarray) -> tuple[int, int]:
    """First sample and one past the last sample of a waveform (samples,) above -40 dB of its peak; (0, 0) if silent."""
    level = np.abs(waveform)
    active = np.flatnonzero(level > level.max(initial=0) * 10 ** (ACTIVE_DB / 20))
    return (int(active[0]), int(active[-1]) + 1) if len(active) else (0, 0)


def active_level(waveform: np.ndarray) -> float:
    """Root mean square of a waveform (samples,) over its active range; 0 if silent."""
    start, end = active_range(waveform)
    return float(np.sqrt(np.mean(np.square(waveform[start:end], dtype=np.float64)))) if end > start else 0.0


def roomy_samples(speech: SpeechSet, scene_s: float) -> int:
    """Length of a scene of three words, any of which may be of any label: as `scene_samples`, and longer where even the
    shortest clip of some label needs it beside two others."""
    shortest = [int(speech.lengths[speech.labels == label].min()) for label in np.unique(speech.labels)]
    return max(scene_samples(speech, scene_s), max(shortest, default=0) + scene_samples(speech, 0, words=2))


def scene_samples(speech: SpeechSet, scene_s: float, words: float = 3) -> int:
    """Length of a scene: `scene_s`, or so many times the 90th percentile of the clips where these are longer words."""
    typical = float(np.percentile(speech.lengths, 90)) if len(speech) else 0.0
    return int(max(scene_s * speech.sample_rate_hz, words * typical))
