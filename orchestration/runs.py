"""Runs whose process is gone."""

from collections.abc import Iterator

import dagster as dg
import psutil

from ml.config import project_root
from ml.files import one_line_faults

AT_WORK = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
CLOCK_S = 5.0  # that a process may seem to have begun after it told of itself


def bury(instance: dg.DagsterInstance) -> list[str]:
    """Report failed what is recorded as at work though its process was killed or the machine restarted; their run ids.

    Dagster itself would wait for them for ever, and start nothing that is queued.
    """
    dead = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=list(AT_WORK))):
        run = instance.get_run_by_id(record.dagster_run.run_id)  # again, for it may have ended meanwhile
        processes = list(_processes(instance, record.dagster_run.run_id))
        if run and run.status in AT_WORK and processes and not any(_lives(*process) for process in processes):
            instance.report_run_failed(run, "its process ended without a word: it was killed, or the machine restarted")
            dead.append(run.run_id)
    return dead


def _processes(instance: dg.DagsterInstance, run_id: str) -> Iterator[tuple[int, float]]:
    """Number of every process that told of its work for a run, and when."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        event = entry.dagster_event
        if event and (number := event.engine_event_data.metadata.get("pid")):
            yield int(str(number.value)), entry.timestamp


def _lives(number: int, told: float) -> bool:
    """Whether the process that told of itself at that time is still there; numbers are given again."""
    try:
        process = psutil.Process(number)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= told + CLOCK_S
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


if __name__ == "__main__":  # before the UI and its daemon start
    from orchestration.launch import prepare_instance

    with one_line_faults():
        prepare_instance(project_root())
