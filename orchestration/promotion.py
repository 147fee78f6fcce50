"""The gate: candidates and champion on the same frozen split, one decision, one atomic change of the pointer."""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ml.config import Paths, UserError
from orchestration.resources import Project, now


@dataclass(frozen=True)
class Outcome:
    promoted: bool
    reason: str
    pointer: dict
    candidate: dict
    champion: dict | None


def consider(project: Project) -> Outcome:
    """Let the evaluated candidates replace the champion if they pass the gate.

    Raises UserError where the candidates are not those that were evaluated, or a first champion does not pass.
    """
    from ml import evaluation
    from ml.predictor import models_digest

    paths = project.paths
    report = json.loads((paths.reports / "evaluation.json").read_text())
    parts = candidate_parts(paths, report["speech"]["chosen"])
    if models_digest(*parts) != report["models"]:
        raise UserError("models/candidates: not the models that reports/evaluation.json measured; evaluate them first")
    current = read_pointer(paths)
    if current and current["digest"] == report["models"]:
        return Outcome(False, "the candidates are the champion", current, report["gate"], report["gate"])
    reigning = _gate_of_champion(project) if current else None
    decision = evaluation.decide_promotion(
        report["gate"], reigning, report["gate"]["majority_share"], project.settings.promotion.margin
    )
    if decision.promote:
        current = promote(project, parts, decision.reason, report)
    if current is None:
        raise UserError(f"no champion: {decision.reason}")
    return Outcome(decision.promote, decision.reason, current, report["gate"], reigning)


def candidate_parts(paths: Paths, chosen: str) -> tuple[Path, Path, Path]:
    """Folders of the three candidates that would answer together."""
    folder = paths.candidates
    return folder / "image_classifier", folder / "speech_classifier" / chosen, folder / "speech_extractor"


def _gate_of_champion(project: Project) -> dict:
    """The champion's figures on the gate split of today's data."""
    from ml import datasets, evaluation
    from ml.predictor import Predictor
    from serving import packaging

    paths = project.paths
    predictor = Predictor.load(packaging.stored_bundle(packaging.read_champion(paths).tag, paths))
    return evaluation.gate_figures(
        predictor, datasets.load_images(paths), datasets.load_speech(paths), project.settings
    )


def promote(project: Project, parts: tuple[Path, Path, Path], reason: str, report: dict) -> dict:
    """Store the candidates as one bundle with golden requests, and point at it; returns the pointer."""
    from ml import datasets, evaluation
    from ml.predictor import write_bundle
    from serving import packaging

    paths = project.paths
    goldens = evaluation.golden_requests(datasets.load_images(paths), datasets.load_speech(paths), *parts)
    about = {key: report[key] for key in ("source", "budget", "seed", "git", "data", "gate")}
    paths.bentoml.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=paths.bentoml.parent) as draft:
        digest = write_bundle(Path(draft) / "bundle", *parts, about=about, goldens=goldens)
        tag = packaging.save_bundle_as_bento_model(Path(draft) / "bundle", paths)
    reference = paths.champion.parent / "references" / f"{digest[:12]}.parquet"
    reference.parent.mkdir(exist_ok=True)
    shutil.copyfile(paths.reports / "reference.parquet", reference)
    pointer = {
        "tag": tag,
        "digest": digest,
        "since": now(),
        "reason": reason,
        "metrics": report["gate"],
        "reference": reference.name,
        "previous": _without_history(read_pointer(paths)),
    }
    write_pointer(paths, pointer)
    return pointer


def _without_history(pointer: dict | None) -> dict | None:
    return {key: value for key, value in pointer.items() if key != "previous"} if pointer else None


def read_pointer(paths: Paths) -> dict | None:
    """What models/champion.json says, None where there is no champion yet."""
    try:
        return json.loads(paths.champion.read_text())
    except FileNotFoundError:
        return None
    except ValueError as fault:
        raise UserError(f"{paths.champion}: not JSON ({fault}); restore it or delete it to start anew") from None


def reference_file(paths: Paths) -> Path:
    """What drift is measured against: the champion's own answers on the validation split.

    Raises UserError where there is no champion yet.
    """
    pointer = read_pointer(paths)
    if pointer is None:
        raise UserError(f"{paths.champion}: there is no champion yet; run `make run` first")
    return paths.champion.parent / "references" / pointer["reference"]


def write_pointer(paths: Paths, pointer: dict) -> None:
    """Replace the pointer in one step."""
    paths.champion.parent.mkdir(parents=True, exist_ok=True)
    draft = paths.champion.with_name(f".{paths.champion.name}.part")
    with draft.open("w") as file:
        json.dump(pointer, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(paths.champion)
