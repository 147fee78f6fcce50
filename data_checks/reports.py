"""Evidently: one way in, one workspace that shows every report over time, and the report of an evaluation."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
import warnings
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from ml.config import UserError
from ml.files import whole_file

WORKSPACE = "evidently"  # under reports/
EVALUATION_PROJECT = "SeeHear evaluation"
DRIFT_PROJECT = "SeeHear drift"
NOTHING_KNOWN = "(nothing known)"
PREDICTION_COLUMNS = ("model", "id", "label", "predicted", "confidence", "split")
# Runs and projects get the same id every time, so that what is reported again replaces itself.
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "seehear.evidently")


def load_evidently() -> ModuleType:
    """Evidently, imported on first use (it takes seconds) and with its telemetry off."""
    os.environ["DO_NOT_TRACK"] = "1"
    import evidently

    return evidently


def write_evaluation_report(evaluation: dict, predictions: pd.DataFrame, out: Path) -> dict[str, Path]:
    """Evidently's classification report of every model: `out`/evaluation/<model>.html, and a run in the workspace.

    evaluation: what stands in evaluation.json. predictions: one row per item with model ("image_classifier",
    "speech_classifier/cnn", …), id, label, predicted (null: nothing known), confidence and split. out: the reports
    folder. Returns the HTML files by model. The same evaluation reported again replaces its former reports.

    Raises UserError where a column is missing or there is no row.
    """
    if missing := [name for name in PREDICTION_COLUMNS if name not in predictions]:
        raise UserError(
            f"predictions: expected the column {missing[0]}, got {', '.join(map(str, predictions.columns))}"
        )
    if predictions.empty:
        raise UserError("predictions: expected the answers of at least one model, got no row")
    digest = hashlib.sha256(json.dumps(evaluation, sort_keys=True, default=str).encode()).hexdigest()
    written = {}
    for model, rows in predictions.groupby("model", sort=True):
        snapshot = _classification(str(model), evaluation, rows, digest)
        written[str(model)] = save_html(snapshot, out / "evaluation" / f"{str(model).replace('/', '_')}.html")
        publish(snapshot, out / WORKSPACE, EVALUATION_PROJECT, f"{model} {digest}", _accuracy_panels(predictions))
    return written


def _classification(model: str, evaluation: dict, rows: pd.DataFrame, digest: str) -> Any:
    evidently = load_evidently()
    from evidently.presets import ClassificationPreset
    from sklearn.exceptions import UndefinedMetricWarning

    definition = evidently.DataDefinition(
        id_column="id",
        categorical_columns=["label", "predicted", "split"],
        numerical_columns=["confidence"],
        classification=[evidently.MulticlassClassification(target="label", prediction_labels="predicted")],
    )
    texts = {
        name: rows[name].fillna(NOTHING_KNOWN).astype(str).to_numpy() for name in ("id", "label", "predicted", "split")
    }
    table = pd.DataFrame({**texts, "confidence": rows["confidence"].to_numpy(dtype=np.float64)})
    summary = words(f"Evaluation of {model}", _facts(model, evaluation, table))
    with warnings.catch_warnings():  # NOTHING_KNOWN is answered, never true: its recall is undefined and shown as 0
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        return evidently.Report([summary, ClassificationPreset()], include_tests=False).run(
            evidently.Dataset.from_pandas(table, data_definition=definition),
            tags=[model],
            metadata={"model": model, "evaluation": digest[:12]},
            name=f"{model} {digest[:12]}",
        )


def _facts(model: str, evaluation: dict, table: pd.DataFrame) -> list[tuple[str, object]]:
    from sklearn.metrics import f1_score

    labels = table["label"].unique()
    f1 = f1_score(table["label"], table["predicted"], labels=labels, average="macro", zero_division=0.0)  # pyright: ignore[reportArgumentType]
    facts: list[tuple[str, object]] = [("model", model), ("items", len(table))]
    facts += [("split", ", ".join(sorted(table["split"].unique()))), ("F1, mean over the labels", f"{f1:.4f}")]
    if unsure := int((table["predicted"] == NOTHING_KNOWN).sum()):
        facts += [(f"answered {NOTHING_KNOWN}", f"{unsure}; the means below count it as one more label, with F1 0")]
    return facts + [(name, evaluation.get(name)) for name in ("source", "budget", "seed", "device", "git")]


def _accuracy_panels(predictions: pd.DataFrame) -> list:
    """A panel per model: Evidently tells the runs of one panel apart by their metric's settings, not by their tags."""
    from evidently.sdk.models import PanelMetric
    from evidently.sdk.panels import bar_plot_panel

    return [
        bar_plot_panel(
            f"Accuracy of {model}", [PanelMetric(legend=model, tags=[model], metric="Accuracy")], size="half"
        )
        for model in sorted(predictions["model"].unique())
    ]


def words(title: str, facts: Iterable[Sequence[object]], columns: Sequence[str] = ("", "")) -> Any:
    """A part of an Evidently report that says something in words: a heading and a table with a row per fact."""
    rows = [["" if cell is None else str(cell) for cell in fact] for fact in facts]
    return _words_container()(heading=title, columns=list(columns), rows=rows)


@cache
def _words_container() -> type:
    load_evidently()
    from evidently.core.container import MetricContainer
    from evidently.legacy.renderers.html_widgets import table_data

    class Words(MetricContainer):
        heading: str
        columns: list[str]
        rows: list[list[str]]

        def generate_metrics(self, context):
            return []

        def render(self, context, child_widgets=None):
            return [table_data(title=self.heading, column_names=self.columns, data=self.rows)]

    return Words


def save_html(snapshot: Any, file: Path) -> Path:
    """Write an Evidently run as one HTML file that needs nothing beside it and no network."""
    with whole_file(file) as new:
        snapshot.save_html(str(new))
    return file


def publish(snapshot: Any, workspace: Path, project: str, key: str, panels: Sequence[Any] = ()) -> Path:
    """Put an Evidently run into a project of the workspace, in the place of a former run of the same key.

    panels: what the project's dashboard shows over time. Returns the run's file. A running UI sees it at once.
    """
    folder = _project(workspace, project, panels)
    run = folder / "snapshots" / f"{uuid.uuid5(NAMESPACE, f'{project} {key}')}.json"
    # Written outside the folder that a running UI watches: it follows what is moved in, not what is renamed within.
    beside = workspace.parent / f".{run.name}.new"
    try:
        beside.write_text(snapshot.dumps(), encoding="utf-8")
        os.replace(beside, run)
    finally:
        beside.unlink(missing_ok=True)
    return run


def _project(workspace: Path, name: str, panels: Sequence[Any]) -> Path:
    """Folder of a project of the workspace, made where it is missing, with the panels of its dashboard."""
    load_evidently()
    from evidently.legacy.utils import NumpyEncoder
    from evidently.sdk.models import DashboardModel, DashboardTabModel, ProjectModel

    identity = uuid.uuid5(NAMESPACE, name)
    folder = workspace / str(identity)
    (folder / "snapshots").mkdir(parents=True, exist_ok=True)
    for i, panel in enumerate(panels):
        panel.id = uuid.uuid5(identity, str(i))
    tab = DashboardTabModel(id=uuid.uuid5(identity, "tab"), title="Over time", panels=[panel.id for panel in panels])
    dashboard = DashboardModel(tabs=[tab], panels=list(panels))
    for file, model in (("metadata.json", ProjectModel(id=identity, name=name)), ("dashboard.json", dashboard)):
        with whole_file(folder / file) as new:
            new.write_text(json.dumps(model.dict(), cls=NumpyEncoder), encoding="utf-8")
    return folder
