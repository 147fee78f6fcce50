"""Three tones as words and three shapes as pictures, with models trained on them in a few seconds, for tests only."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ml import training
from ml.config import Augmentation, ExtractorRecipe, ImageRecipe, PerBudget, Recipe, SpeechRecipe, Training
from ml.datasets import ImageSet, SpeechSet

RATE_HZ = 4000
TONES_HZ = {"bar": 300.0, "ring": 750.0, "slash": 1500.0}
CLASSES = tuple(sorted(TONES_HZ))
SPLITS = {"train": 24, "validation": 8, "gate": 8, "test": 8}  # items of every class


def draw_picture(label: str, rng: np.random.Generator, side: int = 14) -> np.ndarray:
    """uint8 (side, side, 1): a light shape on black, moved by up to a pixel."""
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2 + rng.integers(-1, 2, size=(2, 1, 1))
    ink = {
        "bar": np.abs(columns) < 1.5,
        "ring": np.abs(np.hypot(rows, columns) - 4) < 1,
        "slash": np.abs(rows + columns) < 1.5,
    }[label]
    inside = (np.abs(rows) < 5.5) & (np.abs(columns) < 5.5)
    pixels = 20 * rng.random((side, side)) + 220 * (ink & inside)
    return pixels.astype(np.uint8)[..., None]


def say(label: str, rng: np.random.Generator) -> np.ndarray:
    """float32 (samples,) at RATE_HZ: a tone of 0.2 to 0.3 s with an overtone, faded in and out."""
    samples = int(rng.integers(800, 1200))
    phase = 2 * np.pi * TONES_HZ[label] * rng.uniform(0.95, 1.05) * np.arange(samples) / RATE_HZ
    sound = np.sin(phase) + 0.3 * np.sin(1.2 * phase + 1) + 0.01 * rng.standard_normal(samples)
    return (0.3 * sound * np.hanning(samples) ** 0.3).astype(np.float32)


def toy_images(seed: int = 0) -> ImageSet:
    rng = np.random.default_rng(seed)
    rows = [(split, label) for split, count in SPLITS.items() for label in CLASSES for _ in range(count)]
    return ImageSet(
        pixels=np.stack([draw_picture(label, rng) for _, label in rows]),
        labels=np.array([CLASSES.index(label) for _, label in rows]),
        split=np.array([split for split, _ in rows]),
        group=np.array([""] * len(rows)),
        ids=np.array([f"picture_{i}" for i in range(len(rows))]),
        classes=CLASSES,
        digest="toy-images",
    )


def toy_speech(seed: int = 1) -> SpeechSet:
    rng = np.random.default_rng(seed)
    rows = [(split, label) for split, count in SPLITS.items() for label in CLASSES for _ in range(count)]
    clips = [np.round(32767 * say(label, rng)).astype(np.int16) for _, label in rows]
    lengths = np.array([len(clip) for clip in clips])
    return SpeechSet(
        samples=np.concatenate(clips),
        offsets=np.concatenate(([0], np.cumsum(lengths)[:-1])),
        lengths=lengths,
        labels=np.array([CLASSES.index(label) for _, label in rows]),
        split=np.array([split for split, _ in rows]),
        group=np.array([f"{'known' if split != 'test' else 'new'}_speaker" for split, _ in rows]),
        ids=np.array([f"clip_{i}" for i in range(len(rows))]),
        classes=CLASSES,
        sample_rate_hz=RATE_HZ,
        digest="toy-audio",
    )


def recipe(steps: int, channels: int) -> Recipe:
    return Recipe(PerBudget(steps, steps, steps), 24, 0.01, 0.0, "adamw", channels)


def speech_recipe(steps: int, channels: int, extra_voices: float = 0.0) -> SpeechRecipe:
    """Tones are told apart by where they lie, so their frequencies are hardly moved."""
    how = Augmentation(0.02, 0.1, 0.2, 0.2, noise_share=0.5, least_snr_db=10, most_snr_db=40)
    return SpeechRecipe(**vars(recipe(steps, channels)), augmentation=how, extra_voices=extra_voices)


def image_recipe(steps: int, channels: int, detector_steps: int = 10) -> ImageRecipe:
    counted = PerBudget(detector_steps, detector_steps, detector_steps)
    return ImageRecipe(
        **vars(recipe(steps, channels)), detector_steps=counted, detector_batch_size=8, detector_channels=8
    )


@lru_cache
def toy_candidates(out: Path) -> Path:
    """Folder of all five trained models, made once for every `out`."""
    torch.set_num_threads(1)
    images, speech, how = toy_images(), toy_speech(), Training("quick", "cpu", 0)
    notes = out / "checkpoints"
    training.train_image_classifier(images, image_recipe(60, 8), how, out / "image_classifier", notes, False)
    for kind in ("cnn", "rnn", "lstm"):
        target = out / "speech_classifier" / kind
        training.train_speech_classifier(kind, speech, speech_recipe(60, 12), how, target, notes, False)
    small = ExtractorRecipe(
        *(PerBudget(200, 200, 200), 16, 0.01, 0.0, "adamw", 24, 8),
        *(PerBudget(24, 24, 24), PerBudget(4, 4, 4)),  # channels and blocks that extract
        PerBudget(0, 0, 0),  # disguised
        *(2, True),  # looks, others
        *(1.0, 0.15, 0),  # scene_s, speed_change, extra_voices
    )  # fmt: skip
    image, target = out / "image_classifier", out / "speech_extractor"
    training.train_speech_extractor(speech, image, images, small, how, target, notes, False)
    return out
