"""The proof on real data, slow: `python -m pytest -m slow tests/test_drift_real.py -s`; more by `benchmarks drift`."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import drift
from benchmarks.drift.traffic import changes
from ml.config import Paths, load_settings

ROOT = Path(__file__).resolve().parents[1]
WINDOWS, TRIALS = 200, 20


@pytest.fixture(scope="module")
def traffic():
    paths = Paths(ROOT, "mnist-fsdd")
    if not (paths.prepared("audio") / "meta.json").exists():
        pytest.skip("needs the prepared data of mnist-fsdd: `make run SOURCE=mnist-fsdd`")
    return drift.make_traffic(paths)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_unchanged_windows_of_real_answers_raise_at_most_one_alarm_in_a_hundred(traffic):
    alarms = drift.unchanged(traffic, load_settings(ROOT).monitoring, WINDOWS)
    print(alarms)
    assert sum(alarms.values()) <= 7  # 99.9 % of the time, where the true rate is 1 %


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", changes(8000))
def test_a_real_shift_is_found_within_three_days_and_rightly_named(traffic, name):
    change = changes(traffic.sets.speech.sample_rate_hz)[name]
    found = drift.detection(traffic, load_settings(ROOT).monitoring, change, TRIALS)
    print(found)
    assert found.named >= 0.75  # 99.9 % of the time, where the true rate is 95 %
