"""Near copies: what was resized, encoded anew, made louder or shifted, found among signatures.

Two items are near copies when they lie close together and far closer than either lies to anything else. The second
condition keeps classes whose items all look alike (the ones of MNIST) apart from copies: a ratio test as in Lowe 2004,
IJCV 60(2), section 7.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from data_checks.comparisons.signatures import (
    BANDS,
    BLOCK,
    CELLS,
    FRAMES,
    OUTSIDE,
    PICTURE_BYTES,
    STEPS_PER_DB,
    Signatures,
    parts,
    unpacked,
)

if TYPE_CHECKING:
    import pyarrow as pa

NEIGHBOURS = 6  # candidates of each item, itself not counted
MOST_COPIES = 4  # of one item that are told from a family by their ratio; beyond them only the certain ones count
CHUNK_PAIRS = 4096  # compared at a time
SHARPNESS = 8.0  # cycles over a picture at which detail counts 0.6 times
SEARCHED_SHARPNESS = 4.0  # the same while candidates are looked for
SEARCHED_DIMENSIONS = 12
BLURS = (6.0, 4.0)  # a resized copy is duller: it is compared with the other one made duller too
DETAIL = 12  # finer detail than this many cycles is left out
PATCH_FRAMES = 6  # a patch around a peak of the sound reaches this far to either side
PEAKS = 3
COMMON_SHARE = 0.6  # of the shorter recording's frames that two copies have in common
KEPT_SHARE = 0.75  # of the common frames' weight; the worst ones may lie at a cut or be clipped
LARGEST_LAG = 5  # frames
TRIED_LAGS = 2
LEVELS_DB = np.maximum(np.arange(256, dtype=np.float32) - 1, 0) / STEPS_PER_DB  # of each step
STILL = 2  # steps; a signature that spans less shows or says nothing


@dataclass(frozen=True)
class Limits:
    """certain: closer than this is a copy whatever else is near; nearest: no copy lies further away than this.

    ratio: a copy lies closer than this times the distance to the next one that is no copy.
    """

    certain: float
    nearest: float
    ratio: float


LIMITS = {"images": Limits(0.03, 0.16, 0.45), "audio": Limits(0.1, 1.5, 0.4)}


def near_copies(signatures: Sequence[bytes | None] | pa.ChunkedArray | Signatures, modality: str) -> np.ndarray:
    """Which items are copies or near copies of each other: int64 (n,), the number of the cluster or -1 for none.

    Clusters are numbered in the order of their first item. An item without a signature is in none, and so is one that
    shows or says nothing.
    """
    rows, known = unpacked(signatures)
    found = np.full(len(known), -1, np.int64)
    if not len(rows):
        return found
    distinct, member = _distinct(rows)
    telling = np.ptp(distinct[:, : CELLS**2] if modality == "images" else distinct, axis=1) > STILL
    places = np.flatnonzero(telling)
    first, second = np.zeros(0, np.int64), np.zeros(0, np.int64)
    if len(places) > 1:
        first, second = _near_pairs(distinct if telling.all() else distinct[places], modality)
        first, second = places[first], places[second]
    cluster = _components(first, second, len(distinct))[member]
    cluster[~telling[member]] = -1
    found[known] = _numbered(cluster)
    return found


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different rows of uint8 (n, bytes) in the order of their first, and for each row its place among them."""
    places: dict[bytes, int] = {}  # by digests: the rows themselves would take the memory of the whole array again
    member = np.array([places.setdefault(blake2b(row, digest_size=16).digest(), len(places)) for row in rows], np.int64)
    if len(places) == len(rows):
        return rows, member
    return rows[np.unique(member, return_index=True)[1]], member


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


