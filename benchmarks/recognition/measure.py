"""One piece of the comparison: trained, then measured on what its part is allowed to look at.

Only `final` pieces, whose settings the grid has chosen on validation data, look at the test split.
"""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.recognition.plan import Piece
from benchmarks.recognition.variants import MODELS
from ml import datasets, features, models, training
from ml.config import Paths, Settings
from ml.datasets import SpeechSet
from ml.evaluation import metrics
from ml.evaluation.recognition import one_thread
from ml.training.speech import classify_mels, validation_mels
from ml.training.unseen import without_speaker

SNRS_DB = (-5, 0, 5, 10, 15, 20)
CPU = torch.device("cpu")
LATENCY_CLIPS = 30


def measure(piece: Piece, paths: Paths, settings: Settings, kept: Path, keep: Path | None = None) -> dict:
    """Trains one piece on the prepared data of `paths` and returns its figures.

    kept: for its checkpoints, by which a training that was ended goes on; keep: where its model may stay.
    """
    whole = datasets.load_speech(paths)
    recipe, how = piece.recipe(settings), replace(settings.training, seed=piece.seed)
    extra = datasets.extra_voices(paths, piece.extra_voices)
    with tempfile.TemporaryDirectory() as scratch:
        out = keep or Path(scratch) / "model"
        begun, worked = time.perf_counter(), time.process_time()
        card = training.train_speech_classifier(
            piece.kind, _learnt_from(whole, piece), recipe, how, out, kept, False, extra=extra, kinds=MODELS
        )
        share = (time.process_time() - worked) / (time.perf_counter() - begun)  # of a processor, as earlier runs had
        shutil.rmtree(kept, ignore_errors=True)
        model, _ = models.load_model(out, kinds={f"speech_{kind}": built for kind, built in MODELS.items()})
        size = (out / models.WEIGHTS).stat().st_size
    figures = _figures(piece, model, card, whole)
    about = {name: card[name] for name in ("parameters", "train_s")} | {"cpu_s": round(share * card["train_s"], 1)}
    about |= {"channels": recipe.channels, "bytes": size, "device": card["device"], "looks": len(models.LOOKS)}
    where = {"threads": torch.get_num_threads(), "machine": f"{os.cpu_count()} x {platform.machine()}"}
    return {**asdict(piece), **about, **where, **figures}


def _learnt_from(speech: SpeechSet, piece: Piece) -> SpeechSet:
    if piece.left_out:
        speech = without_speaker(speech, piece.left_out)
    if piece.share < 1:
        order = np.random.default_rng(piece.seed).random(len(speech))
        speech = replace(speech, split=np.where((speech.split == "train") & (order >= piece.share), "", speech.split))
    return speech


def _figures(piece: Piece, model: nn.Module, card: dict, speech: SpeechSet) -> dict:
    learnt_from = _learnt_from(speech, piece)
    held = learnt_from.where("validation")
    found = {"validation": _judged(model, card, held), "train_n": len(learnt_from.where("train"))}
    match piece.part:
        case "final":
            test = speech.where("test")
            noise = {str(snr): _judged(model, card, noisy(test, snr))["accuracy"] for snr in SNRS_DB}
            return {**found, "test": _judged(model, card, test, True), "noise": noise, "latency_ms": latency_ms(model)}
        case "unseen":
            return {**found, "unseen": _judged(model, card, speech.of(piece.left_out), True)}
        case "augmentation":
            return {
                **found,
                "unseen": _judged(model, card, speech.of(piece.left_out).where("train", "validation", "gate")),
            }
        case _:
            return {**found, "validation_0_db": _judged(model, card, noisy(held, 0))}


def _judged(model: nn.Module, card: dict, speech: SpeechSet, each: bool = False) -> dict:
    """accuracy, n, mean cross entropy and the calibration errors; with `each`, a 1 or 0 for every clip in order."""
    logits, labels = logits_of(model, speech), torch.from_numpy(np.array(speech.labels))
    right = (logits.argmax(1) == labels).numpy()
    errors = {
        name: metrics.expected_calibration_error((logits / t).softmax(1).amax(1).numpy(), right)
        for name, t in (("ece_before", 1.0), ("ece", card["temperature"]))
    }
    loss = float(nn.functional.cross_entropy(logits / card["temperature"], labels))
    bits = {"right": "".join(map(str, right.astype(int)))} if each else {}
    return {"accuracy": float(right.mean()), "n": len(right), "loss": loss, **errors, **bits}


def logits_of(model: nn.Module, speech: SpeechSet) -> Tensor:
    """Logits (n, classes) of all clips, as the predictor would have them before its temperature."""
    return classify_mels(model, validation_mels(speech, features.LogMel(speech.sample_rate_hz), CPU))


def noisy(speech: SpeechSet, snr_db: float, seed: int = 0) -> SpeechSet:
    """The same clips in white noise; the ratio is over each whole clip. float32 samples of the same scale."""
    rng, clips = np.random.default_rng(seed), [speech.clip(row) for row in range(len(speech))]
    mixed = []
    for clip in clips:
        noise = rng.standard_normal(len(clip))
        ratio = np.sqrt(np.mean(clip**2) / np.mean(noise**2)) * 10 ** (-snr_db / 20)
        mixed.append(32768 * (clip + ratio * noise))
    offsets = np.concatenate(([0], np.cumsum(speech.lengths)[:-1]))
    return replace(speech, samples=np.concatenate(mixed).astype(np.float32), offsets=offsets)


def latency_ms(model: nn.Module, seconds: float = 0.5, rate_hz: int = 8000) -> float:
    """Median CPU time of one thread from half a second of sound to its logits; beside other work it may be double."""
    log_mel, sound = features.LogMel(rate_hz), torch.randn(1, int(seconds * rate_hz))
    with one_thread(), torch.inference_mode():
        model(*log_mel(sound))
        times = []
        for _ in range(LATENCY_CLIPS):
            begun = time.thread_time()
            model(*log_mel(sound))
            times.append(time.thread_time() - begun)
    return round(1000 * statistics.median(times), 3)
