"""A run whose process is gone does not stand in the way of others for ever."""

import os
import signal
import subprocess
import sys
import time

import dagster as dg
import psutil
import pytest

from orchestration import runs

SCRIPT = """
import time, sys
import dagster as dg
from orchestration import runs

@dg.op
def wait():
    print("at work", flush=True)
    time.sleep(60)

@dg.job
def waiting():
    wait()

with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    runs.execute(waiting, instance)
"""


@pytest.fixture
def instance(tmp_path):
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def waiting(instance, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    yield process
    process.kill()
    process.wait()


def status(instance) -> list[str]:
    return [record.dagster_run.status.value for record in instance.get_run_records()]


def test_a_run_is_buried_once_its_process_was_killed_and_not_before(instance, waiting):
    assert runs.bury(instance) == []
    assert status(instance) == ["STARTED"]
    os.kill(waiting.pid, signal.SIGKILL)
    waiting.wait()
    assert len(runs.bury(instance)) == 1
    assert status(instance) == ["FAILURE"]
    assert runs.bury(instance) == []


def test_a_run_from_before_the_machine_was_started_is_buried(instance, waiting, monkeypatch):
    monkeypatch.setattr(psutil, "boot_time", lambda: time.time() + 1)
    assert len(runs.bury(instance)) == 1


def test_a_run_that_ends_leaves_nothing_behind(instance, tmp_path):
    @dg.op
    def nothing():
        pass

    @dg.job
    def idle():
        nothing()

    assert runs.execute(idle, instance).success
    assert status(instance) == ["SUCCESS"]
    assert list((tmp_path / "at_work").iterdir()) == []