def _near_pairs(rows: np.ndarray, modality: str) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of near copies among distinct signatures (n, bytes).

    Neighbours are looked for quickly at first; who then seems to have a copy is compared with everything, because
    having overlooked the next neighbour makes a ratio look small.
    """
    comparison = Pictures(rows) if modality == "images" else Recordings(rows)
    limits = LIMITS[modality]
    pairs = comparison.candidates()
    distance = comparison.distances(*pairs)
    suspects = np.unique(np.concatenate(_copies(*pairs, distance, len(rows), limits)))
    more = _pairs(*_exhaustive(comparison.features, suspects, len(rows)))
    new = ~np.isin(_key(*more), _key(*pairs))
    more = more[0][new], more[1][new]
    distance = np.append(distance, comparison.distances(*more))
    first, second = (np.append(one, other) for one, other in zip(pairs, more, strict=True))
    return _copies(first, second, distance, len(rows), limits)


def _exhaustive(
    features: Callable[[np.ndarray], np.ndarray], suspects: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of each suspect with its nearest ones among all `size` items, of which `features` makes unit vectors."""
    count = min(2 * NEIGHBOURS, size - 1)
    near = [np.zeros((0, count), np.int64)]
    for own in parts(suspects):
        best, likeness = np.zeros((len(own), 0), np.int64), np.zeros((len(own), 0), np.float32)
        for others in parts(np.arange(size)):
            likeness = np.append(likeness, features(own) @ features(others).T, axis=1)
            best = np.append(best, np.broadcast_to(others, (len(own), len(others))), axis=1)
            if best.shape[1] > count:
                kept = np.argpartition(-likeness, count, axis=1)[:, :count]
                best = np.take_along_axis(best, kept, axis=1)
                likeness = np.take_along_axis(likeness, kept, axis=1)
        near.append(best)
    return np.repeat(suspects, count), np.concatenate(near).ravel()


