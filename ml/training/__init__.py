"""Training: one visible loop (`loop.fit`) and the three kinds of model that go through it."""

from __future__ import annotations

from ml.training.pictures import train_image_classifier
from ml.training.separation import train_speech_extractor
from ml.training.speech import train_speech_classifier

__all__ = ["train_image_classifier", "train_speech_classifier", "train_speech_extractor"]
