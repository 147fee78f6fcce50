"""A verdict for people: JSON, an Evidently page, and one run per day in Evidently's workspace."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_checks import reports
from data_checks.drift.accuracy import Accuracy
from data_checks.drift.samples import FEATURES, Feature, labels
from data_checks.drift.verdict import TESTS, DriftVerdict, Finding
from ml.config import UserError
from ml.files import write_json

ADJUSTED = "{}, adjusted p"
STATES = {
    "not_enough_data": "not enough data to tell",
    "no_drift": "no drift: nothing differs from the reference beyond chance",
    "drift": "drift",
}


def write_drift_report(
    verdict: DriftVerdict, reference: pd.DataFrame, window: pd.DataFrame, out: Path, day: str
) -> Path:
    """Write `out`/drift/<day>/ with drift.html and verdict.json, and the day's run in the workspace `out`/evidently.

    out: the reports folder; day: YYYY-MM-DD. verdict.json comes last, so where it is, the rest is too; the same verdict
    gives the same bytes. Reported again, a day replaces its former report. Returns the folder.
    """
    folder = out / "drift" / day
    snapshot = _snapshot(verdict, reference, window, day)
    reports.save_html(snapshot, folder / "drift.html")
    reports.publish(snapshot, out / reports.WORKSPACE, reports.DRIFT_PROJECT, day, _panels())
    write_json(folder / "verdict.json", {"day": day, **asdict(verdict)})
    return folder


def read_drift_verdict(file: Path) -> DriftVerdict:
    """The verdict of a verdict.json. Raises UserError where it is missing or not whole."""
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        del tree["day"]
        tree.setdefault("alarm", tree["state"] == "drift")  # as it was before alarms had a state of their own
        findings = tuple(
            Finding(**finding | {"items": tuple(finding.get("items", ()))}) for finding in tree.pop("findings")
        )
        accuracy = {side: _accuracy(figures) for side, figures in tree.pop("accuracy", {}).items()}
        tree |= {name: tuple(tree[name]) for name in ("causes", "skipped", "unreadable")}
        tree["recent"] = tuple((day, state) for day, state in tree.get("recent", ()))
        return DriftVerdict(**tree, findings=findings, accuracy=accuracy)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise UserError(f"{file}: expected a drift verdict: {' '.join(str(fault).split())}") from None


def _accuracy(figures: dict) -> Accuracy:
    whole: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in figures.items()}
    return Accuracy(**whole)


def _snapshot(verdict: DriftVerdict, reference: pd.DataFrame, window: pd.DataFrame, day: str) -> Any:
    evidently = reports.load_evidently()
    from evidently.metrics import DriftedColumnsCount, ValueDrift

    tested = {finding.feature for finding in verdict.findings}
    features = [feature for feature in FEATURES if feature.column in tested]
    methods = _adjusted_tests(verdict)
    parts = [_summary(verdict, day)]
    if features:
        # Settings that are the same every day, else the dashboard draws every day as a line of its own.
        parts.append(DriftedColumnsCount(per_column_method=methods, threshold=verdict.alpha, drift_share=verdict.alpha))
        parts += [
            ValueDrift(column=one.column, method=methods[one.column], threshold=verdict.alpha) for one in features
        ]
    definition = evidently.DataDefinition(
        numerical_columns=[feature.column for feature in features if feature.kind != "labels"],
        categorical_columns=[feature.column for feature in features if feature.kind == "labels"],
    )
    current, former = (
        evidently.Dataset.from_pandas(_table(frame, features, reference), data_definition=definition)
        for frame in (window, reference)
    )
    return evidently.Report(parts, include_tests=False).run(
        current,
        former,
        timestamp=datetime.fromisoformat(day),
        name=f"{day}: {STATES[verdict.state]}",
        tags=[verdict.state],
        metadata={"day": day, "state": verdict.state},
    )


def _summary(verdict: DriftVerdict, day: str) -> Any:
    facts = [("verdict", STATES[verdict.state])]
    facts += [("ALARM" if verdict.alarm else "no alarm", verdict.alarm_reason)] if verdict.alarm_reason else []
    facts += [("cause", cause) for cause in verdict.causes]
    facts += [(f"accuracy of what is {side}", in_words(one)) for side, one in verdict.accuracy.items()]
    facts += [("corrections", ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in verdict.corrections.items()))]
    facts += [("answers", f"{verdict.n_window} in the window, {verdict.n_reference} in the reference")]
    facts += [("false alarms", f"at most {verdict.alpha:.1%} of days, over all {len(verdict.findings)} tests")]
    facts += [("not compared", line) for line in verdict.skipped]
    facts += [("could not be read", line) for line in verdict.unreadable]
    facts += [
        (one.feature, f"{one.test}: p {one.p_adjusted:.2g} adjusted, effect {one.effect_size:+.2f}. {one.cause}")
        for one in sorted(verdict.findings, key=lambda one: one.p_adjusted)
    ]
    facts += [(f"shown most in {one.feature} by", ", ".join(one.items)) for one in verdict.findings if one.items]
    return reports.words(f"{day}: {STATES[verdict.state]}", facts)


def in_words(accuracy: Accuracy) -> str:
    """One line: what is expected, estimated and known."""

    def figure(name: str, share: float | None, interval: tuple[float, float] | None, n: int, fell: bool) -> str:
        if share is None or interval is None:
            return ""
        low, high = interval
        return f"{name} {share:.1%} ({low:.1%} to {high:.1%}, {n} answers{', it fell' if fell else ''})"

    one = accuracy
    told = [
        "" if one.expected is None else f"expected {one.expected:.1%}",
        figure("estimated", one.estimated, one.estimated_ci95, one.estimated_n, one.estimated_fell),
        figure("real", one.real, one.real_ci95, one.real_n, one.real_fell),
        "" if one.real_at_best is None else f"{one.real_at_best:.1%} if all other answers were right",
        one.why_not,
    ]
    return "; ".join(filter(None, told))


def _adjusted_tests(verdict: DriftVerdict) -> dict[str, str]:
    """By column, the name of an Evidently test that gives the verdict's own adjusted p-value.

    So that page and verdict agree: Evidently by itself would hold every single column against alpha.
    """
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    adjusted = {finding.feature: finding.p_adjusted for finding in verdict.findings}

    def look_up(reference_data, current_data, feature_type, threshold):
        p_adjusted = adjusted[current_data.name]
        return p_adjusted, p_adjusted <= threshold

    for kind, test in TESTS.items():
        types = [ColumnType.Categorical if kind == "labels" else ColumnType.Numerical]
        name = ADJUSTED.format(test)
        register_stattest(StatTest(name=name, display_name=name, allowed_feature_types=types), look_up)
    return {feature.column: ADJUSTED.format(TESTS[feature.kind]) for feature in FEATURES}


def _table(frame: pd.DataFrame, features: list[Feature], reference: pd.DataFrame) -> pd.DataFrame:
    """What Evidently draws: numbers as float64, labels as text, an embedding as its distance from the usual one."""
    columns = {}
    for feature in features:
        match feature.kind:
            case "labels":
                columns[feature.column] = labels(frame, feature).reindex(frame.index)
            case "embedding":
                columns[feature.column] = _distances(frame, reference, feature.column)
            case _:
                columns[feature.column] = frame[feature.column].astype(np.float64)
    return pd.DataFrame(columns, index=frame.index)


def _distances(frame: pd.DataFrame, reference: pd.DataFrame, column: str) -> list[float]:
    centre = np.mean(np.stack(reference[column].dropna().tolist()), axis=0)
    return [
        float(np.linalg.norm(np.asarray(one) - centre)) if np.shape(one) == centre.shape else math.nan
        for one in frame[column]
    ]


def _panels() -> list:
    from evidently.sdk.models import PanelMetric
    from evidently.sdk.panels import bar_plot_panel, line_plot_panel

    drifted = [PanelMetric(legend="drifted", metric="DriftedColumnsCount", metric_labels={"value_type": "count"})]
    panels = [bar_plot_panel("Features that drifted", drifted)]
    for side in ("picture", "recording"):
        p_values = [
            PanelMetric(legend=feature.column, metric="ValueDrift", metric_labels={"column": feature.column})
            for feature in FEATURES
            if feature.side == side
        ]
        title = f"Adjusted p-values of what belongs to the {side}"
        panels.append(line_plot_panel(title, p_values, "drift is what lies at or below alpha"))
    return panels
