"""Alerts: one JSON message to a webhook for every run that failed; off where no webhook is set."""

from urllib.parse import urlsplit

import dagster as dg
import requests

from orchestration.resources import Project
from orchestration.runs import failure_reason


@dg.run_failure_sensor(
    minimum_interval_seconds=30,
    monitor_all_code_locations=True,  # a run that a terminal started belongs to none
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells a webhook of every failed run: alerts.webhook in params.yaml, or SEEHEAR_WEBHOOK; off without.",
)
def alert_on_failure(context: dg.RunFailureSensorContext, project: Project) -> dg.SkipReason | None:
    alerts = project.settings.alerts
    if not alerts.webhook:
        return dg.SkipReason("no webhook is set (alerts.webhook, SEEHEAR_WEBHOOK)")
    fault = post(alerts.webhook, message(context), alerts.timeout_s)
    if fault:
        context.log.warning(fault)
    return dg.SkipReason(fault) if fault else None


def message(context: dg.RunFailureSensorContext) -> dict[str, str]:
    """What is told: `text` in one line, as chat services read it, and its parts."""
    run, event = context.dagster_run, context.failure_event
    reasons = [_reason(step) for step in context.get_step_failure_events()] or [event.message or "no reason given"]
    return {
        "text": f"SeeHear: {run.job_name} failed ({run.run_id[:8]}): {reasons[0]}",
        "job": run.job_name,
        "run_id": run.run_id,
        "reason": reasons[0],
        "started_because": run.tags.get("seehear/reason", "by hand or by schedule"),
    }


def _reason(event: dg.DagsterEvent) -> str:
    return f"{event.step_key}: {failure_reason(event)}"[:1000]


def post(webhook: str, payload: dict[str, str], timeout_s: float) -> str:
    """Send a message; "" once it is taken, else one line that says why not. Never raises, never waits longer."""
    host = urlsplit(webhook).netloc.rpartition("@")[2] or "?"  # the rest of the address may be a secret
    try:
        answer = requests.post(webhook, json=payload, timeout=timeout_s, allow_redirects=False)
    except (requests.RequestException, ValueError) as fault:
        return f"webhook at {host}: not told of the failure of {payload['job']}: {type(fault).__name__}"
    if answer.status_code >= 300:
        return f"webhook at {host}: answered {answer.status_code} to the failure of {payload['job']}"
    return ""
