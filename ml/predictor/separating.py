"""The extractor as the predictor asks it: a batch of like length at once, or one recording of any length by pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ml.config import UserError
from ml.extraction import Listened, asked_for, load_extractor, probable, soft_maximum
from ml.predictor.streaming import Piece, Sound, pieces

SAMPLES_PER_PASS = 512_000
THRESHOLDS = ("presence_threshold", "interval_threshold", "word_threshold")  # of an extractor's card
PIECE_FRAMES = 2048  # 33 s; the context that is gone through twice then adds 3 %


@dataclass(frozen=True)
class Located:
    """What the extractor finds before any word is judged present or absent.

    presence (n,) and places (n, 4, frames) of what was asked for, and word_presence (n, labels). Presence, centres and
    activity are probabilities.
    """

    presence: np.ndarray
    places: np.ndarray
    word_presence: np.ndarray


@dataclass(frozen=True)
class Separated(Located):
    """And its sound: estimates (n, samples) at the model's rate and the mixtures' level."""

    estimates: np.ndarray


@dataclass(frozen=True)
class Heard:
    """What a piece of a recording adds: word_places (labels, 5, frames) of all labels, and word_presence (labels,) up
    to its end. `last` says that nothing follows."""

    word_places: np.ndarray
    word_presence: np.ndarray
    last: bool


@dataclass(frozen=True)
class Part(Heard):
    """And of what was asked for: estimate (samples,), places (4, frames), and presence up to the piece's end."""

    estimate: np.ndarray
    places: np.ndarray
    presence: float


class Separator:
    def __init__(self, folder: Path, device: str):
        self._extractor, self.card = load_extractor(Path(folder), device)
        if missing := [name for name in THRESHOLDS if name not in self.card]:
            raise UserError(f"{folder}: has no {', '.join(missing)}, so other code than this made it; train it again")
        self.thresholds: list[float] = [self.card[name] for name in THRESHOLDS]
        self._device = device
        self.labels, self.sample_rate_hz = self._extractor.labels, self._extractor.sample_rate_hz
        self.window_samples, self._hop_samples = self._extractor.window_samples, self._extractor.hop_samples
        self.hop_s = self._hop_samples / self.sample_rate_hz

    @torch.inference_mode()
    def separate(self, mixtures: np.ndarray, queries: np.ndarray) -> Separated:
        """Answers about mixtures (n, samples) for queries (n, labels)."""
        outputs = [self._extractor(*part) for part in self._passes(mixtures, queries)]
        located = _located((output, output.presence_logits, output.places) for output in outputs)
        return Separated(**vars(located), estimates=_joined(output.estimate for output in outputs))

    @torch.inference_mode()
    def locate(self, mixtures: np.ndarray, queries: np.ndarray) -> Located:
        """What `separate` finds, but for the sounds, in a fraction of the time."""
        heard = ((self._extractor.listen(mixture), query) for mixture, query in self._passes(mixtures, queries))
        return _located((listened, *listened.asked(query)) for listened, query in heard)

    def _passes(self, mixtures: np.ndarray, queries: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        """Mixtures and queries in parts small enough for memory."""
        per_pass = max(1, SAMPLES_PER_PASS // mixtures.shape[1])
        for start in range(0, len(mixtures), per_pass):
            rows = slice(start, start + per_pass)
            yield self._tensor(mixtures[rows]), self._tensor(queries[rows])

    @torch.inference_mode()
    def listen(self, sound: Sound) -> Iterator[Heard]:
        """What is heard of every label in one recording, a piece at a time; joined they are the whole's."""
        so_far = None
        for piece in self._pieces(sound):
            output = self._extractor.listen(self._tensor(piece.samples[None]), self._tensor(np.array([sound.gain])))
            heard, so_far = self._heard(piece, output, so_far)
            yield Heard(**heard)

    @torch.inference_mode()
    def stream(self, sound: Sound, query: np.ndarray) -> Iterator[Part]:
        """The same and what a query (labels,) asks for."""
        asked, so_far = self._tensor(query[None]), None
        for piece in self._pieces(sound):
            output = self._extractor(self._tensor(piece.samples[None]), asked, self._tensor(np.array([sound.gain])))
            heard, so_far = self._heard(piece, output, so_far)
            yield Part(
                **heard,
                estimate=output.estimate[0, piece.before : piece.before + piece.own].cpu().numpy(),
                places=probable(output.places)[0, :, self._frames(piece)].cpu().numpy(),
                presence=float(asked_for(asked[:, :, None], so_far[:, :, None]).sigmoid()),
            )

    def _pieces(self, sound: Sound) -> Iterator[Piece]:
        context = self._extractor.context_frames * self._hop_samples
        return pieces(sound, PIECE_FRAMES * self._hop_samples, context)

    def _frames(self, piece: Piece) -> slice:
        """Those of a piece's own samples."""
        first = piece.before // self._hop_samples
        return slice(first, None if piece.last else first + piece.own // self._hop_samples)

    def _heard(self, piece: Piece, output: Listened, so_far: Tensor | None) -> tuple[dict, Tensor]:
        """The fields of a piece's `Heard`, and the soft maximum (1, labels) of all scores up to its end, as `so_far` is
        up to its beginning."""
        frames = self._frames(piece)
        words = soft_maximum(output.word_scores[:, :, frames])
        so_far = words if so_far is None else soft_maximum(torch.stack((so_far, words), dim=-1))
        places = torch.cat((probable(output.word_places), output.word_scores[:, :, None]), dim=2)
        places = places[0, :, :, frames].cpu().numpy()
        return {"word_places": places, "word_presence": so_far[0].sigmoid().cpu().numpy(), "last": piece.last}, so_far

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(self._device)


def _located(answers: Iterable[tuple[Listened, Tensor, Tensor]]) -> Located:
    """Of parts of a batch: what is heard, and presence logits (b,) and places (b, 4, frames) of what is asked for."""
    parts = [(logits.sigmoid(), probable(places), heard.word_presence.sigmoid()) for heard, logits, places in answers]
    return Located(*map(_joined, zip(*parts, strict=True)))


def _joined(parts: Iterable[Tensor]) -> np.ndarray:
    return torch.cat([part.cpu() for part in parts]).numpy()
