"""Leave one speaker out: the same training without one of its voices, to learn what a voice never heard would get.

For sources whose test shares its speakers with training, as FSDD's does; where test speakers are new there is no need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ml import models
from ml.config import Augmentation, PerBudget, SpeechRecipe, UserError
from ml.training.loop import pick_device
from ml.training.speech import train_speech_classifier

if TYPE_CHECKING:
    from ml.config import Training
    from ml.datasets import SpeechSet

    Job = tuple[SpeechSet, Path, Path, bool]  # without a speaker; where model and checkpoints go; whether a bar shows

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

    One that was made beside the very same model is kept. On a processor all of them are trained at once.
    """
    kind, recipe = card["kind"].removeprefix("speech_"), _recipe_of(card)
    training, made, missing = replace(training, seed=card["seed"]), {}, []
    for number, speaker in enumerate(speakers):
        place = made[speaker] = out / f"{kind}-{number}"
        rest = without_speaker(speech, speaker)
        rest = replace(rest, digest=f"{rest.digest} beside {card['digests'][models.WEIGHTS]}")
        if not _is_made(place, rest.digest):
            missing.append((rest, place, checkpoints / place.name, progress and not missing))  # one bar for all
    _side_by_side(partial(_train, kind, recipe, training, extra), missing, pick_device(training))
    return made


def _train(kind: str, recipe: SpeechRecipe, training: Training, extra: SpeechSet | None, job: Job) -> None:
    speech, out, checkpoints, progress = job
    train_speech_classifier(kind, speech, recipe, training, out, checkpoints, progress, extra=extra)


def _side_by_side(train: Callable[[Job], None], jobs: Sequence[Job], device: torch.device) -> None:
    """Every job in a process of its own with its share of torch's threads; one after the other here where there are too
    few of them, or a GPU.

    Threads of one training wait for each other many times a step, so two at once end sooner. A fault of one, or an
    interrupt, ends all.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or not 1 < len(jobs) <= threads:
        for job in jobs:
            train(job)
        return
    with get_context("spawn").Pool(len(jobs), torch.set_num_threads, [threads // len(jobs)]) as pool:
        pool.map(train, jobs, chunksize=1)


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
