"""Clusters of near copies: what was resized, encoded anew, made louder or shifted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from data_checks.comparisons.pictures import Encoded, copied_pictures
from data_checks.comparisons.recordings import copied_recordings
from data_checks.comparisons.signatures import CELLS, Signatures, unpacked

if TYPE_CHECKING:
    import pyarrow as pa

STILL = 2  # steps; a signature that spans less shows or says nothing

Contents = Callable[[np.ndarray], Iterable[bytes]]


def near_copies_of_pictures(
    signatures: Sequence[bytes | None] | pa.ChunkedArray | Signatures, encoded: Encoded
) -> np.ndarray:
    """Which pictures are copies or near copies of each other: int64 (n,), the number of the cluster or -1 for none.

    Clusters are numbered in the order of their first item. An item without a signature is in none, and so is one that
    shows nothing.
    """

    def copied(rows: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        own = Encoded(lambda some: encoded.contents(places[some]), encoded.jpeg[places], encoded.size[places])
        return copied_pictures(rows, own)

    return _clusters(unpacked(signatures), CELLS**2, copied)


def near_copies_of_recordings(
    signatures: Sequence[bytes | None] | pa.ChunkedArray | Signatures, contents: Contents
) -> np.ndarray:
    """The same of recordings; contents: their files, of rising places."""

    def copied(rows: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return copied_recordings(rows, lambda some: contents(places[some]))

    return _clusters(unpacked(signatures), None, copied)


def _clusters(
    signatures: Signatures,
    telling_bytes: int | None,
    copied: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> np.ndarray:
    """Clusters of what `copied` finds among the distinct signatures, of which it is given the rows and the places."""
    rows, known = signatures
    found = np.full(len(known), -1, np.int64)
    if not len(rows):
        return found
    distinct, member, first_of = _distinct(rows)
    telling = np.ptp(distinct[:, :telling_bytes], axis=1) > STILL
    own = np.flatnonzero(telling)
    first, second = np.zeros(0, np.int64), np.zeros(0, np.int64)
    if len(own) > 1:
        first, second = copied(distinct if telling.all() else distinct[own], np.flatnonzero(known)[first_of[own]])
    cluster = _components(own[first], own[second], len(distinct))[member]
    cluster[~telling[member]] = -1
    found[known] = _numbered(cluster)
    return found


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The different rows of uint8 (n, bytes) in the order of their first, for each row its place among them, and for
    each of them the place of its first row."""
    places: dict[bytes, int] = {}  # by digests: the rows themselves would take the memory of the whole array again
    member = np.array([places.setdefault(blake2b(row, digest_size=16).digest(), len(places)) for row in rows], np.int64)
    first = np.unique(member, return_index=True)[1]
    return rows if len(places) == len(rows) else rows[first], member, first


def _components(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    return connected_components(edges, directed=False)[1].astype(np.int64)


def _numbered(cluster: np.ndarray) -> np.ndarray:
    """Clusters of two and more numbered in the order of their first item, every other item -1."""
    _, first, member, size = np.unique(cluster, return_index=True, return_inverse=True, return_counts=True)
    real = (size > 1) & (cluster[first] >= 0)
    order = np.argsort(np.where(real, first, len(cluster)), kind="stable")
    number = np.full(len(size), -1, np.int64)
    number[order[: real.sum()]] = np.arange(real.sum())
    return number[member]
