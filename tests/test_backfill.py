"""A backfill of the job `drift_monitoring` reports every day of a range, each by itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from renewal import ROOT

from ml.config import Paths
from orchestration import champion

FIRST = datetime(2026, 11, 1, tzinfo=UTC)
DAYS = 3
INSTANCE = "telemetry:\n  enabled: false\nrun_coordinator:\n  module: dagster.core.run_coordinator\n"
INSTANCE += "  class: DefaultRunCoordinator\n"  # no daemon here that would take runs from a queue


def answers(n: int, day: datetime, rng: np.random.Generator) -> pd.DataFrame:
    times = [day + timedelta(minutes=10 * number) for number in range(n)]
    facts = {"audio_loudness_db": rng.normal(-25, 4, n), "audio_snr_db": rng.normal(25, 6, n)}
    told = {"endpoint": "recognize_speech", "model": "first", "heard": rng.choice(list("ab"), n)}
    return pd.DataFrame({"request_id": [f"{day:%d}-{number}" for number in range(n)], "time": times, **told, **facts})


@pytest.fixture
def root(tmp_path) -> Path:
    """A project with a champion's reference and three days of its log; the second has too few answers to tell."""
    rng, paths = np.random.default_rng(0), Paths(tmp_path, "starter")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    reference = paths.champion.parent / "references" / "first.parquet"
    reference.parent.mkdir(parents=True)
    answers(300, FIRST, rng).to_parquet(reference)
    champion.write_pointer(paths, {"tag": "seehear:first", "digest": "first", "reference": reference.name})
    for number in range(DAYS):
        day = FIRST + number * timedelta(days=1)
        file = paths.prediction_log / f"date={day:%Y-%m-%d}" / "10-1-0.parquet"
        file.parent.mkdir(parents=True)
        answers(10 if number == 1 else 100, day, rng).to_parquet(file)
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text(INSTANCE)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_range_of_days_is_reported_day_by_day(root):
    """Two minutes: every day is a run in a process of its own."""
    last = FIRST + (DAYS - 1) * timedelta(days=1)
    command = [sys.executable, "-m", "dagster", "job", "backfill", "-m", "orchestration.definitions", "--noprompt"]
    done = subprocess.run(
        [*command, "-j", "drift_monitoring", "--from", f"{FIRST:%Y-%m-%d}", "--to", f"{last:%Y-%m-%d}"],
        cwd=ROOT,
        env={**os.environ, "SEEHEAR_ROOT": str(root), "DAGSTER_HOME": str(root / "dagster")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    files = [root / "reports" / "drift" / f"2026-11-0{day}" / "verdict.json" for day in (1, 2, 3)]
    deadline = time.monotonic() + 800
    while not all(file.is_file() for file in files):
        assert time.monotonic() < deadline, "not reported in time"
        time.sleep(1)
    states = [json.loads(file.read_text())["state"] for file in files]
    assert states == ["no_drift", "not_enough_data", "no_drift"]
