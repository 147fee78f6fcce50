"""Months of the renewal over the real sensors, a real Dagster instance and real drift tests, under a clock of our own.

Runs are recorded in the instance and not executed. `pytest -m slow tests/test_renewal.py -s` simulates ninety days.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from renewal import DAY, HOUR, START, Simulated, crown, finish_run, record_run, retrainings, simulated_project, tick

from data_checks import drift
from ml.config import load_settings
from orchestration import decisions, evidence

MONITORING = load_settings(Path(__file__).resolve().parents[1]).monitoring
ANSWERS = 200  # a day
ENDPOINT = "recognize_speech"


@dataclass(frozen=True)
class Traffic:
    """What a day's recordings are like."""

    loudness_db: float = -25.0
    snr_db: float = 25.0
    bandwidth_hz: float = 3500.0

    def answers(self, model: str, n: int, rng: np.random.Generator) -> pd.DataFrame:
        """n answers of a model as the prediction log has them."""
        columns = {
            "request_id": [f"{number}" for number in rng.integers(0, 2**62, n)],
            "endpoint": ENDPOINT,
            "model": model,
            "heard": rng.choice(list("abcde"), n),
            "heard_confidence": rng.beta(9, 1, n),
            "audio_loudness_db": rng.normal(self.loudness_db, 4, n),
            "audio_snr_db": rng.normal(self.snr_db, 6, n),
            "audio_bandwidth_hz": rng.normal(self.bandwidth_hz, 250, n),
            "audio_duration_s": rng.gamma(9, 0.06, n),
        }
        return pd.DataFrame(columns)


@dataclass
class World:
    """Days that pass: traffic, a report every night, the sensor's looks, and what becomes of the retrainings."""

    project: Simulated
    ref: dg.DagsterInstance
    seed: int
    shifts: dict[int, Traffic] = field(default_factory=dict)
    step_h: int = 6
    restart: Callable[[dg.DagsterInstance], dg.DagsterInstance] = lambda instance: instance
    cursor: str | None = None
    windows: dict[str, pd.DataFrame] = field(default_factory=dict)
    verdicts: dict[str, drift.DriftVerdict] = field(default_factory=dict)

    def live(self, days: int) -> list[datetime]:
        """When retrainings were asked for."""
        rng, traffic, instance = np.random.default_rng(self.seed), Traffic(), self.ref
        model, reference = "first", traffic.answers("first", 300, rng)
        for day in range(days):
            self._tell(START + day * DAY, traffic, model, reference, rng)
            traffic = self.shifts.get(day + 1, traffic)
            for hour in range(0, 24, self.step_h):
                self.project.go_to(START + (day + 1) * DAY + hour * HOUR)
                instance = self.restart(instance)
                if self._look(instance):
                    model = f"model{len(retrainings(instance))}"
                    reference = traffic.answers(model, 300, rng)
                    crown(self.project, model)
        return [datetime.fromisoformat(run.tags[evidence.ASKED]) for run in retrainings(instance)]

    def _tell(self, day: datetime, traffic: Traffic, model: str, reference: pd.DataFrame, rng) -> None:
        """The report of a day, with the alarm that the days before it give."""
        name = day.date().isoformat()
        self.windows[name] = traffic.answers(model, ANSWERS, rng)
        verdict = drift.measure_drift(reference, self.windows[name], MONITORING, seed=self.seed)
        verdict = replace(verdict, model=model)
        former = {past: one for past, one in self.verdicts.items() if one.model == model}

        def pooled(days: Sequence[str]) -> drift.DriftVerdict:
            return drift.measure_together(
                reference, pd.concat([self.windows[one] for one in days]), MONITORING, self.seed
            )

        self.verdicts[name] = drift.with_alarm(name, verdict, former, pooled)
        write_report(self.project, day, asdict(self.verdicts[name]))

    def _look(self, instance: dg.DagsterInstance) -> bool:
        """Let the sensor look; whether the champion has changed since, for a retraining is through at the next look."""
        going = [run for run in retrainings(instance) if not run.is_finished]
        for run in going:
            finish_run(instance, run, "promoted")
        result = tick(instance, self.project, self.cursor)
        self.cursor = result.cursor
        for wanted in result.run_requests or ():
            record_run(instance, wanted)
        return bool(going)


