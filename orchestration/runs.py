"""Running a job in this process: the instance that records it, how it ends, and runs whose process is gone."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import psutil

from ml.config import UserError, load_settings, project_root
from ml.files import one_line_faults
from orchestration.resources import CODE

AT_WORK = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
CLOCK_S = 5.0  # that a process may seem to have begun after it told of itself


def prepare_instance(root: Path) -> None:
    """Dagster's home under var/, with the project's own instance settings (telemetry off), and no dead runs in it.

    Never another home that the shell names: that one's settings and runs are not ours to change.
    """
    home = root / "var" / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    os.environ["DAGSTER_HOME"] = str(home)
    shutil.copyfile(CODE / "orchestration" / "dagster.yaml", home / "dagster.yaml")
    os.environ.setdefault("BENTOML_HOME", str(root / "models" / "bentoml"))
    load_settings(root)
    with dg.DagsterInstance.get() as instance:
        bury(instance)


def run_job(
    job: dg.JobDefinition, instance: dg.DagsterInstance, ops: Mapping[str, Any] | None = None, **how: Any
) -> dg.ExecuteInProcessResult:
    """Run a job in this process and tell of its steps; ops: their configuration, how: as execute_in_process takes it.

    Raises KeyboardInterrupt where a signal ended it; UserError with the reason where it failed, and with the step's
    name unless the caller configured that step.
    """
    config = {"loggers": {"progress": {}}} | ({"ops": ops} if ops else {})
    result = job.execute_in_process(instance=instance, raise_on_error=False, run_config=config, **how)
    if any(map(_interrupted, result.all_events)):
        raise KeyboardInterrupt
    if blocked := _blocking_failures(result):  # first: their step fails too, in Dagster's words
        raise UserError(f"stopped by failed checks: {'; '.join(blocked)}. More: reports/data_docs, or `make ui`")
    for event in result.filter_events(lambda event: event.is_step_failure or event.is_failure):
        where = "" if event.step_key in (ops or {}) else f"{event.step_key or job.name}: "
        raise UserError(f"{where}{failure_reason(event)}")
    return result


def metadata_of(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    """What a run recorded of an asset that it made."""
    made = {event.asset_key: event.materialization for event in result.get_asset_materialization_events()}
    return {name: value.value for name, value in made[dg.AssetKey(asset)].metadata.items()}


def failure_reason(event: dg.DagsterEvent) -> str:
    """The step's own words if it failed plainly, else the innermost error."""
    if _interrupted(event):
        return "stopped by a signal"
    data = event.event_specific_data
    if failure := getattr(data, "user_failure_data", None):
        return failure.description or failure.label
    error = getattr(data, "error", None)
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error else event.message or "failed"


def _interrupted(event: dg.DagsterEvent) -> bool:
    error = getattr(event.event_specific_data, "error", None)
    return error is not None and error.cls_name == "DagsterExecutionInterruptedError"


def _blocking_failures(result: dg.ExecuteInProcessResult) -> list[str]:
    return [_reason_of(check) for check in result.get_asset_check_evaluations() if not check.passed and check.blocking]


def _reason_of(check: dg.AssetCheckEvaluation) -> str:
    observed = check.metadata.get("observed")
    found = f" (observed {observed.value})" if observed else ""
    return f"{check.asset_key.to_user_string()}: {check.check_name}{found}: {check.description}"


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
    with one_line_faults():
        prepare_instance(project_root())
