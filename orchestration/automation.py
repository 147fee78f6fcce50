"""When things run by themselves: jobs, schedules, and the sensors around the retraining policy and the champion."""

import json
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta

import dagster as dg

from ml.config import UserError
from orchestration import decisions, evidence, previews
from orchestration.alerts import alert_on_failure
from orchestration.assets.common import SETTINGS
from orchestration.assets.evaluation import STORED
from orchestration.assets.renewal import DECISIONS
from orchestration.champion import usable_pointer
from orchestration.policy import Decision, decide
from orchestration.resources import Project

MONITORED = dg.AssetSelection.assets("drift_report")
lineage = dg.define_asset_job(
    "lineage",
    selection=dg.AssetSelection.all() - MONITORED,
    description="Everything from the source to the Bento.",
)
retraining = dg.define_asset_job(
    evidence.RETRAINING,
    selection=dg.AssetSelection.all() - MONITORED - dg.AssetSelection.assets("prediction_log", "feedback"),
    description="New data, new models, and a new champion if it passes the gate.",
)
rollback = dg.define_asset_job(
    "rollback",
    selection=dg.AssetSelection.assets("champion", "bento"),
    description="Back to a former champion (`seehear rollback`): set `reason`, and `roll_back_to` for another than the "
    "one before; the model is verified before the pointer moves.",
    config={"ops": {"champion": {"config": {"roll_back_to": "previous", "reason": ""}}}},
)
adding = dg.define_asset_job(
    "adding",
    selection=dg.AssetSelection.assets("added_images", "added_audio"),
    description="Data added, removed or relabelled (`seehear add|remove|relabel`): the shards alone, nothing after.",
)
drift_monitoring = dg.define_asset_job(
    "drift_monitoring",
    selection=dg.AssetSelection.assets("prediction_log", "feedback", "drift_report"),
    description="The drift report of one day, or of every day of a range as a backfill.",
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


def _policy() -> str:
    """The policy in words, with its settings, as sensor and schedule show it."""
    settings = SETTINGS.retraining
    named = ", ".join(f"{one.name} {json.dumps(getattr(settings, one.name))}" for one in fields(settings))
    return (
        "Starts `retraining` when the drift report raises its alarm, when estimated or real accuracy fell in two of "
        "the last three reports by more than accuracy_drop, when DVC's version of the data is not the champion's and "
        "at least min_new_labels items are new, or by schedule. Never beside another retraining; never within "
        "cooldown_hours of the last one, times backoff for every challenger in a row that lost, failed or, asked for "
        "by drift or accuracy, was the champion again, at most "
        "max_cooldown_hours; never twice on the same evidence. Every decision stands with its reason in the asset "
        f"retraining_decisions. Settings (retraining in params.yaml): {named}."
    )


def decided(
    instance: dg.DagsterInstance, project: Project, scheduled: datetime | None = None
) -> tuple[Decision, bool, datetime]:
    """The policy's decision on the present state, kept; whether it is another than the last one; and when."""
    paths, policy = project.paths, project.settings.retraining
    with decisions.turn(paths):
        state = evidence.gather(instance, project, scheduled)
        decision = decide(state, policy)
        return decision, decisions.record(paths, decision, state.now), state.now


def request(decision: Decision, now: datetime) -> dg.RunRequest:
    """The run that a decision asks for, tagged with why."""
    tags = {
        evidence.REASON: decision.reason[:500],
        evidence.TRIGGER: decision.trigger,
        evidence.EVIDENCE: decision.evidence,
        evidence.ASKED: now.isoformat(timespec="seconds"),
    }
    return dg.RunRequest(run_key=decision.run_key, tags=tags)


@dg.sensor(job=retraining, minimum_interval_seconds=60, description=_policy())
def retraining_policy(context: dg.SensorEvaluationContext, project: Project) -> dg.SensorResult:
    decision, changed, at = decided(context.instance, project)
    return dg.SensorResult(
        run_requests=[request(decision, at)] if decision.start else [],
        skip_reason=None if decision.start else decision.reason,
        asset_events=[_shown(project)] if changed else [],
        cursor=json.dumps(asdict(decision), ensure_ascii=False),
    )


@dg.schedule(
    job=retraining,
    cron_schedule=SETTINGS.retraining.cron,
    execution_timezone="UTC",
    description="Every week (retraining.cron), within the same budget. " + _policy(),
)
def weekly_retraining(context: dg.ScheduleEvaluationContext, project: Project) -> dg.RunRequest | dg.SkipReason:
    tick = context.scheduled_execution_time.astimezone(UTC)
    decision, changed, at = decided(context.instance, project, tick)
    if changed:
        context.instance.report_runless_asset_event(_shown(project))
    return request(decision, at) if decision.start else dg.SkipReason(decision.reason)


def _shown(project: Project) -> dg.AssetMaterialization:
    rows = decisions.newest(project.paths)
    newest = rows[0]
    return dg.AssetMaterialization(
        DECISIONS,
        description=newest["reason"],
        metadata={"retrain": newest["start"], "reason": newest["reason"], "decisions": previews.table(rows)},
    )


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    asset_selection=dg.AssetSelection.assets("champion"),
    description="Watches models/champion.json and the model it names: where either is gone or unreadable, the check "
    "champion_stored fails on `champion` and says what to do. A running service goes on with the model it has.",
)
def champion_watch(context: dg.SensorEvaluationContext, project: Project) -> dg.SensorResult:
    try:
        said, stands = usable_pointer(project.paths)["digest"], True
    except UserError as fault:
        said, stands = str(fault), False
    if said == context.cursor:
        return dg.SensorResult(skip_reason="unchanged: " + said)
    check = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("champion"),
        check_name=STORED,
        passed=stands,
        metadata={"digest" if stands else "fault": said},
        description="stored and named" if stands else said,
    )
    return dg.SensorResult(asset_events=[check], cursor=said)


JOBS = [lineage, retraining, rollback, adding, drift_monitoring]
SCHEDULES = [daily_drift, weekly_retraining]
SENSORS = [retraining_policy, champion_watch, alert_on_failure]
