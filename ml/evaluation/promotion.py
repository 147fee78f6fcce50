"""Whether a candidate becomes the champion, from figures both were measured by on the frozen gate split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ACCURACIES = ("image_accuracy", "speech_accuracy")
EXTRACTION = ("presence_auc", "si_sdr_improvement_db")
SLACK = {"si_sdr_improvement_db": 30.0}  # a margin of 0.01 in accuracy allows 0.3 dB


@dataclass(frozen=True)
class Decision:
    promote: bool
    reason: str


def decide_promotion(
    candidate: Mapping[str, float | None],
    champion: Mapping[str, float | None] | None,
    majority_share: Mapping[str, float],
    margin: float,
) -> Decision:
    """Promote a first champion that beats the majority class, a later one that is nowhere worse and somewhere better.

    candidate, champion: image_accuracy, speech_accuracy, presence_auc, si_sdr_improvement_db of the gate split (the
    section `gate` of evaluation.json). majority_share: the share of the commonest class there, by the names of the two
    accuracies. margin: how much worse an accuracy may be; 30 times as many decibels. A tie keeps the champion.
    """
    missing = [name for name in ACCURACIES if candidate.get(name) is None]
    if missing:
        return Decision(False, f"not measured on the gate split: {', '.join(missing)}")
    if guessing := _no_better_than(candidate, majority_share):
        return Decision(False, f"no better than the majority class: {guessing}")
    if champion is None:
        return Decision(True, "the first champion: better than the majority class")
    return _against(candidate, champion, margin)


def _no_better_than(candidate: Mapping, majority_share: Mapping[str, float]) -> str:
    weak = [name for name in ACCURACIES if candidate[name] <= majority_share[name]]
    return ", ".join(f"{name} {candidate[name]:.4f} <= {majority_share[name]:.4f}" for name in weak)


def _against(candidate: Mapping, champion: Mapping, margin: float) -> Decision:
    measured = [name for name in (*ACCURACIES, *EXTRACTION) if champion.get(name) is not None]
    lost = [name for name in measured if candidate.get(name) is None]
    if lost:
        return Decision(False, f"measured for the champion but not for the candidate: {', '.join(lost)}")
    gains = {name: candidate[name] - champion[name] for name in measured}
    changes = {name: f"{name} {champion[name]:.4f} -> {candidate[name]:.4f}" for name in measured}
    worse = [changes[name] for name in measured if gains[name] < -margin * SLACK.get(name, 1.0)]
    if worse:
        return Decision(False, f"worse than the champion by more than the margin: {', '.join(worse)}")
    better = [changes[name] for name in measured if gains[name] > 0]
    if not better:
        return Decision(False, "no better than the champion anywhere")
    return Decision(True, f"better than the champion: {', '.join(better)}")
