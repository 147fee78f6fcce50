"""Day by day: an alarm takes two of three windows, accuracy is told as far as known, and bad input stops nothing."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_checks.drift import (
    LOG_SCHEMA,
    DriftVerdict,
    Finding,
    in_words,
    judge_day,
    measure_accuracy,
    read_drift_verdict,
    with_alarm,
    write_drift_report,
)
from data_checks.drift.log import FEEDBACK_SCHEMA, REFERENCE_SCHEMA
from ml.config import load_settings

MONITORING = dataclasses.replace(load_settings().monitoring, min_window=50, min_corrections=30)
POINTER = {"tag": "seehear:a", "digest": "digest-a", "reference": "r.parquet"}
MONDAY = date(2026, 3, 2)


def day_after(days: int) -> str:
    return (MONDAY + timedelta(days=days)).isoformat()


def answers(rows: int, seed: int, day: str = "2026-03-02", gain_db: float = 0.0, right: float = 0.9) -> pd.DataFrame:
    """What was heard in recordings of three words; confidences are those of a calibrated model."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(["one", "two", "six"], rows)
    confidence = np.clip(rng.normal(right, 0.05, rows), 0.5, 0.999)
    wrong = rng.random(rows) > confidence
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    frame = pd.DataFrame(
        {
            "request_id": [f"{seed:016x}{row:016x}" for row in range(rows)],
            "time": [start + timedelta(seconds=row) for row in range(rows)],
            "endpoint": "recognize_speech",
            "model": "digest-a",
            "heard": np.where(wrong, "ten", truth),
            "heard_confidence": confidence,
            "audio_loudness_db": rng.normal(-24, 3, rows) + gain_db,
            "corrected_heard": truth,
        }
    )
    missing = {name: None for name in REFERENCE_SCHEMA.names if name not in frame}
    return frame.assign(**missing)[REFERENCE_SCHEMA.names]


def log(folder: Path, frame: pd.DataFrame, name: str = "a", day: str | None = None) -> Path:
    file = folder / "prediction_log" / f"date={day or f'{frame.time.iloc[0]:%Y-%m-%d}'}" / f"{name}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pandas(frame[LOG_SCHEMA.names], LOG_SCHEMA, preserve_index=False), file)
    return file


def correct(folder: Path, ids, heard, day: str = "2026-03-09", consent: bool = True) -> None:
    rows = {"request_id": list(ids), "time": [datetime.fromisoformat(day).replace(tzinfo=UTC)] * len(ids)}
    rows |= {"pictured": [None] * len(ids), "heard": list(heard), "consent": [consent] * len(ids)}
    file = folder / "feedback" / f"date={day}" / "f.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows, FEEDBACK_SCHEMA), file)


@pytest.fixture(scope="module")
def reference() -> pd.DataFrame:
    return answers(400, seed=1)


def judge(folder: Path, reference: pd.DataFrame, day: str) -> DriftVerdict:
    verdict, _ = judge_day(day, reference, folder / "prediction_log", folder, MONITORING)
    write_verdict(folder, day, verdict)
    return verdict


def write_verdict(folder: Path, day: str, verdict: DriftVerdict) -> None:
    """What write_drift_report leaves for the days after, without Evidently's page."""
    file = folder / "drift" / day / "verdict.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"day": day, **dataclasses.asdict(verdict)}))


# ------------------------------------------------------------------------------------------------------------- alarms


def finding(p: float, drifted: bool) -> Finding:
    return Finding("audio_loudness_db", "Kolmogorov-Smirnov", 0.1, p, min(1, 9 * p), -0.2, drifted)


def window(state: str, p: float = 0.6) -> DriftVerdict:
    found = () if state == "not_enough_data" else (finding(p, state == "drift"),)
    return DriftVerdict(state, 400, 200, 0.005, found, causes=("quieter",) if state == "drift" else ())


def alarm_of(*states: str | tuple[str, float], together: str = "no_drift") -> DriftVerdict:
    verdicts = [window(*((one,) if isinstance(one, str) else one)) for one in states]
    former = {day_after(number): one for number, one in enumerate(verdicts[:-1])}
    return with_alarm(day_after(len(states) - 1), verdicts[-1], former, lambda _: window(together, 1e-6))


