"""Training of the part of the picture classifier that finds several objects in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ml import collage, detection
from ml.detection import CELL, WORKING_SIDE, ObjectFinder
from ml.finding import Detector, Found
from ml.models import ImageCNN
from ml.training.loop import Run, Trained, fit, seeded

if TYPE_CHECKING:
    from ml.config import ImageRecipe

LEARNING_RATE = 0.01
FRAME = WORKING_SIDE / 4  # pixels of a picture laid into a composed one, at scale 1
UNKNOWN_SHARES = (1.0, 0.3, 0.1, 0.03)  # of a found object's posterior of nothing known; with less, letters are digits
FEW_PLANS, MANY_PLANS = 64, 256  # composed validation pictures: for the curve, and to choose the threshold


def detector_run(run: Run, recipe: ImageRecipe, budget: str) -> Run:
    """The second part of a classifier's run; its checkpoint lies beside the first one's."""
    steps = recipe.detector_steps.of(budget)
    own = replace(
        recipe,
        learning_rate=LEARNING_RATE,
        batch_size=recipe.detector_batch_size,
        channels=recipe.detector_channels,
    )
    file = run.checkpoint.with_stem(f"{run.checkpoint.stem}_objects")
    identity = {**run.identity, "part": "objects", "detector_steps": steps}
    return replace(run, name=f"{run.name}: objects", recipe=own, steps=steps, checkpoint=file, identity=identity)


def train_detector(run: Run, train: collage.Stock, held: collage.Stock) -> Trained:
    """An ObjectFinder trained on pictures composed of `train`; those of its validation are composed of `held`."""
    with seeded(run.seed):
        finder = ObjectFinder(train.pixels.shape[3], run.recipe.channels)
    trial = torch.Generator().manual_seed(run.seed + 1)
    shown, boxes_shown, named_shown = composed(held, FEW_PLANS, trial)

    def loss_of(finder: nn.Module, step: int, generator: torch.Generator) -> Tensor:
        pictures, boxes, named = composed(train, run.recipe.batch_size, generator)
        logits, distances = finder(pictures)
        return detection.detection_loss(logits, distances, boxes, named)

    @torch.no_grad()
    def validate(finder: nn.Module) -> dict[str, float]:
        logits, distances = finder(shown)
        return {"validation_loss": float(detection.detection_loss(logits, distances, boxes_shown, named_shown))}

    return fit(run, finder, loss_of, validate)


def composed(stock: collage.Stock, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Working pictures (b, c, side, side), the boxes in them (b, objects, 4) in cells, and which are there."""
    plan = collage.draw_plan(stock, count, WORKING_SIDE, FRAME, collage.Span(), generator)
    device = stock.pixels.device
    with torch.autocast(device.type, enabled=False):  # as they are composed where they are judged
        pictures = collage.compose(stock, plan, generator)
    return pictures, (plan.boxes / CELL).to(device), plan.named.to(device)


def decide(model: ImageCNN, card: dict, held: collage.Stock, seed: int) -> dict:
    """The `detector` section of a card with calibration and threshold, and what they give on composed validation
    pictures: the probability that something is there by Platt scaling, and of threshold and unknown_share the best F1.

    A found object is cut out less neatly than what the classifier learnt from, so it looks unknown more easily.
    """
    generator = torch.Generator().manual_seed(seed + 2)
    plan = collage.draw_plan(held, MANY_PLANS, WORKING_SIDE, FRAME, collage.Span(), generator)
    pixels = collage.as_pixels(collage.compose(held, plan, generator))
    section = {"window": collage.window_of(held), "ink": held.plain, "calibration": [1.0, 0.0], "threshold": 0.5}
    section["unknown_share"] = 1.0
    detector = Detector(model, {**card, "detector": section}, held.pixels.device)
    found = [detector(one) for one in pixels]
    truths = [collage.Truth.of(plan, held, row) for row in range(len(pixels))]
    there = np.concatenate([truth.matches(one.boxes) >= 0 for truth, one in zip(truths, found, strict=True)])
    raw = np.concatenate([one.sure for one in found])
    section["calibration"] = platt(torch.from_numpy(raw), torch.from_numpy(there))
    found = [one.calibrated(*section["calibration"]) for one in found]
    tries = {share: best_threshold([one.leniently(share) for one in found], truths) for share in UNKNOWN_SHARES}
    share = max(tries, key=lambda share: tries[share][1])
    return {**section, "unknown_share": share, "threshold": tries[share][0], "validation_f1": tries[share][1]}


def platt(probabilities: Tensor, truth: Tensor, steps: int = 50) -> list[float]:
    """Slope and offset of the logit of probabilities (n,) that fit truth (n,) bool best, by Newton's method."""
    x = torch.stack((torch.logit(probabilities.double(), eps=1e-6), torch.ones(len(truth), dtype=torch.float64)), dim=1)
    unchanged = torch.tensor([1.0, 0.0], dtype=torch.float64)
    weights, prior = unchanged, 1e-2 * torch.eye(2, dtype=torch.float64)
    for _ in range(steps):
        p = (x @ weights).sigmoid()
        hessian = (x * (p * (1 - p))[:, None]).T @ x + prior
        step = torch.linalg.solve(hessian, x.T @ (p - truth.double()) + prior @ (weights - unchanged))
        weights = weights - step.clamp(-1, 1)
    return weights.tolist()


def best_threshold(found: Sequence[Found], truths: Sequence[collage.Truth]) -> tuple[float, float]:
    """Of the probability from which an object is named, the middle of those with the best F1; and that F1.

    As answers are made: of what is likelier known than not, the most probable first.
    """
    known = [one.of(np.flatnonzero(one.known)[np.argsort(-one.probabilities[one.known])]) for one in found]
    right = np.concatenate(
        [t.right(f.boxes, f.posteriors[:, :-1].argmax(1)) for f, t in zip(known, truths, strict=True)]
    )
    sure = np.concatenate([one.probabilities for one in known])
    wanted = sum(len(truth.boxes) for truth in truths)
    levels = np.linspace(0.05, 0.95, 91)
    f1 = np.array([2 * right[sure >= level].sum() / max(1, (sure >= level).sum() + wanted) for level in levels])
    best = levels[f1 >= f1.max() - 1e-9]
    return float(best[len(best) // 2]), float(f1.max())
