"""Training of the three speech classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ml import features, models, objectives, scenes
from ml.training.loop import CHECKPOINT_STEPS, Shuffle, accuracy, calibrate, finish, fit, plan_run, required, seeded

if TYPE_CHECKING:
    from ml.config import Recipe, Training
    from ml.datasets import SpeechSet

SMOOTHING = 0.05


def train_speech_classifier(
    kind: str,
    speech: SpeechSet,
    recipe: Recipe,
    training: Training,
    out: Path,
    checkpoints: Path,
    progress: bool = True,
    checkpoint_steps: int = CHECKPOINT_STEPS,
) -> dict:
    """Trains, calibrates and saves a speech classifier of kind "cnn", "rnn" or "lstm"; returns its card."""
    name = f"speech_classifier_{kind}"
    run = plan_run(name, recipe, training, {"audio": speech.digest}, checkpoints, progress, checkpoint_steps)
    train, held = required(speech, "train", name), required(speech, "validation", name)
    arguments = {"classes": len(speech.classes), "n_mels": features.N_MELS, "channels": recipe.channels}
    with seeded(run.seed):
        model = models.SPEECH_MODELS[kind](**arguments)
    bank = scenes.clip_bank(train, run.device)
    noise = scenes.noise_bank(torch.Generator().manual_seed(run.seed), run.device, speech.sample_rate_hz)
    log_mel, labels = features.LogMel(speech.sample_rate_hz).to(run.device), bank.labels.to(run.device)
    shuffle, lengths = Shuffle(len(train), recipe.batch_size, run.seed), bank.lengths.cpu()
    held_labels, held_mels = torch.from_numpy(np.array(held.labels)), validation_mels(held, log_mel, run.device)

    def loss_of(model: nn.Module, step: int, generator: torch.Generator) -> Tensor:
        rows = shuffle.batch(step)
        waveforms, sizes = speech_batch(bank, lengths, noise, rows, generator)
        mel, frames = log_mel(waveforms, sizes)
        mel = features.apply_spec_masks(mel, frames, features.draw_spec_masks(len(rows), generator))
        return objectives.cross_entropy(model(mel, frames), labels[rows.to(run.device)], SMOOTHING)

    def validate(model: nn.Module) -> dict[str, float]:
        return {"validation_accuracy": accuracy(classify_mels(model, held_mels), held_labels)}

    trained = fit(run, model, loss_of, validate)
    logits = classify_mels(trained.model, held_mels).cpu()
    card = {
        "kind": f"speech_{kind}",
        "arguments": arguments,
        "classes": list(speech.classes),
        "sample_rate_hz": speech.sample_rate_hz,
        "temperature": calibrate(logits, held_labels),
        "metrics": {"validation_accuracy": accuracy(logits, held_labels), "validation_n": len(held)},
    }
    return finish(run, trained, out, card)


def speech_batch(
    bank: scenes.ClipBank, lengths: Tensor, noise: Tensor, rows: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Clips `rows` at random speeds, half of them between two pauses, three quarters in noise of 0-40 dB.

    lengths: bank.lengths on the CPU, so that nothing waits for the device. Returns (b, samples) and sizes (b,).
    """
    b = len(rows)
    speeds = torch.randint(bank.speeds, (b,), generator=generator)
    pauses = torch.rand(2, b, generator=generator) * 0.15 * (torch.rand(b, generator=generator) < 0.5)
    before, after = (pauses * bank.sample_rate_hz).long()
    sizes = lengths[rows, speeds] + before + after
    level = 10 ** (-40 * torch.rand(b, generator=generator) / 20) * (torch.rand(b, generator=generator) < 0.75)
    colour, start = torch.randint(len(noise), (b,), generator=generator), torch.rand(b, generator=generator)
    samples, device = int(sizes.max()), bank.samples.device
    waveforms = bank.place(rows.to(device), speeds.to(device), before.to(device), samples)
    return waveforms + scenes.noise_of(noise, colour, start, level, samples), sizes.to(device)


def validation_mels(speech: SpeechSet, log_mel: features.LogMel, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Log-mel spectrograms and frames of all clips as they are, in batches."""
    bank = scenes.clip_bank(speech, device, speeds=((1, 1),))
    lengths, zero = bank.lengths[:, 0].cpu(), torch.zeros(len(bank), dtype=torch.long, device=device)
    batches = []
    for rows in torch.arange(len(bank)).split(64):
        samples, at = int(lengths[rows].max()), rows.to(device)
        batches.append(log_mel(bank.place(at, zero[at], zero[at], samples), bank.lengths[at, 0]))
    return batches


@torch.no_grad()
def classify_mels(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Logits (n, classes) of batches of log-mel spectrograms and frames."""
    return torch.cat([model(mel, frames).float() for mel, frames in batches])
