"""Two-sample tests: each says how far a window lies from its reference and how often chance alone does that."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

EXCEEDANCES = 30  # a permutation test stops once so many shuffles reached the observed statistic
BLOCK = 256  # shuffles computed together
MAX_KERNEL_ROWS = 1000  # rows of either sample in the kernel matrix


@dataclass(frozen=True)
class Outcome:
    statistic: float
    p_value: float
    effect_size: float


def kolmogorov_smirnov(reference: np.ndarray, window: np.ndarray) -> Outcome:
    """Kolmogorov-Smirnov test of two samples of numbers, shapes (n,) and (m,).

    Effect size: Cliff's delta in [-1, 1], the chance that a value of the window is above one of the reference
    less the chance that it is below (N. Cliff, Dominance statistics, Psychological Bulletin 114, 1993).
    """
    distance, p_value = np.asarray(stats.ks_2samp(reference, window))
    return Outcome(float(distance), float(p_value), cliffs_delta(reference, window))


def cliffs_delta(reference: np.ndarray, window: np.ndarray) -> float:
    ordered = np.sort(reference)
    below = np.searchsorted(ordered, window, side="left").sum()
    above = len(reference) * len(window) - np.searchsorted(ordered, window, side="right").sum()
    return float((below - above) / (len(reference) * len(window)))


def label_mix(reference: np.ndarray, window: np.ndarray, permutations: int, rng: np.random.Generator) -> Outcome:
    """Permutation test of Pearson's chi-square between two samples of labels, shapes (n,) and (m,).

    Shuffling who belongs to the window draws its counts from the multivariate hypergeometric distribution, so rare
    labels need no minimum count. Effect size: Cramer's V in [0, 1].
    """
    labels, codes = np.unique(np.concatenate([reference, window]), return_inverse=True)
    pooled = np.bincount(codes, minlength=len(labels))
    observed = np.bincount(codes[len(reference) :], minlength=len(labels))
    shuffled = rng.multivariate_hypergeometric(pooled, len(window), size=permutations, method="marginals")
    chi_square = _chi_square(observed[None], pooled)[0]
    reached = int((_chi_square(shuffled, pooled) >= chi_square * (1 - 1e-12)).sum())
    p_value = (1 + reached) / (1 + permutations)
    return Outcome(float(chi_square), p_value, float(math.sqrt(chi_square / len(codes))))


def _chi_square(window_counts: np.ndarray, pooled: np.ndarray) -> np.ndarray:
    """Chi-square of tables [window, pooled - window], counts (draws, labels) -> (draws,)."""
    share = window_counts.sum(axis=1, keepdims=True) / pooled.sum()
    squares = (window_counts - pooled * share) ** 2
    return (squares / (pooled * share * (1 - share))).sum(axis=1)


def maximum_mean_discrepancy(
    reference: np.ndarray, window: np.ndarray, permutations: int, rng: np.random.Generator
) -> Outcome:
    """Permutation test of the maximum mean discrepancy of two samples of vectors, shapes (n, d) and (m, d).

    Gaussian kernel whose width is the median distance (Gretton et al., A Kernel Two-Sample Test, JMLR 2012,
    section 8); at most MAX_KERNEL_ROWS of either sample. Shuffling stops early where drift is out of sight, which
    keeps the p-value exact (Besag and Clifford, Sequential Monte Carlo p-values, Biometrika 78, 1991).
    Effect size: the discrepancy itself, the root of the unbiased estimate, 0 where that is negative.
    """
    reference, window = (_at_most(sample, MAX_KERNEL_ROWS, rng) for sample in (reference, window))
    n, m = len(reference), len(window)
    kernel = _gaussian_kernel(np.concatenate([reference, window]))
    weights = np.concatenate([np.full(n, -1 / n), np.full(m, 1 / m)]).astype(np.float32)
    observed = float(weights @ kernel @ weights)
    p_value = _permutation_p(observed, kernel, weights, permutations, rng)
    unbiased = _unbiased(kernel[:n, :n]) + _unbiased(kernel[n:, n:]) - 2 * float(kernel[:n, n:].mean())
    return Outcome(observed, p_value, math.sqrt(max(unbiased, 0.0)))


def _at_most(sample: np.ndarray, rows: int, rng: np.random.Generator) -> np.ndarray:
    return sample if len(sample) <= rows else sample[np.sort(rng.choice(len(sample), rows, replace=False))]


def _gaussian_kernel(points: np.ndarray) -> np.ndarray:
    points = points - points.mean(axis=0)
    norms = (points**2).sum(axis=1)
    squared = np.maximum(norms[:, None] + norms[None] - 2 * points @ points.T, 0)
    width = np.median(squared[np.triu_indices(len(points), 1)])
    return np.exp(-squared / max(width, 1e-12)).astype(np.float32)


def _unbiased(kernel: np.ndarray) -> float:
    rows = len(kernel)
    return float((kernel.sum(dtype=np.float64) - np.trace(kernel)) / (rows * (rows - 1)))


def _permutation_p(
    observed: float, kernel: np.ndarray, weights: np.ndarray, permutations: int, rng: np.random.Generator
) -> float:
    reached = drawn = 0
    while drawn < permutations:
        rows = min(BLOCK, permutations - drawn)
        shuffled = rng.permuted(np.tile(weights, (rows, 1)), axis=1)  # (rows, n + m)
        draws = np.einsum("ij,ij->i", shuffled @ kernel, shuffled, dtype=np.float64)
        total = reached + np.cumsum(draws >= observed)
        if total[-1] >= EXCEEDANCES:
            return EXCEEDANCES / float(drawn + 1 + np.argmax(total >= EXCEEDANCES))
        reached, drawn = int(total[-1]), drawn + rows
    return (1 + reached) / (1 + permutations)


def holm(p_values: list[float]) -> list[float]:
    """Adjusted p-values that hold the chance of any false alarm (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values)[order] * (len(p_values) - np.arange(len(p_values)))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.tolist()
