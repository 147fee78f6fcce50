"""A separator that never sees a picture, as the opponent that separates first and recognises afterwards.

It has the extractor's body and training, but its two queries stand for nothing: "the one sound" and "the other". Each
scene counts in the better of both orders (permutation invariant training, arXiv 1607.00325).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ml import models, objectives, scenes
from ml.config import Settings
from ml.datasets import SpeechSet
from ml.evaluation.benchmark import Separator
from ml.extraction import Extractor, load_extractor
from ml.training import loop
from ml.training.separation import SCENE_WORDS, mixed_scenes

SOUNDS = ("one", "other")


def blind_separator(speech: SpeechSet, settings: Settings, folder: Path) -> Separator:
    """Trained on the training clips by the extractor's recipe, or read from `folder` where it already stands there."""
    recipe, out = settings.speech_extractor, folder / "blind_separator"
    run = loop.plan_run("blind_separator", recipe, settings.training, {"audio": speech.digest}, folder)
    run = loop.half_precision(run)
    if not (out / models.CARD).is_file() or models.read_card(out)["run"] != run.digest:
        _train(run, speech, out, {**recipe.body(settings.training.budget), "others": 0})  # it hears no words
    model, _ = load_extractor(out)

    @torch.no_grad()
    def separate(mixture: np.ndarray) -> np.ndarray:
        return split(model, torch.from_numpy(mixture)).numpy()

    return separate


def _train(run: loop.Run, speech: SpeechSet, out: Path, body: dict[str, int]) -> None:
    train, recipe = speech.where("train"), run.recipe
    arguments = {"labels": list(SOUNDS), "sample_rate_hz": speech.sample_rate_hz, **body}
    with loop.seeded(run.seed):
        model = Extractor(**arguments)
    bank = scenes.clip_bank(train, run.device, scenes.speeds_within(recipe.speed_change))
    samples = scenes.scene_samples(train, recipe.scene_s, SCENE_WORDS)
    mixed = mixed_scenes(run, bank, 0, torch.ones(bank.classes, dtype=torch.bool), samples, model.hop_samples)

    def loss_of(model: nn.Module, step: int, generator: torch.Generator) -> Tensor:
        batch = mixed(generator)
        present, target = (x[: len(batch.mixture)] for x in (batch.present, batch.target))  # of each scene's first word
        true = target, batch.mixture - target
        one, other = split(model, batch.mixture)
        straight = objectives.snr_loss(one, true[0]) + objectives.snr_loss(other, true[1])
        crossed = objectives.snr_loss(other, true[0]) + objectives.snr_loss(one, true[1])
        return torch.minimum(straight, crossed)[present].mean()

    trained = loop.fit(run, model, loss_of, lambda model: {})
    card = {"kind": "speech_extractor", "arguments": arguments, "run": run.digest}
    loop.finish(run, trained, out, card)


def split(model: nn.Module, mixture: Tensor) -> Tensor:
    """Both sounds (2, b, samples) of mixtures (b, samples)."""
    queries = torch.eye(len(SOUNDS), device=mixture.device)
    return torch.stack([model(mixture, query.expand(len(mixture), -1)).estimate for query in queries])
