"""Training: one visible loop (`loop.fit`) and the three kinds of model that go through it."""

from __future__ import annotations

from ml.training.pictures import train_image_classifier
from ml.training.separation import train_speech_extractor
from ml.training.speech import train_speech_classifier
from ml.training.unseen import speakers_to_leave_out, train_left_out

__all__ = [
    "speakers_to_leave_out",
    "train_image_classifier",
    "train_left_out",
    "train_speech_classifier",
    "train_speech_extractor",
]
