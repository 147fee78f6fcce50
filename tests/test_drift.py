"""Drift: what did not change raises no alarm, what did is found and named, and no shard of the log is lost silently."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_checks.drift import (
    LOG_SCHEMA,
    measure_drift,
    measure_together,
    read_drift_verdict,
    read_log,
    reference_from_evaluation,
    write_drift_report,
)
from data_checks.drift.two_samples import (
    holm,
    kolmogorov_smirnov,
    label_mix,
    maximum_mean_discrepancy,
    mean_shift,
    novel_items,
)
from data_checks.facts import stacked_picture_facts
from ml.config import Monitoring, UserError, load_settings
from serving.capture import FEEDBACK_SCHEMA, PREDICTION_SCHEMA

MONITORING = Monitoring(
    **dataclasses.asdict(load_settings().monitoring)
    | {"min_window": 50, "alpha": 0.01, "max_calibration_error": 0.05, "min_corrections": 30}
)
DAY = date(2026, 3, 2)
NEXT_DAY = date(2026, 3, 3)


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    data = load_digits()
    return data.images * 12.0, data.target  # grey levels up to 192, so that a brighter picture still has room


@dataclasses.dataclass(frozen=True)
class World:
    """Who shows what to the service: the traffic that a log is drawn from."""

    brightness: float = 1.0
    gain_db: float = 0.0
    tripled: int | None = None
    new_speaker_share: float = 0.0
    embedding_shift: float = 0.0
    endpoint: str = "extract"
    model: str = "digest-a"


AS_EVER = World()


def make_log(rows: int, seed: int, world: World = AS_EVER) -> pd.DataFrame:
    """Rows as the service logs them: real pictures, six voices with ways of their own, a model that sometimes errs."""
    rng = np.random.default_rng(seed)
    pictures, truth = digits()
    odds = np.where(truth == world.tripled, 3.0, 1.0)
    picks = rng.choice(len(truth), rows, p=odds / odds.sum())
    label = truth[picks]
    pixels = np.clip(pictures[picks] * world.brightness, 0, 255).astype(np.uint8)
    frame = pd.DataFrame(
        {
            "request_id": [f"{seed}-{i}" for i in range(rows)],
            "time": [datetime(2026, 3, 2, tzinfo=UTC) + timedelta(seconds=60 * i) for i in range(rows)],
            "endpoint": world.endpoint,
            "model": world.model,
            **_answer("pictured", label, rng),
            **_answer("heard", label, rng),
            "image_objects": 1,
            "presence": rng.beta(8, 1, rows),
            "present": True,
            "latency_ms": rng.gamma(4, 5, rows),
        }
    )
    facts = stacked_picture_facts(pixels[..., None])
    for name in ("brightness", "bright_share", "contrast", "blur"):
        frame[f"image_{name}"] = [fact[name] for fact in facts]
    frame["image_embedding"] = list(_image_embedding(pictures[picks]) + np.float32(world.embedding_shift))
    for name, column in _voices(label, world, rng).items():
        frame[name] = column
    return frame[LOG_SCHEMA.names]


def _answer(side: str, label: np.ndarray, rng: np.random.Generator) -> dict:
    wrong = rng.random(len(label)) < 0.03
    named = np.where(wrong, rng.integers(0, 10, len(label)), label).astype(str)
    confidence = np.where(wrong, rng.beta(4, 3, len(label)), rng.beta(20, 1, len(label)))
    probabilities = [[(name, share)] for name, share in zip(named, confidence, strict=True)]
    return {side: named, f"{side}_confidence": confidence, f"{side}_probabilities": probabilities}


def _image_embedding(pictures: np.ndarray) -> np.ndarray:
    """What a small network would make of a picture whose brightness it evens out: (n, 24) float32."""
    flat = pictures.reshape(len(pictures), -1)
    weights = np.random.default_rng(7).normal(size=(64, 24)) / 8
    return np.maximum(flat / flat.mean(axis=1, keepdims=True) @ weights, 0).astype(np.float32)


def _voices(label: np.ndarray, world: World, rng: np.random.Generator) -> dict:
    rows = len(label)
    ways = np.random.default_rng(11).normal(size=(7, 24))  # the seventh voice is the one never heard before
    words = np.random.default_rng(12).normal(size=(10, 24)) * 2
    speaker = np.where(rng.random(rows) < world.new_speaker_share, 6, rng.integers(0, 6, rows))
    return {
        "audio_loudness_db": -24.0 + 2 * ways[speaker, 0] + rng.normal(0, 3, rows) + world.gain_db,
        "audio_snr_db": 25 + rng.normal(0, 5, rows),
        "audio_bandwidth_hz": np.minimum(4000, 3600 + rng.normal(0, 300, rows)),
        "audio_clipping": np.where(rng.random(rows) < 0.9, 0.0, rng.exponential(0.002, rows)),
        "audio_duration_s": 0.3 + 0.03 * (label % 4) + rng.gamma(9, 0.02, rows),
        "speech_embedding": list((ways[speaker] + words[label] + rng.normal(size=(rows, 24))).astype(np.float32)),
    }


@pytest.fixture(scope="module")
def reference() -> pd.DataFrame:
    return make_log(600, seed=1)


# ------------------------------------------------------------------------------------------------------------ verdicts


@pytest.mark.parametrize(("rows", "seed"), [(50, 21), (100, 22), (200, 23), (500, 24)])
def test_where_nothing_changed_there_is_no_drift(reference, rows, seed):
    verdict = measure_drift(reference, make_log(rows, seed), MONITORING)
    assert verdict.state == "no_drift"
    assert verdict.causes == ()
    assert len(verdict.findings) == 16
    assert not any(finding.cause for finding in verdict.findings)


CHANGES = {
    "brightness +15 %": (World(brightness=1.15), "image_brightness", ("pictures are brighter", "pictures have more")),
    "gain -12 dB": (World(gain_db=-12), "audio_loudness_db", ("recordings are quieter",)),
    "a new speaker": (World(new_speaker_share=0.5), "speech_embedding", ("recordings sound different",)),
    "a shifted embedding": (World(embedding_shift=0.3), "image_embedding", ("pictures look different", "a new kind")),
    "a tripled class": (World(tripled=4), "pictured", ("'4' is pictured", "'4' is heard")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_found_and_nothing_but_its_cause_named(reference, change):
    world, feature, causes = CHANGES[change]
    verdict = measure_drift(reference, make_log(200, 7, world), MONITORING)
    assert verdict.state == "drift"
    assert feature in {finding.feature for finding in verdict.findings if finding.drifted}
    assert verdict.causes
    assert all(cause.startswith(causes) for cause in verdict.causes)


def test_a_cause_carries_the_figures_that_show_it(reference):
    verdict = measure_drift(reference, make_log(200, 7, World(gain_db=-12)), MONITORING)
    change = re.fullmatch(r"recordings are quieter \(median (\S+) → (\S+) dB, (\S+) dB\)", verdict.causes[0])
    assert change
    was, now, difference = (float(number) for number in change.groups())
    assert difference == pytest.approx(-12, abs=1)
    assert now - was == pytest.approx(difference, abs=0.2)


def test_what_only_follows_from_another_mix_of_labels_is_no_cause_of_its_own(reference):
    verdict = measure_drift(reference, make_log(300, 7, World(tripled=4)), MONITORING)
    found = {finding.feature: finding for finding in verdict.findings if finding.drifted}
    assert "speech_embedding" in found
    assert "follows from the changed mix of labels" in found["speech_embedding"].cause
    assert [cause.split(" is ")[0] for cause in verdict.causes] == ["'4'", "'4'"]


def test_pictures_of_nothing_known_are_a_label_of_their_own(reference):
    window = make_log(200, 7)
    window.loc[window.index % 6 == 0, "pictured"] = None
    verdict = measure_drift(reference, window, MONITORING)
    assert verdict.causes == ("nothing known is new among what is pictured (0.0% → 17.2% of answers)",)


def test_the_same_seed_gives_the_same_verdict(reference):
    window = make_log(120, 5)
    assert measure_drift(reference, window, MONITORING, seed=3) == measure_drift(reference, window, MONITORING, seed=3)


def test_of_a_service_too_busy_to_measure_all_the_sample_that_it_measured_is_compared(reference):
    """Its other rows have answers but no facts; their mix of endpoints must not pass for another mix of words."""
    quiet = World(endpoint="classify_image")
    both = pd.concat([reference, make_log(600, 2, quiet)], ignore_index=True)
    whole = pd.concat([make_log(200, 5), make_log(100, 6, quiet)], ignore_index=True)
    facts = [name for name in whole if name.startswith(("image_", "audio_")) and name != "image_embedding"]
    busy = pd.concat([whole, make_log(400, 7).assign(**dict.fromkeys([*facts, "speech_embedding"]))])
    verdict = measure_drift(both, busy, MONITORING)
    assert verdict == measure_drift(both, whole, MONITORING)
    assert (verdict.state, verdict.n_window) == ("no_drift", 300)


def test_of_a_very_long_window_so_many_answers_are_drawn_and_all_are_counted(reference, monkeypatch):
    monkeypatch.setattr("data_checks.drift.verdict.MOST_ANSWERS", 200)
    long = make_log(1500, 7, World(gain_db=-12))
    found, of_the_drawn = (
        measure_drift(reference, window, MONITORING) for window in (long, long.sample(200, random_state=0).sort_index())
    )
    assert (found.n_window, found.state) == (1500, "drift")
    assert found.findings == of_the_drawn.findings


def test_windows_together_are_held_to_a_fifth_of_alpha(reference):
    assert measure_together(reference, make_log(300, 5), MONITORING).alpha == pytest.approx(MONITORING.alpha / 5)


@pytest.mark.parametrize("rows", [0, 20, 49])
def test_a_small_window_is_not_enough_data(reference, rows):
    verdict = measure_drift(reference, make_log(rows, 5, World(gain_db=-12)) if rows else pd.DataFrame(), MONITORING)
    assert verdict.state == "not_enough_data"
    assert verdict.causes == (f"{rows} answers in the window, expected at least 50",)
    assert verdict.findings == ()


def test_without_pictures_the_recordings_are_compared_and_it_says_so(reference):
    window = make_log(200, 5, World(gain_db=-12))
    window[[name for name in window if name.startswith(("image_", "pictured"))]] = None
    verdict = measure_drift(reference, window, MONITORING)
    assert verdict.state == "drift"
    assert {finding.feature for finding in verdict.findings} & {"image_brightness", "pictured"} == set()
    assert len(verdict.skipped) == 7
    assert all(re.match(r"(image|pictured)\w*: 0 values, \d+ in the reference", line) for line in verdict.skipped)


def test_what_another_model_answered_is_not_compared_but_its_inputs_are(reference):
    window = make_log(200, 5, World(gain_db=-12, embedding_shift=5, model="digest-b"))
    verdict = measure_drift(reference, window, MONITORING)
    assert {finding.feature for finding in verdict.findings if finding.drifted} == {"audio_loudness_db"}
    assert any(line.startswith("image_embedding: 0 values by the reference's model") for line in verdict.skipped)


def test_a_wider_embedding_is_not_compared(reference):
    window = make_log(100, 5)
    window["speech_embedding"] = [np.zeros(7, np.float32)] * 100
    verdict = measure_drift(reference, window, MONITORING)
    assert verdict.state == "no_drift"
    assert verdict.skipped == ("speech_embedding: 7 numbers wide, 24 in the reference",)


def test_an_input_that_the_reference_holds_twice_is_not_twice_the_evidence(reference):
    window, doubled = make_log(200, 5), pd.concat([reference, reference])
    once, twice = (measure_drift(one, window, MONITORING).findings for one in (reference, doubled))
    assert once == twice


def test_an_input_that_the_window_holds_twice_is_not_twice_the_evidence(reference):
    window = make_log(120, 5)
    asked_again = pd.concat([window, window.assign(request_id=window["request_id"] + "-again")])
    once, twice = (measure_drift(reference, one, MONITORING).findings for one in (window, asked_again))
    assert once == twice
    at_two = (pd.concat([one, one.assign(endpoint="classify_image")]) for one in (reference, window))
    for first, second in zip(once, measure_drift(*at_two, MONITORING).findings, strict=True):
        if first.feature not in ("heard", "heard_confidence", "presence"):
            assert first.p_value == second.p_value


def test_asking_one_endpoint_more_often_is_no_drift(reference):
    quiet = World(endpoint="recognize_speech", gain_db=-12)
    both = pd.concat([reference, make_log(600, 2, quiet)])
    window = pd.concat([make_log(30, 5), make_log(170, 6, quiet)])
    assert measure_drift(both, window, MONITORING).state == "no_drift"


def test_an_endpoint_that_the_reference_lacks_is_named(reference):
    window = pd.concat([make_log(100, 5), make_log(8, 6, World(endpoint="classify_image"))])
    verdict = measure_drift(reference, window, MONITORING)
    assert verdict.skipped == ("8 answers of classify_image: none such in the reference",)
    only = measure_drift(reference, make_log(60, 6, World(endpoint="classify_image")), MONITORING)
    assert only.state == "not_enough_data"


def test_an_impossible_alpha_is_refused(reference):
    with pytest.raises(UserError, match=r"monitoring\.alpha: expected a number between 0 and 1, got 0"):
        measure_drift(reference, reference, dataclasses.replace(MONITORING, alpha=0.0))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_unchanged_windows_raise_at_most_one_alarm_in_a_hundred():
    alarms = sum(
        measure_drift(
            make_log(1000, 50_000 + i // 5 * 1000), make_log((50, 100, 200, 350, 500)[i % 5], 90_000 + i), MONITORING, i
        ).state
        != "no_drift"
        for i in range(400)
    )
    assert alarms <= 11  # 99.9 % of the time, where the true rate is 1 %


# --------------------------------------------------------------------------------------------------- two-sample tests


def test_cliffs_delta_is_that_of_mann_and_whitney():
    from scipy import stats

    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 20, 90).astype(float), rng.integers(3, 25, 60).astype(float)
    u = stats.mannwhitneyu(after, before).statistic
    assert kolmogorov_smirnov(before, after).effect_size == pytest.approx(2 * u / (90 * 60) - 1)


def test_label_mix_has_the_chi_square_of_the_contingency_table():
    from scipy import stats

    rng = np.random.default_rng(0)
    before, after = rng.choice(list("abc"), 400), rng.choice(list("abc"), 150, p=[0.5, 0.3, 0.2])
    table = [[(sample == label).sum() for label in "abc"] for sample in (before, after)]
    outcome = label_mix(before, after, 4000, rng)
    expected = stats.chi2_contingency(table, correction=False)
    assert outcome.effect_size == pytest.approx((expected.statistic / 550) ** 0.5)
    assert outcome.p_value <= 2 * expected.pvalue + 0.02


def test_one_label_of_many_that_is_tripled_shows_where_the_chi_square_does_not():
    from scipy import stats

    before, after = np.repeat(np.arange(10), 30).astype(str), np.repeat(np.arange(10), [20] * 9 + [50]).astype(str)
    table = [[(sample == str(label)).sum() for label in range(10)] for sample in (before, after)]
    outcome = label_mix(before, after, 12_000, np.random.default_rng(0))
    assert outcome.p_value < stats.chi2_contingency(table).pvalue / 2


def test_permutation_tests_keep_their_level_where_nothing_changed():
    rng = np.random.default_rng(0)
    vectors = [
        maximum_mean_discrepancy(rng.normal(size=(40, 5)), rng.normal(size=(25, 5)), 200, rng).p_value
        for _ in range(400)
    ]
    letters = [
        label_mix(rng.choice(list("abcd"), 80), rng.choice(list("abcd"), 40), 200, rng).p_value for _ in range(400)
    ]
    numbers = [mean_shift(rng.exponential(size=60), rng.exponential(size=40), 200, rng).p_value for _ in range(400)]
    news = [novel_items(rng.normal(size=(80, 5)), rng.normal(size=(40, 5)), 200, rng).p_value for _ in range(400)]
    for level in (0.05, 0.2, 0.5):
        spread = (level * (1 - level) / 400) ** 0.5
        for p_values in (vectors, numbers):
            assert abs((np.array(p_values) <= level).mean() - level) < 4 * spread
        for p_values in (letters, news):  # these are careful, so theirs may lie below
            assert (np.array(p_values) <= level).mean() < level + 4 * spread


def test_mmd_finds_a_shift_of_a_third_of_a_deviation_and_a_change_of_spread():
    rng = np.random.default_rng(0)
    before = rng.normal(size=(400, 16))
    assert maximum_mean_discrepancy(before, rng.normal(size=(200, 16)) + 0.3, 3000, rng).p_value <= 1 / 1000
    assert maximum_mean_discrepancy(before, rng.normal(size=(200, 16)) * 1.4, 3000, rng).p_value <= 1 / 1000


def test_holm_steps_down():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


# ------------------------------------------------------------------------------------------------------------- the log


def write_shard(folder: Path, day: date, name: str, rows: pd.DataFrame, schema: pa.Schema = LOG_SCHEMA) -> Path:
    file = folder / f"date={day}" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pandas(rows, schema=schema, preserve_index=False), file)
    return file


def test_the_log_is_read_by_the_schema_that_the_service_writes():
    assert LOG_SCHEMA.equals(PREDICTION_SCHEMA)
    assert FEEDBACK_SCHEMA.names == ["request_id", "time", "pictured", "heard", "consent"]


def test_a_missing_folder_is_an_empty_log(tmp_path):
    log = read_log(tmp_path / "nowhere", DAY, NEXT_DAY)
    assert len(log) == 0
    assert log.attrs["unreadable"] == ()
    assert measure_drift(make_log(100, 1), log, MONITORING).state == "not_enough_data"


def test_a_day_is_read_from_midnight_to_midnight(tmp_path):
    folder = tmp_path / "prediction_log"
    rows = make_log(3, 1)
    rows["time"] = [
        datetime(2026, 3, 2, tzinfo=UTC),
        datetime(2026, 3, 2, 23, 59, 59, tzinfo=UTC),
        datetime(2026, 3, 3, tzinfo=UTC),
    ]
    write_shard(folder, DAY, "a.parquet", rows)
    assert read_log(folder, DAY, NEXT_DAY)["request_id"].tolist() == ["1-0", "1-1"]
    assert read_log(folder, NEXT_DAY, date(2026, 3, 4)).empty
    afternoon = read_log(folder, datetime(2026, 3, 2, 12, tzinfo=UTC), datetime(2026, 3, 3, 1, tzinfo=UTC))
    assert afternoon["request_id"].tolist() == ["1-1", "1-2"]


def test_what_was_logged_is_read_back(tmp_path):
    folder = tmp_path / "prediction_log"
    rows = make_log(10, 1)
    write_shard(folder, DAY, "a.parquet", rows[:4])
    write_shard(folder, DAY, "b.parquet", rows[4:])
    log = read_log(folder, DAY, NEXT_DAY)
    assert log["request_id"].tolist() == rows["request_id"].tolist()
    np.testing.assert_array_equal(np.stack(log["image_embedding"]), np.stack(rows["image_embedding"]))
    np.testing.assert_array_equal(log["audio_snr_db"], rows["audio_snr_db"])


def test_a_corrupt_shard_is_named_and_the_others_are_read(tmp_path):
    folder = tmp_path / "prediction_log"
    write_shard(folder, DAY, "good.parquet", make_log(60, 1))
    cut = write_shard(folder, DAY, "cut.parquet", make_log(60, 2))
    cut.write_bytes(cut.read_bytes()[:500])
    (folder / f"date={DAY}" / "noise.parquet").write_bytes(b"not Parquet at all")
    wrong = make_log(5, 3)[["request_id", "time"]].assign(image_brightness="bright")
    pq.write_table(pa.Table.from_pandas(wrong), folder / f"date={DAY}" / "wrong.parquet")
    log = read_log(folder, DAY, NEXT_DAY)
    assert len(log) == 60
    verdict = measure_drift(make_log(300, 4), log, MONITORING)
    named = [line.split(":")[0] for line in verdict.unreadable]
    assert named == [f"prediction_log/date={DAY}/{name}.parquet" for name in ("cut", "noise", "wrong")]
    assert cut.exists()


def test_a_shard_of_an_older_schema_is_read_with_its_gaps_empty(tmp_path):
    folder = tmp_path / "prediction_log"
    older = make_log(5, 1).drop(columns=["presence", "image_blur"])
    schema = pa.schema([field for field in LOG_SCHEMA if field.name in older])
    write_shard(folder, DAY, "old.parquet", older, schema)
    log = read_log(folder, DAY, NEXT_DAY)
    assert log["presence"].isna().all()
    assert log["image_brightness"].notna().all()
    assert log.attrs["unreadable"] == ()


def test_corrections_join_however_late_and_the_newest_counts(tmp_path):
    folder = tmp_path / "prediction_log"
    write_shard(folder, DAY, "a.parquet", pd.concat([make_log(3, 1), make_log(3, 1)]))
    late = datetime(2026, 4, 1, tzinfo=UTC)
    corrections = pd.DataFrame(
        {
            "request_id": ["1-1", "1-1", "nobody"],
            "time": [late + timedelta(days=1), late, late],
            "pictured": ["8", "7", "9"],
            "heard": [None, "7", "9"],
            "consent": [True, False, True],
        }
    )
    write_shard(tmp_path / "feedback", date(2026, 4, 1), "f.parquet", corrections, FEEDBACK_SCHEMA)
    log = read_log(folder, DAY, NEXT_DAY).set_index("request_id")
    assert log.index.tolist() == ["1-0", "1-1", "1-2"]
    assert log.loc["1-1", "corrected_pictured"] == "8"
    assert log["corrected_heard"].isna().all()
    assert log["consent"].notna().tolist() == [False, True, False]


def test_no_reference_says_what_to_run(tmp_path):
    with pytest.raises(UserError, match=r"reference\.parquet: no reference .*`make run` writes it"):
        reference_from_evaluation(tmp_path / "reference.parquet")


def test_the_reference_is_read_in_the_schema_of_the_log(tmp_path):
    rows = make_log(5, 1)[["request_id", "endpoint", "model", "pictured", "image_embedding"]]
    rows.to_parquet(tmp_path / "reference.parquet")
    read = reference_from_evaluation(tmp_path / "reference.parquet")
    assert read.columns.tolist() == [*LOG_SCHEMA.names, "corrected_pictured", "corrected_heard"]
    (tmp_path / "reference.parquet").write_bytes(b"torn")
    with pytest.raises(UserError, match="not a readable reference"):
        reference_from_evaluation(tmp_path / "reference.parquet")


# ---------------------------------------------------------------------------------------------------------- the report


@pytest.fixture(scope="module")
def reported(reference, tmp_path_factory):
    """One day of drift, reported."""
    out = tmp_path_factory.mktemp("reports")
    window = make_log(120, 7, World(gain_db=-12))
    window.attrs["unreadable"] = ("prediction_log/date=2026-03-02/cut.parquet: torn",)
    verdict = measure_drift(reference, window, MONITORING)
    return out, verdict, window, write_drift_report(verdict, reference, window, out, "2026-03-02")


def runs(out: Path) -> list[Path]:
    return sorted(out.glob("evidently/*/snapshots/*.json"))


def test_the_report_lies_by_day_and_reads_back_as_the_verdict(reported):
    out, verdict, _, folder = reported
    assert folder == out / "drift" / "2026-03-02"
    assert sorted(file.name for file in folder.iterdir()) == ["drift.html", "verdict.json"]
    assert read_drift_verdict(folder / "verdict.json") == verdict


def test_the_page_opens_without_a_network(reported):
    page = (reported[-1] / "drift.html").read_text()
    assert "recordings are quieter" in page
    assert "cut.parquet: torn" in page
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)\s*=\s*[\"']?(?:https?:)?//", page)


def test_evidently_shows_the_p_values_of_the_verdict(reported):
    out, verdict, _, _ = reported
    metrics = json.loads(runs(out)[0].read_text())["metric_results"].values()
    shown = {one["metric_value_location"]["metric"]["params"].get("column"): one.get("value") for one in metrics}
    assert {finding.feature: finding.p_adjusted for finding in verdict.findings}.items() <= shown.items()


def test_reporting_a_day_again_replaces_it(reported, reference):
    out, verdict, window, folder = reported
    before = (folder / "verdict.json").read_bytes(), runs(out)
    write_drift_report(verdict, reference, window, out, "2026-03-02")
    assert ((folder / "verdict.json").read_bytes(), runs(out)) == before
    assert len(runs(out)) == 1
    assert not [file for file in out.rglob("*") if file.name.startswith(".")]


def test_a_day_without_traffic_is_reported_too(reference, tmp_path):
    verdict = measure_drift(reference, pd.DataFrame(), MONITORING)
    folder = write_drift_report(verdict, reference, pd.DataFrame(), tmp_path, "2026-03-03")
    assert "not enough data to tell" in (folder / "drift.html").read_text()
    assert read_drift_verdict(folder / "verdict.json").state == "not_enough_data"
    assert json.loads(runs(tmp_path)[0].read_text())["tags"] == ["not_enough_data"]


def test_a_torn_verdict_is_refused(tmp_path):
    (tmp_path / "verdict.json").write_text('{"day": "2026-03-02"')
    with pytest.raises(UserError, match=r"verdict\.json: expected a drift verdict"):
        read_drift_verdict(tmp_path / "verdict.json")
