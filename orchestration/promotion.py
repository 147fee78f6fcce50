"""The gate: challenger and champion on the same frozen split, one decision, one atomic change of the pointer."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from ml.config import MODALITIES, Paths, UserError
from ml.files import sha256_of, whole_file, write_json
from orchestration import champion
from orchestration.resources import Project, digest, source_digest
from serving.packaging import read_pointer

if TYPE_CHECKING:
    from ml.evaluation import Decision, GateAnswers
    from ml.predictor import Predictor

MODEL_LICENCE = "MIT, as this code; the licences of the data stand below"


@dataclass(frozen=True)
class Outcome:
    """What came of a challenger; comparisons: item by item with the champion, empty where there was none.

    same: it was no challenger at all, but the champion once more.
    """

    promoted: bool
    reason: str
    pointer: dict
    comparisons: tuple[dict, ...] = ()
    same: bool = False


def consider(project: Project, run: str = "") -> Outcome:
    """Let the evaluated candidates replace the champion if they pass the gate; either way the history keeps it.

    A champion that can no longer be asked stays in nobody's way: the challenger is then judged as a first one. Raises
    UserError where the candidates are not those that were evaluated or cannot be loaded, or a first one does not pass.
    """
    from ml.models import read_card
    from ml.predictor import models_digest

    paths = project.paths
    report = json.loads((paths.reports / "evaluation.json").read_text())
    parts = candidate_parts(paths, report["speech"]["chosen"])
    if models_digest(*parts) != report["models"]:
        raise UserError("models/candidates: not the models that reports/evaluation.json measured; evaluate them first")
    with champion.one_at_a_time(paths):
        current = _reigning(paths)
    former, lost = _askable(paths, current, read_card(parts[2])["sample_rate_hz"])
    if current and former and current["digest"] == report["models"]:
        return Outcome(False, "the candidates are the champion", current, same=True)
    model, at = _described(report, parts), project.now().isoformat(timespec="seconds")
    if current and former and all(current.get(key) == model[key] for key in ("weights", "made_of")):
        why = "made of the same data, settings, seed and code as the champion, the candidates have the same weights"
        return Outcome(False, why, current, same=True)
    if current and (why := stays_out(paths, model)):
        return _kept(paths, model, why, current, run, at)
    decision, answers = _judged(project, parts, former)
    decision = replace(decision, reason=f"{decision.reason}{lost}")
    compared = tuple(asdict(one) for one in decision.comparisons)
    if not decision.promote:
        if current is None or former is None:
            raise UserError(f"no champion: {decision.reason}")
        return _kept(paths, model, decision.reason, current, run, at, compared)
    with champion.one_at_a_time(paths):
        now = champion.present(paths)
        if not now or now["digest"] == (current or {}).get("digest"):
            pointer = _promote(project, parts, decision, answers, report, model, run)
            return Outcome(True, decision.reason, pointer, compared)
    return consider(project, run)  # another became champion while this one was judged


def candidate_parts(paths: Paths, chosen: str) -> tuple[Path, Path, Path]:
    """Folders of the three candidates that would answer together."""
    folder = paths.candidates
    return folder / "image_classifier", folder / "speech_classifier" / chosen, folder / "speech_extractor"


def _reigning(paths: Paths) -> dict | None:
    """The champion; where only its pointer is gone, the pointer is written anew from the history."""
    if current := read_pointer(paths):
        return current
    last = champion.present(paths)
    if last is None:
        return None
    try:
        champion.verify(paths, last["tag"], last["digest"])
    except UserError:
        return last
    fields = {name: last.get(name) for name in (*champion.CARRIED, "reason", "run")}
    champion.write_pointer(paths, {**fields, "since": last["at"], "previous": None})
    return read_pointer(paths)


def _described(report: Mapping, parts: tuple[Path, Path, Path]) -> dict:
    """What the pointer and the history say of a challenger; weights and made_of tell whether it is an old one again."""
    settings = report["settings"]
    recipes = {name: settings[name] for name in ("image_classifier", "speech_extractor")}
    recipes["speech_classifier"] = settings["speech_classifier"][report["speech"]["chosen"]]
    return {
        "tag": None,
        "digest": report["models"],
        "metrics": report["gate"],
        "reference": None,
        "data": report["data"],
        "added": report.get("added"),
        "weights": digest([sha256_of(part / "weights.safetensors") for part in parts]),
        "made_of": digest(report["data"], recipes, report["seed"], source_digest("ml.training")),
    }


def stays_out(paths: Paths, model: Mapping) -> str:
    """Why a challenger that is a rolled-back model again stays out, or ""."""
    for former in champion.withdrawn(paths):
        same = [name for name in ("digest", "weights", "made_of") if former.get(name) == model[name]]
        if same:
            alike = "made of the same data, settings, seed and code as" if same == ["made_of"] else "the same as"
            back = f"rolled back at {former['at']}: {former['reason']}"
            return f"{alike} {former['tag']}, {back}; `seehear rollback --to` takes it up again"
    return ""


def _kept(
    paths: Paths, model: dict, why: str, current: dict, run: str, at: str, compared: tuple[dict, ...] = ()
) -> Outcome:
    champion.keep(paths, {"at": at, "event": champion.KEPT, "reason": why, "run": run, "left": None, **model})
    return Outcome(False, why, current, compared)


def _askable(paths: Paths, current: Mapping | None, rate_hz: int) -> tuple[Predictor | None, str]:
    """The champion's models, None with the reason where nothing can be asked of them: their files are gone, other code
    made them, or they hear another sample rate than the data's, rate_hz."""
    from ml.predictor import Predictor
    from serving import packaging

    if current is None:
        return None, ""
    try:
        former = Predictor.load(packaging.stored_bundle(current["tag"], paths))
    except UserError as fault:
        return None, f"; the champion before can no longer be asked: {fault}"
    if former.sample_rate_hz != rate_hz:
        return None, f"; the champion before hears {former.sample_rate_hz} Hz, the data are of {rate_hz} Hz"
    return former, ""


