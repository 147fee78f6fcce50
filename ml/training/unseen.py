"""Leave one speaker out: the same training without one of its voices, to learn what a voice never heard would get.

For sources whose test shares its speakers with training, as FSDD's does; where test speakers are new there is no need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ml import models
from ml.config import Augmentation, PerBudget, SpeechRecipe, UserError
from ml.training.speech import train_speech_classifier

if TYPE_CHECKING:
    from ml.config import Training
    from ml.datasets import SpeechSet

LEFT_OUT = "left_out"


def speakers_to_leave_out(speech: SpeechSet, wanted: Sequence[str]) -> list[str]:
    """Those `wanted` that can be spared, else the first two by name that can.

    None where the test split has speakers that neither train nor validation know. A speaker can be spared when train
    still says every class without them and validation is not empty.
    """
    heard = {str(group) for group in speech.where("train", "validation").group} - {""}
    if {str(group) for group in speech.where("test").group} - heard - {""}:
        return []
    spared = [group for group in sorted(heard) if _can_be_spared(speech, group)]
    return [group for group in wanted if group in spared] or spared[:2]


def without_speaker(speech: SpeechSet, speaker: str) -> SpeechSet:
    """The same clips, of which those of one speaker belong to no split."""
    split = np.where(speech.group == speaker, LEFT_OUT, speech.split)
    return replace(speech, split=split, digest=f"{speech.digest} without {speaker}")


def train_left_out(
    card: dict,
    speech: SpeechSet,
    speakers: Sequence[str],
    training: Training,
    out: Path,
    checkpoints: Path,
    progress: bool = True,
    extra: SpeechSet | None = None,
) -> dict[str, Path]:
    """Folder of a model for every speaker of `speakers`, trained as `card` says of one that heard them all.

    One that was made beside the very same model is kept.
    """
    kind, recipe = card["kind"].removeprefix("speech_"), _recipe_of(card)
    training, made = replace(training, seed=card["seed"]), {}
    for number, speaker in enumerate(speakers):
        place = f"{kind}-{number}"
        rest = without_speaker(speech, speaker)
        rest = replace(rest, digest=f"{rest.digest} beside {card['digests'][models.WEIGHTS]}")
        if not _is_made(out / place, rest.digest):
            notes = checkpoints / place
            train_speech_classifier(kind, rest, recipe, training, out / place, notes, progress, extra=extra)
        made[speaker] = out / place
    return made


def _recipe_of(card: dict) -> SpeechRecipe:
    steps = card["steps"]
    own = {"steps": PerBudget(steps, steps, steps), "augmentation": Augmentation(**card["recipe"]["augmentation"])}
    return SpeechRecipe(**{**card["recipe"], **own})


def _can_be_spared(speech: SpeechSet, speaker: str) -> bool:
    rest = without_speaker(speech, speaker)
    train = rest.where("train")
    learnt = set(train.labels.tolist()) == set(speech.where("train").labels.tolist())
    return learnt and len(train) > 0 and len(rest.where("validation")) > 0


def _is_made(folder: Path, digest: str) -> bool:
    try:
        return models.read_card(folder)["data"]["audio"] == digest
    except UserError:
        return False
