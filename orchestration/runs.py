"""Runs of a job in this process, and runs whose process is gone."""

import uuid
from pathlib import Path
from typing import Any

import dagster as dg
import psutil

from ml.config import project_root
from ml.files import turn_at

AT_WORK = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)


def execute(job: dg.JobDefinition, instance: dg.DagsterInstance, **how: Any) -> dg.ExecuteInProcessResult:
    """Execute a job in this process, by which its run can be told alive; how: as `execute_in_process` takes it."""
    run_id = str(uuid.uuid4())
    lock = _lock(instance, run_id)
    with turn_at(lock):
        result = job.execute_in_process(instance=instance, run_id=run_id, raise_on_error=False, **how)
    lock.unlink(missing_ok=True)
    return result


def bury(instance: dg.DagsterInstance) -> list[str]:
    """Report failed what is recorded as at work though its process was killed or the machine restarted; their run ids.

    Dagster itself would wait for them for ever, and start nothing that is queued.
    """
    records = instance.get_run_records(dg.RunsFilter(statuses=list(AT_WORK)))
    dead = [record for record in records if _is_dead(instance, record)]
    for record in dead:
        instance.report_run_failed(record.dagster_run, "its process ended without a word: killed, or the machine was")
        _lock(instance, record.dagster_run.run_id).unlink(missing_ok=True)
    return [record.dagster_run.run_id for record in dead]


def _is_dead(instance: dg.DagsterInstance, record: dg.RunRecord) -> bool:
    if record.start_time and record.start_time < psutil.boot_time():
        return True
    lock = _lock(instance, record.dagster_run.run_id)
    if not lock.exists():  # of the daemon, which sees to it
        return False
    try:
        with turn_at(lock, wait=False):
            return True
    except BlockingIOError:
        return False


def _lock(instance: dg.DagsterInstance, run_id: str) -> Path:
    return Path(instance.root_directory) / "at_work" / run_id


if __name__ == "__main__":  # before the UI and its daemon start
    from orchestration.launch import prepare_instance

    prepare_instance(project_root())
