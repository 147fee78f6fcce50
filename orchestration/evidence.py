"""What the retraining policy decides on: drift reports, the champion, DVC's versions and Dagster's runs, read anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg

from ml.config import MODALITIES, Paths, UserError
from orchestration import decisions
from orchestration.champion import history, usable_pointer
from orchestration.dvc import DvcPipeline
from orchestration.policy import Accuracy, PastRun, Report, State
from orchestration.resources import Project

RETRAINING, SAME = "retraining", "same"
PENDING = timedelta(minutes=5)  # within which the daemon has surely made a run of what a sensor asked for
RUNS = 50  # retrainings that are remembered; far more than any back-off looks at
EVIDENCE, ASKED, OUTCOME, REASON, TRIGGER = (
    f"seehear/{word}" for word in ("evidence", "asked", "outcome", "reason", "trigger")
)
IN_FLIGHT = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def gather(instance: dg.DagsterInstance, project: Project, scheduled: datetime | None = None) -> State:
    """The state as it stands; what cannot be read is absent from it, and a champion's fault is said."""
    paths, now, runs = project.paths, project.now(), past_runs(instance)
    runs = [*_asked_for(paths, runs, now), *runs]
    try:
        pointer = usable_pointer(paths)
    except UserError as fault:
        return State(now, None, str(fault), runs=runs, scheduled=scheduled)
    made_of = pointer.get("data") or {}
    return State(
        now=now,
        champion=pointer["digest"],
        reports=reports_of(paths, pointer.get("since")),
        data=raw_versions(paths),
        champion_data=_raw(made_of),
        tried_data=_tried(paths),
        new_labels=new_labels(paths, pointer.get("added")),
        runs=runs,
        scheduled=scheduled,
    )


def reports_of(paths: Paths, since: str | None) -> list[Report]:
    """The drift reports on whole days of this champion, the newest first; one that cannot be read is left out."""
    first = datetime.fromisoformat(since).date() if since else date.min
    found = []
    for file in sorted((paths.reports / "drift").glob("*/verdict.json"), reverse=True):
        if (report := _report(file)) and date.fromisoformat(report.day) > first:
            found.append(report)
        if len(found) == RUNS:
            break
    return found


def _report(file: Path) -> Report | None:
    """What verdict.json says. Older ones know no alarm and no accuracy: there, one window with drift is an alarm."""
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        state, day = tree["state"], date.fromisoformat(file.parent.name).isoformat()
        accuracies = tuple(
            Accuracy(side, how, one["expected"], one.get(f"{how}_at_best", one[how]), bool(one.get(f"{how}_fell")))
            for side, one in (tree.get("accuracy") or {}).items()
            for how in ("real", "estimated")
            if one.get(how) is not None and one.get("expected") is not None
        )
        return Report(day, state, bool(tree.get("alarm", state == "drift")), tuple(tree.get("causes", ())), accuracies)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def past_runs(instance: dg.DagsterInstance) -> list[PastRun]:
    """The last retrainings, the newest first."""
    records = instance.get_run_records(dg.RunsFilter(job_name=RETRAINING), limit=RUNS)
    runs = [_past(record) for record in records]
    return sorted(runs, key=lambda run: run.asked, reverse=True)


def _asked_for(paths: Paths, runs: list[PastRun], now: datetime) -> list[PastRun]:
    """A retraining that was decided on a moment ago, which Dagster has not recorded yet."""
    known = {run.asked for run in runs}
    for row in decisions.newest(paths, 10):
        asked = datetime.fromisoformat(row["at"])
        if row["start"] and asked not in known and now - asked < PENDING:
            return [PastRun("to come", asked, row["evidence"], "under way")]
    return []


def _past(record: dg.RunRecord) -> PastRun:
    run = record.dagster_run
    asked = run.tags.get(ASKED) if run.parent_run_id is None else None  # run again, it carries the first one's tags
    when = datetime.fromisoformat(asked) if asked else record.create_timestamp.replace(tzinfo=UTC)
    return PastRun(run.run_id, when, run.tags.get(EVIDENCE, ""), _outcome(run), run.tags.get(TRIGGER, ""))


def _outcome(run: dg.DagsterRun) -> str:
    if run.status in IN_FLIGHT:
        return "under way"
    failed = run.status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
    return run.tags.get(OUTCOME, "failed" if failed else "")  # what fails after the gate changes nothing about it


def raw_versions(paths: Paths) -> dict[str, str] | None:
    """DVC's versions of the raw data with what was added; None where there are none yet."""
    try:
        return {f"raw_{modality}": DvcPipeline(paths).version(f"raw@{modality}") for modality in MODALITIES}
    except UserError:
        return None


def _raw(versions: Mapping[str, str]) -> dict[str, str]:
    return {name: version for name, version in versions.items() if name.startswith("raw_")}


def _tried(paths: Paths) -> list[dict[str, str]]:
    """The data of every challenger that was judged, whoever started its training."""
    return [_raw(row.get("data") or {}) for row in history(paths)]


def new_labels(paths: Paths, known: Mapping[str, list[str]] | None) -> int:
    """Items added or relabelled in shards that the champion was not made of; 0 where one of them is not here yet."""
    from ml.sources import added

    seen = {name for names in (known or {}).values() for name in names}
    try:
        rows = [row for modality in MODALITIES for row in added.history(paths, modality) if row["file"] not in seen]
    except UserError:
        return 0
    return sum(int(row["added"]) + int(row["changed"]) for row in rows)
