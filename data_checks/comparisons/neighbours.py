"""Which items lie close to which: candidates for a closer comparison, found in little more than linear time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

NEIGHBOURS = 6  # candidates of each item, itself not counted


def neighbours(points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of each point (n, d) with its `count` nearest ones, once each and in order, the smaller place first."""
    from scipy.spatial import KDTree

    # twice too far is near enough: a copy lies at less than half the distance of anything else
    _, near = KDTree(points).query(points, k=min(count + 1, len(points)), eps=1.0, workers=-1)
    near = np.asarray(near).reshape(len(points), -1)
    return np.repeat(np.arange(len(points)), near.shape[1]), near.ravel()


def reduced(made: Callable[[], Iterable[np.ndarray]], dimensions: int) -> np.ndarray:
    """Principal components of features, `made` in parts (rows, d) and each time anew: float32 (n, dimensions)."""
    from scipy.linalg import eigh

    count, total, squares = 0, np.zeros(1), np.zeros(1)
    for part in made():
        count, total, squares = count + len(part), total + part.sum(0), squares + part.T @ part
    mean = total / max(count, 1)
    size = len(mean)
    chosen = (max(size - dimensions, 0), size - 1)
    _, vectors = eigh(squares - count * np.outer(mean, mean), subset_by_index=chosen, driver="evr")
    mean, vectors = mean.astype(np.float32), vectors[:, ::-1].astype(np.float32)
    return np.concatenate([(part - mean) @ vectors for part in made()])


def pairs(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every pair once, the smaller number first, without those of an item with itself."""
    low, high = np.minimum(one, other), np.maximum(one, other)
    keys = np.unique(pair_keys(low, high)[low < high])
    return keys >> 32, keys & 0xFFFFFFFF


def pair_keys(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One number for each pair of places."""
    return first << 32 | second


def unit(features: np.ndarray) -> np.ndarray:
    """Rows (n, d) at length 1, float32; a row of zeros stays."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.maximum(length, 1e-6)).astype(np.float32)