def _judged(project: Project, parts: tuple[Path, Path, Path], former: Predictor | None) -> tuple[Decision, GateAnswers]:
    """The decision, and the challenger's answers to the gate split; scenes ask for words that both know."""
    from ml import datasets, evaluation
    from ml.predictor import Predictor

    paths, settings = project.paths, project.settings
    data = datasets.load_images(paths), datasets.load_speech(paths)
    snr_db = _snr_db(paths)
    challenger = Predictor.from_models(*parts)
    asked = [label for label in challenger.labels if former is None or label in former.labels]
    answers = evaluation.gate_answers(challenger, *data, settings, asked, snr_db)
    theirs = evaluation.gate_answers(former, *data, settings, asked, snr_db) if former else None
    decision = evaluation.decide_promotion(answers, theirs, settings.promotion, settings.evaluation.seed)
    return decision, answers


def _snr_db(paths: Paths) -> dict[str, float]:
    facts = pq.read_table(paths.facts("audio"), columns=["id", "snr_db"]).to_pydict()
    return {name: snr for name, snr in zip(facts["id"], facts["snr_db"], strict=True) if snr is not None}


def _promote(
    project: Project,
    parts: tuple[Path, Path, Path],
    decision: Decision,
    answers: GateAnswers,
    report: Mapping,
    model: dict,
    run: str,
) -> dict:
    """Store the candidates as one bundle with golden requests and a card, verify it, point at it."""
    at = project.now().isoformat(timespec="seconds")
    from ml import datasets, evaluation, models
    from ml.predictor import write_bundle
    from serving import packaging

    paths, settings = project.paths, project.settings
    goldens = evaluation.golden_requests(datasets.load_images(paths), datasets.load_speech(paths), *parts)
    origin = {key: report[key] for key in ("source", "budget", "seed", "git", "data", "gate")}
    paths.bentoml.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=paths.bentoml.parent) as draft:
        write_bundle(Path(draft) / "bundle", *parts, about=origin, goldens=goldens)
        tag = packaging.save_bundle_as_bento_model(Path(draft) / "bundle", paths)
    labels = models.read_card(parts[2])["classes"]
    about = {"version": tag.partition(":")[2], "digest": model["digest"], "made": at, "labels": labels}
    about |= {"licence": MODEL_LICENCE, "licences": licences(paths), "items": item_counts(paths)}
    least, bootstrap = settings.promotion.least_slice, settings.evaluation.bootstrap
    card = evaluation.model_card(report, answers, decision, about, least, bootstrap)
    write_model_card(packaging.stored_bundle(tag, paths).parent, card)
    champion.verify(paths, tag, model["digest"])
    model |= {"tag": tag, "reference": _keep_reference(paths, model["digest"])}
    return champion.appoint(paths, model, champion.PROMOTED, decision.reason, run, read_pointer(paths), at)


def _keep_reference(paths: Paths, model: str) -> str:
    """Copy the candidates' answers about validation and gate beside the pointer; the name of the copy."""
    reference = paths.champion.parent / "references" / f"{model[:12]}.parquet"
    reference.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(paths.reports / "reference.parquet", reference)
    return reference.name


def write_model_card(folder: Path, card: Mapping) -> None:
    """Write the card beside a stored bundle: MODEL_CARD.md for people, model_card.json for programs."""
    from ml import evaluation

    write_json(folder / "model_card.json", card)
    with whole_file(folder / "MODEL_CARD.md") as new:
        new.write_text(evaluation.card_text(card), encoding="utf-8")


def licences(paths: Paths) -> list[dict]:
    """The licences of the raw data with what was added, and how many items each covers."""
    from ml.sources.shards import item_batches

    counted: Counter[tuple[str, str]] = Counter()
    for modality in MODALITIES:
        for _, batch in item_batches(paths, modality, ("licence",)):
            counted.update(
                (modality, licence or "not stated by the source") for licence in batch["licence"].to_pylist()
            )
    return [{"data": data, "licence": licence, "items": n} for (data, licence), n in sorted(counted.items())]


def item_counts(paths: Paths) -> dict[str, dict[str, int]]:
    """Items of every split, by modality."""
    indices = {name: pq.read_table(paths.prepared(name) / "index.parquet", columns=["split"]) for name in MODALITIES}
    return {name: dict(sorted(Counter(table["split"].to_pylist()).items())) for name, table in indices.items()}
