"""FSDD-Scenes: the extractor beside oracles and baselines, for seen speakers and for one that training never heard.

`python -m benchmarks extraction` measures the candidates of the last run on the test clips; with `--leave-out SPEAKER`
it first trains an extractor and a speech classifier without that speaker (a training that was ended goes on where it
stood, one that was finished is kept) and measures them on all of the speaker's clips. `--blind` trains one more
opponent, which takes twice as long as the extractor itself. Figures go to docs/extraction.json, and docs/extraction.md
is written anew from it; `--page` does only that.
"""

import argparse
import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks import extraction_page, machine
from benchmarks.blind import blind_separator
from benchmarks.minutes import minutes
from benchmarks.unknown import unknown_words
from ml import scenes, training
from ml.config import Paths, Settings, UserError, load_paths, load_settings
from ml.datasets import ImageSet, SpeechSet, extra_voices, load_images, load_speech
from ml.evaluation.benchmark import bench_of, detection_plan, headline_plan
from ml.evaluation.report import measure_extraction
from ml.files import write_json
from ml.models import WEIGHTS, read_card
from ml.predictor import Predictor
from ml.training.loop import code_digest

DIGESTED = 20  # scenes of each plan, whose digest tells whether others have the same


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks extraction")
    parser.add_argument("--leave-out", metavar="SPEAKER")
    parser.add_argument(
        "--extra-voices", type=float, metavar="SHARE", help="with --leave-out: train with the starter's voices as well"
    )
    parser.add_argument(
        "--blind", action="store_true", help="also train and ask an opponent that separates without the picture"
    )
    parser.add_argument("--scenes", type=int, help="in each bucket; evaluation.scenes of the budget without it")
    parser.add_argument("--page", action="store_true", help="only write docs/extraction.md from docs/extraction.json")
    asked = parser.parse_args(arguments)
    if asked.scenes is not None and asked.scenes < 1:
        parser.error(f"--scenes {asked.scenes}: expected at least 1")
    if asked.extra_voices is not None and not asked.leave_out:
        parser.error("--extra-voices: expected --leave-out as well; without it nothing is trained")
    settings = with_extra_voices(load_settings(), asked.extra_voices)
    paths = load_paths(settings)
    if asked.blind and settings.speech_extractor.extra_voices:
        raise UserError("--blind: expected no extra voices; the opponent is trained without them")
    if not asked.page:
        measure(settings, paths, asked.leave_out, asked.blind, asked.scenes)
    extraction_page.write(paths.root / "docs")


def with_extra_voices(settings: Settings, share: float | None) -> Settings:
    """The settings with this share of extra voices in both trainings of sound; as they are where it is None."""
    if share is None:
        return settings
    if not 0 <= share < 1:
        raise UserError(f"--extra-voices {share:g}: expected a share from 0 to below 1")
    words = dataclasses.replace(settings.speech_classifier, extra_voices=share)
    scenes_of = dataclasses.replace(settings.speech_extractor, extra_voices=share)
    return dataclasses.replace(settings, speech_classifier=words, speech_extractor=scenes_of)


def measure(settings: Settings, paths: Paths, speaker: str | None, blind: bool, n: int | None = None) -> None:
    """Measures one variant and puts it into docs/extraction.json under its name."""
    images, speech = load_images(paths), load_speech(paths)
    if speaker is None:
        predictor = predictor_of(paths.candidates)
    else:
        speech = without(speech, speaker)
        predictor = trained_without(settings, paths, images, speech, speaker)
    require_made_of(predictor, images, speech)
    require_budget(predictor, settings)
    bench = bench_of(predictor, images, speech, "test", settings)
    if len(bench.labels) < 2:
        raise UserError(f"{paths.source}: {len(bench.labels)} labels are pictured and said in the test; expected 2")
    if blind:
        bench = dataclasses.replace(bench, separator=blind_separator(speech, settings, kept_in(paths, speaker)))
    n = n or settings.evaluation.scenes.of(settings.training.budget)
    heard = set(speech.where("train", "validation").group)
    with tqdm(total=5 * n, desc="scenes", unit="") as bar:
        section, _ = measure_extraction(bench, n, settings, heard, bar.update)
    section["unknown_words"] = unknown_words(predictor, bench.speech)
    section["minutes"] = minutes(predictor, bench.speech, bench.scene_s)
    plans = {"full": headline_plan(bench, "full", DIGESTED), "mixed": detection_plan(bench, DIGESTED)}
    card = predictor.cards["speech_extractor"]
    record = {
        "source": paths.source,
        "budget": settings.training.budget,
        "left_out": speaker,
        "extra_voices": card["recipe"]["extra_voices"] if "extra_voices" in card["data"] else 0,
        "seed": settings.training.seed,
        "scenes": n,
        "blind": blind,
        "steps": card["steps"],
        "train_s": card["train_s"],
        "machine": machine(),
        "digests": {name: scenes.scenes_digest(plan, bench.speech) for name, plan in plans.items()},
        "extraction": section,
    }
    who = f"{speaker} left out" if speaker else "seen speakers"
    voices = ", extra voices" if record["extra_voices"] else ""
    name = f"{paths.source}, {record['budget']}, {who}{voices}{', blind opponent' if blind else ''}"
    keep(paths.root / "docs" / "extraction.json", name, record)


