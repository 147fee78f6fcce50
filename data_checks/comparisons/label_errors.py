"""Labels that are likely wrong: what a simple classifier that never saw an item says of it, judged by cleanlab.

Northcutt, Jiang and Chuang 2021, Confident Learning, JAIR 70. The classifier is a regularised least-squares fit on
random Fourier features (Rahimi and Recht 2007, NeurIPS) of the signatures: one pass over the data serves all folds.
Folds are drawn by item and not by speaker: with few speakers, those of the other folds say little about this one's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data_checks.comparisons.signatures import BANDS, CELLS, FRAMES, Signatures, parts, unpacked

if TYPE_CHECKING:
    import pyarrow as pa

FOLDS = 5
FEATURES = 600
WIDTH = 0.3  # of the kernel: how fast likeness fades with distance
PENALTY = 0.01
SHARPNESS = 10.0  # scores of least squares to probabilities
PICTURE_CYCLES, FRAME_CYCLES, BAND_CYCLES = 7, 11, 9  # finer detail tells persons apart, not labels
FEWEST_OF_A_LABEL = 10  # of a rarer label too little is known to doubt it
LEAST_AGREEMENT = 0.7  # where the classifier knows the labels worse than this, it has no say


class Doubts(NamedTuple):
    """doubted: bool (n,); suggested: the label that is likelier, None where none is known; quality: 0 to 1 (n,)."""

    doubted: np.ndarray
    suggested: np.ndarray
    quality: np.ndarray


def doubted_labels(
    signatures: Sequence[bytes | None] | pa.ChunkedArray | Signatures, labels: Sequence[str | None], modality: str
) -> Doubts:
    """Which labels are likely wrong. An item without a signature or a label, or of a rare label, is not judged.

    Its quality is 1 then. Nothing is doubted where the labels cannot be told by the signatures well enough.
    """
    labels_given = np.array([label or "" for label in labels], object)
    doubts = Doubts(np.zeros(len(labels), bool), np.full(len(labels), None, object), np.ones(len(labels)))
    names, counts = np.unique(labels_given.astype(str), return_counts=True)
    usual = {name for name, count in zip(names, counts, strict=True) if name and count >= FEWEST_OF_A_LABEL}
    rows, known = unpacked(signatures)
    judged = known & np.array([label in usual for label in labels], bool)
    classes, given = np.unique(labels_given[judged].astype(str), return_inverse=True)
    if len(classes) < 2:
        return doubts
    coarse = _coarse(rows, np.flatnonzero(judged[known]), modality)
    probabilities = _out_of_fold(coarse, given, len(classes))
    likeliest = probabilities.argmax(1)
    doubts.suggested[judged] = classes[likeliest]
    if (likeliest == given).mean() >= LEAST_AGREEMENT:
        doubts.doubted[judged], doubts.quality[judged] = _issues(given, probabilities)
    return doubts


def _issues(given: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What cleanlab finds: which labels are issues, and the quality of every label."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    issues = np.asarray(find_label_issues(given, probabilities, filter_by="both", n_jobs=1))
    quality = np.asarray(get_label_quality_scores(given, probabilities, method="normalized_margin"))
    return issues, np.round(quality, 4)


def _coarse(rows: np.ndarray, places: np.ndarray, modality: str) -> np.ndarray:
    """Low frequencies of the signatures at `places`, centred, the mean square of a row being 1: float32 (n, d).

    Everything here and below is summed in double precision, so that two kinds of processor give the same digits.
    """
    low = _low_pictures if modality == "images" else _low_recordings
    coarse = np.empty((len(places), low(rows[:1]).shape[1]), np.float32)
    for part in parts(np.arange(len(places))):
        coarse[part] = low(rows[places[part]])
    coarse -= coarse.mean(0, dtype=np.float64).astype(np.float32)
    coarse /= np.float32(np.sqrt(np.square(coarse, dtype=np.float64).sum() / len(coarse)))
    return coarse


def _low_pictures(rows: np.ndarray) -> np.ndarray:
    across = _waves(CELLS, PICTURE_CYCLES)
    grey = rows[:, : CELLS**2].astype(np.float64) @ np.kron(across, across).T
    colour = rows[:, CELLS**2 :].astype(np.float64) - 128
    return np.append(grey, colour, axis=1)


def _low_recordings(rows: np.ndarray) -> np.ndarray:
    levels = rows.astype(np.float64)
    levels -= levels.mean(1, keepdims=True)
    return levels @ np.kron(_waves(FRAMES, FRAME_CYCLES), _waves(BANDS, BAND_CYCLES)).T


def _waves(size: int, count: int) -> np.ndarray:
    """The first `count` cosines of a transform of `size` values: (count, size)."""
    return np.cos(np.pi * np.outer(np.arange(count), np.arange(size) + 0.5) / size)


class _Features:
    """Random Fourier features of coarse signatures (n, d): (n, FEATURES + 1), the last one constant."""

    def __init__(self, dimensions: int):
        draws = np.random.default_rng(0)
        self._directions = draws.normal(size=(dimensions, FEATURES)) * np.sqrt(2 * WIDTH)
        self._phases = draws.uniform(0, 2 * np.pi, FEATURES)

    def of(self, coarse: np.ndarray) -> np.ndarray:
        features = np.ones((len(coarse), FEATURES + 1))
        waves = np.matmul(coarse.astype(np.float64), self._directions, out=features[:, :-1])
        waves += self._phases
        np.cos(waves, out=waves)
        waves *= np.sqrt(2 / FEATURES)
        return features


def _out_of_fold(coarse: np.ndarray, given: np.ndarray, classes: int) -> np.ndarray:
    """What each item's label would be, said by a fit to the other folds: probabilities (n, classes).

    The features are made a part at a time, and once more for the scores: all of them would be far more than the data.
    """
    features = _Features(coarse.shape[1])
    fold = np.random.default_rng(0).permutation(len(given)) % FOLDS
    folds = [parts(np.flatnonzero(fold == k)) for k in range(FOLDS)]
    fits = [_fit(features, coarse, given, classes, own) for own in folds]
    squares, products = (np.sum(sums, axis=0) for sums in zip(*fits, strict=True))
    scores = np.zeros((len(given), classes))
    for own, (own_squares, own_products) in zip(folds, fits, strict=True):
        rest = squares - own_squares + PENALTY * np.eye(len(squares))
        weights = np.linalg.solve(rest, products - own_products)
        for part in own:
            scores[part] = features.of(coarse[part]) @ weights
    return _softmax(SHARPNESS * scores)


def _fit(
    features: _Features, coarse: np.ndarray, given: np.ndarray, classes: int, own: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The sums of squares (d, d) and of products with the labels (d, classes) that least squares needs of a fold."""
    squares, products = np.zeros((FEATURES + 1, FEATURES + 1)), np.zeros((FEATURES + 1, classes))
    for part in own:
        waves = features.of(coarse[part])
        squares += waves.T @ waves
        products += waves.T @ np.eye(classes)[given[part]]
    return squares, products


def _softmax(scores: np.ndarray) -> np.ndarray:
    raised = np.exp(scores - scores.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)
