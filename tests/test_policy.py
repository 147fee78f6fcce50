"""The retraining policy: one pure decision, and the real sensors around it over real Dagster instances."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from renewal import DAY, START, Simulated, record_run, simulated_project, stand_in, tick, write_verdict

from ml.config import load_settings
from orchestration import automation, champion, decisions, evidence
from orchestration.policy import Accuracy, Decision, PastRun, Report, State, cooldown, decide

POLICY = load_settings(Path(__file__).resolve().parents[1]).retraining
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DRIFT = Report("2026-11-19", "drift", True, ("pictures are brighter",))
STATE = State(NOW, "c" * 64, reports=(DRIFT,), data={"raw_audio": "a1"}, champion_data={"raw_audio": "a1"})
QUIET = replace(STATE, reports=(Report("2026-11-19", "no_drift", False),))


def past(hours: float, outcome: str = "kept", evidence: str = "earlier", trigger: str = "schedule") -> PastRun:
    return PastRun("0123456789", NOW - hours * HOUR, evidence, outcome, trigger)


# triggers


def test_an_alarm_starts_one_with_the_causes_as_its_reason():
    decision = decide(STATE, POLICY)
    assert (decision.start, decision.trigger) == (True, "drift")
    assert "pictures are brighter" in decision.reason


@pytest.mark.parametrize(
    ("reports", "said"),
    [
        ((), "no drift report yet"),
        ((Report("2026-11-19", "no_drift", False),), "2026-11-19: no drift"),
        ((Report("2026-11-19", "not_enough_data", False),), "not_enough_data"),
        ((Report("2026-11-19", "drift", False),), "no alarm yet"),
        ((Report("2026-11-19", "no_drift", False), DRIFT), "no drift"),
    ],
)
def test_without_an_alarm_in_the_newest_report_nothing_starts_and_the_reason_is_said(reports, said):
    decision = decide(replace(STATE, reports=reports), POLICY)
    assert not decision.start
    assert said in decision.reason


def fell(day: int, how: str = "real", fall: bool = True, measured: float = 0.8) -> Report:
    return Report(f"2026-11-{day}", "no_drift", False, (), (Accuracy("heard", how, 0.95, measured, fall),))


@pytest.mark.parametrize("how", ["real", "estimated"])
def test_an_accuracy_that_fell_in_two_of_three_reports_starts_one(how):
    assert decide(replace(STATE, reports=(fell(19, how), fell(18, how))), POLICY).trigger == "accuracy"
    assert decide(replace(STATE, reports=(fell(19, how), fell(18, how, False), fell(17, how))), POLICY).start
    for reports in (
        (fell(19, how),),
        (fell(19, how, False), fell(18, how), fell(17, how)),
        (fell(19, how, measured=0.93), fell(18, how, measured=0.93)),
    ):
        assert not decide(replace(STATE, reports=reports), POLICY).start


def test_new_data_start_one_once_there_are_enough_labels():
    new = replace(QUIET, data={"raw_audio": "a2"}, new_labels=POLICY.min_new_labels)
    assert decide(new, POLICY).trigger == "data"
    few = decide(replace(new, new_labels=POLICY.min_new_labels - 1), POLICY)
    assert not few.start
    assert "29 new labels, at least 30 wanted" in few.reason
    tried = replace(new, tried_data=({"raw_audio": "a2"},))
    assert not decide(tried, POLICY).start, "a challenger was made of just these data"


def test_raw_data_that_changed_under_the_same_added_ones_are_evidence_of_their_own():
    first, second = (
        replace(QUIET, data={"raw_audio": f"{raw * 32}.dir+{'a' * 32}.dir"}, new_labels=POLICY.min_new_labels)
        for raw in "12"
    )
    answered = (past(1000, "kept", decide(first, POLICY).evidence),)
    assert not decide(replace(first, runs=answered), POLICY).start
    assert decide(replace(second, runs=answered), POLICY).start


def test_the_schedule_starts_one_within_the_same_budget():
    due = replace(QUIET, scheduled=NOW)
    assert decide(due, POLICY).trigger == "schedule"
    assert "cooldown" in decide(replace(due, runs=(past(1),)), POLICY).reason


def test_drift_waits_for_labels_where_the_settings_say_so():
    waiting = decide(STATE, replace(POLICY, drift_needs_labels=True))
    assert "0 new labels" in waiting.reason
    assert decide(replace(STATE, new_labels=30), replace(POLICY, drift_needs_labels=True)).start


def test_triggers_can_be_switched_off():
    off = replace(POLICY, on_drift=False, on_accuracy=False, on_new_data=False)
    assert not decide(replace(STATE, data={"raw_audio": "a2"}, new_labels=99), off).start


# budget


def test_never_two_at_once():
    assert "01234567 is under way" in decide(replace(STATE, runs=(past(100, "under way"),)), POLICY).reason


@pytest.mark.parametrize(("lost", "hours"), [(0, 24), (1, 48), (2, 96), (3, 192), (4, 336), (90, 336)])
def test_every_challenger_in_a_row_that_lost_doubles_the_cooldown_up_to_its_limit(lost, hours):
    assert cooldown(POLICY, lost) == hours * HOUR


def test_a_challenger_that_won_ends_the_back_off():
    runs = (past(25, "promoted"), past(100, "kept"), past(200, "failed"))
    assert decide(replace(STATE, runs=runs), POLICY).start
    assert not decide(replace(STATE, runs=(past(25, "kept"), *runs)), POLICY).start
    assert decide(replace(STATE, runs=(past(49, "kept"), *runs)), POLICY).start


def test_a_retraining_that_gave_the_champion_again_neither_adds_to_the_back_off_nor_ends_it():
    runs = (past(25, "same"), past(50, "kept"), past(200, "promoted"))
    assert not decide(replace(STATE, runs=runs), POLICY).start
    assert decide(replace(STATE, runs=(past(49, "same"), *runs[1:])), POLICY).start


@pytest.mark.parametrize("trigger", ["drift", "accuracy"])
def test_drift_that_gives_the_champion_again_is_answered_more_and_more_rarely(trigger):
    runs = (past(25, "same", trigger=trigger), past(60, "same", trigger=trigger), past(200, "promoted"))
    assert not decide(replace(STATE, runs=runs), POLICY).start
    assert not decide(replace(STATE, runs=(past(95, "same", trigger=trigger), *runs[1:])), POLICY).start
    assert decide(replace(STATE, runs=(past(97, "same", trigger=trigger), *runs[1:])), POLICY).start


def test_evidence_that_a_retraining_answered_starts_no_other_but_a_failed_one_is_tried_again():
    first = decide(STATE, POLICY)
    answered = decide(replace(STATE, runs=(past(1000, "promoted", first.evidence),)), POLICY)
    assert not answered.start
    assert "answered" in answered.reason
    again = decide(replace(STATE, runs=(past(1000, "failed", first.evidence),)), POLICY)
    assert again.start
    assert again.run_key != first.run_key


def test_without_a_champion_nothing_starts_and_its_fault_is_the_reason():
    decision = decide(replace(STATE, champion=None, champion_fault="champion.json: gone"), POLICY)
    assert decision == Decision(False, "champion.json: gone")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 500), st.sampled_from(["promoted", "kept", "failed", "under way", ""])), max_size=6)
)
def test_it_always_decides_and_always_says_why(runs):
    state = replace(STATE, runs=tuple(past(hours, outcome) for hours, outcome in sorted(runs)))
    decision = decide(state, POLICY)
    assert decision.reason
    assert decision.start == bool(decision.evidence)
    if decision.start:
        assert all(run.outcome != "under way" for run in state.runs)
        assert not state.runs or NOW - state.runs[0].asked >= timedelta(hours=POLICY.cooldown_hours)


# the sensors, over real instances and real files


@pytest.fixture
def instance(tmp_path):
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def project(tmp_path) -> Simulated:
    return simulated_project(tmp_path / "project")


def test_the_sensor_asks_for_one_run_tagged_with_its_reason_and_not_again_before_it_is_recorded(instance, project):
    write_verdict(project, START + DAY, "drift")
    project.go_to(START + 2 * DAY)
    first = tick(instance, project)
    (wanted,) = first.run_requests
    assert wanted.tags[evidence.REASON] == "2026-01-02: pictures are brighter"
    assert "under way" in tick(instance, project).skip_reason.skip_message
    record_run(instance, wanted)
    assert "under way" in tick(instance, project).skip_reason.skip_message


@pytest.mark.parametrize(
    ("gate", "status", "outcome"),
    [
        ("promoted", "FAILURE", "promoted"),
        ("kept", "CANCELED", "kept"),
        ("", "FAILURE", "failed"),
        ("", "CANCELED", "failed"),
        ("", "SUCCESS", ""),
        ("promoted", "STARTED", "under way"),
    ],
)
def test_a_run_that_is_over_ended_as_the_gate_said_and_without_its_word_failed(instance, gate, status, outcome):
    tags = {evidence.OUTCOME: gate} if gate else {}
    instance.create_run_for_job(stand_in, tags=tags, status=dg.DagsterRunStatus(status))
    assert [run.outcome for run in evidence.past_runs(instance)] == [outcome]


def test_a_retraining_that_is_run_again_counts_from_then_and_not_from_when_the_first_was_asked_for(instance):
    tags = {evidence.ASKED: START.isoformat()}
    first = instance.create_run_for_job(stand_in, tags=tags)
    instance.create_run_for_job(stand_in, tags=tags, parent_run_id=first.run_id, root_run_id=first.run_id)
    again, once = evidence.past_runs(instance)
    assert once.asked == START
    assert abs(datetime.now(UTC) - again.asked) < HOUR


def test_data_are_tried_once_their_challenger_was_judged_and_not_once_it_was_measured(instance, project):
    data = {"raw_audio": "a2"}
    project.paths.reports.mkdir(parents=True)
    (project.paths.reports / "evaluation.json").write_text(json.dumps({"data": data}))
    assert data not in evidence.gather(instance, project).tried_data
    row = {"event": champion.KEPT, "digest": "d", "data": {**data, "prepared_audio": "b"}}
    champion.keep(project.paths, row)
    assert data in evidence.gather(instance, project).tried_data


def test_reports_from_before_the_champion_say_nothing_about_it(instance, project):
    write_verdict(project, START, "drift")
    assert "no drift report yet" in tick(instance, project).skip_reason.skip_message


def test_a_report_that_cannot_be_read_is_left_out(instance, project):
    write_verdict(project, START + DAY, "no_drift")
    write_verdict(project, START + 2 * DAY, "drift").write_text("{")
    assert "2026-01-02: no drift" in tick(instance, project).skip_reason.skip_message


def test_every_decision_is_kept_once_with_its_reason_and_shown_as_an_asset(instance, project):
    for _ in range(5):
        shown = [tick(instance, project).asset_events for _ in range(3)]
        project.go_to(project.time + HOUR)
    write_verdict(project, START + DAY, "drift")
    project.go_to(START + 2 * DAY)
    changed = tick(instance, project)
    rows = decisions.newest(project.paths)
    assert [(row["start"], row["times"]) for row in rows] == [(True, 1), (False, 15)]
    assert rows[1]["until"] > rows[1]["at"]
    assert [len(events) for events in shown] == [0, 0, 0], "the same decision again makes no event"
    assert changed.asset_events[0].metadata["reason"].value == rows[0]["reason"]


def test_the_schedule_asks_through_the_same_policy(instance, project):
    with dg.build_schedule_context(
        instance=instance, scheduled_execution_time=project.time, resources={"project": project}
    ) as context:
        asked = automation.weekly_retraining(context)
        assert asked.tags[evidence.TRIGGER] == "schedule"
        record_run(instance, asked)
        refused = automation.weekly_retraining(context)
        assert "under way" in refused.skip_message


def test_sensor_and_schedule_explain_the_policy_with_its_settings():
    for described in (automation.retraining_policy.description, automation.weekly_retraining.description):
        assert "cooldown_hours" in described
        assert f"backoff {json.dumps(POLICY.backoff)}" in described


@pytest.mark.parametrize("harm", ["gone", "corrupt", "bundle gone"])
def test_a_champion_that_is_gone_is_a_state_of_the_asset_and_starts_nothing(instance, project, harm):
    write_verdict(project, START + DAY, "drift")
    with dg.build_sensor_context(instance=instance, resources={"project": project}) as context:
        (stands,) = automation.champion_watch(context).asset_events
        if harm == "bundle gone":
            project.forget_bundle()
        elif harm == "gone":
            project.paths.champion.unlink()
        else:
            project.paths.champion.write_text("{half")
        (fault,) = automation.champion_watch(context).asset_events
    assert (stands.passed, fault.passed) == (True, False)
    assert "champion.json" in fault.description
    assert "rollback" in fault.description or "make run" in fault.description
    assert tick(instance, project).skip_reason.skip_message == fault.description
