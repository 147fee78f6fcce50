"""A project whose clock a test sets, its drift reports, and its retrainings as Dagster records them."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import dagster as dg
import yaml
from dagster._core.events import DagsterEvent, DagsterEventType

from orchestration import automation, champion, evidence
from orchestration.resources import Project

ROOT = Path(__file__).resolve().parents[1]
START = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


class Simulated(Project):
    """A project of its own folder and its own time."""

    clock: ClassVar[dict[str, datetime]] = {}

    @property
    def time(self) -> datetime:
        return self.clock[self.root]

    def now(self) -> datetime:
        return self.time

    def go_to(self, time: datetime) -> None:
        self.clock[self.root] = time

    def forget_bundle(self) -> None:
        shutil.rmtree(self.paths.bentoml)


def simulated_project(root: Path, **retraining: object) -> Simulated:
    """A project with the settings of this one but for `retraining`, and a champion that has been one since START."""
    root.mkdir()
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["retraining"] |= retraining
    (root / "params.yaml").write_text(yaml.safe_dump(tree))
    project = Simulated(root=str(root))
    project.go_to(START)
    crown(project, "first")
    return project


def crown(project: Simulated, name: str) -> None:
    """Make a model of this name the champion now. The sensors look at its manifest and never load it."""
    bundle = project.paths.bentoml / "models" / "seehear" / name / "bundle"
    bundle.mkdir(parents=True)
    (bundle / "manifest.json").write_text("{}")
    pointer = {"tag": f"seehear:{name}", "digest": name * 8, "since": project.time.isoformat(), "data": None}
    champion.write_pointer(project.paths, pointer)


def write_verdict(project: Simulated, day: datetime, state: str, **more: object) -> Path:
    file = project.paths.reports / "drift" / day.date().isoformat() / "verdict.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"state": state, "causes": ["pictures are brighter"], **more}))
    return file


def tick(instance: dg.DagsterInstance, project: Project, cursor: str | None = None) -> dg.SensorResult:
    """One look of the sensor, as the daemon lets it look."""
    with dg.build_sensor_context(instance=instance, cursor=cursor, resources={"project": project}) as context:
        result = automation.retraining_policy(context)
    assert isinstance(result, dg.SensorResult)
    return result


@dg.op
def nothing() -> None: ...


@dg.job(name=evidence.RETRAINING)
def stand_in() -> None:
    """In the place of the job whose runs are only recorded; that one plans a hundred events for each."""
    nothing()


def record_run(instance: dg.DagsterInstance, asked: dg.RunRequest, status: str = "STARTED") -> dg.DagsterRun | None:
    """Record the run that was asked for, unless there is one of its key: what the daemon does, but for executing it."""
    key = {"dagster/run_key": asked.run_key}
    if instance.get_run_records(dg.RunsFilter(tags=key), limit=1):
        return None
    return instance.create_run_for_job(stand_in, tags=asked.tags | key, status=dg.DagsterRunStatus(status))


def finish_run(instance: dg.DagsterInstance, run: dg.DagsterRun, outcome: str) -> None:
    """End a recorded run as its steps would have: promoted or kept (by its champion asset), or failed."""
    if outcome != "failed":
        instance.add_run_tags(run.run_id, {evidence.OUTCOME: outcome})
    kind = DagsterEventType.RUN_FAILURE if outcome == "failed" else DagsterEventType.RUN_SUCCESS
    instance.report_dagster_event(DagsterEvent(kind.value, run.job_name, message=outcome), run.run_id)


def retrainings(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """All that were recorded, the oldest first."""
    return instance.get_runs(dg.RunsFilter(job_name=evidence.RETRAINING))[::-1]
