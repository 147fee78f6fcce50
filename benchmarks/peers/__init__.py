"""The same Predictor behind other servers, each as its own documentation would have it.

`python -m benchmarks.peers.<name> PORT WORKERS`, with BUNDLE in the environment and the peer installed. Decoding and
the answer are those of our service.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

from ml import media
from ml.predictor import Predictor
from serving.answering import extraction_answer, load_predictor, wav_at_true_level


def loaded() -> Predictor:
    import torch

    torch.set_num_threads(1)
    return load_predictor(Path(os.environ["BUNDLE"]), "cpu")


def answered(predictor: Predictor, picture: bytes, recording: bytes) -> dict:
    found = predictor.extract(media.decode_picture(picture), *media.decode_recording(recording))
    sound = base64.b64encode(wav_at_true_level(found.estimate, found.rate_hz)).decode()
    return {**extraction_answer(found), "audio_wav_base64": sound, "sample_rate_hz": found.rate_hz}
