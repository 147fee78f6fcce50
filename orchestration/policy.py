"""The retraining policy: what is known goes in, one decision with its reason comes out. Nothing here reads or writes.

Triggers say that a retraining would help (drift, falling accuracy, new data, the schedule); the budget says whether it
may start now (one at a time, a cooldown that grows with every challenger that lost, enough new labels).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ml.config import Retraining
from orchestration.resources import digest

WINDOWS, AGREEING = 3, 2  # falling accuracy counts when this many of the last windows say so


@dataclass(frozen=True)
class Accuracy:
    """What one report says of one side's accuracy; `fell` where its whole interval lies below what was expected.

    measured: where real, as it would be if all the answers that nobody judged were right.
    """

    side: str  # pictured | heard
    how: str  # estimated | real
    expected: float
    measured: float
    fell: bool


@dataclass(frozen=True)
class Report:
    """One day's drift report, as far as the policy reads it."""

    day: str
    state: str
    alarm: bool
    causes: tuple[str, ...] = ()
    accuracies: tuple[Accuracy, ...] = ()


@dataclass(frozen=True)
class PastRun:
    """A retraining: when it was asked for, the evidence it answered, and how it ended.

    outcome: "under way", "promoted", "kept" (it lost), "same" (it was the champion again), "failed", or "" where it
    does not say.
    """

    run_id: str
    asked: datetime
    evidence: str
    outcome: str
    trigger: str = ""


@dataclass(frozen=True)
class State:
    """All that a decision rests on; `runs` and `reports` with the newest first.

    champion: its digest, None where none can be read, and then `champion_fault` says why. data, champion_data: DVC's
    versions of the raw data, now and of what the champion was made of. tried_data: those of every challenger that was
    judged. new_labels: labelled items that the champion was not made of. scheduled: the tick of the schedule that asks.
    """

    now: datetime
    champion: str | None
    champion_fault: str = ""
    reports: Sequence[Report] = ()
    data: Mapping[str, str] | None = None
    champion_data: Mapping[str, str] | None = None
    tried_data: Sequence[Mapping[str, str]] = ()
    new_labels: int = 0
    runs: Sequence[PastRun] = ()
    scheduled: datetime | None = None


@dataclass(frozen=True)
class Decision:
    """Whether to retrain, by which trigger, on what evidence, and why (or why not)."""

    start: bool
    reason: str
    trigger: str = ""
    evidence: str = ""
    attempt: int = 1

    @property
    def run_key(self) -> str:
        """Names evidence and attempt: Dagster starts a run of the same key only once, whatever happens between."""
        return self.evidence if self.attempt == 1 else f"{self.evidence}-{self.attempt}"


@dataclass(frozen=True)
class _Cause:
    trigger: str
    evidence: str
    reason: str
    needs_labels: bool


def decide(state: State, policy: Retraining) -> Decision:
    """Whether to retrain now: the first trigger whose evidence no retraining has answered yet, if the budget allows."""
    if state.champion is None:
        return Decision(False, state.champion_fault or "there is no champion yet; `make run` makes the first")
    causes = list(_causes(state, policy))
    if not causes:
        return Decision(False, _quiet(state))
    answered = {run.evidence for run in state.runs if run.outcome not in ("failed", "under way")}
    fresh = [cause for cause in causes if cause.evidence not in answered]
    if not fresh:
        return Decision(False, f"{causes[0].reason}; a retraining has answered that", causes[0].trigger)
    able = [cause for cause in fresh if not cause.needs_labels or state.new_labels >= policy.min_new_labels]
    if not able:
        had = f"{state.new_labels} new labels, at least {policy.min_new_labels} wanted"
        return Decision(False, f"{fresh[0].reason}, but {had}", fresh[0].trigger)
    chosen = able[0]
    if why := _over_budget(state, policy):
        return Decision(False, f"{chosen.reason}, but {why}", chosen.trigger)
    attempt = 1 + sum(run.evidence == chosen.evidence for run in state.runs)
    return Decision(True, chosen.reason, chosen.trigger, chosen.evidence, attempt)


