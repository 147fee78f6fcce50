"""What the models are worth, and whether they become the champion."""

from dataclasses import asdict
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from ml.config import MODALITIES, SPEECH_KINDS, Paths
from orchestration import previews, reigns
from orchestration.assets.common import SETTINGS, in_turn, plainly, provenance
from orchestration.champion import KEPT, PROMOTED, roll_back
from orchestration.champion import reigns as reigns_of
from orchestration.evidence import OUTCOME, SAME
from orchestration.promotion import Outcome, consider
from orchestration.resources import Project, digest, source_digest

if TYPE_CHECKING:
    from ml.datasets import SpeechSet

STORED = "champion_stored"

CANDIDATES = ["image_classifier", *(["speech_classifier", kind] for kind in SPEECH_KINDS), "speech_extractor"]


@dg.asset(
    deps=["image_dataset", "speech_dataset", *map(dg.AssetKey, CANDIDATES)],
    group_name="evaluation",
    kinds={"pytorch", "evidently"},
    owners=["team:ml"],
    description="The candidates measured through the Predictor alone: accuracy, separation, presence, baselines.",
    code_version=digest(
        source_digest("ml.evaluation", "ml.training.unseen", "data_checks.reports"),
        asdict(SETTINGS.evaluation),
        SETTINGS.training.budget,
    ),
)
@plainly
@in_turn
def evaluation_report(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult:
    import pandas as pd
    import pyarrow.parquet as pq

    from data_checks import reports
    from ml import datasets, evaluation

    paths, speech = project.paths, datasets.load_speech(project.paths)
    report = evaluation.evaluate(
        datasets.load_images(paths), speech, paths.candidates, project.settings, paths.reports,
        leave_out=partial(_left_out, project, speech),
        context=_context(project), facts={modality: pq.read_table(paths.facts(modality)) for modality in MODALITIES},
    )  # fmt: skip
    pages = reports.write_evaluation_report(
        report, pd.read_parquet(paths.reports / "predictions.parquet"), paths.reports
    )
    code = context.assets_def.code_versions_by_key[context.asset_key]
    return dg.MaterializeResult(
        data_version=dg.DataVersion(digest(code, report["models"], report["data"])),
        metadata=provenance(project) | _figures(report) | _pictures(paths) | _links(paths, pages),
    )


def _left_out(project: Project, speech: "SpeechSet", kind: str) -> dict[str, Path]:
    """Models of this kind, trained as the candidate was, for every speaker left out of their training."""
    from ml import datasets, training
    from ml.models import read_card

    settings, paths = project.settings, project.paths
    card = read_card(paths.candidates / "speech_classifier" / kind)
    speakers = training.speakers_to_leave_out(speech, settings.evaluation.left_out)
    extra = datasets.extra_voices(paths, card["recipe"]["extra_voices"])
    out, notes = paths.var / "left_out", paths.checkpoints / "left_out"
    return training.train_left_out(card, speech, speakers, settings.training, out, notes, extra=extra)


def _context(project: Project) -> dict:
    dvc = project.dvc
    learnt = {modality: dvc.learnt_from(modality) for modality in MODALITIES}
    data = {f"raw_{modality}": version for modality, (version, _) in learnt.items()}
    data |= {"image_dataset": dvc.version("prepared@images"), "speech_dataset": dvc.version("prepared@audio")}
    return {"git": project.git_revision, "data": data, "added": {one: shards for one, (_, shards) in learnt.items()}}


def _figures(report: dict) -> dict:
    speech, found = report["speech"], report["extraction"]
    figures = {"image_accuracy": report["image"]["accuracy"]}
    figures |= {f"{kind}_accuracy": speech[kind]["accuracy"] for kind in SPEECH_KINDS}
    figures |= {
        "full_overlap_si_sdr_improvement_db": (found["si_sdr_improvement_db"]["full_overlap"] or {}).get("mean"),
        "presence_auc": found["presence_auc"],
        "word_accuracy": found["word_accuracy"],
    }
    return {name: dg.MetadataValue.float(float(value)) for name, value in figures.items() if value is not None} | {
        "chosen": speech["chosen"],
        "seed": report["seed"],
        "device": report["device"],
        "evaluation": dg.MetadataValue.json(report),
    }


def _pictures(paths: Paths) -> dict:
    return {file.stem: previews.image_file(file) for file in sorted((paths.reports / "plots").glob("*.png"))}


def _links(paths: Paths, pages: dict[str, Path]) -> dict:
    listen = paths.reports / "examples" / "index.html"
    return {"listen": dg.MetadataValue.path(str(listen))} | {
        f"report_{name.replace('/', '_')}": dg.MetadataValue.path(str(page)) for name, page in pages.items()
    }


class Appointment(dg.Config):
    """Whom to make the champion. With nothing set, the evaluated candidates are judged by the gate."""

    roll_back_to: str | None = Field(
        None,
        description="Take up a former champion instead: `previous`, or its version, its tag or the beginning of its "
        "digest. It is verified before anything changes.",
    )
    reason: str | None = Field(None, description="Why it is rolled back; kept in the history.")


@dg.asset(
    deps=["evaluation_report"],
    group_name="evaluation",
    kinds={"bentoml"},
    owners=["team:ml"],
    description="The models that answer: replaced by the candidates only when they pass the gate, or rolled back.",
    code_version=digest(
        source_digest("ml.evaluation.promotion", "ml.evaluation.gate", "ml.predictor"), asdict(SETTINGS.promotion)
    ),
    freshness_policy=dg.FreshnessPolicy.time_window(
        fail_window=timedelta(days=45), warn_window=timedelta(days=15)
    ),  # judged every week by schedule
)
@plainly
def champion(context: dg.AssetExecutionContext, project: Project, config: Appointment) -> dg.MaterializeResult:
    run = context.run.run_id
    outcome = _rolled_back(project, config, run) if config.roll_back_to else in_turn(consider)(project, run)
    context.log.info(outcome.reason)
    context.instance.add_run_tags(run, {OUTCOME: PROMOTED if outcome.promoted else SAME if outcome.same else KEPT})
    return dg.MaterializeResult(
        data_version=dg.DataVersion(outcome.pointer["digest"]),
        metadata=provenance(project)
        | {
            "promoted": outcome.promoted,
            "reason": outcome.reason,
            "model": outcome.pointer["tag"],
            "since": outcome.pointer["since"],
            "gate": previews.table(outcome.comparisons),
        }
        | _history(project)
        | _card(project, outcome.pointer["tag"]),
    )


def _rolled_back(project: Project, config: Appointment, run: str) -> Outcome:
    to = None if config.roll_back_to == "previous" else config.roll_back_to
    at = project.now().isoformat(timespec="seconds")
    pointer = roll_back(project.paths, config.reason or "", to, run, at)
    return Outcome(False, f"rolled back: {pointer['reason']}", pointer)


def _history(project: Project) -> dict:
    plot = reigns.write_history(project.paths, project.now())
    return {"history": previews.table(reigns_of(project.paths)), "history_plot": previews.image_file(plot)}


def _card(project: Project, tag: str) -> dict:
    """The model card; models stored by earlier versions have none."""
    from serving import packaging

    file = packaging.stored_bundle(tag, project.paths).parent / "MODEL_CARD.md"
    return {"model_card": dg.MetadataValue.md(file.read_text(encoding="utf-8"))} if file.is_file() else {}


ASSETS = [evaluation_report, champion]
