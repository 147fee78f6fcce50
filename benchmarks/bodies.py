"""The extractor's body: dense dilated convolutions beside an RNN and an LSTM of the same size and the same training.

`python -m benchmarks bodies` trains all three on the data of the last run, by the recipe of params.yaml cut to STEPS,
and judges them on validation scenes. The recipe's rate was chosen for the convolutions, so every body is trained at
half of it as well. Figures go to docs/extraction_bodies.json and from there into docs/extraction.md.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from benchmarks import extraction_page, machine
from ml import training
from ml.config import Paths, PerBudget, load_settings
from ml.datasets import load_images, load_speech
from ml.extraction import Extractor
from ml.files import write_json
from ml.models import count_parameters

STEPS = 1500
RATES = (1.0, 0.5)  # of the learning rate of params.yaml


class Recurrent(nn.Module):
    """x + projection of a recurrent layer that reads x in both directions; with `labels`, told by FiLM what to find."""

    def __init__(self, layer: type[nn.RNNBase], channels: int, hidden: int, labels: int | None = None):
        super().__init__()
        self.layer = layer(channels, hidden, batch_first=True, bidirectional=True)  # pyright: ignore
        self.project = nn.Linear(2 * hidden, channels)
        self.condition = nn.Linear(labels, 2 * channels) if labels else None

    def forward(self, states: Tensor, query: Tensor | None = None) -> Tensor:
        given = states
        if self.condition is not None and query is not None:
            scale, shift = self.condition(query.transpose(1, 2)).transpose(1, 2).chunk(2, dim=1)  # (b, channels, 1)
            given = states * (1 + scale) + shift
        heard, _ = self.layer(given.transpose(1, 2))  # (b, frames, 2 hidden)
        return states + self.project(heard).transpose(1, 2)  # (b, channels, frames)


class _RecurrentExtractor(Extractor):
    """Each half has one recurrent layer, as wide as makes it the size of the convolutions that it replaces."""

    layer: type[nn.RNNBase]

    def __init__(self, labels, sample_rate_hz: int, channels: int, *body: int, **named_body: int):
        super().__init__(labels, sample_rate_hz, channels, *body, **named_body)
        self.listening = nn.ModuleList([self._like(self.listening, channels)])
        wide = self.mask.in_channels
        self.extracting = nn.ModuleList([self._like(self.extracting, wide, len(self.labels))])

    def _like(self, blocks: nn.Module, channels: int, labels: int | None = None) -> Recurrent:
        with torch.device("meta"):
            wanted, hidden = count_parameters(blocks), 1
            while count_parameters(Recurrent(self.layer, channels, hidden, labels)) < wanted:
                hidden += 1
        return Recurrent(self.layer, channels, hidden, labels)


class RnnExtractor(_RecurrentExtractor):
    layer = nn.RNN


class LstmExtractor(_RecurrentExtractor):
    layer = nn.LSTM


BODIES = {"convolutions": Extractor, "RNN": RnnExtractor, "LSTM": LstmExtractor}


def compare(paths: Paths) -> Iterator[tuple[str, str, str]]:
    """Rows (name, figure, size and time) of every body at every rate; writes the page anew."""
    settings = load_settings(paths.root)
    images, speech = load_images(paths), load_speech(paths)
    whole = dataclasses.replace(settings.speech_extractor, steps=PerBudget(STEPS, STEPS, STEPS))
    folder, found = paths.var / "benchmarks" / "bodies", []
    for (name, body), share in itertools.product(BODIES.items(), RATES):
        recipe = dataclasses.replace(whole, learning_rate=share * whole.learning_rate)
        card = training.train_speech_extractor(
            speech,
            paths.candidates / "image_classifier",
            images,
            recipe,
            settings.training,
            folder / name,
            folder / "kept",
            body=body,
        )
        figures = {key.removeprefix("validation_"): value for key, value in card["metrics"].items()}
        about = {key: card[key] for key in ("parameters", "steps", "seed", "train_s")}
        found.append({"body": name, "learning_rate": recipe.learning_rate, **about, **figures})
        gain = f"{figures['si_sdr_improvement_db']:.2f} dB"
        row = f"extractor: {name} at {recipe.learning_rate:g}"
        yield row, gain, f"{card['parameters']} parameters, {card['train_s']:.0f} s"
    record = {"source": paths.source, "machine": machine(), "bodies": found}
    write_json(paths.root / "docs" / "extraction_bodies.json", record)
    extraction_page.write(paths.root / "docs")
