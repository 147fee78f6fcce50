"""Training: our whole loops beside the bare models and a usual Dataset + DataLoader, and time to 99 % of MNIST."""

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

from ml import datasets, features, models, objectives, scenes
from ml.config import Paths, PerBudget, Recipe, Settings, Training, load_settings
from ml.extraction import Extractor
from ml.training import loop, pictures, separation

STEPS, ROUNDS, WARM = 40, 5, 3
FAST = {"steps": 370, "batch_size": 64}  # to 99 % of MNIST; chosen on its validation and gate pictures
FAST_SEEDS = 5


def compare(paths: Paths) -> Iterator[tuple[str, str, str]]:
    """Rows (name, items a second, ratio to ours), the medians of ROUNDS alternating rounds; then time to 99 %."""
    images, settings = datasets.load_images(paths), load_settings(paths.root)
    train, recipe = images.where("train"), settings.image_classifier
    run = _run(recipe, settings.training, STEPS)
    loss_of, shown = _loss_of(train, run), _shown(recipe.batch_size)
    yield from _rows("pictures", {
        "training, the whole loop, data resident (ours)": lambda: _loop_rate(run, _model(train, run), shown, loss_of),
        "training, forward and backward on one fixed batch": _bare_pictures(train, run),
        "training, the same loop, Dataset + DataLoader": _loader(train, run),
    })  # fmt: skip
    yield from _rows("scenes", _scene_rates(paths, settings))
    if fast := to_99(images, recipe, settings.training):
        seconds, right = ([scale * one for one in fast[name]] for name, scale in (("seconds", 1), ("accuracies", 100)))
        yield (
            f"training, MNIST test after {FAST['steps']} steps of {FAST['batch_size']}, {FAST_SEEDS} seeds",
            f"{statistics.mean(seconds):.1f} ± {statistics.stdev(seconds):.1f} s",
            f"{statistics.mean(right):.2f} ± {statistics.stdev(right):.2f} % right",
        )


def _rows(what: str, runners: dict[str, Callable[[], float]]) -> Iterator[tuple[str, str, str]]:
    """The first runner is ours."""
    rates = {name: [] for name in runners}
    for _ in range(ROUNDS):
        for name, rate in runners.items():
            rates[name].append(rate())
    medians = {name: statistics.median(found) for name, found in rates.items()}
    ours = next(iter(medians.values()))
    for name, rate in medians.items():
        yield name, f"{rate:.0f} ± {statistics.stdev(rates[name]):.0f} {what}/s", f"ours is {ours / rate:.2f}x"


def _run(recipe: Recipe, training: Training, steps: int, seed: int = 0) -> loop.Run:
    """A run that keeps nothing."""
    how, counted = replace(training, seed=seed), replace(recipe, steps=PerBudget(steps, steps, steps))
    nowhere = Path(tempfile.gettempdir()) / "seehear-bench-keeps-nothing"
    return loop.half_precision(loop.plan_run("bench", counted, how, {}, nowhere, False, checkpoint_steps=10**9))


def _model(images: datasets.ImageSet, run: loop.Run) -> nn.Module:
    side, channels_in = images.pixels.shape[2:]
    with loop.seeded(run.seed):
        model = models.ImageCNN(len(images.classes), side, channels_in, run.recipe.channels)
    return model.to(run.device).train()


def _loss_of(images: datasets.ImageSet, run: loop.Run):
    """What train_image_classifier gives to the loop."""
    pixels, labels = pictures.resident_pixels(images, run.device), torch.from_numpy(np.array(images.labels))
    return pictures.picture_loss(run, pixels, labels.to(run.device), len(images.classes))


def _loop_rate(run: loop.Run, model: nn.Module, shown: int, loss_of) -> float:
    """Items a second through `loop.fit`, everything included: drawing, clipping, optimiser, average."""
    return run.steps * shown / loop.fit(run, model, loss_of, lambda model: {}).seconds


