"""Whether a challenger becomes the champion: both on the same frozen gate split, by a paired bootstrap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ml.config import Promotion
from ml.evaluation.gate import AUC_ROUNDS, GateAnswers, Scored
from ml.evaluation.metrics import mcnemar_p

ACCURACIES = ("image_accuracy", "speech_accuracy")
ROUNDS = 2000
ROUNDS_AT_ONCE = 100
SMALL = "all smaller ones"


@dataclass(frozen=True)
class Comparison:
    """Challenger against champion on one figure, whole (`part` is "") or on one slice of it.

    low, high: the interval of the difference by resampling the items in pairs; worse: it speaks against promotion;
    better: by more than chance.
    """

    figure: str
    part: str
    n: int
    champion: float
    challenger: float
    low: float
    high: float
    worse: bool
    better: bool = False

    def __str__(self) -> str:
        where = f" for {self.part}" if self.part else ""
        interval = f"difference {self.low:+.4f} to {self.high:+.4f}, n = {self.n}"
        return f"{self.figure}{where} {self.champion:.4f} -> {self.challenger:.4f} ({interval})"


@dataclass(frozen=True)
class Decision:
    promote: bool
    reason: str
    comparisons: tuple[Comparison, ...] = ()


def decide_promotion(
    challenger: GateAnswers, champion: GateAnswers | None, settings: Promotion, seed: int = 0
) -> Decision:
    """Promote a first champion that beats the majority class, a later one that is nowhere worse and surely better.

    Worse is a figure that falls by more than the margin, whether or not by chance; or a slice that falls by more than
    the slice margin where the bootstrap shows that it falls at all, for a slice has few items. Slices of fewer than
    `least_slice` items are judged together. Better is a figure whose whole interval lies above zero, an accuracy by
    McNemar's test as well, so ties keep the champion; one is enough, so each is held to its share of 1 - `confidence`
    (Bonferroni). Both answers are of the same items in the same order; raises ValueError where they are not.
    """
    section = challenger.section
    missing = [name for name in ACCURACIES if section[name] is None]
    if missing:
        return Decision(False, f"not measured on the gate split: {', '.join(missing)}")
    if guessing := _no_better_than(section):
        return Decision(False, f"no better than the majority class: {guessing}")
    if champion is None:
        return Decision(True, "the first champion: better than the majority class")
    lost = [o.name for o in champion.scored if o.figure() is not None and challenger[o.name].figure() is None]
    if lost:
        return Decision(False, f"measured for the champion but not for the challenger: {', '.join(lost)}")
    return _against(challenger, champion, settings, seed)


def _no_better_than(section: dict) -> str:
    share = section["majority_share"]
    weak = [name for name in ACCURACIES if section[name] <= share[name]]
    return ", ".join(f"{name} {section[name]:.4f} <= {share[name]:.4f}" for name in weak)


def _against(challenger: GateAnswers, champion: GateAnswers, settings: Promotion, seed: int) -> Decision:
    measured = [former for former in champion.scored if former.figure() is not None]
    confidence = 1 - (1 - settings.confidence) / len(measured)
    found = tuple(
        comparison
        for former in measured
        for comparison in _compared(challenger[former.name], former, settings, confidence, seed)
    )
    if worse := [str(one) for one in found if one.worse]:
        return Decision(False, f"worse than the champion by more than the margin: {'; '.join(worse)}", found)
    if better := [str(one) for one in found if one.better and not one.part]:
        return Decision(True, f"better than the champion beyond chance: {'; '.join(better)}", found)
    return Decision(False, "no better than the champion beyond chance, and ties keep the champion", found)


def _compared(new: Scored, old: Scored, settings: Promotion, confidence: float, seed: int) -> Iterator[Comparison]:
    """The figure as a whole, at this confidence, then every slice of it."""
    if len(new) != len(old):
        raise ValueError(f"{new.name}: {len(new)} items of the challenger, {len(old)} of the champion")
    before, after = old.figure(), new.figure()
    assert before is not None
    assert after is not None
    low, high = _interval(new, old, confidence, seed)
    worse, better = after - before < -settings.margin * new.slack, low > 0
    if new.name in ACCURACIES:  # of a handful of items resampling is too sure
        better = better and mcnemar_p(new.by_item > 0, old.by_item > 0) <= 1 - confidence
    yield Comparison(new.name, "", len(new), before, after, low, high, worse, better)
    for part, rows in slices(new, settings.least_slice):
        ours, theirs = new.by_item[rows], old.by_item[rows]
        low, high = paired_interval(ours - theirs, settings.confidence, seed)
        fell = ours.mean() - theirs.mean() < -settings.slice_margin * new.slack and high < 0
        yield Comparison(new.name, part, len(rows), float(theirs.mean()), float(ours.mean()), low, high, bool(fell))


def slices(scored: Scored, least: int) -> Iterator[tuple[str, np.ndarray]]:
    """Name and rows of every slice; those of one kind with fewer than `least` items together, what has no name none."""
    for kind, names in scored.slices.items():
        values, counts = np.unique(names[names != ""], return_counts=True)
        for value in values[counts >= least]:
            yield f"{kind} {value}", np.flatnonzero(names == value)
        small = np.flatnonzero(np.isin(names, values[counts < least]))
        if len(small):
            yield f"{kind}: {SMALL}", small


def _interval(new: Scored, old: Scored, confidence: float, seed: int) -> tuple[float, float]:
    if new.positive is None:
        return paired_interval(new.scores - old.scores, confidence, seed)
    rng, n = np.random.default_rng(seed), len(new)
    drawn = [(new.figure(rows), old.figure(rows)) for rows in (rng.integers(0, n, n) for _ in range(AUC_ROUNDS))]
    return _bounds(np.array([a - b for a, b in drawn if a is not None and b is not None]), confidence)


def paired_interval(differences: np.ndarray, confidence: float, seed: int) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of paired differences (n,), two-sided."""
    rng, n = np.random.default_rng(seed), len(differences)
    rounds = (rng.integers(0, n, (ROUNDS_AT_ONCE, n)) for _ in range(ROUNDS // ROUNDS_AT_ONCE))
    return _bounds(np.concatenate([differences[rows].mean(axis=1) for rows in rounds]), confidence)


def _bounds(values: np.ndarray, confidence: float) -> tuple[float, float]:
    beyond = 50 * (1 - confidence)
    low, high = np.percentile(values, (beyond, 100 - beyond))
    return float(low), float(high)
