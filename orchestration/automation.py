"""When things run by themselves: jobs, schedules, and the sensor that turns drift into one budgeted retraining."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from orchestration.assets.common import SETTINGS
from orchestration.resources import Project, digest

MONITORED = dg.AssetSelection.assets("drift_report")
lineage = dg.define_asset_job(
    "lineage",
    selection=dg.AssetSelection.all() - MONITORED,
    description="Everything from the source to the Bento.",
)
retraining = dg.define_asset_job(
    "retraining",
    selection=dg.AssetSelection.all() - MONITORED - dg.AssetSelection.assets("prediction_log"),
    description="New data, new models, and a new champion if it passes the gate.",
)
adding = dg.define_asset_job(
    "adding",
    selection=dg.AssetSelection.assets("added_images", "added_audio"),
    description="Data added, removed or relabelled (`seehear add|remove|relabel`): the shards alone, nothing after.",
)
drift_monitoring = dg.define_asset_job(
    "drift_monitoring",
    selection=dg.AssetSelection.assets("prediction_log", "drift_report"),
    description="The drift report of one day.",
)


@dg.schedule(
    job=drift_monitoring,
    cron_schedule=SETTINGS.monitoring.drift_cron,
    execution_timezone="UTC",
    description="Every day: the drift report of the day before (monitoring.drift_cron).",
)
def daily_drift(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    day = (context.scheduled_execution_time.astimezone(UTC) - timedelta(days=1)).date().isoformat()
    return dg.RunRequest(run_key=day, partition_key=day)


weekly_retraining = dg.ScheduleDefinition(
    name="weekly_retraining",
    job=retraining,
    cron_schedule=SETTINGS.monitoring.retraining_cron,
    execution_timezone="UTC",
    description="Every week: retrain on whatever data there is by then (monitoring.retraining_cron).",
)


@dg.sensor(
    job=retraining,
    minimum_interval_seconds=60,
    description="Starts `retraining` when the newest drift report says drift: once per report and champion, "
    "never beside another retraining, and not within monitoring.cooldown_hours of the last one.",
)
def retrain_on_drift(context: dg.SensorEvaluationContext, project: Project) -> dg.RunRequest | dg.SkipReason:
    reports = sorted((project.paths.reports / "drift").glob("*/verdict.json"))
    if not reports:
        return dg.SkipReason("no drift report yet; materialize drift_report")
    verdict = json.loads(reports[-1].read_text())
    day = reports[-1].parent.name
    if verdict["state"] != "drift":
        return dg.SkipReason(f"{day}: {verdict['state']}")
    if why := _over_budget(context.instance, timedelta(hours=project.settings.monitoring.cooldown_hours)):
        return dg.SkipReason(f"{day}: drift, but {why}")
    return _request(day, verdict, project.paths.champion)


def _request(day: str, verdict: dict, champion: Path) -> dg.RunRequest:
    current = json.loads(champion.read_text())["digest"] if champion.exists() else "none"
    key = f"drift-{day}-{digest(verdict)}-{current[:12]}"
    causes = "; ".join(verdict["causes"])[:500] or "drift"
    return dg.RunRequest(run_key=key, tags={"seehear/reason": causes, "seehear/window": day})


def _over_budget(instance: dg.DagsterInstance, cooldown: timedelta) -> str | None:
    """Why no retraining may start now, or None."""
    going = instance.get_run_records(dg.RunsFilter(job_name=retraining.name, statuses=list(IN_FLIGHT)), limit=1)
    if going:
        return f"retraining {going[0].dagster_run.run_id[:8]} is under way"
    last = instance.get_run_records(dg.RunsFilter(job_name=retraining.name), limit=1)
    if last and (due := last[0].create_timestamp.replace(tzinfo=UTC) + cooldown) > datetime.now(UTC):
        return f"the next retraining may start after {due.isoformat(timespec='minutes')} (cooldown)"
    return None


IN_FLIGHT = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
JOBS = [lineage, retraining, adding, drift_monitoring]
SCHEDULES = [daily_drift, weekly_retraining]
SENSORS = [retrain_on_drift]