def test_one_window_is_no_alarm_and_two_of_three_are():
    assert not alarm_of("drift").alarm
    assert alarm_of("drift", "drift").alarm
    assert alarm_of("drift", "no_drift", "drift").alarm
    assert not alarm_of("drift", "no_drift", "no_drift", "drift").alarm
    assert alarm_of("drift", "no_drift").alarm_reason == (
        "1 of the last 2 windows with enough data drifted, an alarm takes 2 of 3"
    )


def test_days_without_enough_data_are_passed_over_and_raise_nothing():
    assert alarm_of("drift", "not_enough_data", "not_enough_data", "drift").alarm
    last = alarm_of("drift", "drift", "not_enough_data")
    assert not last.alarm
    assert last.alarm_reason == "not enough data in this window"


def test_a_change_too_small_for_one_day_is_an_alarm_where_the_days_together_show_it_and_two_lean():
    weak = ("no_drift", 0.02)
    assert alarm_of(weak, weak, together="drift").alarm
    assert not alarm_of(weak, "no_drift", together="drift").alarm, "one day alone never raises it"
    assert "together differ in audio_loudness_db" in alarm_of(weak, weak, together="drift").alarm_reason


def test_a_change_that_lasts_is_an_alarm_on_the_second_day(reference, tmp_path):
    for number, gain_db in enumerate((0.0, -6.0, -6.0)):
        log(tmp_path, answers(200, 10 + number, day_after(number), gain_db))
    verdicts = [judge(tmp_path, reference, day_after(number)) for number in range(3)]
    assert [one.state for one in verdicts] == ["no_drift", "drift", "drift"]
    assert [one.alarm for one in verdicts] == [False, False, True]
    assert verdicts[2].causes[0].startswith("recordings are quieter")
    assert verdicts[2].recent == tuple((day_after(n), one.state) for n, one in enumerate(verdicts))


def test_the_items_that_show_a_change_most_are_named(reference, tmp_path):
    frame = answers(200, 10, gain_db=-6)
    log(tmp_path, frame)
    (shown,) = [one for one in judge(tmp_path, reference, day_after(0)).findings if one.drifted]
    quietest = frame.sort_values("audio_loudness_db")["request_id"].head(5)
    assert shown.items == tuple(quietest)


def test_what_another_champion_was_held_against_does_not_count(reference, tmp_path):
    log(tmp_path, answers(200, 10, day_after(1), gain_db=-6))
    write_verdict(tmp_path, day_after(0), dataclasses.replace(window("drift"), model="digest-of-the-last-champion"))
    assert not judge(tmp_path, reference, day_after(1)).alarm


def test_a_verdict_from_before_there_were_alarms_is_read_as_it_was_meant(tmp_path):
    former = {"day": day_after(0), "state": "drift", "n_reference": 9, "n_window": 9, "alpha": 0.01}
    former |= {"findings": [], "causes": ["quieter"], "skipped": [], "unreadable": []}
    (tmp_path / "verdict.json").write_text(json.dumps(former))
    assert read_drift_verdict(tmp_path / "verdict.json").alarm


# ----------------------------------------------------------------------------------------------------------- accuracy


def test_where_labels_are_late_accuracy_is_estimated_from_calibrated_confidences(reference):
    late, worse = (answers(300, 5, right=right).drop(columns="corrected_heard") for right in (0.9, 0.7))
    as_ever = measure_accuracy(reference, late, MONITORING)["heard"]
    fallen = measure_accuracy(reference, worse, MONITORING)["heard"]
    assert as_ever.estimated == pytest.approx(as_ever.expected, abs=0.04)
    assert not as_ever.estimated_fell
    assert fallen.estimated == pytest.approx(0.7, abs=0.03)
    assert fallen.estimated_fell
    assert fallen.real is None
    assert "it fell" in in_words(fallen)


def test_an_estimate_from_bad_confidences_is_refused_and_it_says_why(reference):
    boastful = reference.assign(heard_confidence=0.999)
    told = measure_accuracy(boastful, answers(300, 5), MONITORING)["heard"]
    assert told.estimated is None
    assert told.why_not.startswith("no estimate: the confidences are 0.")


