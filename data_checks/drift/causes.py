"""What a drifted feature means, in plain words, and which items show it most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_checks.drift.samples import NOTHING_KNOWN, Feature, Sample
from data_checks.drift.two_samples import cliffs_delta, directions, novelty, squared_distances

FOLLOWS = ", which follows from the changed mix of labels"
NEW = {  # what arrives where the new items are alike, and where they are of all kinds
    "picture": (
        "a new kind of picture: a class that the reference lacks",
        "pictures look different whatever they show: a new writer or camera",
    ),
    "recording": (
        "a new word: a class that the reference lacks",
        "recordings sound different whatever they say: a new speaker or line",
    ),
}
SLIGHT = 0.1  # Cliff's delta below which a shift has no direction worth naming
LARGE = (
    0.474  # above which an effect counts as large (Romano et al., Florida Association of Institutional Research 2006)
)
FAR_QUANTILE = 0.98  # of the reference's own distances; what lies beyond it counts as far off
EXPECTED = 1 - FAR_QUANTILE
ALIKE = 0.88  # far items are one class where their distances are below this share of the reference's
ITEMS = 5  # named with every finding


@dataclass(frozen=True)
class Far:
    """What of a window lies beyond nearly all of the reference: its share, and its spread (0 the same, 1 anything)."""

    share: float
    spread: float


def describe(feature: Feature, sample: Sample, look: Sample | None) -> str:
    """One phrase with the figures that show it; `look` is the embedding of the same side, where it can be compared."""
    match feature.kind:
        case "labels":
            return _mix(feature, sample.before, sample.after)
        case "embedding":
            return _look(feature, sample)
        case "confidence" if look is not None and _fell(feature, sample) and far_items(look).share >= 2 * EXPECTED:
            return f"{_look(feature, look)}; {_shift(feature, sample.before, sample.after)}"
        case _:
            return _shift(feature, sample.before, sample.after)


def showing(feature: Feature, sample: Sample) -> np.ndarray:
    """Positions in `sample.rows` of the window's items that show the drift most, the clearest first."""
    before, after = sample.before, sample.after
    match feature.kind:
        case "labels":
            moved = _most_moved(before, after)
            return (
                sample.rows[np.flatnonzero(after == moved.name)][:ITEMS] if moved.now > moved.was else sample.rows[:0]
            )
        case "embedding":
            order = np.argsort(-novelty(before, after)[1], kind="stable")
        case _:
            order = np.argsort(-np.sign(cliffs_delta(before, after)) * after, kind="stable")
    return sample.rows[order][:ITEMS]


def leading(drifted: Sequence[Feature], effects: Mapping[str, float]) -> list[Feature]:
    """Those of the drifted features that explain the others, the likeliest first.

    What was measured on the input comes before what a model made of it: a look that changed is a reason where no fact
    of that side moved far, for a new speaker or class brings loudness and length of its own; a confidence is one only
    where nothing else is.
    """
    chosen: list[Feature] = []
    for side in ("picture", "recording"):
        by_kind = {kind: [one for one in drifted if (one.side, one.kind) == (side, kind)] for kind in _KINDS}
        far = [one for one in by_kind["fact"] if abs(effects[one.column]) >= LARGE]
        facts = sorted(
            far or ([] if by_kind["embedding"] else by_kind["fact"]), key=lambda one: -abs(effects[one.column])
        )
        chosen += facts + ([] if facts else by_kind["embedding"]) + by_kind["labels"]
        chosen += [] if facts or by_kind["labels"] or by_kind["embedding"] else by_kind["confidence"]
    return chosen


_KINDS = ("fact", "labels", "embedding", "confidence")


def _fell(feature: Feature, sample: Sample) -> bool:
    return feature.column != "presence" and sample.after.mean() < sample.before.mean()


def far_items(sample: Sample) -> Far:
    own, distances = novelty(sample.before, sample.after)
    before, after = directions(sample.before, sample.after)
    far = after[distances > np.quantile(own, FAR_QUANTILE)]
    if len(far) < 3:
        return Far(len(far) / len(after), 1.0)
    return Far(len(far) / len(after), _typical_distance(far) / max(_typical_distance(before), 1e-12))


def _typical_distance(vectors: np.ndarray) -> float:
    return float(np.median(np.sqrt(squared_distances(vectors, vectors)[np.triu_indices(len(vectors), 1)])))


def _look(feature: Feature, sample: Sample) -> str:
    far = far_items(sample)
    words = NEW[feature.side][0 if far.spread < ALIKE else 1]
    expected = 1 - FAR_QUANTILE
    return (
        f"{words} ({far.share:.0%} lie farther off than {FAR_QUANTILE:.0%} of the reference, {expected:.0%} expected)"
    )


def _shift(feature: Feature, before: np.ndarray, after: np.ndarray) -> str:
    was, now = (float(np.median(sample)) for sample in (before, after))
    delta = cliffs_delta(before, after)
    phrase = feature.higher if delta > 0 else feature.lower
    if abs(delta) < SLIGHT and feature.kind != "confidence":
        phrase = f"the spread of {feature.column} changed"
    if feature.kind == "confidence":  # most are near 1, so that only the mean tells
        was, now = float(before.mean()), float(after.mean())
        return f"{feature.higher if now > was else feature.lower} (mean {was:.1%} → {now:.1%})"
    change = f"{now - was:+.3g}{feature.unit}" if feature.unit else f"{(now - was) / was:+.0%}" if was else "from zero"
    return f"{phrase} (median {was:.3g} → {now:.3g}{feature.unit}, {change})"


@dataclass(frozen=True)
class _Moved:
    name: str
    was: float
    now: float


def _most_moved(before: np.ndarray, after: np.ndarray) -> _Moved:
    """The label whose share moved most, measured in standard errors."""
    names = np.union1d(before, after)
    was, now = (np.array([(sample == name).mean() for name in names]) for sample in (before, after))
    pooled = (was * len(before) + now * len(after)) / (len(before) + len(after))
    most = int(np.argmax(np.abs(now - was) / np.sqrt(pooled * (1 - pooled) + 1e-12)))
    return _Moved(str(names[most]), float(was[most]), float(now[most]))


def _mix(feature: Feature, before: np.ndarray, after: np.ndarray) -> str:
    moved = _most_moved(before, after)
    name = "nothing known" if moved.name == NOTHING_KNOWN else f"'{moved.name}'"
    shares = f"({moved.was:.1%} → {moved.now:.1%} of answers)"
    if not moved.was:
        return f"{name} is new among what is {feature.column} {shares}"
    return f"{name} is {feature.column} {moved.now / moved.was:.2g} times as often {shares}"
