"""The figures of merit agree with independent references, and the promotion gate lets through what it should."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from ml.evaluation import decide_promotion, metrics
from ml.evaluation.oracles import blind_estimates, oracle_estimates


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_agrees_with_scipy(counts):
    successes, n = counts
    expected = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert metrics.wilson_interval(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_interval_refuses_no_trials():
    with pytest.raises(ValueError, match="n >= 1"):
        metrics.wilson_interval(0, 0)


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=60))
def test_roc_auc_agrees_with_sklearn_also_on_ties(rows):
    scores, positive = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    if positive.all() or not positive.any():
        with pytest.raises(ValueError, match="both kinds"):
            metrics.roc_auc(scores, positive)
    else:
        assert metrics.roc_auc(scores, positive) == pytest.approx(reference.roc_auc_score(positive, scores))


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=60))
def test_average_precision_agrees_with_sklearn_when_nothing_is_missed(rows):
    scores, hits = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    if hits.any():
        ours = metrics.average_precision(scores, hits, int(hits.sum()))
        assert ours == pytest.approx(reference.average_precision_score(hits, scores))


def test_average_precision_counts_what_was_never_found():
    assert metrics.average_precision(np.array([0.9]), np.array([True]), relevant=4) == pytest.approx(0.25)
    assert metrics.average_precision(np.array([]), np.array([]), relevant=4) == 0


@given(
    st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=200), st.sampled_from([0.0, 0.01, 0.1])
)
def test_miss_at_false_alarm_agrees_with_the_roc_curve(rows, rate):
    scores, positive = np.array([row[0] for row in rows], float), np.array([row[1] for row in rows])
    if positive.all() or not positive.any():
        return
    false_alarms, found, _ = reference.roc_curve(positive, scores, drop_intermediate=False)
    assert metrics.miss_at_false_alarm(scores, positive, rate) == pytest.approx(1 - found[false_alarms <= rate].max())


def test_calibration_error_is_zero_for_honest_confidences_and_the_gap_for_boastful_ones():
    correct = np.arange(1000) % 10 < 7
    assert metrics.expected_calibration_error(np.full(1000, 0.7), correct) == pytest.approx(0, abs=1e-9)
    assert metrics.expected_calibration_error(np.full(1000, 0.95), correct) == pytest.approx(0.25)


def test_calibration_error_agrees_with_a_loop_over_bins():
    rng = np.random.default_rng(0)
    confidences, correct = rng.random(500), rng.random(500) < 0.5
    expected = 0.0
    for low in np.arange(15) / 15:
        held = (confidences > low) & (confidences <= low + 1 / 15)
        if held.any():
            expected += held.mean() * abs(correct[held].mean() - confidences[held].mean())
    assert metrics.expected_calibration_error(confidences, correct) == pytest.approx(expected)


def test_mcnemar_sees_no_difference_in_equal_errors_and_a_clear_one_otherwise():
    right, wrong = np.ones(40, bool), np.zeros(40, bool)
    assert metrics.mcnemar_p(right, right) == 1
    assert metrics.mcnemar_p(right, wrong) == pytest.approx(2 * 0.5**40)


def direct_si_sdr_db(estimate: np.ndarray, target: np.ndarray) -> float:
    """Through the angle between the two: 20 log10 |cot|, another form of the same definition."""
    cosine = estimate @ target / np.linalg.norm(estimate) / np.linalg.norm(target)
    return 20 * np.log10(abs(cosine) / np.sqrt(1 - cosine**2))


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.05, 5))
def test_si_sdr_agrees_with_the_angle_between_the_signals(seed, noise):
    rng = np.random.default_rng(seed)
    target = rng.standard_normal(400)
    estimate = target + noise * rng.standard_normal(400)
    assert metrics.si_sdr_db(estimate, target) == pytest.approx(direct_si_sdr_db(estimate, target), abs=1e-6)


def test_si_sdr_is_at_its_limit_for_the_target_at_any_level_and_at_its_floor_for_silence():
    target = np.random.default_rng(0).standard_normal((3, 400))
    assert metrics.si_sdr_db(0.3 * target, target) == pytest.approx(metrics.LIMIT_DB)
    assert metrics.si_sdr_db(np.zeros_like(target), target) == pytest.approx(-metrics.LIMIT_DB)


def test_si_sdr_falls_as_noise_rises():
    rng = np.random.default_rng(0)
    target, noise = rng.standard_normal(4000), rng.standard_normal(4000)
    values = [float(metrics.si_sdr_db(target + level * noise, target)) for level in (0.01, 0.1, 1, 10)]
    assert values == sorted(values, reverse=True)
    assert values == pytest.approx([40, 20, 0, -20], abs=1)


def test_si_sdr_of_a_silent_target_is_refused():
    with pytest.raises(ValueError, match="silent target"):
        metrics.si_sdr_db(np.ones(4), np.zeros(4))


def test_the_mixture_improves_nothing_and_the_target_improves_everything():
    rng = np.random.default_rng(0)
    target = rng.standard_normal((2, 800))
    mixture = target + rng.standard_normal((2, 800))
    assert metrics.improvement_db(mixture, mixture, target) == pytest.approx(0)
    assert (metrics.improvement_db(target, mixture, target) > 50).all()


def test_the_summary_holds_the_moments_of_the_values():
    values = np.random.default_rng(0).normal(3, 2, 400)
    summary = metrics.summarise_db(values, bootstrap=200, seed=0)
    assert summary["mean"] == pytest.approx(values.mean())
    assert summary["below_zero"] == np.mean(values < 0)
    assert summary["mean_ci95"][0] < values.mean() < summary["mean_ci95"][1]
    assert summary["mean_ci95"] == pytest.approx(values.mean() + np.array([-1.96, 1.96]) * values.std() / 20, abs=0.05)
    assert metrics.summarise_db(np.array([]), 10, 0) is None


def test_intervals_are_matched_one_to_one_and_the_surest_first():
    true = [(0.0, 1.0), (2.0, 3.0)]
    found = [(0.1, 1.0), (0.0, 1.0), (2.4, 3.0), (5.0, 6.0)]
    assert metrics.match_intervals(found, [0.9, 0.8, 0.7, 1.0], true, 0.5) == {0: 0, 2: 1}
    assert metrics.interval_iou((0, 2), (1, 3)) == pytest.approx(1 / 3)
    assert metrics.interval_iou((0, 1), (1, 2)) == 0


def test_oracle_masks_rank_as_theory_says_and_blind_masks_gain_nothing():
    rng = np.random.default_rng(0)
    time = np.arange(4000) / 8000
    target = np.stack([np.sin(2 * np.pi * f * time) * rng.random(4000).round() for f in (300, 500)]).astype(np.float32)
    mixture = target + np.stack([np.sin(2 * np.pi * f * time**2) for f in (900, 400)]).astype(np.float32)
    oracles = oracle_estimates(mixture, target)
    irm, psm, complex_ = (metrics.improvement_db(oracles[name], mixture, target) for name in ("irm", "psm", "complex"))
    assert (irm > 3).all()
    assert (psm > irm).all()
    assert (complex_ > psm).all()
    blind = blind_estimates(mixture)
    assert metrics.improvement_db(blind["constant_mask"], mixture, target) == pytest.approx(0, abs=1e-3)


GOOD = {"image_accuracy": 0.98, "speech_accuracy": 0.95, "presence_auc": 0.97, "si_sdr_improvement_db": 5.0}
MAJORITY = {"image_accuracy": 0.11, "speech_accuracy": 0.1}


def test_the_first_champion_must_beat_the_majority_class():
    assert decide_promotion(GOOD, None, MAJORITY, 0.01).promote
    refused = decide_promotion({**GOOD, "speech_accuracy": 0.1}, None, MAJORITY, 0.01)
    assert not refused.promote
    assert "speech_accuracy" in refused.reason


@pytest.mark.parametrize("name", list(GOOD))
def test_a_challenger_worse_than_the_margin_anywhere_is_refused(name):
    slack = 0.01 if name != "si_sdr_improvement_db" else 0.3
    better = {key: value + 0.005 for key, value in GOOD.items()}
    refused = decide_promotion({**better, name: GOOD[name] - 1.01 * slack}, GOOD, MAJORITY, 0.01)
    assert not refused.promote
    assert name in refused.reason
    assert decide_promotion({**better, name: GOOD[name] - 0.99 * slack}, GOOD, MAJORITY, 0.01).promote


def test_a_tie_and_a_loss_within_the_margin_keep_the_champion():
    assert not decide_promotion(GOOD, GOOD, MAJORITY, 0.01).promote
    assert not decide_promotion({**GOOD, "image_accuracy": 0.975}, GOOD, MAJORITY, 0.01).promote


def test_a_figure_that_was_not_measured_never_promotes_over_one_that_was():
    assert not decide_promotion({**GOOD, "image_accuracy": None}, None, MAJORITY, 0.01).promote
    assert not decide_promotion({**GOOD, "presence_auc": None, "image_accuracy": 0.99}, GOOD, MAJORITY, 0.01).promote
    assert decide_promotion({**GOOD, "presence_auc": None}, None, MAJORITY, 0.01).promote
