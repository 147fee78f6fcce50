"""The whole evaluation: reports/evaluation.json with the tables, plots and sounds beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from ml import media
from ml.config import SPEECH_KINDS, Settings, UserError
from ml.datasets import ImageSet, SpeechSet
from ml.evaluation import benchmark, metrics, plots, recognition
from ml.evaluation.benchmark import Advance, Bench
from ml.evaluation.examples import write_examples
from ml.evaluation.gate import gate_answers
from ml.evaluation.objects import object_figures
from ml.evaluation.recognition import Answers
from ml.evaluation.reference import write_predictions, write_reference
from ml.files import write_json
from ml.predictor import GoldenRequest, Predictor

ORACLES = ("irm", "psm", "complex")
BUCKETS = {"full_overlap": "full", "partial_overlap": "partial", "no_overlap": "none"}
GOLDENS = 4
Predictors = Mapping[str, Predictor]  # by kind of speech classifier
LeaveOut = Callable[[str], Mapping[str, Path]]  # kind of classifier -> by speaker a model of it that never heard them


def evaluate(
    images: ImageSet,
    speech: SpeechSet,
    candidates: Path,
    settings: Settings,
    out: Path,
    context: Mapping,
    facts: Mapping[str, pa.Table] | None = None,
    progress: bool = True,
    leave_out: LeaveOut | None = None,
) -> dict:
    """Measure the candidates through the Predictor and write everything that people and monitoring read.

    candidates: folder with image_classifier, speech_classifier/{cnn,rnn,lstm} and speech_extractor. context: what the
    caller knows of the run (`git`, `data`); it may add keys. facts: tables of measured facts by modality, for
    reference.parquet. out: gets evaluation.json, predictions.parquet, reference.parquet, plots/ and examples/.

    leave_out: trains, for the figures of unseen speakers, the chosen kind without them; none is asked where the test
    speakers are unseen.

    Validation chooses the speech classifier, test is reported, gate fills the section `gate`. Returns evaluation.json.
    """
    predictors = {kind: _predictor(candidates, kind) for kind in SPEECH_KINDS}
    cards = {kind: one.cards["speech_classifier"] for kind, one in predictors.items()}
    held, test = (_speech_answers(predictors, speech, split) for split in ("validation", "test"))
    chosen = recognition.choose(held, cards)
    predictor = predictors[chosen]
    pictured = recognition.answer_images(predictor, images, "test")
    scenes = settings.evaluation.scenes.of(settings.training.budget)
    with tqdm(total=7 * scenes, desc="evaluation, scenes", unit="", disable=None if progress else True) as bar:
        bench = benchmark.bench_of(predictor, images, speech, "test", settings)
        extraction, gains_db = measure_extraction(bench, scenes, settings, _speakers(speech), bar.update)
        gate = gate_answers(predictor, images, speech, settings, advance=bar.update)
    report = {
        **_provenance(settings, predictor, cards, context),
        "image": recognition.figures(pictured, predictor.cards["image_classifier"])
        | {"objects": object_figures(predictor.see, images, "test", scenes, settings.evaluation.seed)},
        "speech": _with_left_out(_speech(predictors, test, speech, chosen), candidates, speech, leave_out),
        "extraction": extraction,
        "gate": gate.section,
    }
    write_predictions([pictured, *test.values()], out / "predictions.parquet")
    write_reference(predictor, images, speech, settings.evaluation.seed, out / "reference.parquet", facts)
    _draw(out / "plots", predictors, pictured, test, gains_db, extraction["oracle_db"])
    _show(bench, out)
    write_json(out / "evaluation.json", report)
    return report


def golden_requests(
    images: ImageSet, speech: SpeechSet, image: Path, speech_model: Path, extractor: Path
) -> list[GoldenRequest]:
    """Four validation pictures and recordings with the answers of three models, to be stored in their bundle.

    Three of the recordings say what is pictured, the last one another word where there is one. Raises UserError where
    validation has both a picture and a recording of no label at all.
    """
    predictor = Predictor.from_models(image, speech_model, extractor)
    images, speech = images.where("validation"), speech.where("validation")
    names = np.array(images.classes)[images.labels]
    spoken = np.array(speech.classes)[speech.labels]
    both = [label for label in predictor.labels if label in names and label in spoken]
    if not both:
        raise UserError(
            "golden requests: no label has both a picture and a recording in the validation split; add some"
        )
    goldens = []
    for number in range(GOLDENS):
        label = both[number % len(both)]
        said = label if number < GOLDENS - 1 else _another(label, both, spoken)
        picture = images.pixels[np.flatnonzero(names == label)[0]]
        clip = speech.clip(int(np.flatnonzero(spoken == said)[0]))
        wav = media.encode_wav(clip, speech.sample_rate_hz)
        goldens.append(predictor.golden(media.encode_png(np.asarray(picture)), wav))
    return goldens


def _another(label: str, both: list[str], spoken: np.ndarray) -> str:
    """The label after this one, else a word that is only heard, else the label itself."""
    others = [*both[both.index(label) + 1 :], *both, *spoken]
    return next((str(word) for word in others if word != label), label)


def _predictor(candidates: Path, kind: str, speech_model: Path | None = None) -> Predictor:
    folder = Path(candidates)
    speech_model = speech_model or folder / "speech_classifier" / kind
    return Predictor.from_models(folder / "image_classifier", speech_model, folder / "speech_extractor")


def _speech_answers(predictors: Predictors, speech: SpeechSet, split: str) -> dict[str, Answers]:
    return {kind: recognition.answer_speech(one, kind, speech, split) for kind, one in predictors.items()}


def _speakers(speech: SpeechSet) -> set[str]:
    """Everyone whom training or the choice of a model heard."""
    return {str(group) for group in speech.where("train", "validation").group}


def _provenance(settings: Settings, predictor: Predictor, speech: Mapping[str, Mapping], context: Mapping) -> dict:
    cards = predictor.cards
    effective = {name: _effective(cards[name]) for name in ("image_classifier", "speech_extractor")}
    effective["speech_classifier"] = {kind: _effective(card) for kind, card in speech.items()}
    return {
        "source": settings.data.source,
        "budget": settings.training.budget,
        "seed": settings.training.seed,
        "device": cards["speech_extractor"].get("device"),
        "git": None,
        "data": {},
        "settings": dataclasses.asdict(settings) | effective,
        "models": predictor.digest,
        "versions": cards["speech_extractor"].get("versions"),
        **context,
    }


def _effective(card: Mapping) -> dict:
    """The settings a model was trained with, which one run may have set otherwise than params.yaml."""
    own = {"steps": card.get("steps"), "seed": card.get("seed")}
    size = {name: value for name, value in card["arguments"].items() if isinstance(value, int)}
    return {**card.get("recipe", {}), **size, **own}


def _speech(predictors: Predictors, test: Mapping[str, Answers], speech: SpeechSet, chosen: str) -> dict:
    speakers, rows = _speakers(speech), speech.where("test")
    section = {
        kind: {
            **recognition.figures(test[kind], one.cards["speech_classifier"]),
            "unseen_speaker_accuracy": recognition.speaker_accuracy(test[kind], speakers),
            "latency_ms": recognition.latency_ms(one, rows),
        }
        for kind, one in predictors.items()
    }
    compared = recognition.compare(dict(test))
    holm = metrics.holm_adjusted(compared)
    return {**section, "chosen": chosen, "mcnemar_p": compared, "mcnemar_p_holm": holm}


def _with_left_out(section: dict, candidates: Path, speech: SpeechSet, leave_out: LeaveOut | None) -> dict:
    """The section `speech` with what the chosen kind makes of speakers it was trained without; null if not measured."""
    kind = section["chosen"]
    found = {
        speaker: recognition.left_out_accuracy(_predictor(candidates, kind, folder), speech, speaker)
        for speaker, folder in (leave_out(kind) if leave_out else {}).items()
    }
    if found:
        accuracies = {speaker: figures["accuracy"] for speaker, figures in found.items()}
        section = {**section, kind: {**section[kind], "unseen_speaker_accuracy": accuracies}}
    return {**section, "left_out": found or None}


def measure_extraction(
    bench: Bench, scenes: int, settings: Settings, trained_on: set[str], advance: Advance
) -> tuple[dict, dict[str, np.ndarray]]:
    """The section `extraction`, and the gains of every scene by bucket."""
    card = bench.predictor.cards["speech_extractor"]
    if len(bench.labels) < 2:
        nothing = dict.fromkeys(BUCKETS, np.zeros(0))
        return _extraction_section(None, None, nothing, {}, card, settings), {}
    heads = benchmark.headline(bench, scenes, trained_on, advance)
    gains_db = {"full_overlap": heads.gains_db}
    for bucket in ("partial_overlap", "no_overlap"):
        gains_db[bucket] = benchmark.separation_gains(bench, BUCKETS[bucket], scenes, advance)
    found = benchmark.detections(bench, scenes, advance)
    words, chosen = benchmark.all_words(bench, scenes, advance), settings.evaluation
    apart = benchmark.words_figures(*words, chosen.bootstrap, chosen.seed)
    apart["real_time_factor"] = benchmark.real_time_factor(bench)
    return _extraction_section(heads, found, gains_db, apart, card, settings), gains_db


def _extraction_section(
    heads: benchmark.Headline | None,
    found: benchmark.Found | None,
    gains_db: Mapping[str, np.ndarray],
    apart: Mapping[str, object],
    card: dict,
    settings: Settings,
) -> dict:
    def summary(values: np.ndarray) -> dict | None:
        return metrics.summarise_db(values, settings.evaluation.bootstrap, settings.evaluation.seed)

    others, ours = heads.others_db if heads else {}, summary(gains_db["full_overlap"])
    return {
        "si_sdr_improvement_db": {bucket: summary(values) for bucket, values in gains_db.items()},
        "unseen_speaker": {"full_overlap": summary(heads.gains_db[heads.unseen]) if heads else None},
        "oracle_db": {name: float(others[name].mean()) if heads else None for name in ORACLES},
        "baselines": {
            name: metrics.beside(summary(values), ours) for name, values in others.items() if name not in ORACLES
        },
        "word_accuracy": float(heads.extracted_right.mean()) if heads else None,
        "word_accuracy_answered": float(heads.answered_right.mean()) if heads else None,
        "word_accuracy_unprocessed": float(heads.unprocessed_right.mean()) if heads else None,
        "word_accuracy_clean": float(heads.clean_right.mean()) if heads else None,
        "presence_auc": None,
        "miss_at_1pct_false_alarm": None,
        "boundary_error_ms_median": None,
        "localisation_map": None,
        "words_f1": apart.get("words_f1"),
        "words_f1_ci95": apart.get("words_f1_ci95"),
        **(benchmark.presence_figures(found) | benchmark.place_figures(found) if found else {}),
        "image_swap_success": float(heads.swapped.mean()) if heads and len(heads.swapped) else None,
        "parameters": card["parameters"],
        "real_time_factor": apart.get("real_time_factor"),
        "train_s": card["train_s"],
    }


def _draw(
    out: Path,
    predictors: Predictors,
    pictured: Answers,
    test: Mapping[str, Answers],
    gains_db: Mapping[str, np.ndarray],
    oracle_db: Mapping[str, float | None],
) -> None:
    answers = {"image": pictured, **{f"speech {kind}": one for kind, one in test.items()}}
    for name, one in answers.items():
        classes = (*one.classes, "nothing known") if name == "image" else one.classes
        figure = plots.confusion_figure(one.labels, one.predicted, classes, f"{name}: test split")
        plots.save(figure, out / f"confusion_{name.replace(' ', '_')}.png")
    cards = next(iter(predictors.values())).cards
    speech = {f"speech {kind}": one.cards["speech_classifier"]["history"] for kind, one in predictors.items()}
    histories = {
        "image": cards["image_classifier"]["history"],
        **speech,
        "extractor": cards["speech_extractor"]["history"],
    }
    plots.save(plots.curves_figure(histories), out / "learning_curves.png")
    measured = {name: (one.confidences, one.correct) for name, one in answers.items() if len(one.labels)}
    plots.save(plots.reliability_figure(measured), out / "reliability.png")
    plots.save(plots.overlap_figure(gains_db, oracle_db), out / "separation_by_overlap.png")


def _show(bench: Bench, out: Path) -> None:
    if len(bench.labels) > 1:
        made = benchmark.examples(bench)
        plots.save(plots.extraction_figure(made[0]), out / "plots" / "extraction.png")
        write_examples(made, out / "examples")