def _copies(
    first: np.ndarray, second: np.ndarray, distance: np.ndarray, count: int, limits: Limits
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs that are copies, seen from both of their items; pairs come once, `first` < `second`."""
    own = np.concatenate([first, second])
    far = np.concatenate([distance, distance])
    order = np.lexsort((far, own))
    own, far = own[order], far[order]
    following = np.append(own[1:] == own[:-1], False)
    next_far = np.where(following, np.append(far[1:], np.inf), far)  # nothing is known beyond the last candidate
    rank = np.arange(own.size) - np.searchsorted(own, own)
    nearest = np.where(rank == 0, limits.nearest, limits.nearest / 2)  # a family of alike items is no set of copies
    gap = (rank < MOST_COPIES) & (far < nearest) & (far < limits.ratio * next_far)
    reach = np.full(count, limits.certain)  # copies of an item lie no further than its widest gap's near side
    np.maximum.at(reach, own[gap], far[gap])
    near = (distance <= reach[first]) & (distance <= reach[second])
    return first[near], second[near]


def _neighbours(points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of each point (n, d) with its `count` nearest ones, once each and in order, the smaller place first."""
    from scipy.spatial import KDTree

    # twice too far is near enough: a copy lies at less than half the distance of anything else
    _, near = KDTree(points).query(points, k=min(count + 1, len(points)), eps=1.0, workers=-1)
    near = np.asarray(near).reshape(len(points), -1)
    return np.repeat(np.arange(len(points)), near.shape[1]), near.ravel()


def _reduced(made: Callable[[], Iterable[np.ndarray]], dimensions: int) -> np.ndarray:
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


def _pairs(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every pair once, the smaller number first, without those of an item with itself."""
    low, high = np.minimum(one, other), np.maximum(one, other)
    key = np.unique(_key(low, high)[low < high])
    return key >> 32, key & 0xFFFFFFFF


def _key(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first << 32 | second


class Pictures:
    """Distinct picture signatures to be compared; distances are those of unit vectors, 0 to 2."""

    def __init__(self, rows: np.ndarray):
        transform, self._cycles = _transform()
        self._all = parts(np.arange(len(rows)))
        self._features = np.concatenate([_unit(_spectra(rows[part], transform)) for part in self._all])
        # as it is, and duller; a duller vector is as long as `_lengths` says before it is a unit vector again
        self._dampings = np.stack([_damping(self._cycles, blur) for blur in (np.inf, *BLURS)], axis=1)  # (d, kinds)
        squares = [self._features[part] ** 2 @ self._dampings**2 for part in self._all]
        self._lengths = np.maximum(np.sqrt(np.concatenate(squares)), 1e-6)  # (n, kinds)

    def features(self, places: np.ndarray) -> np.ndarray:
        return self._features[places]

    def candidates(self) -> tuple[np.ndarray, np.ndarray]:
        damping = _damping(self._cycles, SEARCHED_SHARPNESS)
        searched = _reduced(lambda: (_unit(self._features[part] * damping) for part in self._all), SEARCHED_DIMENSIONS)
        return _pairs(*_neighbours(searched, NEIGHBOURS))

    def distances(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """How far apart each pair is, one of the two being made duller where that brings them closer."""
        closest = np.zeros(len(first), np.float32)
        for at in range(0, len(first), CHUNK_PAIRS):
            one, other = first[at : at + CHUNK_PAIRS], second[at : at + CHUNK_PAIRS]
            alike = (self._features[one] * self._features[other]) @ self._dampings
            either = np.maximum(alike / self._lengths[one], alike / self._lengths[other])
            closest[at : at + CHUNK_PAIRS] = either.max(1)
        return np.sqrt(np.maximum(2 - 2 * closest, 0))


def _transform() -> tuple[np.ndarray, np.ndarray]:
    """A cosine transform without the mean: float32 (CELLS², d), and cycles of grey and then colour columns."""
    steps = np.arange(CELLS)
    waves = np.cos(np.pi * np.outer(steps, steps + 0.5) / CELLS) * np.sqrt(2 / CELLS)
    waves[0] /= np.sqrt(2)
    cycles = np.hypot(steps[:, None], steps[None]).ravel()
    kept = (cycles > 0) & (cycles <= DETAIL)
    transform = np.kron(waves, waves)[kept].T * _damping(cycles[kept], SHARPNESS)
    return transform.astype(np.float32), np.append(cycles[kept], np.zeros(PICTURE_BYTES - CELLS**2))


def _spectra(rows: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Cosine transforms of picture signatures, then colours: float32 (n, d)."""
    grey = rows[:, : CELLS**2].astype(np.float32) @ transform
    colour = (rows[:, CELLS**2 :].astype(np.float32) - 128) * BLOCK  # one colour cell stands for BLOCK² grey ones
    return np.concatenate([grey, colour], axis=1)


def _damping(cycles: np.ndarray, sharpness: float) -> np.ndarray:
    return np.exp(-0.5 * (cycles / sharpness) ** 2).astype(np.float32)


def _unit(features: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.maximum(length, 1e-6)).astype(np.float32)


class Recordings:
    """Distinct recording signatures to be compared; distances are differences of level in dB."""

    def __init__(self, rows: np.ndarray):
        self._steps = rows.reshape(-1, FRAMES, BANDS)
        self._all = parts(np.arange(len(rows)))
        self._inside = self._steps[:, :, 0] != OUTSIDE  # (n, frames)
        cells = BANDS * np.maximum(self._inside.sum(1), 1)
        self._mean_db = np.concatenate([LEVELS_DB[self._steps[part]].sum((1, 2)) for part in self._all])
        self._mean_db /= cells.astype(np.float32)

    def features(self, places: np.ndarray) -> np.ndarray:
        return _unit(self._centred(places).reshape(len(places), -1))

    def _centred(self, places: np.ndarray) -> np.ndarray:
        """Levels above the recording's mean, 0 outside of it: (places, frames, bands) in dB."""
        above = LEVELS_DB[self._steps[places]] - self._mean_db[places, None, None]
        above *= self._inside[places][:, :, None]
        return above

    def candidates(self) -> tuple[np.ndarray, np.ndarray]:
        """Pairs that are alike as a whole, and pairs that are alike around a peak of the sound."""
        wholes = _reduced(lambda: (self.features(part) for part in self._all), SEARCHED_DIMENSIONS)
        owner, middle = self._peaks()
        peaks = parts(np.arange(len(owner)))
        around = _reduced(
            lambda: (_unit(self._patches(owner[part], middle[part])) for part in peaks), SEARCHED_DIMENSIONS
        )
        whole, local = (_neighbours(points, NEIGHBOURS) for points in (wholes, around))
        one, other = (np.concatenate([of_all, owner[of_peaks]]) for of_all, of_peaks in zip(whole, local, strict=True))
        return _pairs(one, other)

    def _peaks(self) -> tuple[np.ndarray, np.ndarray]:
        """The recording of each peak, and the frame where it is: int64 (m,) both."""
        power = np.concatenate([(10 ** (LEVELS_DB / 10))[self._steps[part]].sum(2) for part in self._all])
        power = np.pad(power * self._inside, ((0, 0), (2, 2)))
        smooth = power[:, :-2] + 2 * power[:, 1:-1] + power[:, 2:]  # one frame more at either end
        middle = smooth[:, 1:-1]
        peak = np.where((middle >= smooth[:, :-2]) & (middle > smooth[:, 2:]), middle, 0)
        at = np.argsort(-peak, axis=1, kind="stable")[:, :PEAKS]
        owner, rank = np.nonzero(np.take_along_axis(peak, at, axis=1) > 0)
        return owner, at[owner, rank]

    def _patches(self, owner: np.ndarray, middle: np.ndarray) -> np.ndarray:
        """The levels around peaks: float32 (m, d)."""
        padded = np.pad(self._centred(owner), ((0, 0), (PATCH_FRAMES, PATCH_FRAMES), (0, 0)))
        around = middle[:, None] + np.arange(2 * PATCH_FRAMES + 1)
        return padded[np.arange(len(owner))[:, None], around].reshape(len(owner), -1)

    def distances(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """How many dB the levels of each pair differ, at the lag that suits them best."""
        starts = range(0, len(first), CHUNK_PAIRS // 8)
        parts = [
            self._closest_db(first[at : at + CHUNK_PAIRS // 8], second[at : at + CHUNK_PAIRS // 8]) for at in starts
        ]
        return np.concatenate([np.zeros(0), *parts])

    def _closest_db(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        lags = self._lags(first, second)
        return np.min([self._differences_db(first, second, lags[:, choice]) for choice in range(TRIED_LAGS)], axis=0)

    def _differences_db(self, first: np.ndarray, second: np.ndarray, lags: np.ndarray) -> np.ndarray:
        frames = np.arange(FRAMES)[None] + lags[:, None]
        there = (frames >= 0) & (frames < FRAMES)
        frames = np.clip(frames, 0, FRAMES - 1)
        one, other = (
            LEVELS_DB[self._steps[first]],
            LEVELS_DB[self._steps[second[:, None], frames]],
        )  # (pairs, frames, bands)
        common = self._inside[first] & self._inside[second[:, None], frames] & there
        weight = np.maximum(one, other) * common[:, :, None]  # what is loud in either counts
        difference = one - other
        total = np.maximum(weight.sum((1, 2)), 1e-6)
        difference -= ((weight * difference).sum((1, 2)) / total)[:, None, None]
        squares = np.einsum("pfb,pfb->pf", weight, difference**2)
        apart = np.sqrt(_without_worst(squares, weight.sum(2), KEPT_SHARE))
        fewest = np.maximum(np.minimum(self._inside[first].sum(1), self._inside[second].sum(1)), 1)
        return np.where(common.sum(1) >= COMMON_SHARE * fewest, apart, np.inf)

    def _lags(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """By how many frames each second recording may lie later than its first, likeliest last: (pairs, lags)."""
        one, other = self._centred(first), self._centred(second)
        lags = np.arange(-LARGEST_LAG, LARGEST_LAG + 1)
        alike = [
            np.einsum(
                "pfb,pfb->p", one[:, max(-lag, 0) : FRAMES - max(lag, 0)], other[:, max(lag, 0) : FRAMES + min(lag, 0)]
            )
            for lag in lags
        ]
        return lags[np.argsort(alike, axis=0)[-TRIED_LAGS:].T]


def _without_worst(squares: np.ndarray, weights: np.ndarray, kept_share: float) -> np.ndarray:
    """Weighted means of squares (pairs, frames), each over its best frames up to a share of the weight."""
    order = np.argsort(np.where(weights > 0, squares / np.maximum(weights, 1e-6), np.inf), axis=1)
    squares, weights = np.take_along_axis(squares, order, axis=1), np.take_along_axis(weights, order, axis=1)
    kept = np.cumsum(weights, axis=1) <= kept_share * weights.sum(1, keepdims=True)
    kept[:, 0] = True
    return (squares * kept).sum(1) / np.maximum((weights * kept).sum(1), 1e-6)
