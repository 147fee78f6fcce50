"""How often what is no word of the labels is taken for one: other English words, and recordings played backwards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ml.datasets import SpeechSet
from ml.media import resample
from ml.predictor import Predictor
from ml.sources import espeak, starter

WORDS = (  # not those by which words of no label were tried in training, nor the voices
    *("bottle", "chair", "animal", "purple", "friday", "telephone", "ladder", "orange", "guitar", "village", "horse"),
    *("rabbit", "flower", "silver", "children", "sorry", "welcome", "forest", "ocean", "island", "pencil", "teacher"),
    *("autumn", "weather", "butter", "sugar", "lawyer", "wheel", "sister", "brother"),
)
# Where the starter's voices are trained with, they have been heard, saying other words.
VOICES = ("en-us+m7", "en+f4", "en-gb-x-rp+Hugo", "en-us+anika", "en-029+victor")
RATE_WPM, PITCH = 160, 50
PAUSE_S = 0.1  # before and after


def unknown_words(predictor: Predictor, speech: SpeechSet) -> dict[str, dict]:
    """How often a label is said to be present in words by eSpeak NG and in `speech` backwards.

    share: of all labels, for all sounds; any: of the sounds in which at least one label is.
    """
    lines = [f"{RATE_WPM} {PITCH} {word}" for word in WORDS if word not in predictor.labels]
    spoken = [clip / np.float32(32768) for voice in VOICES for clip in starter.spoken(voice, lines)]
    words = [resample(clip, espeak.SAMPLE_RATE_HZ, predictor.sample_rate_hz) for clip in spoken]
    backwards = [speech.clip(row)[::-1] for row in range(len(speech))]
    return {"other_words": _taken(predictor, words), "backwards": _taken(predictor, backwards)}


def _taken(predictor: Predictor, sounds: Sequence[np.ndarray]) -> dict:
    pause = np.zeros(round(PAUSE_S * predictor.sample_rate_hz), np.float32)
    presences = [predictor.listen(np.concatenate((pause, sound, pause)))[0] for sound in sounds]
    present = np.array(presences) > predictor.presence_threshold  # (sounds, labels)
    return {"share": float(present.mean()), "any": float(present.any(axis=1).mean()), "n": len(sounds)}