def _shown(size: int) -> int:
    """Pictures in a batch, those of nothing known included."""
    return size + max(1, size // pictures.UNKNOWN_SHARE)


def to_99(images: datasets.ImageSet, recipe: Recipe, training: Training) -> dict | None:
    """Training from raw tensors to 99 % of MNIST's test pictures, several seeds, nothing chosen by them: seconds and
    accuracies of all, and their steps and batch_size; None where the pictures are others."""
    if (images.split == "train").sum() <= 40_000 or images.pixels.shape[1:] != (28, 28, 1):
        return None
    test = images.where("test")
    seconds, accuracies, recipe = [], [], replace(recipe, batch_size=FAST["batch_size"])
    for seed in range(FAST_SEEDS):
        run = _run(recipe, training, FAST["steps"], seed)
        train = images.where("train")
        begun = time.perf_counter()
        loss_of, model = _loss_of(train, run), _model(train, run)
        trained = loop.fit(run, model, loss_of, lambda model: {})
        seconds.append(time.perf_counter() - begun)
        logits = pictures.classify_pixels(trained.model, pictures.resident_pixels(test, run.device))
        accuracies.append(loop.accuracy(logits, torch.from_numpy(np.array(test.labels))))
    return {**FAST, "seconds": seconds, "accuracies": accuracies}


def _rate(run: loop.Run, model: nn.Module, shown: int, loss_of: Callable[[nn.Module], torch.Tensor]) -> float:
    """Items a second of forward and backward alone."""
    start = 0.0
    for step in range(STEPS + WARM):
        if step == WARM:
            start = _now(run.device)
        with loop.precision(run):
            loss = loss_of(model)
        loss.backward()
        model.zero_grad(set_to_none=True)
    return STEPS * shown / (_now(run.device) - start)


def _now(device: torch.device) -> float:
    """When all that was given to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _bare_pictures(images: datasets.ImageSet, run: loop.Run) -> Callable[[], float]:
    pixels, labels = pictures.resident_pixels(images, run.device), torch.from_numpy(np.array(images.labels))
    size, classes = run.recipe.batch_size, len(images.classes)
    shown, wanted = pictures.picture_batches(pixels, labels.to(run.device), classes, size, run.seed).of(0)
    model = _model(images, run)
    return lambda: _rate(
        run, model, len(wanted), lambda model: objectives.cross_entropy(model(shown), wanted, pictures.SMOOTHING)
    )


class _Pictures(Dataset):
    def __init__(self, images: datasets.ImageSet):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int):
        picture = features.to_pictures(torch.from_numpy(np.array(self.images.pixels[row : row + 1])))
        maps = features.draw_affine(1, features.AffineRange(), torch.default_generator)
        return features.apply_affine(picture, maps)[0], int(self.images.labels[row])


def _loader(images: datasets.ImageSet, run: loop.Run) -> Callable[[], float]:
    """The same loop fed by workers picture by picture; without pictures of nothing known, which favours it."""
    size = run.recipe.batch_size
    loader = DataLoader(_Pictures(images), size, shuffle=True, num_workers=2, persistent_workers=True, drop_last=True)

    def endless():
        while True:
            yield from loader

    batches = endless()

    def loss_of(model: nn.Module, _step: int, _generator: torch.Generator) -> torch.Tensor:
        shown, wanted = (tensor.to(run.device) for tensor in next(batches))
        return objectives.cross_entropy(model(shown), wanted, pictures.SMOOTHING)

    return lambda: _loop_rate(run, _model(images, run), size, loss_of)


def _scene_rates(paths: Paths, settings: Settings) -> dict[str, Callable[[], float]]:
    """The extractor's training, scenes mixed on the fly, beside the bare model on one batch of them. Its queries are
    certain, for what pictures would ask costs nothing in a step."""
    recipe, speech = settings.speech_extractor, datasets.load_speech(paths)
    train, labels, run = speech.where("train"), speech.classes, _run(recipe, settings.training, STEPS)
    body = recipe.body(settings.training.budget)

    def model() -> Extractor:
        with loop.seeded(run.seed):
            return Extractor(labels, speech.sample_rate_hz, **body).to(run.device).train()

    bank = scenes.clip_bank(train, run.device, scenes.speeds_within(recipe.speed_change))
    samples, hop = scenes.scene_samples(train, recipe.scene_s, separation.SCENE_WORDS), model().hop_samples
    every = torch.ones(len(labels), dtype=torch.bool)
    mixed = separation.mixed_scenes(run, bank, 0.0, every, samples, hop)
    asked = torch.eye(len(labels), device=run.device)[:, None]
    batch, generator = mixed(torch.Generator().manual_seed(run.seed)), torch.Generator()
    moving, still = (separation.scene_loss(source, asked, labels, labels, hop) for source in (mixed, lambda _: batch))
    bare = model()
    return {
        "extractor, the whole loop, scenes mixed on the fly (ours)": lambda: _loop_rate(
            run, model(), recipe.batch_size, moving
        ),
        "extractor, forward and backward on one fixed batch": lambda: _rate(
            run, bare, recipe.batch_size, lambda model: still(model, 0, generator)
        ),
    }
