"""The two classifiers as the predictor asks them: any pictures, any sounds, in batches; calibrated posteriors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ml import media, models
from ml.config import UserError
from ml.features import LogMel, to_pictures
from ml.finding import Detector
from ml.models import ImageCNN, SpeechNet
from ml.predictor.answers import Picture, PicturedObject
from ml.predictor.boxes import area, fills, ink_box, whole_box

IMAGE_KINDS = {"image_cnn": ImageCNN}
SPEECH_KINDS = {f"speech_{kind}": model for kind, model in models.SPEECH_MODELS.items()}
MOST_OF_INK = 0.4  # of its box's area: a thing with less of it is one of several
PICTURES_PER_PASS = 256
CLIPS_PER_PASS = 32
Answers = tuple[np.ndarray, np.ndarray]  # posteriors (n, classes), embeddings (n, d)


class PictureClassifier:
    """Answers about pixels uint8 (h, w, c) of any size; the last posterior is that of nothing known."""

    def __init__(self, folder: Path, device: str):
        model, self.card = models.load_model(Path(folder), device, IMAGE_KINDS)
        self._model, self._device = cast(ImageCNN, model), device
        self._side, self._channels = self.card["arguments"]["side"], self.card["arguments"]["channels_in"]
        self._detector = Detector(self._model, self.card, device) if self._model.detector is not None else None

    @property
    def finds_objects(self) -> bool:
        """Whether it looks for several things in larger pictures."""
        return self._detector is not None

    def picture(self, pixels: np.ndarray) -> Picture:
        """What one picture shows and where, if it is large enough for several things also of each.

        A thing that fills the picture as those of training do, or is most of the ink that does, is judged by the whole
        picture, as `__call__` does.
        """
        posteriors, embeddings = self([checked_picture(pixels)])
        whole, classes = posteriors[0], tuple(self.card["classes"])
        objects, ink = self._objects(pixels, classes), ink_box(pixels)
        boxes = [one.box for one in objects]
        boxes += [ink] if ink and all(area(box) >= MOST_OF_INK * area(ink) for box in boxes) else []
        boxes = [box for box in boxes if fills(box, pixels)]
        if len(objects) > 1 or (objects and not boxes):
            return Picture(objects[0].label, objects[0].probabilities, embeddings[0], objects)
        probabilities = dict(zip(classes, whole.tolist(), strict=False))
        if int(whole.argmax()) == len(classes):
            return Picture(None, probabilities, embeddings[0], [])
        label = classes[int(whole.argmax())]
        box = boxes[0] if boxes else ink
        alone = [PicturedObject(label, probabilities[label], box, probabilities)] if box is not None else []
        return Picture(label, probabilities, embeddings[0], alone)

    def _objects(self, pixels: np.ndarray, classes: tuple[str, ...]) -> list[PicturedObject]:
        """All that the detector is sure enough of to name, the largest first."""
        if self._detector is None or not self._detector.looks_at(pixels):
            return []
        found = self._detector(fitted_channels(pixels, self._channels))
        named = np.flatnonzero(self._detector.names(found))
        objects = []
        for box, sure, posterior in zip(found.boxes[named], found.sure[named], found.posteriors[named], strict=True):
            probabilities = dict(zip(classes, posterior.tolist(), strict=False))
            label = max(probabilities, key=probabilities.__getitem__)
            objects.append(PicturedObject(label, float(sure) * probabilities[label], whole_box(box), probabilities))
        return sorted(objects, key=lambda one: (-area(one.box), one.box))

    @torch.inference_mode()
    def __call__(self, pixels: np.ndarray | Sequence[np.ndarray]) -> Answers:
        parts = []
        for start in range(0, len(pixels), PICTURES_PER_PASS):
            fitted = [fit_picture(one, self._side, self._channels) for one in pixels[start : start + PICTURES_PER_PASS]]
            pictures = to_pictures(torch.from_numpy(np.stack(fitted)).to(self._device))
            embeddings = self._model.embed(pictures)
            parts.append(_answers(self._model.head(embeddings), embeddings, self.card["temperature"]))
        return _joined(parts)


class SpeechClassifier:
    """Answers about waveforms float32 (samples,) at the model's rate, of any lengths."""

    def __init__(self, folder: Path, device: str):
        model, self.card = models.load_model(Path(folder), device, SPEECH_KINDS)
        self._model, self._device = cast(SpeechNet, model), device
        self._log_mel = LogMel(self.card["sample_rate_hz"], self.card["arguments"]["n_mels"]).to(device)

    @torch.inference_mode()
    def __call__(self, waveforms: Sequence[np.ndarray]) -> Answers:
        """Those of like length share a pass, so that little is padded. Embeddings are of each sound as it is."""
        order = sorted(range(len(waveforms)), key=lambda index: len(waveforms[index]))
        parts = []
        for start in range(0, len(order), CLIPS_PER_PASS):
            clips = [waveforms[index] for index in order[start : start + CLIPS_PER_PASS]]
            log_mel, frames = self._log_mel(*self._padded(clips))
            looks = self._model.looks(log_mel, frames)  # (looks, b, d)
            parts.append(_answers(self._model.head(looks.mean(0)), looks[0], self.card["temperature"]))
        back = np.argsort(order)
        posteriors, embeddings = _joined(parts)
        return posteriors[back], embeddings[back]

    def _padded(self, clips: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        lengths = [len(clip) for clip in clips]
        batch = np.zeros((len(clips), max(lengths)), np.float32)
        for row, clip in zip(batch, clips, strict=True):
            row[: len(clip)] = clip
        return torch.from_numpy(batch).to(self._device), torch.tensor(lengths, device=self._device)


def checked_picture(pixels: np.ndarray) -> np.ndarray:
    """The picture itself; UserError unless it is uint8 (h, w, 1 or 3) with at least one pixel."""
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise UserError("picture: expected an array of 8-bit pixels (height, width, channels)")
    if 0 in pixels.shape or pixels.shape[2] not in (1, 3):
        raise UserError(f"picture: expected pixels of 1 or 3 channels, got shape {pixels.shape}")
    return pixels


def fit_picture(pixels: np.ndarray, side: int, channels: int) -> np.ndarray:
    """pixels uint8 (h, w, c) as (side, side, channels)."""
    pixels = fitted_channels(pixels, channels)
    return pixels if pixels.shape[:2] == (side, side) else media.resize_square(pixels, side)


def fitted_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """pixels uint8 (h, w, c) as (h, w, channels): grey by the luminance of ITU-R BT.601, colour by repetition."""
    if pixels.shape[2] == 3 and channels == 1:
        return media.grey(pixels)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 and channels == 3 else pixels


def _answers(logits: Tensor, embeddings: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Calibrated posteriors beside the embeddings."""
    return (logits.float() / temperature).softmax(dim=1).cpu(), embeddings.cpu()


def _joined(parts: Sequence[tuple[Tensor, Tensor]]) -> Answers:
    first, second = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    return first, second
