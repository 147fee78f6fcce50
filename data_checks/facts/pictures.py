"""Facts of decoded pictures."""

from __future__ import annotations

import numpy as np

LARGEST_SIDE_PX = 1024  # larger pictures are measured on a block-averaged copy
LEVELS = 256
EXTREME_LEVELS = 5
STEEPEST_SHARE, FEWEST_STEPS = 0.02, 4


def picture_facts(pixels: np.ndarray) -> dict:
    """Facts of one decoded picture.

    pixels: uint8 (height, width) or (height, width, channels), channels 1 (grey) or 3 (RGB).
    Returns width_px, height_px, channels, aspect (width / height), brightness and contrast (mean and standard deviation
    of the grey levels, 0-1), blur (0 = every pixel differs from its neighbours, 1 = no detail at all: 1 / (1 + variance
    of the Laplacian / variance)), sharpness (mean of the steepest fiftieth of the steps between neighbours, as a share
    of the whole range of grey levels: an edge one pixel wide has 1), information_bits (entropy of the grey
    levels), dark_share and bright_share (pixels in the lowest and highest fiftieth of the scale).
    """
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    return stacked_picture_facts(pixels[None])[0]


def stacked_picture_facts(pixels: np.ndarray) -> list[dict]:
    """The facts of `picture_facts` for pictures of one size: uint8 (n, height, width, channels)."""
    count, height, width, channels = pixels.shape
    grey = _grey(pixels)  # (n, h, w) int32
    total, squares = _sum(grey), _sum(grey * grey)
    area = grey[0].size
    variance = (squares * area - total * total) / area**2
    detail = _laplacian_variance(grey)
    moving = detail + variance > 0
    levels = _histograms(grey)
    columns = {
        "brightness": total / area / 255,
        "contrast": np.sqrt(variance) / 255,
        "blur": np.where(moving, variance / np.where(moving, detail + variance, 1), 1.0),
        "sharpness": _sharpness(grey),
        "information_bits": _entropy_bits(levels / area),
        "dark_share": levels[:, :EXTREME_LEVELS].sum(1) / area,
        "bright_share": levels[:, -EXTREME_LEVELS:].sum(1) / area,
    }
    shape = {"width_px": width, "height_px": height, "channels": channels, "aspect": round(width / height, 4)}
    rounded = {name: np.round(values, 4).tolist() for name, values in columns.items()}
    return [{**shape, **{name: values[i] for name, values in rounded.items()}} for i in range(count)]


def _grey(pixels: np.ndarray) -> np.ndarray:
    """Grey levels 0-255, int32 (n, height, width), of pictures (n, height, width, channels); large ones shrunk."""
    if pixels.shape[-1] == 1:
        grey = pixels[..., 0]
    else:
        red, green, blue = (pixels[..., i].astype(np.int32) for i in range(3))
        grey = (299 * red + 587 * green + 114 * blue + 500) // 1000  # Rec. 601, in whole numbers
    step = -(-max(grey.shape[1:]) // LARGEST_SIDE_PX)
    return (_block_means(grey, step) if step > 1 else grey).astype(np.int32)


def _block_means(grey: np.ndarray, step: int) -> np.ndarray:
    """Means of blocks of step x step pixels; what is left over at the right and below is cut off."""
    count, height, width = grey.shape
    rows, columns = max(height // step, 1), max(width // step, 1)
    down, across = min(step, height), min(step, width)
    blocks = grey[:, : rows * down, : columns * across].reshape(count, rows, down, columns, across)
    return blocks.sum((2, 4), dtype=np.int64) // (down * across)


def _sum(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).sum(1, dtype=np.int64)


def _laplacian_variance(grey: np.ndarray) -> np.ndarray:
    """Variance of the 4-neighbour Laplacian inside each picture (n, h, w); 0 where there is no inside."""
    inside = grey[:, 1:-1, 1:-1]
    if inside[0].size == 0:
        return np.zeros(len(grey))
    laplacian = 4 * inside - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
    total, squares = _sum(laplacian), _sum(laplacian * laplacian)
    return (squares * inside[0].size - total * total) / inside[0].size ** 2


def _histograms(levels: np.ndarray) -> np.ndarray:
    """How often each of the levels 0-255 stands in each row of (n, ...): (n, 256)."""
    count = len(levels)
    numbered = levels.reshape(count, -1) + LEVELS * np.arange(count, dtype=levels.dtype)[:, None]
    return np.bincount(numbered.ravel(), minlength=LEVELS * count).reshape(count, LEVELS)


def _entropy_bits(share: np.ndarray) -> np.ndarray:
    """Shannon entropy of the shares of the grey levels, (n, 256)."""
    return -(share * np.log2(np.where(share > 0, share, 1))).sum(1)


def _sharpness(grey: np.ndarray) -> np.ndarray:
    """Mean of the steepest steps of each picture (n, h, w) over its range of levels; 0 where there is none."""
    count, height, width = grey.shape
    steps = (height - 1) * width + height * (width - 1)
    flat = grey.reshape(count, -1)
    span = flat.max(1) - flat.min(1)
    if not steps:
        return np.zeros(count)
    many = _histograms(np.abs(np.diff(grey, axis=1))) + _histograms(np.abs(np.diff(grey, axis=2)))
    steepest = max(round(steps * STEEPEST_SHARE), min(FEWEST_STEPS, steps))
    from_above = many[:, ::-1].cumsum(1)
    taken = np.diff(np.minimum(from_above, steepest), axis=1, prepend=0)  # of each step size, largest first
    return (taken * np.arange(LEVELS)[::-1]).sum(1) / steepest / np.maximum(span, 1)
