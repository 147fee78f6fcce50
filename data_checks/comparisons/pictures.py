"""Near copies of pictures: resized, or encoded anew.

Two pictures are near copies when their signatures lie close together and far closer than either lies to anything else.
The second condition keeps classes whose items all look alike (the ones of MNIST) apart from copies: a ratio test as in
Lowe 2004, IJCV 60(2), section 7.1. A few pixels through JPEG may lie as far apart as two of those; there the picture is
encoded with the other one's own tables, which gives the other one exactly, or nothing like it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data_checks.comparisons.neighbours import NEIGHBOURS, neighbours, pair_keys, pairs, reduced, unit
from data_checks.comparisons.signatures import BLOCK, CELLS, PICTURE_BYTES, parts
from ml import media

MOST_COPIES = 4  # of one picture that are told from a family by their ratio; beyond them only the certain ones count
CHUNK_PAIRS = 4096  # compared at a time
SHARPNESS = 8.0  # cycles over a picture at which detail counts 0.6 times
SEARCHED_SHARPNESS = 4.0  # the same while candidates are looked for
SEARCHED_DIMENSIONS = 12
BLURS = (6.0, 4.0)  # a resized copy is duller: it is compared with the other one made duller too
DETAIL = 12  # finer detail than this many cycles is left out
ENCODED_NEAR = 0.3  # two pictures further apart than this are not one before and after JPEG
FEW_PIXELS = 64 * 64  # of more, the mean of a cell hardly changes by JPEG, and the signature says enough
ENCODED_STEPS = 3.0  # root mean square difference of grey levels, for another encoder's rounding


class Encoded(NamedTuple):
    """Pictures as they are stored. contents: their bytes, of rising places; jpeg: bool (n,); size: pixels (n, 2)."""

    contents: Callable[[np.ndarray], Iterable[bytes]]
    jpeg: np.ndarray
    size: np.ndarray


@dataclass(frozen=True)
class Limits:
    """certain: closer than this is a copy whatever else is near; nearest: no copy lies further away than this.

    ratio: a copy lies closer than this times the distance to the next one that is no copy.
    """

    certain: float
    nearest: float
    ratio: float


LIMITS = Limits(0.03, 0.16, 0.45)


def copied_pictures(rows: np.ndarray, encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of near copies among distinct signatures (n, bytes) of the pictures `encoded`.

    Neighbours are looked for quickly at first; who then seems to have a copy is compared with everything, because
    having overlooked the next neighbour makes a ratio look small.
    """
    comparison = Pictures(rows)
    found = comparison.candidates()
    distance = comparison.distances(*found)
    suspects = np.unique(np.concatenate(_copies(*found, distance, len(rows), LIMITS)))
    more = pairs(*_exhaustive(comparison.features, suspects, len(rows)))
    new = ~np.isin(pair_keys(*more), pair_keys(*found))
    more = more[0][new], more[1][new]
    distance = np.append(distance, comparison.distances(*more))
    first, second = (np.append(one, other) for one, other in zip(found, more, strict=True))
    alike = _copies(first, second, distance, len(rows), LIMITS)
    near = distance < ENCODED_NEAR
    anew = _encoded_anew(first[near], second[near], encoded)
    return np.append(alike[0], anew[0]), np.append(alike[1], anew[1])


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


class Pictures:
    """Distinct picture signatures to be compared; distances are those of unit vectors, 0 to 2."""

    def __init__(self, rows: np.ndarray):
        transform, self._cycles = _transform()
        self._all = parts(np.arange(len(rows)))
        self._features = np.empty((len(rows), len(self._cycles)), np.float32)  # joined parts would be held twice
        for part in self._all:
            self._features[part] = unit(_spectra(rows[part], transform))
        # as it is, and duller; a duller vector is as long as `_lengths` says before it is a unit vector again
        self._dampings = np.stack([_damping(self._cycles, blur) for blur in (np.inf, *BLURS)], axis=1)  # (d, kinds)
        squares = [self._features[part] ** 2 @ self._dampings**2 for part in self._all]
        self._lengths = np.maximum(np.sqrt(np.concatenate(squares)), 1e-6)  # (n, kinds)

    def features(self, places: np.ndarray) -> np.ndarray:
        return self._features[places]

    def candidates(self) -> tuple[np.ndarray, np.ndarray]:
        damping = _damping(self._cycles, SEARCHED_SHARPNESS)
        searched = reduced(lambda: (unit(self._features[part] * damping) for part in self._all), SEARCHED_DIMENSIONS)
        return pairs(*neighbours(searched, NEIGHBOURS))

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


def _encoded_anew(first: np.ndarray, second: np.ndarray, encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of small pictures of one size of which one, a JPEG, is what its own tables make of the other."""
    alike = (encoded.size[first] == encoded.size[second]).all(1) & (encoded.size[first].prod(1) <= FEW_PIXELS)
    alike &= encoded.jpeg[first] | encoded.jpeg[second]
    first, second = first[alike], second[alike]
    places = np.unique(np.append(first, second))
    content = dict(zip(places.tolist(), encoded.contents(places), strict=True)) if len(places) else {}
    same = [
        any(encoded.jpeg[new] and _gives(content[old], content[new]) for old, new in ((a, b), (b, a)))
        for a, b in zip(first.tolist(), second.tolist(), strict=True)
    ]
    kept = np.array(same, bool)
    return first[kept], second[kept]


def _gives(old: bytes, new: bytes) -> bool:
    """Whether the picture `old` encoded as the JPEG `new` was is `new` but for rounding."""
    from PIL import Image, JpegImagePlugin

    before, after = media.decode_picture(old), media.decode_picture(new)
    if before.shape != after.shape:
        return False
    with Image.open(io.BytesIO(new)) as picture:
        tables, sampling = picture.quantization, JpegImagePlugin.get_sampling(picture)  # type: ignore[attr-defined]
    again = io.BytesIO()
    source = Image.fromarray(before[..., 0] if before.shape[2] == 1 else before)
    source.save(again, "JPEG", qtables=tables, subsampling=max(sampling, 0))
    difference = media.decode_picture(again.getvalue()).astype(float) - after
    return float(np.sqrt(np.mean(difference**2))) <= ENCODED_STEPS
