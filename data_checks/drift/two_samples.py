"""Two-sample tests: each says how far a window lies from its reference and how often chance alone does that."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

EXCEEDANCES = 30  # a permutation test stops once so many shuffles reached the observed statistic
NEIGHBOURS = 3
FARTHEST = 0.1  # of both samples; what is new is looked for among them
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


def either(*outcomes: Outcome) -> Outcome:
    """Several tests of one question: the surest, its p-value times their number (Bonferroni), the first's effect."""
    surest = min(outcomes, key=lambda one: one.p_value)
    return Outcome(surest.statistic, min(1.0, surest.p_value * len(outcomes)), outcomes[0].effect_size)


def label_mix(reference: np.ndarray, window: np.ndarray, permutations: int, rng: np.random.Generator) -> Outcome:
    """Permutation test of two samples of labels, shapes (n,) and (m,): the whole mix, and the label that moved most.

    Pearson's chi-square sees a change of many labels, the largest standardised residual one of a single label.
    Shuffling who belongs to the window draws its counts from the multivariate hypergeometric distribution, so rare
    labels need no minimum count. Effect size: Cramer's V in [0, 1].
    """
    labels, codes = np.unique(np.concatenate([reference, window]), return_inverse=True)
    pooled = np.bincount(codes, minlength=len(labels))
    observed = np.bincount(codes[len(reference) :], minlength=len(labels))
    shuffled = rng.multivariate_hypergeometric(pooled, len(window), size=permutations, method="marginals")
    outcomes = []
    chi_square = float(_chi_square(observed[None], pooled)[0])
    for statistic in (_chi_square, _largest_residual):
        reached = int(
            (statistic(shuffled, pooled) >= (seen := statistic(observed[None], pooled)[0]) * (1 - 1e-12)).sum()
        )
        p_value = (1 + reached) / (1 + permutations)
        outcomes.append(Outcome(float(seen), p_value, float(math.sqrt(chi_square / len(codes)))))
    return either(*outcomes)


def _chi_square(window_counts: np.ndarray, pooled: np.ndarray) -> np.ndarray:
    """Chi-square of tables [window, pooled - window], counts (draws, labels) -> (draws,)."""
    share = window_counts.sum(axis=1, keepdims=True) / pooled.sum()
    squares = (window_counts - pooled * share) ** 2
    return (squares / (pooled * share * (1 - share))).sum(axis=1)


def _largest_residual(window_counts: np.ndarray, pooled: np.ndarray) -> np.ndarray:
    """Largest of the labels' standardised residuals, counts (draws, labels) -> (draws,)."""
    total = pooled.sum()
    share = window_counts.sum(axis=1, keepdims=True) / total
    spread = np.sqrt(np.maximum(pooled * (1 - pooled / total) * share * (1 - share), 1e-12))
    return (np.abs(window_counts - pooled * share) / spread).max(axis=1)


def mean_shift(reference: np.ndarray, window: np.ndarray, permutations: int, rng: np.random.Generator) -> Outcome:
    """Permutation test of the difference of two means, shapes (n,) and (m,): it sees a few values that lie far off.

    Effect size: Cliff's delta.
    """
    pooled, weights = _standardised(reference, window)
    observed = abs(float(weights @ pooled))

    def shifts(shuffled: np.ndarray) -> np.ndarray:
        return np.abs(shuffled @ pooled)

    p_value = _permutation_p(observed * (1 - 1e-9), weights, shifts, permutations, rng)
    return Outcome(observed, p_value, cliffs_delta(reference, window))


def _standardised(reference: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both samples in a row, at mean 0 and deviation 1, and the weights that give the difference of their means."""
    pooled = np.concatenate([reference, window])
    n, m = len(reference), len(window)
    weights = np.concatenate([np.full(n, -1 / n), np.full(m, 1 / m)])
    return (pooled - pooled.mean()) / max(pooled.std(), 1e-12), weights


def novelty(reference: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far each vector, shapes (n, d) and (m, d), lies from the reference's others: (n,) and (m,).

    Mean distance of their `directions` to the three nearest (Sun et al., Out-of-Distribution Detection with Deep
    Nearest Neighbors, ICML 2022).
    """
    reference, window = directions(reference, window)
    own = squared_distances(reference, reference)
    np.fill_diagonal(own, np.inf)  # nobody is a neighbour of his own
    nearest = (
        np.partition(one, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS] for one in (own, squared_distances(window, reference))
    )
    first, second = (np.sqrt(one).mean(axis=1) for one in nearest)
    return first, second


def directions(reference: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    """Vectors, shapes (…, d), at unit length as seen from the reference's mean: features that are never negative all
    point much the same way from zero."""
    centre = reference.mean(axis=0)
    centred = [vectors - centre for vectors in (reference, *others)]
    return tuple(one / np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-12) for one in centred)


def squared_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)[None] - 2 * first @ second.T
    return np.maximum(squares, 0)


def novel_items(reference: np.ndarray, window: np.ndarray, permutations: int, rng: np.random.Generator) -> Outcome:
    """Permutation test whether a part of the window lies farther off than the reference does from itself.

    Shapes as in novelty. What counts is how far an item lies beyond all but the FARTHEST of both samples, so a tenth
    that is new shows where the whole hardly moved. Effect size: Cliff's delta of the distances.
    """
    first, second = novelty(reference, window)
    distances = np.concatenate([first, second])
    beyond = np.maximum(distances - np.quantile(distances, 1 - FARTHEST), 0)
    pooled, weights = _standardised(beyond[: len(first)], beyond[len(first) :])
    observed = float(weights @ pooled)
    p_value = _permutation_p(observed - 1e-9, weights, lambda shuffled: shuffled @ pooled, permutations, rng)
    return Outcome(observed, p_value, cliffs_delta(first, second))


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

    def discrepancies(shuffled: np.ndarray) -> np.ndarray:
        return np.einsum("ij,ij->i", shuffled @ kernel, shuffled, dtype=np.float64)

    p_value = _permutation_p(observed, weights, discrepancies, permutations, rng)
    unbiased = _unbiased(kernel[:n, :n]) + _unbiased(kernel[n:, n:]) - 2 * float(kernel[:n, n:].mean())
    return Outcome(observed, p_value, math.sqrt(max(unbiased, 0.0)))


def _at_most(sample: np.ndarray, rows: int, rng: np.random.Generator) -> np.ndarray:
    return sample if len(sample) <= rows else sample[np.sort(rng.choice(len(sample), rows, replace=False))]


def _gaussian_kernel(points: np.ndarray) -> np.ndarray:
    points = points - points.mean(axis=0)
    squared = squared_distances(points, points)
    width = np.median(squared[np.triu_indices(len(points), 1)])
    return np.exp(-squared / max(width, 1e-12)).astype(np.float32)


def _unbiased(kernel: np.ndarray) -> float:
    rows = len(kernel)
    return float((kernel.sum(dtype=np.float64) - np.trace(kernel)) / (rows * (rows - 1)))


def _permutation_p(
    observed: float,
    weights: np.ndarray,
    statistics: Callable[[np.ndarray], np.ndarray],
    permutations: int,
    rng: np.random.Generator,
) -> float:
    """How often shuffled weights (rows, n + m) reach what was observed; stops early where that is often."""
    reached = drawn = 0
    while drawn < permutations:
        rows = min(BLOCK, permutations - drawn)
        shuffled = rng.permuted(np.tile(weights, (rows, 1)), axis=1)
        total = reached + np.cumsum(statistics(shuffled) >= observed)
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
