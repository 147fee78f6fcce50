"""What service and command line share: loading the predictor, and its answers as plain JSON values."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from ml.config import UserError

if TYPE_CHECKING:
    import numpy as np

    from ml.predictor import Finding, Picture, Predictor, Recognition


def load_predictor(bundle: Path, device: str) -> Predictor:
    """The predictor over a bundle; device "auto" is the GPU where there is one. Takes seconds, most of it torch.

    Raises UserError for device "cuda" where there is no GPU.
    """
    import torch

    from ml.predictor import Predictor

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("training.device: cuda: this machine has no GPU that torch can use; expected cpu or auto")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Predictor.load(bundle, device)


def picture_answer(picture: Picture) -> dict:
    return {
        "label": picture.label,
        "probabilities": picture.probabilities,
        "objects": objects_of(picture),
    }


def objects_of(picture: Picture) -> list[dict]:
    """Every object of a picture, the largest first."""
    return [
        {"label": found.label, "probability": found.probability, "box": list(found.box)} for found in picture.objects
    ]


def asked_object(picture: Picture) -> dict:
    """All objects of a picture, and which of them was asked for."""
    return {"objects": objects_of(picture), "object": picture.asked if picture.objects else None}


def recognition_answer(spoken: Recognition) -> dict:
    return {
        "label": spoken.label,
        "probabilities": spoken.probabilities,
        "words": [dataclasses.asdict(word) for word in spoken.words],
    }


def extraction_answer(found: Finding) -> dict:
    """All but the sound."""
    return {
        "pictured": {"label": found.pictured.label, "probabilities": found.pictured.probabilities},
        "present": found.present,
        "presence": found.presence,
        "intervals": [dataclasses.asdict(interval) for interval in found.intervals],
        "heard": {"label": found.heard.label, "probability": found.heard.probability} if found.heard else None,
    }


def wav_at_true_level(waveform: np.ndarray, rate_hz: int) -> bytes:
    """A WAV of 16-bit samples, which everything reads; of 32-bit floats where 16 bits would clip."""
    from ml import media

    subtype = "PCM_16" if float(abs(waveform).max(initial=0)) < 1 else "FLOAT"
    return media.encode_wav(waveform, rate_hz, subtype)
