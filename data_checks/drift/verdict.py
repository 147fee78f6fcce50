"""From a reference and a window of the prediction log to a verdict: what drifted, how sure that is, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from data_checks.drift import causes
from data_checks.drift.log import LOG_SCHEMA
from data_checks.drift.samples import FEATURES, Feature, distinct, from_known_models, labels, matched, values
from data_checks.drift.two_samples import Outcome, holm, kolmogorov_smirnov, label_mix, maximum_mean_discrepancy
from ml.config import Monitoring, UserError

TESTS = {
    "fact": "Kolmogorov-Smirnov",
    "confidence": "Kolmogorov-Smirnov",
    "labels": "chi-square permutation",
    "embedding": "MMD permutation",
}


@dataclass(frozen=True)
class Finding:
    """One test of one feature; the effect size is Cliff's delta, Cramer's V or the MMD, as the test is."""

    feature: str
    test: str
    statistic: float
    p_value: float
    p_adjusted: float
    effect_size: float
    drifted: bool
    cause: str = ""


@dataclass(frozen=True)
class DriftVerdict:
    """`skipped` says what could not be compared and why; `unreadable` names the shards that were left out."""

    state: str  # "not_enough_data" | "no_drift" | "drift"
    n_reference: int
    n_window: int
    alpha: float
    findings: tuple[Finding, ...] = ()
    causes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


Samples = dict[Feature, tuple[np.ndarray, np.ndarray]]


def measure_drift(reference: pd.DataFrame, window: pd.DataFrame, monitoring: Monitoring, seed: int = 0) -> DriftVerdict:
    """Whether the window's answers come from the same distribution as the reference's; both as `read_log` gives them.

    Every feature with at least `monitoring.min_window` values on both sides is tested: facts and confidences by
    Kolmogorov-Smirnov, labels and embeddings by permutation. Holm's correction over all of them holds the chance of
    any false alarm at `monitoring.alpha`. Endpoints are compared with themselves: the reference is thinned to the
    window's mix of endpoints, and an input that it holds more than once counts once. Where a model other than the
    reference's answered, only the facts are compared.

    Raises UserError where alpha is not between 0 and 1.
    """
    if not 0 < monitoring.alpha < 1:
        raise UserError(f"monitoring.alpha: expected a number between 0 and 1, got {monitoring.alpha}")
    unreadable = tuple(window.attrs.get("unreadable", ()))
    verdict = DriftVerdict("not_enough_data", len(reference), len(window), monitoring.alpha, unreadable=unreadable)
    comparison = _Comparison(reference, window, monitoring.alpha, max(monitoring.min_window, 2), seed)
    if len(window) < comparison.enough:
        reason = f"{len(window)} answers in the window, expected at least {comparison.enough}"
        return replace(verdict, causes=(reason,))
    comparison, notes = _by_endpoint(comparison)
    samples, skipped = _samples(comparison)
    verdict = replace(verdict, skipped=notes + skipped)
    if not samples:
        return replace(verdict, causes=("no feature has enough values on both sides to be compared",))
    findings, reasons = _explained(_findings(samples, comparison), samples, comparison)
    state = "drift" if any(finding.drifted for finding in findings) else "no_drift"
    return replace(verdict, state=state, findings=findings, causes=reasons)


@dataclass(frozen=True)
class _Comparison:
    reference: pd.DataFrame
    window: pd.DataFrame
    alpha: float
    enough: int  # values a sample needs
    seed: int

    def generator(self, *words: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, *words))


def _by_endpoint(comparison: _Comparison) -> tuple[_Comparison, tuple[str, ...]]:
    """The comparison among like endpoints, and a note on every endpoint that the reference lacks."""
    columns = pd.Index(LOG_SCHEMA.names)
    reference = comparison.reference.reindex(columns=columns).reset_index(drop=True)
    window = comparison.window.reindex(columns=columns).reset_index(drop=True)
    notes: tuple[str, ...] = ()
    known, asked = (pd.Series(frame["endpoint"]) for frame in (reference, window))
    if known.count():
        strange = asked.loc[~asked.isin(known)].fillna("no endpoint").value_counts()
        notes = tuple(f"{rows} answers of {name}: none such in the reference" for name, rows in strange.items())
        reference, window = matched(reference, window, known, asked, comparison.generator(len(FEATURES)))
    return replace(comparison, reference=reference, window=window), notes


def _samples(comparison: _Comparison) -> tuple[Samples, tuple[str, ...]]:
    """What can be compared, and a note on every feature that cannot."""
    reference, window, enough = comparison.reference, comparison.window, comparison.enough
    samples, skipped = {}, []
    for feature in FEATURES:
        rows = from_known_models(window, reference) if feature.of_model else window
        before, after = values(distinct(reference, feature), feature), values(rows, feature)
        if min(len(before), len(after)) < enough:
            whose = " by the reference's model" if len(rows) < len(window) else ""
            counts = f"{len(after)} values{whose}, {len(before)} in the reference"
            skipped.append(f"{feature.column}: {counts}, expected at least {enough} of each")
        elif feature.kind == "embedding" and before.shape[1] != after.shape[1]:
            skipped.append(f"{feature.column}: {after.shape[1]} numbers wide, {before.shape[1]} in the reference")
        else:
            samples[feature] = before, after
    return samples, tuple(skipped)


def _findings(samples: Samples, comparison: _Comparison) -> tuple[Finding, ...]:
    # Twice as many shuffles as it takes to get below the strictest of Holm's steps.
    permutations = math.ceil(2 * len(samples) / comparison.alpha)
    outcomes = [
        _outcome(feature.kind, *pair, permutations, comparison.generator(FEATURES.index(feature)))
        for feature, pair in samples.items()
    ]
    adjusted = holm([outcome.p_value for outcome in outcomes])
    return tuple(
        Finding(
            feature.column, TESTS[feature.kind], one.statistic, one.p_value, p, one.effect_size, p <= comparison.alpha
        )
        for feature, one, p in zip(samples, outcomes, adjusted, strict=True)
    )


def _outcome(kind: str, before: np.ndarray, after: np.ndarray, permutations: int, rng: np.random.Generator) -> Outcome:
    match kind:
        case "labels":
            return label_mix(before, after, permutations, rng)
        case "embedding":
            return maximum_mean_discrepancy(before, after, permutations, rng)
        case _:
            return kolmogorov_smirnov(before, after)


def _explained(
    findings: tuple[Finding, ...], samples: Samples, comparison: _Comparison
) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """The findings with the cause of each, and the causes of the whole, the likeliest first."""
    effects = {finding.feature: finding.effect_size for finding in findings if finding.drifted}
    drifted = [feature for feature in samples if feature.column in effects]
    following = {late for one in drifted if one.kind == "labels" for late in _following(one, drifted, comparison)}
    words = {feature: causes.describe(feature, *samples[feature]) for feature in drifted}
    reasons = causes.leading([feature for feature in drifted if feature not in following], effects)
    cause = {one.column: text + (causes.FOLLOWS if one in following else "") for one, text in words.items()}
    named = tuple(replace(finding, cause=cause.get(finding.feature, "")) for finding in findings)
    return named, tuple(words[feature] for feature in reasons)


def _following(mix: Feature, drifted: list[Feature], comparison: _Comparison) -> list[Feature]:
    """Features of the same side whose drift is gone once the reference has the window's mix of labels."""
    reference, window = comparison.reference, from_known_models(comparison.window, comparison.reference)
    rng = comparison.generator(FEATURES.index(mix), 1)
    alike = matched(reference, window, labels(reference, mix), labels(window, mix), rng)
    again, _ = _samples(replace(comparison, reference=alike[0], window=alike[1]))
    others = {one: again[one] for one in drifted if one.side == mix.side and one is not mix and one in again}
    if not others:
        return []
    findings = _findings(others, comparison)
    return [feature for feature, finding in zip(others, findings, strict=True) if not finding.drifted]
