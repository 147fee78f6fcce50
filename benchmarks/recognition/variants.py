"""The CNN with one thing built otherwise, to see what each layer is for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ml.features import valid_mask
from ml.models import SPEECH_MODELS, SpeechCNN


class Shallow(SpeechCNN):
    """Without the last convolution."""

    def __init__(self, classes: int, n_mels: int, channels: int):
        super().__init__(classes, n_mels, channels)
        self.body = self.body[:3]
        self.strides, self.pools = self.strides[:3], self.pools[:3]


class Strided(SpeechCNN):
    """Takes every second place instead of the largest of neighbours."""

    def __init__(self, classes: int, n_mels: int, channels: int):
        super().__init__(classes, n_mels, channels)
        for stage, size in ((1, (2, 2)), (2, (2, 1))):
            self.body[stage][3] = nn.AvgPool2d(1, size)


class Pooled(SpeechCNN):
    """Only one of the two summaries over time; the other half of the features is zero."""

    kept = 0

    def see(self, log_mel: Tensor, frames: Tensor) -> Tensor:
        both = super().see(log_mel, frames)
        half = both.shape[1] // 2
        keep = valid_mask(torch.full((1,), half, device=both.device), 2 * half)
        return both * (keep if self.kept == 0 else ~keep)


class MeanOnly(Pooled):
    """The mean over time without the maximum."""


class MaxOnly(Pooled):
    """The maximum over time without the mean."""

    kept = 1


class Dense(SpeechCNN):
    """A hidden dense layer of 32 before the answer."""

    def __init__(self, classes: int, n_mels: int, channels: int):
        super().__init__(classes, n_mels, channels)
        self.head = nn.Sequential(nn.Linear(self.head.in_features, 32), nn.ReLU(), nn.Linear(32, classes))


MODELS: dict[str, type[nn.Module]] = {
    **SPEECH_MODELS,
    "cnn_shallow": Shallow,
    "cnn_strided": Strided,
    "cnn_mean": MeanOnly,
    "cnn_max": MaxOnly,
    "cnn_dense": Dense,
}
