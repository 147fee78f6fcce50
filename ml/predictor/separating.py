"""The extractor as the predictor asks it: a batch of like length at once, or one recording of any length by pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ml.extraction import ExtractorOutput, asked_for, load_extractor, probable, soft_maximum
from ml.predictor.streaming import Piece, Sound, pieces

SAMPLES_PER_PASS = 512_000
PIECE_FRAMES = 2048  # 33 s; the context that is gone through twice then adds 3 %


@dataclass(frozen=True)
class Separated:
    """What the extractor finds before any word is judged present or absent.

    estimates (n, samples) at the model's rate and the mixtures' level; presence (n,) and places (n, 4, frames) of
    what was asked for and word_presence (n, labels). Presence, centres and activity are probabilities.
    """

    estimates: np.ndarray
    presence: np.ndarray
    places: np.ndarray
    word_presence: np.ndarray


@dataclass(frozen=True)
class Part:
    """What a piece of a recording adds: estimate (samples,) and places (4, frames) of what was asked for, word_places
    (labels, 4, frames) of all labels; and presence and word_presence (labels,) up to its end. `last` says that nothing
    follows."""

    estimate: np.ndarray
    places: np.ndarray
    word_places: np.ndarray
    presence: float
    word_presence: np.ndarray
    last: bool


class Separator:
    def __init__(self, folder: Path, device: str):
        self._extractor, self.card = load_extractor(Path(folder), device)
        self._device = device
        self.labels, self.sample_rate_hz = self._extractor.labels, self._extractor.sample_rate_hz
        self.window_samples, self._hop_samples = self._extractor.window_samples, self._extractor.hop_samples
        self.hop_s = self._hop_samples / self.sample_rate_hz

    @torch.inference_mode()
    def separate(self, mixtures: np.ndarray, queries: np.ndarray) -> Separated:
        """Answers about mixtures (n, samples) for queries (n, labels)."""
        per_pass = max(1, SAMPLES_PER_PASS // mixtures.shape[1])
        parts = []
        for start in range(0, len(mixtures), per_pass):
            mixture = self._tensor(mixtures[start : start + per_pass])
            output = self._extractor(mixture, self._tensor(queries[start : start + per_pass]))
            sure = output.presence_logits.sigmoid(), probable(output.places), output.word_presence.sigmoid()
            parts.append((output.estimate.cpu(), *(one.cpu() for one in sure)))
        return Separated(*(torch.cat(column).numpy() for column in zip(*parts, strict=True)))

    def stream(self, sound: Sound, query: np.ndarray) -> Iterator[Part]:
        """The same about one recording for a query (labels,), a piece at a time; joined they are the whole's."""
        context = self._extractor.context_frames * self._hop_samples
        asked, so_far = self._tensor(query[None]), None
        for piece in pieces(sound, PIECE_FRAMES * self._hop_samples, context):
            part, so_far = self._part(piece, asked, sound.gain, so_far)
            yield part

    @torch.inference_mode()
    def _part(self, piece: Piece, query: Tensor, gain: float, so_far: Tensor | None) -> tuple[Part, Tensor]:
        """so_far (1, labels): the soft maximum of all scores before this piece; returned with those of this one."""
        output: ExtractorOutput = self._extractor(
            self._tensor(piece.samples[None]), query, gain=torch.tensor([gain], device=self._device)
        )
        first = piece.before // self._hop_samples
        frames = slice(first, None if piece.last else first + piece.own // self._hop_samples)
        words = soft_maximum(output.word_scores[:, :, frames])
        so_far = words if so_far is None else soft_maximum(torch.stack((so_far, words), dim=-1))
        part = Part(
            estimate=output.estimate[0, piece.before : piece.before + piece.own].cpu().numpy(),
            places=probable(output.places)[0, :, frames].cpu().numpy(),
            word_places=probable(output.word_places)[0, :, :, frames].cpu().numpy(),
            presence=float(asked_for(query[:, :, None], so_far[:, :, None]).sigmoid()),
            word_presence=so_far[0].sigmoid().cpu().numpy(),
            last=piece.last,
        )
        return part, so_far

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(self._device)
