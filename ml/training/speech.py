"""Training of the three speech classifiers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ml import datasets, features, models, objectives, scenes
from ml.config import UserError
from ml.training.batches import AHEAD, Ahead, Shuffle
from ml.training.loop import (
    Run,
    accuracy,
    calibrate,
    finish,
    fit,
    plan_run,
    required,
    seeded,
)
from ml.training.voices import Voices, draw_voices, speak

if TYPE_CHECKING:
    from ml.config import Augmentation, SpeechRecipe, Training
    from ml.datasets import SpeechSet

SMOOTHING = 0.05
FEWEST_CLASSES = 2


def train_speech_classifier(
    kind: str,
    speech: SpeechSet,
    recipe: SpeechRecipe,
    training: Training,
    out: Path,
    checkpoints: Path,
    progress: bool = True,
    extra: SpeechSet | None = None,
    kinds: Mapping[str, type[nn.Module]] = models.SPEECH_MODELS,
) -> dict:
    """Trains, calibrates and saves a speech classifier of a kind of `kinds`, as "lstm"; returns its card.

    extra: further voices that say the same words; recipe.extra_voices is their share of the clips. Raises UserError
    where there is nothing to tell apart or to judge by, and where a clip is silent.
    """
    name = f"speech_classifier_{kind}"
    data = {"audio": speech.digest} | ({"extra_voices": extra.digest} if extra else {})
    run = plan_run(name, recipe, training, data, checkpoints, progress)
    train, held = _checked(speech, name), required(speech, "validation", name)
    arguments = {"classes": len(speech.classes), "n_mels": features.N_MELS, "channels": recipe.channels}
    with seeded(run.seed):
        model = kinds[kind](**arguments)
    batches = Batches(train, extra, recipe, run.seed)
    require_finite(batches.speech)
    log_mel = features.LogMel(speech.sample_rate_hz).to(run.device)
    held_labels, held_mels = torch.from_numpy(np.array(held.labels)), validation_mels(held, log_mel, run.device)

    def validate(model: nn.Module) -> dict[str, float]:
        return {"validation_accuracy": accuracy(classify_mels(model, held_mels), held_labels)}

    trained = fit(run, model, voice_loss(run, batches, log_mel, recipe.augmentation), validate)
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


def voice_loss(
    run: Run, batches: Batches, log_mel: features.LogMel, augmentation: Augmentation
) -> Callable[[nn.Module, int, torch.Generator], Tensor]:
    """The loss of a step: clips of like length in other voices, rooms and noise."""
    bank = scenes.clip_bank(batches.speech, run.device)
    noise = scenes.noise_bank(torch.Generator().manual_seed(run.seed), run.device, bank.sample_rate_hz)
    labels, lengths = bank.labels.to(run.device), bank.lengths.cpu()  # so that drawing never waits for the device

    def draw(first: int, generator: torch.Generator) -> list[tuple[Tensor, Voices]]:
        rows = torch.cat([batches.rows(first + k) for k in range(AHEAD)])
        drawn = draw_voices(bank, lengths[rows], len(noise), augmentation, generator)
        return [(rows[clips], voices) for clips, voices in drawn.by_length(AHEAD, generator)]

    ahead = Ahead(draw, run.seed)

    def loss_of(model: nn.Module, step: int, generator: torch.Generator) -> Tensor:
        rows, drawn = ahead.of(step)
        mel, frames = speak(bank, noise, rows, drawn, log_mel)
        return objectives.cross_entropy(model(mel, frames), labels[rows.to(run.device)], SMOOTHING)

    return loss_of


class Batches:
    """Rows of `speech` for every step: the training clips and, in their share, the extra voices."""

    def __init__(self, train: SpeechSet, extra: SpeechSet | None, recipe: SpeechRecipe, seed: int):
        borrowed = min(round(recipe.extra_voices * recipe.batch_size), recipe.batch_size - 1) if extra else 0
        self.speech = datasets.joined(train, extra) if extra and borrowed else train
        self._own = Shuffle(len(train), recipe.batch_size - borrowed, seed)
        self._extra = Shuffle(len(self.speech) - len(train), borrowed, seed + 1) if borrowed else None
        self._first_extra = len(train)

    def rows(self, step: int) -> Tensor:
        own = self._own.batch(step)
        return own if self._extra is None else torch.cat((own, self._first_extra + self._extra.batch(step)))


def require_finite(speech: SpeechSet) -> None:
    """UserError naming the first clip with a sample that is no finite number; prepared integers always are."""
    if np.issubdtype(speech.samples.dtype, np.integer):
        return
    for row in range(len(speech)):
        if not np.isfinite(speech.clip(row)).all():
            raise UserError(f"clip {speech.ids[row]}: holds samples that are no finite numbers; prepare the data again")


def _checked(speech: SpeechSet, name: str) -> SpeechSet:
    train = required(speech, "train", name)
    if (heard := len(set(train.labels.tolist()))) < FEWEST_CLASSES:
        raise UserError(f"{name}: the training data say {heard} word; expected at least {FEWEST_CLASSES} to tell apart")
    return train


def validation_mels(speech: SpeechSet, log_mel: features.LogMel, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Log-mel spectrograms and frames of all clips, in batches; of long ones as much as is learnt from."""
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
