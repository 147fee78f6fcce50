"""How a run ends, and that one whose process is gone does not stand in the way of others for ever."""

import os
import signal
import subprocess
import sys
import time

import dagster as dg
import psutil
import pytest

from ml.config import UserError
from orchestration import runs
from orchestration.progress import progress_logger

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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_as_stopped_and_not_as_a_fault_of_the_step(instance, number):
    @dg.asset
    def slow():
        os.kill(os.getpid(), number)
        time.sleep(30)

    @dg.asset(deps=[slow])
    def after():
        raise AssertionError("started after the interrupt")

    job = dg.define_asset_job("lineage", selection=dg.AssetSelection.all())
    defs = dg.Definitions([slow, after], jobs=[job], loggers={"progress": progress_logger})
    with pytest.raises(KeyboardInterrupt):
        runs.run_job(defs.resolve_job_def("lineage"), instance)
    (run,) = instance.get_runs()
    (failed,) = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    assert runs.failure_reason(failed.dagster_event) == "stopped by a signal"


@pytest.mark.parametrize(("ops", "said"), [({"one": {}}, "bad word"), (None, "one: bad word")])
def test_a_failed_run_is_told_by_its_reason_and_a_step_that_nobody_configured(instance, ops, said, capsys):
    @dg.asset
    def one(context):
        context.log.info("it begins")
        raise dg.Failure(description="bad word")

    job = dg.define_asset_job("job", selection=dg.AssetSelection.all())
    defs = dg.Definitions([one], jobs=[job], loggers={"progress": progress_logger})
    with pytest.raises(UserError) as fault:
        runs.run_job(defs.resolve_job_def("job"), instance, ops)
    assert str(fault.value) == said
    shown = capsys.readouterr().err.splitlines()
    assert shown[:2] == ["▶ one", "  it begins"]
    assert shown[2].startswith("✘ one ")
