"""One day's verdict from what lies on disk: the log, the corrections, and the reports of the days before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd

from data_checks.drift.accuracy import SIDES, measure_accuracy
from data_checks.drift.alarm import measure_together, with_alarm
from data_checks.drift.log import read_log
from data_checks.drift.report import read_drift_verdict
from data_checks.drift.verdict import DriftVerdict, measure_drift
from ml.config import Monitoring, UserError

LOOK_BACK_DAYS = 7  # an older window says nothing about today


def judge_day(
    day: str, reference: pd.DataFrame, log: Path, reports: Path, monitoring: Monitoring, seed: int = 0
) -> tuple[DriftVerdict, pd.DataFrame]:
    """The verdict of a day (YYYY-MM-DD, UTC) with alarm, accuracy and corrections, and the day's answers.

    log: the folder of the prediction log; reports: where `write_drift_report` wrote those of the days before. Days that
    were held against another champion do not count towards an alarm.
    """
    window = _read(log, [day])
    verdict = replace(
        measure_drift(reference, window, monitoring, seed),
        model=_model(reference),
        accuracy=measure_accuracy(reference, window, monitoring, seed),
        corrections=count_corrections(reference, window),
    )
    former, torn = _former(day, reports, verdict.model)
    verdict = replace(verdict, unreadable=verdict.unreadable + torn)

    def pooled(days: Sequence[str]) -> DriftVerdict:
        return measure_together(reference, _read(log, days), monitoring, seed)

    return with_alarm(day, verdict, former, pooled), window


def count_corrections(reference: pd.DataFrame, window: pd.DataFrame) -> dict[str, int]:
    """How many corrections joined the window, how many with consent, and how many name a label that nobody knows.

    Known are the labels of the reference and those that were answered.
    """
    names = [f"corrected_{side}" for side in SIDES if f"corrected_{side}" in window]
    joined = window.loc[window[names].notna().any(axis=1)] if names else window.iloc[:0]
    unknown = 0
    for side in SIDES:
        if f"corrected_{side}" in window:
            known = {*window[side].dropna(), *reference[side].dropna()}
            known |= set(reference[f"corrected_{side}"].dropna()) if f"corrected_{side}" in reference else set()
            unknown += int((~joined[f"corrected_{side}"].dropna().isin(known)).sum())
    consented = int(joined["consent"].eq(True).sum()) if "consent" in joined else 0
    return {"joined": len(joined), "with_consent": consented, "unknown_labels": unknown}


def _read(log: Path, days: Sequence[str]) -> pd.DataFrame:
    frames = []
    for day in days:
        start = datetime.fromisoformat(day).replace(tzinfo=UTC)
        frames.append(read_log(log, start, start + timedelta(days=1)))
    joined = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    joined.attrs["unreadable"] = tuple(line for frame in frames for line in frame.attrs["unreadable"])
    return joined


def _former(day: str, reports: Path, model: str) -> tuple[Mapping[str, DriftVerdict], tuple[str, ...]]:
    """The verdicts of the days just before on the same champion, and a line for each file that cannot be read."""
    former, torn = {}, []
    for back in range(1, LOOK_BACK_DAYS + 1):
        name = (datetime.fromisoformat(day) - timedelta(days=back)).date().isoformat()
        file = reports / "drift" / name / "verdict.json"
        if file.exists():
            try:
                former[name] = read_drift_verdict(file)
            except UserError as fault:
                torn.append(str(fault))
    return {name: one for name, one in former.items() if one.model == model}, tuple(torn)


def _model(reference: pd.DataFrame) -> str:
    return ",".join(sorted(reference["model"].dropna().unique())) if "model" in reference else ""
