"""Labels that are likely wrong: what a simple classifier that never saw an item says of it, judged by cleanlab.

Northcutt, Jiang and Chuang 2021, Confident Learning, JAIR 70. The classifier is a regularised least-squares fit on
random Fourier features (Rahimi and Recht 2007, NeurIPS) of the signatures: one pass over the data serves all folds.
Folds are drawn by item and not by speaker: with few speakers, those of the other folds say little about this one's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_checks.comparisons.signatures import BANDS, CELLS, FRAMES, unpacked

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


def doubted_labels(signatures: Sequence[bytes | None], labels: Sequence[str | None], modality: str) -> Doubts:
    """Which labels are likely wrong. An item without a signature or a label, or of a rare label, is not judged.

    Its quality is 1 then. Nothing is doubted where the labels cannot be told by the signatures well enough.
    """
    labels_given = np.array([label or "" for label in labels], object)
    doubts = Doubts(np.zeros(len(labels), bool), np.full(len(labels), None, object), np.ones(len(labels)))
    names, counts = np.unique(labels_given.astype(str), return_counts=True)
    usual = {name for name, count in zip(names, counts, strict=True) if name and count >= FEWEST_OF_A_LABEL}
    judged = np.array([s is not None and label in usual for s, label in zip(signatures, labels, strict=True)], bool)
    classes, given = np.unique(labels_given[judged].astype(str), return_inverse=True)
    if len(classes) < 2:
        return doubts
    rows = unpacked(_of(signatures, judged))
    probabilities = _out_of_fold(_features(rows, modality), given, len(classes))
    likeliest = probabilities.argmax(1)
    doubts.suggested[judged] = classes[likeliest]
    if (likeliest == given).mean() >= LEAST_AGREEMENT:
        doubts.doubted[judged], doubts.quality[judged] = _issues(given, probabilities)
    return doubts


def _of(signatures: Sequence[bytes | None], judged: np.ndarray) -> list[bytes]:
    return [one for one, kept in zip(signatures, judged, strict=True) if kept and one is not None]


def _issues(given: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What cleanlab finds: which labels are issues, and the quality of every label."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    issues = np.asarray(find_label_issues(given, probabilities, filter_by="both", n_jobs=1))
    quality = np.asarray(get_label_quality_scores(given, probabilities, method="normalized_margin"))
    return issues, np.round(quality, 4)


def _features(rows: np.ndarray, modality: str) -> np.ndarray:
    """Random Fourier features of signatures (n, bytes): float32 (n, FEATURES + 1), the last one constant."""
    coarse = _coarse(rows, modality)
    coarse -= coarse.mean(0)
    coarse /= np.sqrt((coarse**2).sum(1).mean())  # the mean square of a row is 1
    draws = np.random.default_rng(0)
    directions = draws.normal(size=(coarse.shape[1], FEATURES)) * np.sqrt(2 * WIDTH)
    phases = draws.uniform(0, 2 * np.pi, FEATURES)
    waves = np.cos(coarse @ directions.astype(np.float32) + phases.astype(np.float32)) * np.float32(
        np.sqrt(2 / FEATURES)
    )
    return np.append(waves, np.ones((len(rows), 1), np.float32), axis=1)


def _coarse(rows: np.ndarray, modality: str) -> np.ndarray:
    """The low frequencies of signatures, by a cosine transform: float32 (n, d)."""
    if modality == "images":
        across = _waves(CELLS, PICTURE_CYCLES)
        grey = rows[:, : CELLS**2].astype(np.float32) @ np.kron(across, across).T
        colour = rows[:, CELLS**2 :].astype(np.float32) - 128
        return np.append(grey, colour, axis=1)
    levels = rows.astype(np.float32)
    levels -= levels.mean(1, keepdims=True)
    return levels @ np.kron(_waves(FRAMES, FRAME_CYCLES), _waves(BANDS, BAND_CYCLES)).T


def _waves(size: int, count: int) -> np.ndarray:
    """The first `count` cosines of a transform of `size` values: float32 (count, size)."""
    return np.cos(np.pi * np.outer(np.arange(count), np.arange(size) + 0.5) / size).astype(np.float32)


def _out_of_fold(features: np.ndarray, given: np.ndarray, classes: int) -> np.ndarray:
    """What each item's label would be, said by a fit to the other folds: probabilities (n, classes)."""
    wanted = np.eye(classes, dtype=np.float32)[given]
    fold = np.random.default_rng(0).permutation(len(given)) % FOLDS
    parts = [
        (features[fold == k].T @ features[fold == k], features[fold == k].T @ wanted[fold == k]) for k in range(FOLDS)
    ]
    squares, products = (np.asarray(part, np.float64).sum(0) for part in zip(*parts, strict=True))
    scores = np.zeros((len(given), classes))
    for k, (own_squares, own_products) in enumerate(parts):
        rest = squares - own_squares + PENALTY * np.eye(len(squares))
        weights = np.linalg.solve(rest, products - own_products)
        scores[fold == k] = features[fold == k] @ weights.astype(np.float32)
    return _softmax(SHARPNESS * scores)


def _softmax(scores: np.ndarray) -> np.ndarray:
    raised = np.exp(scores - scores.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)
