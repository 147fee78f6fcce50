"""False alarms where nothing changed, and how often real shifts are found and rightly named, on real data.

Pictures and recordings of the prepared source, answered by classifiers really trained without the last class and the
last speaker, so that both can come as something new. Nothing that a reference holds is in a window, and of the
reference there is as much as a champion stores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import pandas as pd

from benchmarks.drift.held_out import hold_out, require_enough, trained
from benchmarks.drift.traffic import Change, Draws, Traffic, changes
from data_checks.drift import DriftVerdict, measure_drift, measure_together, with_alarm
from ml.config import Monitoring, Paths, load_settings
from ml.predictor.classifying import PictureClassifier, SpeechClassifier

UNCHANGED, TRIALS, DAYS, ANSWERS = 1000, 40, 3, 200
SIZES = (50, 100, 200, 350, 500)
REFERENCE_ROWS = {"picture": 500, "recording": 480}  # what a champion stores of MNIST and FSDD
SEED = 0


class Found(NamedTuple):
    """Shares of the trials: a first day that drifted, an alarm within DAYS, and one whose first cause is right."""

    first_day: float
    alarm: float
    named: float
    causes: list[str]


def compare(paths: Paths) -> Iterator[tuple[str, str, str]]:
    """Rows (what, share, what it is to be)."""
    traffic, monitoring = make_traffic(paths), load_settings(paths.root).monitoring
    windows = f"drift: {UNCHANGED:,} unchanged windows of {SIZES[0]}-{SIZES[-1]}"
    alarms = unchanged(traffic, monitoring, UNCHANGED)
    yield windows, f"{sum(alarms.values()) / UNCHANGED:.1%} false alarms", f"goal 1 %; by size {alarms}"
    for name, change in changes(traffic.sets.speech.sample_rate_hz).items():
        found = detection(traffic, monitoring, change, TRIALS)
        others = "" if found.named == found.alarm else f"; once named: {found.causes[0]}"
        told = f"{found.alarm:.0%} in {DAYS} days, {found.named:.0%} right"
        yield f"drift: {name}", told, f"goal 95 %; {found.first_day:.0%} drift on the first day{others}"


def make_traffic(paths: Paths) -> Traffic:
    """Raises UserError where the source does not have what the shifts need."""
    sets = hold_out(paths, SEED)
    require_enough(sets, {side: rows + ANSWERS for side, rows in REFERENCE_ROWS.items()})
    pictures, speech = trained(paths, sets)
    return Traffic(sets, PictureClassifier(pictures, "cpu"), SpeechClassifier(speech, "cpu"))


def unchanged(traffic: Traffic, monitoring: Monitoring, windows: int) -> dict[int, int]:
    """By size, how many windows drifted though nothing had changed; each against a reference of its own."""
    alarms = dict.fromkeys(SIZES, 0)
    for number in range(windows):
        size, draws = SIZES[number % len(SIZES)], traffic.split(REFERENCE_ROWS, SEED + number)
        verdict = measure_drift(draws.reference(), draws.window(size), monitoring, number)
        alarms[size] += verdict.state == "drift"
    return alarms


def detection(traffic: Traffic, monitoring: Monitoring, change: Change, trials: int) -> Found:
    first = alarms = named = 0
    wrong = []
    for number in range(trials):
        draws = traffic.split(REFERENCE_ROWS, SEED + number)
        day, verdict = watched(draws, monitoring, change, number)
        first += day
        alarms += verdict.alarm
        right = verdict.alarm and bool(verdict.causes) and verdict.causes[0].startswith(change.causes)
        named += right
        if verdict.alarm and not right:
            wrong.append(verdict.causes[0] if verdict.causes else "no cause")
    return Found(first / trials, alarms / trials, named / trials, wrong)


def watched(draws: Draws, monitoring: Monitoring, change: Change | None, seed: int) -> tuple[bool, DriftVerdict]:
    """Whether the first day drifted, and the verdict of the first day with an alarm, else of the last."""
    reference, windows, former = draws.reference(), {}, {}
    verdict = DriftVerdict("no_drift", 0, 0, monitoring.alpha)
    first = False

    def pooled(days) -> DriftVerdict:
        return measure_together(reference, pd.concat([windows[day] for day in days]), monitoring, seed)

    for number in range(DAYS):
        day = f"2026-03-0{number + 2}"
        windows[day] = draws.window(ANSWERS, change)
        verdict = with_alarm(day, measure_drift(reference, windows[day], monitoring, seed), former, pooled)
        first |= not number and verdict.state == "drift"
        if verdict.alarm:
            break
        former[day] = replace(verdict, alarm=False)
    return first, verdict