def test_real_accuracy_is_told_once_enough_corrections_came(reference):
    frame = answers(100, 5)
    few = frame.assign(corrected_heard=frame["corrected_heard"].where(frame.index < 10))
    assert measure_accuracy(reference, few, MONITORING)["heard"].real is None
    told = measure_accuracy(reference, frame, MONITORING)["heard"]
    assert told.real == pytest.approx((frame["heard"] == frame["corrected_heard"]).mean())
    assert told.real_n == 100
    assert told.real_ci95[0] < told.real < told.real_ci95[1]


@pytest.mark.parametrize(("right", "fell"), [(0.9, False), (0.5, True)])
def test_people_who_correct_only_what_is_wrong_do_not_make_accuracy_fall(reference, right, fell):
    frame = answers(400, 5, right=right)
    wrong = frame["heard"] != frame["corrected_heard"]
    told = measure_accuracy(reference, frame.assign(corrected_heard=frame["corrected_heard"].where(wrong)), MONITORING)
    assert told["heard"].real == 0
    assert told["heard"].real_at_best == pytest.approx(1 - wrong.mean())
    assert told["heard"].real_fell is fell


def test_accuracy_is_that_of_the_champion_at_the_endpoints_of_the_window(reference):
    frame = answers(300, 5)
    alone = measure_accuracy(reference, frame, MONITORING)["heard"]
    worse_at_another = answers(400, 2, right=0.6).assign(endpoint="extract")
    assert measure_accuracy(pd.concat([reference, worse_at_another]), frame, MONITORING)["heard"] == alone
    of_another_model = answers(300, 6, right=0.5).assign(model="digest-b")
    assert measure_accuracy(reference, pd.concat([frame, of_another_model]), MONITORING)["heard"] == alone


def test_a_reference_without_labels_expects_nothing(reference):
    told = measure_accuracy(reference.assign(corrected_heard=None), answers(100, 5), MONITORING)["heard"]
    assert (told.expected, told.estimated) == (None, None)
    assert "the reference holds 0 labelled answers" in told.why_not


# ---------------------------------------------------------------------------------------------------------- bad input


def test_corrections_of_unknown_requests_twice_and_of_unknown_labels_are_counted_and_harm_nothing(reference, tmp_path):
    frame = answers(60, 10)
    log(tmp_path, pd.concat([frame, frame.head(5)]))  # five answers logged twice
    ids = frame["request_id"]
    correct(tmp_path, [ids[0], ids[0], ids[1], "f" * 32], ["one", "two", "zebra", "one"])
    verdict = judge(tmp_path, reference, day_after(0))
    assert verdict.n_window == 60
    assert verdict.corrections == {"joined": 2, "with_consent": 2, "unknown_labels": 1}


def test_a_correction_dated_before_its_answer_joins_all_the_same(reference, tmp_path):
    frame = answers(60, 10, day_after(3))
    log(tmp_path, frame)
    correct(tmp_path, frame["request_id"][:3], ["one"] * 3, day=day_after(0))
    assert judge(tmp_path, reference, day_after(3)).corrections["joined"] == 3


def test_answers_from_a_wrong_clock_stay_in_the_log_and_out_of_the_window(reference, tmp_path):
    frame = answers(60, 10)
    backwards = frame.iloc[::-1]
    log(tmp_path, backwards)
    log(tmp_path, answers(60, 11, "2036-01-01"), name="future")
    verdict = judge(tmp_path, reference, day_after(0))
    assert (verdict.state, verdict.n_window) == ("no_drift", 60)


def test_an_empty_week_is_seven_reports_of_not_enough_data(reference, tmp_path):
    for number in range(7):
        verdict = judge(tmp_path, reference, day_after(number))
        assert (verdict.state, verdict.alarm) == ("not_enough_data", False)
        assert verdict.causes == ("0 answers in the window, expected at least 50",)
    log(tmp_path, answers(60, 10, day_after(7)))
    assert judge(tmp_path, reference, day_after(7)).state == "no_drift"


