"""Where a picture's thing lies: the box of its ink, and how it fills the picture."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
from scipy import ndimage

from ml import media

LEAST_CONTRAST = 8.0  # grey levels of 255 between ink and paper
INK_SHARE = 0.35  # of the strongest contrast in the picture
LONGEST_SEARCHED = 1024  # pixels of a side in which ink is looked for
FILLS_SHARE = 0.55  # of a picture's longer side, that its one thing takes up
OFF_CENTRE = 0.12  # of it, that the thing may lie off the middle
LEAST_PART = 0.05  # of the largest part's area; smaller ones are specks

Box = tuple[int, int, int, int]  # x0, y0, x1, y1


def whole_box(box: np.ndarray) -> Box:
    """The pixels that a box (4,) touches by half or more; at least one."""
    x0, y0, x1, y1 = (round(float(edge)) for edge in box)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def fills(box: Box, pixels: np.ndarray) -> bool:
    """Whether a thing in this box fills pixels (h, w, c) as the one thing of a picture does, and lies in its middle."""
    sides = np.array(pixels.shape[1::-1])
    low, high = np.array(box[:2]), np.array(box[2:])
    is_large = (high - low).max() >= FILLS_SHARE * sides.max()
    return bool(is_large and (np.abs((low + high) / 2 - sides / 2) <= OFF_CENTRE * sides.max()).all())


def ink_box(pixels: np.ndarray) -> Box | None:
    """Bounding box (x0, y0, x1, y1) of what stands out from the border of pixels uint8 (h, w, c), if anything does.

    Of a picture with a side beyond LONGEST_SEARCHED it is looked for in a smaller one.
    """
    whole, pixels = pixels.shape[:2], media.shrunk(pixels, LONGEST_SEARCHED)
    paper = np.median(_border(pixels), axis=0)
    contrast = np.abs(pixels.astype(np.float32) - paper).max(axis=-1)
    if contrast.max() < LEAST_CONTRAST:
        return None
    inked = contrast >= INK_SHARE * contrast.max()
    parts = cast(tuple[np.ndarray, int], ndimage.label(inked, structure=np.ones((3, 3))))[0]
    areas = np.bincount(parts.ravel())[1:]
    large = np.isin(parts, np.flatnonzero(areas >= LEAST_PART * areas.max()) + 1)
    rows, columns = np.flatnonzero(large.any(axis=1)), np.flatnonzero(large.any(axis=0))
    down, across = whole[0] / pixels.shape[0], whole[1] / pixels.shape[1]
    x0, y0, x1, y1 = columns[0] * across, rows[0] * down, (columns[-1] + 1) * across, (rows[-1] + 1) * down
    return math.floor(x0), math.floor(y0), min(math.ceil(x1), whole[1]), min(math.ceil(y1), whole[0])


def _border(pixels: np.ndarray) -> np.ndarray:
    """The outermost pixels (n, c)."""
    sides = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
    return np.concatenate(sides)
