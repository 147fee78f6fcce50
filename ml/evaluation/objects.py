"""Several objects in one picture, measured on composed pictures of one split, as the Predictor sees them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ml import collage
from ml.collage import BENCHMARK, Stock, Truth
from ml.datasets import ImageSet
from ml.predictor.classifying import PictureClassifier

CANVAS_SIDES = 5  # sides of a composed picture, in sides of the pictures it is composed of
BATCH = 50


def composed_pictures(images: ImageSet, split: str, count: int, seed: int) -> Iterator[tuple[np.ndarray, Truth]]:
    """The benchmark: one by one, `count` pictures uint8 (side, side, c) composed of one split, with what they hold.

    1 to 5 things each, at 0.7 to 1.6 times their own size, boxes overlapping by no more than 2 % of the smaller one,
    in faint noise on uneven ground; every other grey one dark on light. The same for the same data and seed.
    """
    rows = images.where(split)
    stock = collage.stock_of(torch.from_numpy(np.array(rows.pixels)), torch.from_numpy(np.array(rows.labels)))
    generator = torch.Generator().manual_seed(seed)
    for first in range(0, count, BATCH):
        yield from _batch(stock, min(BATCH, count - first), generator)


def _batch(stock: Stock, count: int, generator: torch.Generator) -> Iterator[tuple[np.ndarray, Truth]]:
    side = stock.pixels.shape[1]
    plan = collage.draw_plan(stock, count, CANVAS_SIDES * side, float(side), BENCHMARK, generator)
    pixels = collage.as_pixels(collage.compose(stock, plan, generator))
    return ((picture, Truth.of(plan, stock, row)) for row, picture in enumerate(pixels))


def object_figures(see: PictureClassifier, images: ImageSet, split: str, count: int, seed: int) -> dict | None:
    """f1, precision and recall of objects found with the right label at IoU from 0.5 up, and the numbers n of objects
    and of pictures; None where there is nothing to compose from, or the model looks for no objects."""
    if not see.finds_objects or not (images.split == split).any():
        return None
    known = {label: number for number, label in enumerate(images.classes)}
    right = found = there = 0
    for picture, truth in composed_pictures(images, split, count, seed):
        objects = sorted(see.picture(picture).objects, key=lambda one: -one.probability)
        boxes = np.array([one.box for one in objects], float).reshape(-1, 4)
        right += int(truth.right(boxes, np.array([known.get(one.label, -2) for one in objects], int)).sum())
        found, there = found + len(objects), there + len(truth.boxes)
    return {
        "f1": 2 * right / max(1, found + there),
        "precision": right / found if found else None,
        "recall": right / max(1, there),
        "n": there,
        "pictures": count,
    }
