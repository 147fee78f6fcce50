"""How presence does in a minute of words, where it is judged on scenes of two seconds: by its greatest moment."""

from __future__ import annotations

import numpy as np

from ml import scenes
from ml.datasets import SpeechSet
from ml.predictor import Predictor

SECONDS, PER_LABEL, SEED = 60.0, 5, 7


def minutes(predictor: Predictor, speech: SpeechSet) -> dict[str, float | int]:
    """Of minutes of scenes that follow one another, n for each: in how many a label is found that none of them says
    (`absent`), and in how many one that one of them says (`present`)."""
    found = {name: [_found(predictor, speech, label, said) for label in predictor.labels] for name, said in KINDS}
    return {name: float(np.mean(shares)) for name, shares in found.items()} | {"n": PER_LABEL * len(predictor.labels)}


KINDS = (("absent", 0), ("present", 1))  # how many scenes of a minute say the label


def _found(predictor: Predictor, speech: SpeechSet, label: str, said: int) -> float:
    """Share of PER_LABEL minutes in which the label is found, of which `said` scenes each say it."""
    found = []
    for number in range(PER_LABEL):
        parts = [_scenes(speech, label, 1, 0.0, number)] * said
        each_s = parts[0].shape[1] / speech.sample_rate_hz if parts else 2.0
        parts.append(_scenes(speech, label, round(SECONDS / each_s) - said, 1.0, number))
        presence = predictor.listen(np.concatenate([part.ravel() for part in parts]))[0]
        found.append(presence[predictor.labels.index(label)] > predictor.presence_threshold)
    return float(np.mean(found))


def _scenes(speech: SpeechSet, label: str, count: int, absent_share: float, number: int) -> np.ndarray:
    """Mixtures (count, samples) of scenes that all say the label, or none of which does."""
    plan = scenes.draw_scenes(speech, count, "any", SEED + number, (label,), absent_share=absent_share)
    return scenes.render(plan, speech).mixture