def _causes(state: State, policy: Retraining) -> Iterator[_Cause]:
    """What speaks for a retraining, the most urgent first."""
    newest = state.reports[0] if state.reports else None
    champion = (state.champion or "")[:12]
    if newest and newest.alarm and policy.on_drift:
        causes = "; ".join(newest.causes) or "drift"
        yield _Cause("drift", f"drift-{newest.day}-{champion}", f"{newest.day}: {causes}", policy.drift_needs_labels)
    if newest and policy.on_accuracy and (fall := _fall(state.reports[:WINDOWS], policy.accuracy_drop)):
        evidence = f"accuracy-{newest.day}-{champion}"
        yield _Cause("accuracy", evidence, f"{newest.day}: {fall}", policy.drift_needs_labels)
    if policy.on_new_data and (changed := _new_data(state)):
        yield _Cause("data", f"data-{digest(dict(state.data or {}))}", f"new data: {changed}", True)
    if state.scheduled:
        tick = state.scheduled.isoformat(timespec="minutes")
        yield _Cause("schedule", f"schedule-{tick}", f"scheduled for {tick}", False)


def _fall(reports: Sequence[Report], drop: float) -> str:
    """Which accuracy fell by more than `drop`, in the newest report and in enough of the last ones; "" if none."""
    for one in reports[0].accuracies:
        fell = [_fell(report, one.side, one.how, drop) for report in reports]
        if fell[0] and sum(fell) >= AGREEING:
            at_best = "at best " if one.how == "real" else ""
            return f"{one.how} accuracy ({one.side}) {at_best}{one.measured:.3f}, {one.expected:.3f} expected"
    return ""


def _fell(report: Report, side: str, how: str, drop: float) -> bool:
    mine = [one for one in report.accuracies if (one.side, one.how) == (side, how)]
    return any(one.fell and one.expected - one.measured > drop for one in mine)


def _new_data(state: State) -> str:
    """Which raw data no challenger has been judged on yet; "" where that is none, or not known."""
    if not state.data or not state.champion_data or state.data in state.tried_data:
        return ""
    changed = [name for name, version in state.data.items() if state.champion_data.get(name) != version]
    return f"{', '.join(sorted(changed))} ({state.new_labels} new labels)" if changed else ""


def _quiet(state: State) -> str:
    if not state.reports:
        return "no drift report yet; materialize drift_report"
    words = {"drift": "drift in this window alone, no alarm yet", "no_drift": "no drift"}
    return f"{state.reports[0].day}: {words.get(state.reports[0].state, state.reports[0].state)}"


def _over_budget(state: State, policy: Retraining) -> str:
    """Why no retraining may start now, or ""."""
    going = [run for run in state.runs if run.outcome == "under way"]
    if going:
        return f"retraining {going[0].run_id[:8]} is under way"
    if not state.runs:
        return ""
    lost = _lost_in_a_row(state.runs)
    wait = cooldown(policy, lost)
    due = state.runs[0].asked + wait
    if due <= state.now:
        return ""
    after = f" after {lost} challenger{'s' * (lost > 1)} that lost" if lost else ""
    return (
        f"the next may start at {due.isoformat(timespec='minutes')} (cooldown {wait / timedelta(hours=1):g} h{after})"
    )


def cooldown(policy: Retraining, lost: int) -> timedelta:
    """The time between two retrainings once so many challengers in a row have lost."""
    hours = policy.cooldown_hours
    for _ in range(lost):  # and not backoff**lost, which overflows
        hours = min(hours * policy.backoff, max(policy.max_cooldown_hours, policy.cooldown_hours))
    return timedelta(hours=hours)


def _lost_in_a_row(runs: Sequence[PastRun]) -> int:
    """One that was the champion again has lost where drift or accuracy asked for it: there was nothing to learn."""
    lost = 0
    for run in runs:
        if run.outcome not in ("kept", "failed", "same"):
            break
        lost += run.outcome != "same" or run.trigger in ("drift", "accuracy")
    return lost
