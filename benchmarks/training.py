"""Training steps of the picture classifier: our resident batches, the bare model, and a usual Dataset + DataLoader."""

import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ml import datasets, features, models, objectives
from ml.config import Paths, load_settings
from ml.training import loop, pictures

STEPS, ROUNDS = 40, 5


def compare(paths: Paths) -> Iterator[tuple[str, str, str]]:
    """Rows (name, pictures a second, ratio to ours), each the median of ROUNDS alternating rounds."""
    images = datasets.load_images(paths).where("train")
    recipe = load_settings(paths.root).image_classifier
    device = loop.pick_device(load_settings(paths.root).training)
    runners = {
        "training, batches resident on the device (ours)": _ours(images, recipe.batch_size, device),
        "training, forward and backward on one fixed batch": _bare(images, recipe.batch_size, device),
        "training, Dataset + DataLoader": _loader(images, recipe.batch_size, device),
    }
    model = models.ImageCNN(len(images.classes), images.pixels.shape[1], images.pixels.shape[3], recipe.channels)
    optimizer = loop.make_optimizer(model.to(device), recipe)
    rates = {name: [] for name in runners}
    for _ in range(ROUNDS):
        for name, batches in runners.items():
            rates[name].append(_rate(model, optimizer, batches))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    ours = next(iter(medians.values()))
    for name, rate in medians.items():
        spread = f"± {statistics.stdev(rates[name]):.0f}"
        yield name, f"{rate:.0f} {spread} pictures/s", f"ours is {ours / rate:.2f}x"


def _rate(model: nn.Module, optimizer, batches: Callable[[], tuple[torch.Tensor, torch.Tensor]]) -> float:
    done, start = 0, 0.0
    for step in range(STEPS + 3):  # the first three only warm up
        if step == 3:
            start = time.perf_counter()
        shown, wanted = batches()
        objectives.cross_entropy(model(shown), wanted).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done += len(wanted) if step >= 3 else 0
    return done / (time.perf_counter() - start)


def _ours(images: datasets.ImageSet, size: int, device: torch.device):
    pixels, labels = pictures.resident_pixels(images, device), torch.from_numpy(np.array(images.labels)).to(device)
    shuffle, generator, steps = loop.Shuffle(len(images), size, 0), torch.Generator().manual_seed(0), iter(range(10**9))
    return lambda: pictures.picture_batch(
        pixels, labels, shuffle.batch(next(steps)).to(device), len(images.classes), generator
    )


def _bare(images: datasets.ImageSet, size: int, device: torch.device):
    batch = _ours(images, size, device)()
    return lambda: batch


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


def _loader(images: datasets.ImageSet, size: int, device: torch.device):
    loader = DataLoader(_Pictures(images), size, shuffle=True, num_workers=2, persistent_workers=True, drop_last=True)

    def endless():
        while True:
            yield from loader

    batches = endless()
    return lambda: tuple(tensor.to(device) for tensor in next(batches))