def require_made_of(predictor: Predictor, images: ImageSet, speech: SpeechSet) -> None:
    """Raises UserError where a model learnt from other data than are measured: test items could be among them."""
    data = {"image_classifier": images.digest, "speech_classifier": speech.digest, "speech_extractor": speech.digest}
    for name, digest in data.items():
        if digest not in predictor.cards[name]["data"].values():
            raise UserError(f"{name}: learnt from other data; expected the present ones, `make run` trains on them")


def require_budget(predictor: Predictor, settings: Settings) -> None:
    """Raises UserError where the extractor is not of the budget whose figures these are to be."""
    recipe, budget, card = settings.speech_extractor, settings.training.budget, predictor.cards["speech_extractor"]
    wanted = {"steps": recipe.steps.of(budget), **recipe.body(budget)}
    for name, value in wanted.items():
        if (got := card["steps"] if name == "steps" else card["arguments"].get(name)) != value:
            raise UserError(
                f"speech_extractor: {name} {got}, but at the budget {budget} it is {value}; "
                "expected SEEHEAR_BUDGET to be that of the model's training"
            )


def kept_in(paths: Paths, speaker: str | None) -> Path:
    """Where what is trained for the benchmark stays, so that a training that was ended is gone on with."""
    return paths.var / "benchmarks" / (f"without_{speaker}" if speaker else "seen")


def keep(file: Path, name: str, record: dict) -> None:
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    write_json(file, {**known, name: record})


def predictor_of(candidates: Path, speech: Path | None = None, extractor: Path | None = None) -> Predictor:
    """The candidates with, where given, another speech classifier and extractor; UserError where one is missing."""
    speech = speech or candidates / "speech_classifier" / "cnn"
    return Predictor.from_models(candidates / "image_classifier", speech, extractor or candidates / "speech_extractor")


def without(speech: SpeechSet, speaker: str) -> SpeechSet:
    """The recordings with all of `speaker` as the test split, and nothing else in it."""
    theirs = speech.group == speaker
    if not theirs.any():
        raise UserError(f"--leave-out {speaker}: expected one of {', '.join(sorted(set(speech.group)))}")
    split = np.where(theirs, "test", np.where(speech.split == "test", "unused", speech.split))
    return dataclasses.replace(speech, split=split, digest=f"{speech.digest} without {speaker}")


def trained_without(settings: Settings, paths: Paths, images: ImageSet, speech: SpeechSet, speaker: str) -> Predictor:
    """An extractor and a CNN for speech that never heard the speaker, and the candidates' picture classifier; what was
    trained by the very same code, settings and data is kept."""
    pictures, how = paths.candidates / "image_classifier", settings.training
    words, scenes_of = settings.speech_classifier.of("cnn"), settings.speech_extractor
    weights = read_card(pictures)["digests"][WEIGHTS]
    voices = [extra_voices(paths, one.extra_voices) for one in (words, scenes_of)]
    made_of = [speech.digest, images.digest, *(one and one.digest for one in voices), weights, code_digest()]
    made_of += map(dataclasses.asdict, (words, scenes_of, how))
    folder = kept_in(paths, speaker) / hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]
    classifier, extractor, notes = folder / "cnn", folder / "speech_extractor", folder / "kept"
    if not classifier.is_dir():
        training.train_speech_classifier("cnn", speech, words, how, classifier, notes, extra=voices[0])
    if not extractor.is_dir():
        training.train_speech_extractor(speech, pictures, images, scenes_of, how, extractor, notes, extra=voices[1])
    return predictor_of(paths.candidates, classifier, extractor)
