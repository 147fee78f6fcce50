"""Classifiers that have never met one class and one speaker, and that leave plenty of data for others to show them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ml import datasets
from ml.config import Paths, UserError, load_settings

KIND = "cnn"
LIVE_SHARE = 0.5  # of the recordings: neither trained nor calibrated on, so that windows of 500 need no clip twice
LIVE = "live"
DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class HeldOut:
    """Sets whose split is `train`, `validation` or `live`; in none of the first two is the new class or speaker."""

    images: datasets.ImageSet
    speech: datasets.SpeechSet
    new_class: str
    new_speaker: str


def hold_out(paths: Paths, seed: int) -> HeldOut:
    """The last class and speaker kept back; half of the other recordings are live, as are all gate and test items.

    Raises UserError where it is not known who speaks, or pictures and recordings are not of the digits.
    """
    images, speech = datasets.load_images(paths), datasets.load_speech(paths)
    if not tuple(images.classes) == tuple(speech.classes) == DIGITS:
        raise UserError(f"{paths.source}: expected pictures and recordings of the digits 0 to 9")
    if not speech.group.astype(bool).all():
        raise UserError(f"{paths.source}: the recordings do not say who speaks; expected a source that does")
    rng, new_speaker = np.random.default_rng(seed), max(speech.group)
    last = images.classes[-1]
    live = np.isin(images.split, ("gate", "test")) | (images.labels == images.classes.index(last))
    images = replace(images, split=np.where(live, LIVE, images.split))
    live = np.isin(speech.split, ("gate", "test")) | (rng.random(len(speech)) < LIVE_SHARE)
    live |= (speech.group == new_speaker) | (speech.labels == speech.classes.index(last))
    return HeldOut(images, replace(speech, split=np.where(live, LIVE, speech.split)), last, new_speaker)


def require_enough(sets: HeldOut, rows: Mapping[str, int]) -> None:
    """Raises UserError where there are not as many live pictures and recordings of what is known; rows: by side."""
    for side, data in (("picture", sets.images), ("recording", sets.speech)):
        known = (data.split == LIVE) & (data.labels != data.classes.index(sets.new_class))
        known &= data.group != sets.new_speaker
        if known.sum() < rows[side]:
            raise UserError(
                f"drift: {known.sum()} {side}s that no model has learnt from, expected at least {rows[side]}; "
                "SEEHEAR_SOURCE=mnist-fsdd has enough"
            )


def trained(paths: Paths, sets: HeldOut) -> tuple[Path, Path]:
    """Folders of the picture and the speech classifier, trained with the budget's settings unless they lie there."""
    from ml.training import train_image_classifier, train_speech_classifier
    from ml.training.loop import code_digest

    settings = load_settings(paths.root)
    images, speech = settings.image_classifier, settings.speech_classifier.of(KIND)
    made_of = (sets.images.digest, sets.speech.digest, images, speech, settings.training, code_digest())
    place = paths.var / "benchmarks" / "drift" / hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]
    pictures, words = place / "image_classifier", place / f"speech_classifier_{KIND}"
    if not pictures.exists():
        known = _known(sets.images, ("pixels", "labels", "split", "group", "ids"))
        train_image_classifier(known, images, settings.training, pictures, place / "checkpoints")
    if not words.exists():
        known = _known(sets.speech, ("offsets", "lengths", "labels", "split", "group", "ids"))
        train_speech_classifier(KIND, known, speech, settings.training, words, place / "checkpoints")
    return pictures, words


def _known(whole, columns: tuple[str, ...]):
    """What may be trained on, without the new class."""
    kept = whole.split != LIVE
    return replace(whole, classes=whole.classes[:-1], **{name: getattr(whole, name)[kept] for name in columns})
