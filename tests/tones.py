"""A small world for tests of what stands around the models: words are tone bursts, pictures are bars and a cross.

The models are the real ones, really trained, but small and on data so plain that seconds are enough.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ml import media, spotting
from ml.extraction import Extractor
from ml.features import N_MELS, LogMel, to_pictures
from ml.models import ImageCNN, SpeechCNN, save_model
from ml.predictor import Predictor, write_bundle

RATE_HZ = 8000
SIDE = 16
WORDS = ("across", "down", "slanted")
PITCH_HZ = {"across": 500, "down": 1300, "slanted": 2600}


def picture(label: str | None, seed: int = 0) -> np.ndarray:
    """uint8 (side, side, 1): light bars on dark, in the direction that the label says; None: noise."""
    draw = np.random.default_rng(seed)
    if label is None:
        return draw.integers(0, 256, (SIDE, SIDE, 1), dtype=np.uint8)
    y, x = np.mgrid[:SIDE, :SIDE]
    along = {"across": y, "down": x, "slanted": x + y}[label]
    light = (along + draw.integers(6)) % 6 < 2
    return (
        (light * draw.integers(150, 256) + draw.integers(0, 20, (SIDE, SIDE))).clip(0, 255).astype(np.uint8)[..., None]
    )


def word(label: str, seconds: float = 0.4, seed: int = 0) -> np.ndarray:
    """float32 (samples,): a tone burst at the pitch of the label."""
    draw = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    tone = np.sin(2 * np.pi * PITCH_HZ[label] * draw.uniform(0.97, 1.03) * time_s + draw.uniform(0, 6))
    return (0.3 * tone * np.hanning(len(tone)) ** 0.25).astype(np.float32)


def recording(*labels: str, seconds: float = 2.0, seed: int = 0) -> np.ndarray:
    """float32 (samples,): the words one after the other from 0.2 s on, 0.6 s apart, in faint noise."""
    draw = np.random.default_rng(seed)
    mixture = draw.normal(0, 0.002, round(seconds * RATE_HZ)).astype(np.float32)
    for i, label in enumerate(labels):
        start = round((0.2 + 0.6 * i) * RATE_HZ)
        spoken = word(label, seed=seed + i)
        mixture[start : start + len(spoken)] += spoken
    return mixture


def png(label: str | None, seed: int = 0) -> bytes:
    return media.encode_png(picture(label, seed))


def wav(*labels: str, seconds: float = 2.0, seed: int = 0) -> bytes:
    return media.encode_wav(recording(*labels, seconds=seconds, seed=seed), RATE_HZ)


@functools.cache
def bundle() -> Path:
    """A bundle of small trained models with two golden requests, made once a session."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the models are so small that more threads only wait for each other
    folder = Path(tempfile.mkdtemp(prefix="seehear-tones-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    parts = [folder / name for name in ("image", "speech", "extractor")]
    save_model(
        parts[0], _image_classifier(), _card("image_cnn", classes=len(WORDS), side=SIDE, channels_in=1, channels=8)
    )
    save_model(parts[1], _speech_classifier(), _card("speech_cnn", classes=len(WORDS), n_mels=N_MELS, channels=12))
    extractor_card = _card("speech_extractor", labels=list(WORDS), sample_rate_hz=RATE_HZ, channels=24, blocks=8)
    save_model(parts[2], _extractor(), extractor_card)
    predictor = Predictor.from_models(*parts)
    goldens = [predictor.golden(png("down"), wav("across", "down")), predictor.golden(png("across"), wav("slanted"))]
    write_bundle(folder / "bundle", *parts, {"source": "tones"}, goldens)
    return folder / "bundle"


def _card(kind: str, **arguments) -> dict:
    return {
        "kind": kind,
        "arguments": arguments,
        "classes": list(WORDS),
        "sample_rate_hz": RATE_HZ,
        "temperature": 1.0,
        "presence_threshold": 0.5,
        "interval_threshold": 0.25,
        "word_threshold": 0.2,
    }


def _fit(model: nn.Module, steps: int, loss_at) -> nn.Module:
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)
    for step in range(steps):
        optimiser.zero_grad()
        loss_at(step).backward()
        optimiser.step()
    return model.eval()


def _image_classifier() -> nn.Module:
    kinds = (*WORDS, None)
    model = ImageCNN(classes=len(WORDS), side=SIDE, channels_in=1, channels=8)
    target = torch.arange(len(kinds)).repeat(8)

    def loss(step: int) -> Tensor:
        batch = np.stack([picture(kind, seed=step * 8 + i) for i in range(8) for kind in kinds])
        return nn.functional.cross_entropy(model(to_pictures(torch.from_numpy(batch))), target)

    return _fit(model, 30, loss)


def _speech_classifier() -> nn.Module:
    model = SpeechCNN(classes=len(WORDS), n_mels=N_MELS, channels=12)
    log_mel = LogMel(RATE_HZ)
    target = torch.arange(len(WORDS)).repeat(4)

    def loss(step: int) -> Tensor:
        batch = np.stack([word(label, seed=step * 4 + i) for i in range(4) for label in WORDS])
        return nn.functional.cross_entropy(model(*log_mel(torch.from_numpy(batch))), target)

    return _fit(model, 20, loss)


def _extractor() -> nn.Module:
    model = Extractor(WORDS, RATE_HZ, channels=24, blocks=8)

    def loss(step: int) -> Tensor:
        mixture, target, query, present, spans, labels = _scenes(step, model.hop_samples)
        output = model(mixture, query)
        separation = (output.estimate - target).square().mean() / 0.005
        presence = nn.functional.binary_cross_entropy_with_logits(output.presence_logits, present)
        places = spotting.spotting_loss(output.word_places, spans, labels)
        time = torch.arange(output.places.shape[-1])
        spoken = (time >= spans[..., :1]) & (time < spans[..., 1:])  # (scenes, words, frames)
        mine = labels[..., None] == torch.arange(len(WORDS))  # (scenes, words, labels)
        active = (spoken[:, :, None] & mine[..., None]).any(1).float()
        activity = nn.functional.binary_cross_entropy_with_logits(output.word_places[:, :, 3], active)
        return separation + presence + places + activity

    return _fit(model, 150, loss)


def _scenes(step: int, hop_samples: int) -> tuple[Tensor, ...]:
    """Sixteen scenes of one second: two tones, or one of them alone; half of the queries ask for one that is there."""
    draw = np.random.default_rng(step)
    n, samples = 16, RATE_HZ
    mixture, target = draw.normal(0, 0.002, (n, samples)), np.zeros((n, samples))
    query, present = np.zeros((n, len(WORDS))), np.zeros(n)
    spans, labels = np.zeros((n, 2, 2)), np.full((n, 2), -1)
    for i in range(n):
        asked, *others = draw.permutation(len(WORDS))
        query[i, asked] = 1
        present[i] = i % 2
        for k, spoken in enumerate(([asked] if i % 2 else []) + others[: draw.integers(2)]):
            start = draw.integers(samples // 2)
            tone = word(WORDS[spoken], seed=step * n + i)
            mixture[i, start : start + len(tone)] += tone
            if spoken == asked:
                target[i, start : start + len(tone)] = tone
            spans[i, k], labels[i, k] = np.array([start, start + len(tone)]) / hop_samples, spoken
    parts = mixture, target, query, present, spans
    return *(torch.from_numpy(part.astype(np.float32)) for part in parts), torch.from_numpy(labels)
