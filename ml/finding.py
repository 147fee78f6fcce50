"""The objects of one picture: where the head sees them, and what the classifier says of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ml import detection
from ml.features import normalise_polarity
from ml.models import ImageCNN

FINEST_FRAMES = 16  # sides of the largest picture that objects are cut from, in sides of the classifier's pictures
LEAST_F1 = 0.5  # of a finder on validation; one that learnt from too few steps or pictures is left unasked
FRAMED_SIDES = 1.25  # a picture no larger than this many sides is one object's own picture, as in training


@dataclass(frozen=True)
class Found:
    """Objects of one picture: boxes (n, 4) in its own pixels, sure (n,) that something is there, and calibrated
    posteriors (n, classes + 1) of what, the last of them nothing known."""

    boxes: np.ndarray
    sure: np.ndarray
    posteriors: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """Of the likeliest label (n,), that something is there included."""
        return self.sure * self.posteriors[:, :-1].max(axis=1)

    @property
    def known(self) -> np.ndarray:
        """Which of them are likelier something known than not (n,) bool."""
        return self.posteriors.argmax(axis=1) < self.posteriors.shape[1] - 1

    def calibrated(self, slope: float, offset: float) -> Found:
        """The same with another slope and offset of the logit of how sure it is (Platt scaling)."""
        logits = torch.logit(torch.from_numpy(self.sure).double(), eps=1e-6)
        return replace(self, sure=(slope * logits + offset).sigmoid().numpy())

    def leniently(self, share: float) -> Found:
        """The same with nothing known so many times as likely beside the labels."""
        weights = np.ones(self.posteriors.shape[1], self.posteriors.dtype)
        weights[-1] = share
        weighted = self.posteriors * weights
        return replace(self, posteriors=weighted / weighted.sum(axis=1, keepdims=True))

    def of(self, rows: np.ndarray) -> Found:
        """These of the objects."""
        return Found(self.boxes[rows], self.sure[rows], self.posteriors[rows])


class Detector:
    """Finds objects in pixels uint8 (h, w, c) of any size, by a model and the `detector` section of its card."""

    def __init__(self, model: ImageCNN, card: Mapping, device: str | torch.device):
        assert model.detector is not None
        self._model, self._finder, self._device = model, model.detector, device
        self._side, self._temperature = card["arguments"]["side"], card["temperature"]
        self._how = card["detector"]

    def looks_at(self, pixels: np.ndarray) -> bool:
        """Whether a picture is large enough to hold more than one object, and the finder good enough to be asked."""
        return max(pixels.shape[:2]) > FRAMED_SIDES * self._side and self._how["validation_f1"] >= LEAST_F1

    def names(self, found: Found) -> np.ndarray:
        """Which of the objects are to be named (n,) bool: those likely enough, and likelier known than not."""
        return (found.probabilities >= self._how["threshold"]) & found.known

    @torch.inference_mode()
    def __call__(self, pixels: np.ndarray) -> Found:
        """All that may be objects, the surest first, also those too unsure to be named."""
        picture = self._picture(pixels)
        working, scale = working_picture(picture, detection.WORKING_SIDE)
        logits, distances = self._finder(working[None])
        boxes, scores = detection.peaks(logits[0], distances[0])
        boxes = self._inside(boxes * detection.CELL / scale, picture)
        shows = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(dim=1)  # not what was found beside the picture
        boxes, scores = boxes[shows], scores[shows]
        shown = detection.crops(picture, boxes, self._how["window"], self._side, self._how["ink"])
        posteriors = self._posteriors(shown)
        to_own = np.array([pixels.shape[1] / picture.shape[2], pixels.shape[0] / picture.shape[1]] * 2)
        found = Found(boxes.cpu().double().numpy() * to_own, scores.cpu().numpy(), posteriors.cpu().numpy())
        return found.calibrated(*self._how["calibration"]).leniently(self._how["unknown_share"])

    def _picture(self, pixels: np.ndarray) -> Tensor:
        """(c, h, w) in [0, 1], of one polarity, and no larger than objects are cut from."""
        if max(pixels.shape[:2]) > (longest := FINEST_FRAMES * self._side):
            from ml.media import shrunk  # training shrinks nothing, and needs no Pillow

            pixels = shrunk(pixels, longest)
        return normalise_polarity(torch.from_numpy(np.array(pixels)).to(self._device).permute(2, 0, 1)[None] / 255)[0]

    def _inside(self, boxes: Tensor, picture: Tensor) -> Tensor:
        edges = torch.tensor([picture.shape[2], picture.shape[1]] * 2, device=boxes.device)
        return torch.minimum(boxes.clamp(min=0), edges)

    def _posteriors(self, shown: Tensor) -> Tensor:
        if not len(shown):
            return torch.zeros(0, self._model.head.out_features)
        return (self._model(shown).float() / self._temperature).softmax(dim=1)


def working_picture(picture: Tensor, side: int) -> tuple[Tensor, float]:
    """A picture (c, h, w) in the upper left of a square (c, side, side) of its own ground, and by how much it grew."""
    height, width = picture.shape[1:]
    scale = side / max(height, width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    zero = torch.zeros((), device=picture.device)
    down = detection.resampling(zero, zero + 1 / scale, rows, height)
    across = detection.resampling(zero, zero + 1 / scale, columns, width)
    ground = picture.flatten(1).median(dim=1).values[:, None, None]
    square = ground.expand(-1, side, side).clone()
    square[:, :rows, :columns] += down @ (picture - ground) @ across.T
    return square, scale
