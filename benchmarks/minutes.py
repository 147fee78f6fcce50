"""How presence does in a minute of words, where it is judged on scenes of two seconds: by its greatest moment."""

from __future__ import annotations

import itertools

import numpy as np

from ml import scenes
from ml.datasets import SpeechSet
from ml.predictor import Predictor

SECONDS, PER_LABEL, SEED = 60.0, 5, 7


def minutes(predictor: Predictor, speech: SpeechSet, scene_s: float) -> dict[str, float | int]:
    """Of minutes of scenes that follow one another, n for each: in how many a label is found that none of them says
    (`absent`), and in how many one that one of them says is found where it says it (`present`).

    Asked for every label that the clips say; every minute is of scenes of its own, each at least scene_s long.
    """
    spoken = [label for label in predictor.labels if label in set(np.array(speech.classes)[np.unique(speech.labels)])]
    asked = list(itertools.product(spoken, range(PER_LABEL)))
    found = {"absent": [], "present": []}
    seeds = itertools.count(SEED)
    for label, _ in asked:
        for kind, answers in found.items():
            sound, true = _minute(speech, label, kind == "present", next(seeds), scene_s)
            answers.append(_is_found(predictor, speech.sample_rate_hz, label, sound, true))
    return {kind: float(np.mean(answers)) for kind, answers in found.items()} | {"n": len(asked)}


def _minute(
    speech: SpeechSet, label: str, said: bool, seed: int, scene_s: float
) -> tuple[np.ndarray, np.ndarray | None]:
    """A minute of scenes, one of which says the label where it is `said`, with the spans (n, 2) in samples of that."""
    say = scenes.render(_plan(speech, label, 1, 0.0, seed, scene_s), speech)
    samples = say.mixture.shape[1]
    count = round(SECONDS * speech.sample_rate_hz / samples)
    parts = scenes.render(_plan(speech, label, count, 1.0, seed, scene_s), speech).mixture
    if not said:
        return parts.ravel(), None
    place = int(np.random.default_rng(seed).integers(count))
    parts[place] = say.mixture[0]
    spans = say.intervals[0][say.word_labels[0] == say.queries[0]]
    return parts.ravel(), place * samples + spans


def _plan(speech: SpeechSet, label: str, count: int, absent_share: float, seed: int, scene_s: float):
    """Scenes that all say the label, or none of which does."""
    return scenes.draw_scenes(speech, count, "any", seed, (label,), absent_share=absent_share, scene_s=scene_s)


def _is_found(predictor: Predictor, rate_hz: int, label: str, sound: np.ndarray, true: np.ndarray | None) -> bool:
    """Whether the label is told in a sound (samples,), and where spans (n, 2) are given, of one of them."""
    number = predictor.labels.index(label)
    presence, places = predictor.listen(sound)
    if presence[number] <= predictor.presence_threshold:
        return False
    spans = predictor.intervals(places[number], len(sound) / rate_hz)
    return true is None or any(
        span.start_s * rate_hz < end and begin < span.end_s * rate_hz for span in spans for begin, end in true
    )
