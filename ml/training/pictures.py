"""Training of the picture classifier."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ml import collage, features, models, objectives, unknowns
from ml.training.batches import AHEAD, Ahead, Shuffle
from ml.training.loop import (
    Run,
    Trained,
    accuracy,
    calibrate,
    finish,
    fit,
    half_precision,
    plan_run,
    required,
    seeded,
)
from ml.training.objects import decide, detector_run, train_detector

if TYPE_CHECKING:
    from ml.config import ImageRecipe, Training
    from ml.datasets import ImageSet

FEW_PICTURES = 1000  # for the curve; the figure of the card is from all of them
UNKNOWN_SHARE = 8  # one picture of nothing known for every so many real ones
STILL_SHARE = 0.2  # of all pictures, which are shown as they are
SMOOTHING = 0.02


def train_image_classifier(
    images: ImageSet,
    recipe: ImageRecipe,
    training: Training,
    out: Path,
    checkpoints: Path,
    progress: bool = True,
) -> dict:
    """Trains, calibrates and saves the picture classifier; returns its card.

    images: all splits; trains on `train`, calibrates and reports on `validation`.
    """
    run = plan_run("image_classifier", recipe, training, {"images": images.digest}, checkpoints, progress)
    run = half_precision(run)
    train, held = required(images, "train", run.name), required(images, "validation", run.name)
    classes, (side, channels_in) = len(images.classes), images.pixels.shape[2:]
    arguments = {"classes": classes, "side": int(side), "channels_in": int(channels_in), "channels": recipe.channels}
    with seeded(run.seed):
        model = models.ImageCNN(**arguments)
    pixels, labels = resident_pixels(train, run.device), torch.from_numpy(np.array(train.labels)).to(run.device)
    held_pixels, held_labels = resident_pixels(held, run.device), torch.from_numpy(np.array(held.labels))
    few = torch.randperm(len(held), generator=torch.Generator().manual_seed(run.seed))[:FEW_PICTURES]

    def validate(model: nn.Module) -> dict[str, float]:
        return {"validation_accuracy": accuracy(classify_pixels(model, held_pixels[few]), held_labels[few])}

    trained = fit(run, model, picture_loss(run, pixels, labels, classes), validate)
    logits = classify_pixels(trained.model, held_pixels).cpu()
    nothing = unknown_logits(trained.model, held_pixels, run.seed)
    finder = detector_run(run, recipe, training.budget)
    stocks = [collage.stock_of(pixels, labels), collage.stock_of(held_pixels, held_labels)]
    found = train_detector(finder, *stocks)
    arguments["detector_channels"] = recipe.detector_channels
    whole = with_detector(arguments, trained.model, found.model).to(run.device)
    card = card_of(images, arguments, logits, held_labels, nothing)
    card["detector"] = decide(whole, card, stocks[1], run.seed)
    card["metrics"]["validation_objects_f1"] = card["detector"]["validation_f1"]
    card["detector_history"] = found.history
    card = finish(run, Trained(whole, trained.history, trained.seconds + found.seconds), out, card)
    finder.checkpoint.unlink(missing_ok=True)
    return card


def picture_loss(
    run: Run, pixels: Tensor, labels: Tensor, classes: int
) -> Callable[[nn.Module, int, torch.Generator], Tensor]:
    """The loss of a step on the training pictures uint8 (n, h, w, c) and their labels (n,), both on the device."""
    batches = picture_batches(pixels, labels, classes, run.recipe.batch_size, run.seed)

    def loss_of(model: nn.Module, step: int, generator: torch.Generator) -> Tensor:
        pictures, wanted = batches.of(step)
        return objectives.cross_entropy(model(pictures), wanted, SMOOTHING)

    return loss_of


def picture_batches(pixels: Tensor, labels: Tensor, classes: int, size: int, seed: int) -> Ahead[tuple[Tensor, Tensor]]:
    """Augmented pictures (b', c, h, w) and labels (b',) of every step, as `draw_pictures` gives them."""
    shuffle = Shuffle(len(pixels), size, seed)

    def draw(first: int, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
        rows = torch.stack([shuffle.batch(first + k) for k in range(AHEAD)]).to(pixels.device)
        return list(zip(*draw_pictures(pixels, labels, rows, classes, generator), strict=True))

    return Ahead(draw, seed)


def card_of(images: ImageSet, arguments: dict, logits: Tensor, labels: Tensor, nothing: Tensor) -> dict:
    """The card of a classifier by its validation logits (n, classes + 1), labels (n,) and logits of nothing known."""
    return {
        "kind": "image_cnn",
        "arguments": arguments,
        "classes": list(images.classes),
        "side": arguments["side"],
        "channels": arguments["channels_in"],
        "temperature": calibrate(*with_unknown(logits, labels, nothing)),
        "metrics": {
            "validation_accuracy": accuracy(logits, labels),
            "validation_n": len(labels),
            "validation_unknown_accuracy": float((nothing.argmax(1) == len(images.classes)).float().mean()),
        },
    }


def with_detector(arguments: dict, classifier: nn.Module, detector: nn.Module) -> models.ImageCNN:
    """The one model that is kept of a trained classifier and the head trained on it."""
    whole = models.ImageCNN(**arguments).eval()
    assert whole.detector is not None
    whole.load_state_dict(classifier.state_dict(), strict=False)
    whole.detector.load_state_dict(detector.state_dict())
    return whole


def resident_pixels(images: ImageSet, device: torch.device) -> Tensor:
    """All pictures as one uint8 tensor (n, h, w, c) on the device, grey ones dark around the edge."""
    parts = torch.from_numpy(np.array(images.pixels)).split(4096)
    return torch.cat([dark_edged(part.to(device)) for part in parts])


def dark_edged(pixels: Tensor) -> Tensor:
    """pixels uint8 (n, h, w, c) as `features.to_pictures` turns them, still as integers, so that it is done once."""
    pictures = features.to_pictures(pixels)
    return (pictures * 255).round().byte().permute(0, 2, 3, 1).contiguous()


def draw_pictures(
    pixels: Tensor, labels: Tensor, rows: Tensor, classes: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Pictures of `rows` (batches, b) and some of nothing known, whose label is `classes`: (batches, b', c, h, w),
    (batches, b').

    pixels: as `resident_pixels` gives them. All are moved alike, or not, for what moving does to edges and grain must
    not tell the known from the unknown.
    """
    batches, size = rows.shape
    known = pixels[rows.flatten()].permute(0, 3, 1, 2).float() / 255
    unknown = unknowns.draw_unknowns(known[: batches * max(1, size // UNKNOWN_SHARE)], generator)
    pictures, wanted = torch.cat((known, unknown)), labels.new_full((len(known) + len(unknown),), classes)
    wanted[: len(known)] = labels[rows.flatten()]
    moving = (torch.rand(len(pictures), generator=generator) >= STILL_SHARE).nonzero()[:, 0]
    maps, moving = features.draw_affine(len(moving), features.AffineRange(), generator), moving.to(pictures.device)
    with torch.autocast(pictures.device.type, enabled=False):  # half a precision would move pictures elsewhere
        pictures[moving] = features.apply_affine(pictures[moving], maps)
    return by_batch(pictures, len(known), batches), by_batch(wanted, len(known), batches)


def by_batch(rows: Tensor, known: int, batches: int) -> Tensor:
    """Rows as (batches, rows of each, …): `known` ones in their order, then unknown ones, which are dealt out, for one
    kind of them stands beside the other."""
    dealt = rows[known:].unflatten(0, (-1, batches)).transpose(0, 1)
    return torch.cat((rows[:known].unflatten(0, (batches, -1)), dealt), dim=1)


@torch.no_grad()
def unknown_logits(model: nn.Module, pixels: Tensor, seed: int) -> Tensor:
    """Logits (n, classes + 1) of pictures of nothing known, one for every UNKNOWN_SHARE of pixels (n', h, w, c)."""
    generator = torch.Generator().manual_seed(seed + 3)
    like = features.to_pictures(pixels[: max(3, min(len(pixels) // UNKNOWN_SHARE, 1000))])
    return model(unknowns.draw_unknowns(like, generator)).float().cpu()


def with_unknown(logits: Tensor, labels: Tensor, nothing: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and labels of pictures of every class and of nothing known together."""
    return torch.cat((logits, nothing)), torch.cat((labels, labels.new_full((len(nothing),), logits.shape[1] - 1)))


@torch.no_grad()
def classify_pixels(model: nn.Module, pixels: Tensor, batch: int = 512) -> Tensor:
    """Logits (n, classes + 1) of pixels uint8 (n, h, w, c)."""
    return torch.cat([model(features.to_pictures(part)).float() for part in pixels.split(batch)])
