"""Figures of merit for recognition, detection, separation and localisation; arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy import stats

from ml import objectives


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927); n must be at least 1."""
    found = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


def expected_calibration_error(confidences: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins, weighted by their counts.

    confidences (n,) in [0, 1], correct (n,) bool. Source: Guo et al. 2017 (arXiv 1706.04599), eq. 3.
    """
    _, gaps, weights = reliability(confidences, correct, bins)
    return float(np.sum(np.abs(gaps) * weights))


def reliability(confidences: np.ndarray, correct: np.ndarray, bins: int = 15):
    """Mean confidence, accuracy minus confidence, and share of items of every bin that holds any; each (k,)."""
    which = np.clip(np.ceil(np.asarray(confidences) * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    held = counts > 0
    confidence = np.bincount(which, weights=confidences, minlength=bins)[held] / counts[held]
    accuracy = np.bincount(which, weights=correct, minlength=bins)[held] / counts[held]
    return confidence, accuracy - confidence, counts[held] / len(which)


def mcnemar_p(correct_a: np.ndarray, correct_b: np.ndarray) -> float:
    """Exact two-sided p-value that two classifiers err equally often on the same items (McNemar 1947)."""
    only_a = int(np.sum(correct_a & ~correct_b))
    only_b = int(np.sum(~correct_a & correct_b))
    return 1.0 if only_a + only_b == 0 else float(stats.binomtest(only_a, only_a + only_b).pvalue)


def holm_adjusted(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values of several tests made at once, so that the chance of any false alarm stays as said (Holm 1979)."""
    adjusted, largest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def si_sdr_db(estimate: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`objectives.si_sdr_db` of arrays (..., samples)."""
    estimate, target = np.asarray(estimate, np.float64), np.asarray(target, np.float64)
    return objectives.si_sdr_db(torch.from_numpy(estimate), torch.from_numpy(target)).numpy()


def improvement_db(estimate: np.ndarray, mixture: np.ndarray, target: np.ndarray) -> np.ndarray:
    """SI-SDR of the estimate minus that of the untouched mixture; shapes as in si_sdr_db."""
    return si_sdr_db(estimate, target) - si_sdr_db(mixture, target)


def summarise_db(values: np.ndarray, bootstrap: int, seed: int) -> dict | None:
    """Mean with its 95 % bootstrap interval, median, 5th percentile, share below zero, n; None of no values."""
    values = np.asarray(values, np.float64)
    if not len(values):
        return None
    return {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "p5": float(np.percentile(values, 5)),
        "below_zero": float(np.mean(values < 0)),
        "n": len(values),
        "mean_ci95": bootstrap_interval(values, bootstrap, seed),
    }


def beside(baseline: dict | None, ours: dict | None) -> dict | None:
    """A baseline's summary with `beaten`: whether our mean's 95 % interval lies above its."""
    if baseline is None or ours is None:
        return baseline
    return {**baseline, "beaten": bool(ours["mean_ci95"][0] > baseline["mean_ci95"][1])}


def bootstrap_interval(values: np.ndarray, rounds: int, seed: int) -> list[float]:
    """95 % percentile interval of the mean over `rounds` resamplings."""
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(rounds)]
    return [float(bound) for bound in np.percentile(means, (2.5, 97.5))]


def ratio_interval(over: np.ndarray, under: np.ndarray, rounds: int, seed: int) -> list[float]:
    """As `bootstrap_interval`, of the sum of over (n,) divided by that of under (n,), both of the same items.

    Resamplings whose divisor is 0 say nothing.
    """
    rng = np.random.default_rng(seed)
    rows = (rng.integers(0, len(over), len(over)) for _ in range(rounds))
    ratios = [over[row].sum() / total for row in rows if (total := under[row].sum())]
    return [float(bound) for bound in np.percentile(ratios, (2.5, 97.5))]


def miss_at_false_alarm(scores: np.ndarray, positive: np.ndarray, rate: float = 0.01) -> float:
    """Smallest share of missed positives among thresholds that let through at most `rate` of the negatives."""
    scores, positive = np.asarray(scores), np.asarray(positive, bool)
    negatives = np.sort(scores[~positive])[::-1]
    allowed = int(np.floor(rate * len(negatives)))
    threshold = negatives[allowed]  # accepting only what lies above it lets through `allowed` negatives at most
    return float(np.mean(scores[positive] <= threshold))


def average_precision(scores: np.ndarray, hits: np.ndarray, relevant: int) -> float:
    """Sum of precision over the steps of recall; scores (n,), hits (n,) bool, `relevant` includes what was missed."""
    from sklearn.metrics import average_precision_score  # slow to import, and the command line imports this module

    return float(average_precision_score(hits, scores)) * np.sum(hits) / relevant if np.any(hits) else 0.0