def write_report(project: Simulated, day: datetime, verdict: dict) -> None:
    file = project.paths.reports / "drift" / day.date().isoformat() / "verdict.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(verdict))


def reopened(instance: dg.DagsterInstance) -> dg.DagsterInstance:
    """What a daemon that was ended and started again has: the same files, and nothing else."""
    return dg.DagsterInstance.from_ref(instance.get_ref())


@pytest.fixture
def instance(tmp_path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster").mkdir()
    with dg.instance_for_test(temp_dir=str(tmp_path / "dagster")) as instance:
        yield instance


SHIFT = Traffic(snr_db=10.0)


def test_a_true_shift_is_retrained_once_and_a_restart_of_the_daemon_changes_nothing(tmp_path, instance):
    """Eight days; the shift begins on the fourth."""
    lived = World(simulated_project(tmp_path / "one"), instance, 0, {3: SHIFT}, step_h=12).live(8)
    (tmp_path / "other").mkdir()
    with dg.instance_for_test(temp_dir=str(tmp_path / "other")) as other:
        again = World(simulated_project(tmp_path / "two"), other, 0, {3: SHIFT}, step_h=12, restart=reopened).live(8)
    assert len(lived) == 1
    assert START + 4 * DAY < lived[0] < START + 6.5 * DAY, "after two windows with drift"
    assert again == lived


def lasting_drift(project: Simulated, instance: dg.DagsterInstance, ticks: int, outcome: str) -> list[float]:
    """Hours at which retrainings were asked for, one look an hour, every day's report with its alarm."""
    for hour in range(ticks):
        project.go_to(START + 2 * DAY + hour * HOUR)
        if hour % 24 == 0:
            write_report(project, project.time - DAY, {"state": "drift", "alarm": True, "causes": ["noise"]})
        for run in retrainings(instance):
            if not run.is_finished:
                finish_run(instance, run, outcome)
        for wanted in tick(instance, project).run_requests or ():
            record_run(instance, wanted)
    asked = [datetime.fromisoformat(run.tags[evidence.ASKED]) for run in retrainings(instance)]
    return [(one - START - 2 * DAY) / HOUR for one in asked]


def test_lasting_drift_gives_exactly_the_budgeted_runs(tmp_path, instance):
    """Fifty looks, challengers that lose: one at once, the next after twice the cooldown."""
    project = simulated_project(tmp_path / "project")
    assert lasting_drift(project, instance, 50, "kept") == [0, 48]
    assert len(decisions.newest(project.paths)) < 20, "repeated decisions are one line"


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("outcome", ["kept", "failed"])
def test_a_thousand_looks_at_lasting_drift_give_exactly_the_budgeted_runs(tmp_path, instance, outcome):
    project = simulated_project(tmp_path / "project")
    assert lasting_drift(project, instance, 1000, outcome) == [0, 48, 144, 336, 672]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_ninety_days_without_a_shift_are_hardly_ever_retrained(tmp_path, capsys):
    """Ten seeds."""
    asked = [len(World(*fresh(tmp_path / f"{seed}"), seed).live(90)) for seed in range(10)]
    with capsys.disabled():
        print(f"\n  90 days without a shift, retrainings by seed: {asked}")
    assert sum(number > 0 for number in asked) <= 1


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_ninety_days_with_three_shifts_are_retrained_once_for_each(tmp_path, capsys):
    """Ten seeds; the daemon is started again before every look."""
    shifts = {20: SHIFT, 45: Traffic(snr_db=10, loudness_db=-37), 70: Traffic(bandwidth_hz=3100)}
    for seed in range(10):
        asked = World(*fresh(tmp_path / f"{seed}"), seed, shifts, restart=reopened).live(90)
        after = [(one - START) / DAY for one in asked]
        with capsys.disabled():
            print(f"\n  seed {seed}: shifts on days {list(shifts)}, retrainings on days {after}", end="")
        assert len(after) == len(shifts)
        assert all(begin < day <= begin + 4 for begin, day in zip(shifts, after, strict=True))


def fresh(folder: Path) -> tuple[Simulated, dg.DagsterInstance]:
    (folder / "dagster").mkdir(parents=True)
    return simulated_project(folder / "project"), dg.DagsterInstance.local_temp(str(folder / "dagster"))
