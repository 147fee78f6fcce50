"""What a drifted feature means, in plain words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from data_checks.drift.samples import NOTHING_KNOWN, Feature
from data_checks.drift.two_samples import cliffs_delta

FOLLOWS = ", which follows from the changed mix of labels"
LOOKS = {
    "picture": "pictures look different to the model: a new kind of picture, writer or class",
    "recording": "recordings sound different to the model: a new speaker, line or word",
}
SLIGHT = 0.1  # Cliff's delta below which a shift has no direction worth naming


def describe(feature: Feature, before: np.ndarray, after: np.ndarray) -> str:
    """One phrase with the figures that show it; `before` and `after` are the samples that were compared."""
    match feature.kind:
        case "labels":
            return _mix(feature, before, after)
        case "embedding":
            return LOOKS[feature.side]
        case _:
            return _shift(feature, before, after)


def leading(drifted: list[Feature], effects: Mapping[str, float]) -> list[Feature]:
    """Those of the drifted features that explain the others, the likeliest first.

    What was measured on the input comes before what a model made of it: a look that changed is a reason only where no
    fact of that side did, a confidence only where nothing else did.
    """
    chosen: list[Feature] = []
    for side in ("picture", "recording"):
        by_kind = {kind: [one for one in drifted if (one.side, one.kind) == (side, kind)] for kind in _KINDS}
        facts = sorted(by_kind["fact"], key=lambda one: -abs(effects[one.column]))
        chosen += facts + by_kind["labels"]
        chosen += [] if facts else by_kind["embedding"]
        chosen += [] if facts or by_kind["labels"] or by_kind["embedding"] else by_kind["confidence"]
    return chosen


_KINDS = ("fact", "labels", "embedding", "confidence")


def _shift(feature: Feature, before: np.ndarray, after: np.ndarray) -> str:
    was, now = (float(np.median(sample)) for sample in (before, after))
    delta = cliffs_delta(before, after)
    phrase = feature.higher if delta > 0 else feature.lower
    if abs(delta) < SLIGHT:
        phrase = f"the spread of {feature.column} changed"
    change = f"{now - was:+.3g}{feature.unit}" if feature.unit else f"{(now - was) / was:+.0%}" if was else "from zero"
    return f"{phrase} (median {was:.3g} → {now:.3g}{feature.unit}, {change})"


def _mix(feature: Feature, before: np.ndarray, after: np.ndarray) -> str:
    """The label whose share moved most, measured in standard errors."""
    names = np.union1d(before, after)
    was, now = (np.array([(sample == name).mean() for name in names]) for sample in (before, after))
    pooled = (was * len(before) + now * len(after)) / (len(before) + len(after))
    most = np.argmax(np.abs(now - was) / np.sqrt(pooled * (1 - pooled) + 1e-12))
    name = "nothing known" if names[most] == NOTHING_KNOWN else f"'{names[most]}'"
    shares = f"({was[most]:.1%} → {now[most]:.1%} of answers)"
    if not was[most]:
        return f"{name} is new among what is {feature.column} {shares}"
    return f"{name} is {feature.column} {now[most] / was[most]:.2g} times as often {shares}"
