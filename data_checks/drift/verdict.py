"""From a reference and a window of the prediction log to a verdict: what drifted, how sure that is, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from data_checks.drift import causes
from data_checks.drift.accuracy import Accuracy
from data_checks.drift.log import LOG_SCHEMA
from data_checks.drift.samples import (
    FEATURES,
    Feature,
    Sample,
    distinct,
    from_known_models,
    labels,
    like_endpoints,
    matched,
    measured,
    values,
)
from data_checks.drift.two_samples import (
    Outcome,
    either,
    holm,
    kolmogorov_smirnov,
    label_mix,
    maximum_mean_discrepancy,
    mean_shift,
    novel_items,
)
from ml.config import Monitoring, UserError

TESTS = {
    "fact": "Kolmogorov-Smirnov",
    "confidence": "Kolmogorov-Smirnov or mean",
    "labels": "label mix permutation",
    "embedding": "MMD or novelty permutation",
}


@dataclass(frozen=True)
class Finding:
    """One test of one feature; the effect size is Cliff's delta, Cramer's V or the MMD, as the test is.

    items: request ids of the answers that show the drift most, the clearest first.
    """

    feature: str
    test: str
    statistic: float
    p_value: float
    p_adjusted: float
    effect_size: float
    drifted: bool
    cause: str = ""
    items: tuple[str, ...] = ()


@dataclass(frozen=True)
class DriftVerdict:
    """One window against the reference; `skipped` says what could not be compared, `unreadable` names lost shards.

    alarm, alarm_reason and recent (day, state) come from the windows before it, see `with_alarm`; accuracy by side and
    corrections (joined, with_consent, unknown_labels) from confidences and feedback.
    """

    state: str  # "not_enough_data" | "no_drift" | "drift"
    n_reference: int
    n_window: int
    alpha: float
    findings: tuple[Finding, ...] = ()
    causes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    model: str = ""  # digest of the champion whose answers are the reference
    alarm: bool = False
    alarm_reason: str = ""
    recent: tuple[tuple[str, str], ...] = ()
    accuracy: dict[str, Accuracy] = field(default_factory=dict)
    corrections: dict[str, int] = field(default_factory=dict)


MOST_ANSWERS = 5000
Samples = dict[Feature, Sample]


def measure_drift(reference: pd.DataFrame, window: pd.DataFrame, monitoring: Monitoring, seed: int = 0) -> DriftVerdict:
    """Whether the window's answers come from the same distribution as the reference's; both as `read_log` gives them.

    Every feature with at least `monitoring.min_window` values on both sides is tested: facts by Kolmogorov-Smirnov,
    confidences by that and by their mean, labels and embeddings by permutation, both as a whole and for a part that is
    new. Holm's correction over all of them holds the chance of any false alarm at `monitoring.alpha`. Endpoints are
    compared with themselves: the reference is thinned to the window's mix of endpoints. An input that came more than
    once counts once on either side. Where a model other than the reference's answered, only the facts are compared.
    Of more than MOST_ANSWERS in the window so many are drawn, for memory grows with them times the reference's.

    Raises UserError where alpha is not between 0 and 1.
    """
    if not 0 < monitoring.alpha < 1:
        raise UserError(f"monitoring.alpha: expected a number between 0 and 1, got {monitoring.alpha}")
    unreadable = tuple(window.attrs.get("unreadable", ()))
    window = measured(window)
    verdict = DriftVerdict("not_enough_data", len(reference), len(window), monitoring.alpha, unreadable=unreadable)
    if len(window) > MOST_ANSWERS:
        window = window.sample(MOST_ANSWERS, random_state=seed).sort_index()
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
    reference, window = like_endpoints(reference, window, comparison.generator(len(FEATURES)))
    return replace(comparison, reference=reference, window=window), notes


def _samples(comparison: _Comparison) -> tuple[Samples, tuple[str, ...]]:
    """What can be compared, and a note on every feature that cannot."""
    reference, window, enough = comparison.reference, comparison.window, comparison.enough
    samples, skipped = {}, []
    for feature in FEATURES:
        rows = from_known_models(window, reference) if feature.of_model else window
        (before, _), (after, places) = (values(distinct(one, feature), feature) for one in (reference, rows))
        if min(len(before), len(after)) < enough:
            whose = " by the reference's model" if len(rows) < len(window) else ""
            counts = f"{len(after)} values{whose}, {len(before)} in the reference"
            skipped.append(f"{feature.column}: {counts}, expected at least {enough} of each")
        elif feature.kind == "embedding" and before.shape[1] != after.shape[1]:
            skipped.append(f"{feature.column}: {after.shape[1]} numbers wide, {before.shape[1]} in the reference")
        else:
            samples[feature] = Sample(before, after, places)
    return samples, tuple(skipped)


def _findings(samples: Samples, comparison: _Comparison) -> tuple[Finding, ...]:
    # Twice as many shuffles as it takes to get below the strictest of Holm's steps with one of two tests.
    permutations = math.ceil(4 * len(samples) / comparison.alpha)
    outcomes = [
        _outcome(feature.kind, one.before, one.after, permutations, comparison.generator(FEATURES.index(feature)))
        for feature, one in samples.items()
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
            whole = maximum_mean_discrepancy(before, after, permutations, rng)
            return either(whole, novel_items(before, after, permutations, rng))
        case "confidence":
            return either(kolmogorov_smirnov(before, after), mean_shift(before, after, permutations, rng))
        case _:
            return kolmogorov_smirnov(before, after)


def _explained(
    findings: tuple[Finding, ...], samples: Samples, comparison: _Comparison
) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """The findings with the cause of each, and the causes of the whole, the likeliest first."""
    effects = {finding.feature: finding.effect_size for finding in findings if finding.drifted}
    drifted = [feature for feature in samples if feature.column in effects]
    following = {late for one in drifted if one.kind == "labels" for late in _following(one, drifted, comparison)}
    looks = {feature.side: sample for feature, sample in samples.items() if feature.kind == "embedding"}
    words = {feature: causes.describe(feature, samples[feature], looks.get(feature.side)) for feature in drifted}
    reasons = causes.leading([feature for feature in drifted if feature not in following], effects)
    cause = {one.column: text + (causes.FOLLOWS if one in following else "") for one, text in words.items()}
    ids = comparison.window["request_id"]
    shown = {one.column: tuple(ids.loc[causes.showing(one, samples[one])].dropna().astype(str)) for one in drifted}
    named = tuple(
        replace(finding, cause=cause.get(finding.feature, ""), items=shown.get(finding.feature, ()))
        for finding in findings
    )
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
