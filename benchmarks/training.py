"""Training of the picture classifier: our whole loop, the bare model, Dataset + DataLoader, and time to 99 %."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ml import datasets, features, models, objectives
from ml.config import Paths, PerBudget, Recipe, Training, load_settings
from ml.training import loop, pictures

STEPS, ROUNDS = 40, 5
FAST_STEPS, FAST_BATCH, FAST_SEEDS = 370, 64, 5  # to 99 % of MNIST; chosen on its validation and gate pictures


def compare(paths: Paths) -> Iterator[tuple[str, str, str]]:
    """Rows (name, pictures a second, ratio to ours), the medians of ROUNDS alternating rounds; then time to 99 %."""
    images = datasets.load_images(paths)
    train, settings = images.where("train"), load_settings(paths.root)
    run, recipe = _run(settings.image_classifier, settings.training, STEPS), settings.image_classifier
    loss_of = _loss_of(train, run)
    runners = {
        "training, the whole loop, data resident (ours)": lambda: _loop_rate(run, train, recipe.batch_size, loss_of),
        "training, forward and backward on one fixed batch": _bare(train, recipe, run),
        "training, Dataset + DataLoader": _loader(train, recipe, run),
    }
    rates = {name: [] for name in runners}
    for _ in range(ROUNDS):
        for name, rate in runners.items():
            rates[name].append(rate())
    medians = {name: statistics.median(found) for name, found in rates.items()}
    ours = next(iter(medians.values()))
    for name, rate in medians.items():
        spread = f"± {statistics.stdev(rates[name]):.0f}"
        yield name, f"{rate:.0f} {spread} pictures/s", f"ours is {ours / rate:.2f}x"
    if len(train) > 40_000 and train.pixels.shape[1:] == (28, 28, 1):
        yield _to_99(images, recipe, settings.training)


def _run(recipe: Recipe, training: Training, steps: int, seed: int = 0) -> loop.Run:
    """A run of the picture classifier that keeps nothing."""
    how, counted = replace(training, seed=seed), replace(recipe, steps=PerBudget(steps, steps, steps))
    nowhere = Path(tempfile.gettempdir()) / "seehear-bench-keeps-nothing"
    return pictures.half_precision(loop.plan_run("bench", counted, how, {}, nowhere, False, checkpoint_steps=10**9))


def _model(images: datasets.ImageSet, channels: int, run: loop.Run) -> nn.Module:
    with loop.seeded(run.seed):
        model = models.ImageCNN(len(images.classes), images.pixels.shape[1], images.pixels.shape[3], channels)
    return model.to(run.device).train()


def _loss_of(images: datasets.ImageSet, run: loop.Run):
    """What train_image_classifier gives to the loop."""
    pixels, labels = pictures.resident_pixels(images, run.device), torch.from_numpy(np.array(images.labels))
    return pictures.picture_loss(run, pixels, labels.to(run.device), len(images.classes))


def _loop_rate(run: loop.Run, images: datasets.ImageSet, size: int, loss_of) -> float:
    """Pictures a second through `loop.fit`, everything included: drawing, clipping, optimiser, average."""
    model = _model(images, run.recipe.channels, run)
    return run.steps * _shown(size) / loop.fit(run, model, loss_of, lambda model: {}).seconds


def _shown(size: int) -> int:
    """Pictures in a batch, those of nothing known included."""
    return size + max(1, size // pictures.UNKNOWN_SHARE)


def _to_99(images: datasets.ImageSet, recipe: Recipe, training: Training) -> tuple[str, str, str]:
    """Training from raw tensors to 99 % of the test pictures, several seeds, nothing chosen by them."""
    test = images.where("test")
    seconds, accuracies, recipe = [], [], replace(recipe, batch_size=FAST_BATCH)
    for seed in range(FAST_SEEDS):
        run = _run(recipe, training, FAST_STEPS, seed)
        train = images.where("train")
        begun = time.perf_counter()
        loss_of, model = _loss_of(train, run), _model(train, recipe.channels, run)
        trained = loop.fit(run, model, loss_of, lambda model: {})
        seconds.append(time.perf_counter() - begun)
        logits = pictures.classify_pixels(trained.model, pictures.resident_pixels(test, run.device))
        accuracies.append(100 * loop.accuracy(logits, torch.from_numpy(np.array(test.labels))))
    name = f"training, MNIST test after {FAST_STEPS} steps of {FAST_BATCH}, {FAST_SEEDS} seeds"
    right = f"{statistics.mean(accuracies):.2f} ± {statistics.stdev(accuracies):.2f} %"
    return name, f"{statistics.mean(seconds):.1f} ± {statistics.stdev(seconds):.1f} s", f"{right} right"


def _rate(run: loop.Run, model: nn.Module, batches: Callable[[], tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Pictures a second of forward and backward alone."""
    done, start = 0, 0.0
    for step in range(STEPS + 3):  # the first three only warm up
        if step == 3:
            start = time.perf_counter()
        shown, wanted = batches()
        with loop.precision(run):
            loss = objectives.cross_entropy(model(shown), wanted, pictures.SMOOTHING)
        loss.backward()
        model.zero_grad(set_to_none=True)
        done += len(wanted) if step >= 3 else 0
    return done / (time.perf_counter() - start)


def _bare(images: datasets.ImageSet, recipe: Recipe, run: loop.Run):
    pixels, labels = pictures.resident_pixels(images, run.device), torch.from_numpy(np.array(images.labels))
    classes = len(images.classes)
    batch = pictures.picture_batches(pixels, labels.to(run.device), classes, recipe.batch_size, run.seed).of(0)
    model = _model(images, recipe.channels, run)
    return lambda: _rate(run, model, lambda: batch)


class _Pictures(Dataset):
    def __init__(self, images: datasets.ImageSet):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int):
        generator = torch.Generator().manual_seed(row)
        picture = features.to_pictures(torch.from_numpy(np.array(self.images.pixels[row : row + 1])))
        moved = features.apply_affine(picture, features.draw_affine(1, features.AffineRange(), generator))
        return moved[0], int(self.images.labels[row])


def _loader(images: datasets.ImageSet, recipe: Recipe, run: loop.Run):
    loader = DataLoader(
        _Pictures(images), recipe.batch_size, shuffle=True, num_workers=2, persistent_workers=True, drop_last=True
    )

    def endless():
        while True:
            yield from loader

    batches, model = endless(), _model(images, recipe.channels, run)
    return lambda: _rate(run, model, lambda: tuple(tensor.to(run.device) for tensor in next(batches)))