def test_a_torn_report_of_the_day_before_is_named_and_passed_over(reference, tmp_path):
    log(tmp_path, answers(200, 10, day_after(1), gain_db=-6))
    (tmp_path / "drift" / day_after(0)).mkdir(parents=True)
    (tmp_path / "drift" / day_after(0) / "verdict.json").write_text('{"day"')
    verdict = judge(tmp_path, reference, day_after(1))
    assert verdict.state == "drift"
    assert "verdict.json" in verdict.unreadable[0]


# ---------------------------------------------------------------------------------------------------------- the asset


def test_the_log_s_asset_counts_what_is_torn_old_or_from_the_future(tmp_path):
    from orchestration.assets.monitoring import prediction_log
    from orchestration.resources import Project

    (tmp_path / "params.yaml").write_text((Path(__file__).resolve().parents[1] / "params.yaml").read_text())
    log(tmp_path / "var", answers(60, 10))
    log(tmp_path / "var", answers(7, 11, "2136-01-01"))
    folder = tmp_path / "var" / "prediction_log" / f"date={day_after(0)}"
    (folder / "torn.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"request_id": ["a"], "time": [datetime(2026, 3, 2, tzinfo=UTC)]}), folder / "old.parquet")
    kept = tmp_path / "var" / "media" / "date=2026-03-02"
    kept.mkdir(parents=True)
    result = dg.materialize([prediction_log], resources={"project": Project(root=str(tmp_path))})
    (made,) = result.get_asset_materialization_events()
    shown = made.materialization.metadata
    assert shown["dagster/row_count"].value == 68
    assert shown["unreadable_shards"].value == 1
    assert shown["answers_from_the_future"].value == 7
    days = {record.data["day"]: record.data for record in shown["by_day"].records}
    assert days[day_after(0)]["of an older schema"] == 1
    assert (folder / "torn.parquet").exists(), "nothing is lost"
    assert kept.exists(), "only the service deletes media; what keep_media_days says here may not be what it says there"


def test_the_asset_shows_all_of_it(reference, tmp_path, monkeypatch):
    from orchestration.assets.monitoring import drift_report
    from orchestration.resources import Project

    root = tmp_path / "project"
    (root / "models" / "references").mkdir(parents=True)
    (root / "params.yaml").write_text((Path(__file__).resolve().parents[1] / "params.yaml").read_text())
    (root / "models" / "champion.json").write_text(json.dumps(POINTER))
    pq.write_table(
        pa.Table.from_pandas(reference, REFERENCE_SCHEMA, preserve_index=False),
        root / "models" / "references" / "r.parquet",
    )
    frame = answers(200, 10, gain_db=-6)
    log(root / "var", frame)
    correct(root / "var", frame["request_id"][:40], frame["corrected_heard"][:40])
    (root / "var" / "prediction_log" / f"date={day_after(0)}" / "torn.parquet").write_bytes(b"PAR1")
    result = dg.materialize([drift_report], partition_key=day_after(0), resources={"project": Project(root=str(root))})
    (made,) = result.get_asset_materialization_events()
    shown = made.materialization.metadata
    assert shown["state"].value == "drift"
    assert shown["alarm"].value is False
    assert "an alarm takes 2 of 3" in shown["alarm_reason"].value
    assert shown["real_accuracy_heard"].value == pytest.approx(0.9, abs=0.15)
    assert shown["corrections"].value["joined"] == 40
    assert "torn.parquet" in shown["unreadable"].value[0]
    page = (root / "reports" / "drift" / day_after(0) / "drift.html").read_text()
    for words in ("an alarm takes 2 of 3", "accuracy of what is heard", "shown most in audio_loudness_db by"):
        assert words in page
    verdict = read_drift_verdict(root / "reports" / "drift" / day_after(0) / "verdict.json")
    assert verdict.accuracy["heard"].real_n == 40
    assert verdict.causes[0].startswith("recordings are quieter")


def test_a_report_reads_back_whole(reference, tmp_path):
    log(tmp_path, answers(60, 10))
    verdict, window = judge_day(day_after(0), reference, tmp_path / "prediction_log", tmp_path, MONITORING)
    folder = write_drift_report(verdict, reference, window, tmp_path, day_after(0))
    assert read_drift_verdict(folder / "verdict.json") == verdict
