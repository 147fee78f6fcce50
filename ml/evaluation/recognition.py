"""Accuracy, calibration and speed of the classifiers on one split, through the Predictor."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from ml.datasets import ImageSet, SpeechSet
from ml.evaluation import metrics
from ml.predictor import Predictor

LATENCY_CLIPS = 30


@dataclass(frozen=True)
class Answers:
    """A classifier's posteriors (n, classes…) beside the truth; a column beyond the classes is "nothing known"."""

    model: str
    modality: str
    split: str
    ids: np.ndarray
    groups: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    posteriors: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        return self.posteriors.argmax(axis=1)

    @property
    def confidences(self) -> np.ndarray:
        return self.posteriors.max(axis=1)

    @property
    def correct(self) -> np.ndarray:
        return self.predicted == self.labels

    @property
    def accuracy(self) -> float | None:
        return float(self.correct.mean()) if len(self.labels) else None

    @property
    def loss(self) -> float:
        """Mean cross entropy; a label that the model does not know has no probability."""
        chosen = self.posteriors[np.arange(len(self.labels)), self.labels]
        return float(-np.log(np.maximum(np.where(self.labels < 0, 0, chosen), 1e-12)).mean())


def answer_images(predictor: Predictor, images: ImageSet, split: str) -> Answers:
    """What the image classifier says to one split."""
    rows = images.where(split)
    labels = renumbered(rows.labels, rows.classes, predictor.image_classes)
    posteriors = predictor.classify_images(rows.pixels) if len(rows) else np.zeros((0, len(rows.classes) + 1))
    return Answers(
        "image_classifier", "images", split, rows.ids, rows.group, labels, predictor.image_classes, posteriors
    )


def answer_speech(predictor: Predictor, kind: str, speech: SpeechSet, split: str) -> Answers:
    """What one speech classifier says to one split."""
    rows = speech.where(split)
    labels = renumbered(rows.labels, rows.classes, predictor.speech_classes)
    clips = [rows.clip(row) for row in range(len(rows))]
    posteriors = predictor.recognize_batch(clips) if clips else np.zeros((0, len(rows.classes)))
    return Answers(
        f"speech_classifier/{kind}", "audio", split, rows.ids, rows.group, labels, predictor.speech_classes, posteriors
    )


def renumbered(labels: np.ndarray, classes: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """Labels as positions in the classes that a model knows; -1, which is never right, for a class it does not."""
    table = np.array([known.index(name) if name in known else -1 for name in classes])
    return table[labels]


def figures(answers: Answers, card: dict) -> dict:
    """accuracy, ci95, n, ece, parameters and train_s; null where there was nothing to measure."""
    n = len(answers.labels)
    return {
        "accuracy": answers.accuracy,
        "ci95": list(metrics.wilson_interval(int(answers.correct.sum()), n)) if n else None,
        "n": n,
        "ece": metrics.expected_calibration_error(answers.confidences, answers.correct) if n else None,
        "parameters": card["parameters"],
        "train_s": card["train_s"],
    }


def speaker_accuracy(answers: Answers, trained_on: set[str]) -> dict[str, float] | None:
    """Accuracy of every named speaker that training never heard; None where there is none."""
    unseen = sorted({str(group) for group in answers.groups} - trained_on - {""})
    return {group: float(answers.correct[answers.groups == group].mean()) for group in unseen} or None


def left_out_accuracy(predictor: Predictor, speech: SpeechSet, speaker: str) -> dict:
    """accuracy, ci95 and n over every clip of a speaker whom the predictor's speech classifier was kept from."""
    rows = speech.of(speaker)
    posteriors = predictor.recognize_batch([rows.clip(row) for row in range(len(rows))])
    right = posteriors.argmax(axis=1) == renumbered(rows.labels, rows.classes, predictor.speech_classes)
    interval = metrics.wilson_interval(int(right.sum()), len(right))
    return {"accuracy": float(right.mean()), "ci95": list(interval), "n": len(right)}


def choose(validation: dict[str, Answers], cards: dict[str, dict]) -> str:
    """The kind of the least cross entropy on validation, of equal ones the one of fewer parameters.

    Not that of the best accuracy: a few hundred clips of known voices are nearly all told right, so one clip would
    decide, while all of them say how sure each kind is of what is right.
    """
    return min(validation, key=lambda kind: (validation[kind].loss, cards[kind]["parameters"]))


def compare(test: dict[str, Answers]) -> dict[str, float]:
    """McNemar's p-value of every pair of speech classifiers on the same clips, as "cnn_rnn"."""
    kinds = sorted(test)
    pairs = [(first, second) for i, first in enumerate(kinds) for second in kinds[i + 1 :]]
    return {f"{a}_{b}": metrics.mcnemar_p(test[a].correct, test[b].correct) for a, b in pairs}


def majority_share(answers: Answers) -> float | None:
    """Share of the commonest true class."""
    return float(np.bincount(answers.labels + 1).max() / len(answers.labels)) if len(answers.labels) else None


def latency_ms(predictor: Predictor, speech: SpeechSet) -> float | None:
    """Median time on one thread from one clip to its posteriors."""
    clips = [speech.clip(row) for row in range(min(LATENCY_CLIPS, len(speech)))]
    if not clips:
        return None
    with one_thread():
        predictor.recognize_batch(clips[:1])
        return float(np.median([seconds(predictor.recognize_batch, [clip]) for clip in clips]) * 1000)


def seconds(action, *arguments) -> float:
    """How long one call takes."""
    begun = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - begun


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on a single thread meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
