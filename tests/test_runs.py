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
@dg.op
def wait():
    print("at work", flush=True)
    time.sleep(60)

@dg.job
def waiting():
    wait()

with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    waiting.execute_in_process(instance=instance)
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


def test_a_process_that_got_the_number_of_a_dead_one_keeps_no_run_alive(instance, waiting, monkeypatch):
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: time.time() + 60)
    assert len(runs.bury(instance)) == 1
