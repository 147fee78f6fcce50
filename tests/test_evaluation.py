"""The figures of merit agree with independent references, and the promotion gate lets through what it should."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy_models
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from data_checks.drift.log import REFERENCE_SCHEMA
from ml import media, objectives
from ml.config import PerBudget, UserError, load_settings
from ml.evaluation import (
    card_text,
    decide_promotion,
    evaluate,
    gate_answers,
    golden_requests,
    metrics,
    model_card,
    recognition,
    report,
)
from ml.evaluation.benchmark import Found, bench_of, headline, place_figures, presence_figures, words_figures
from ml.evaluation.metrics import beside
from ml.evaluation.model_card import NOT_MEASURED
from ml.evaluation.oracles import blind_estimates, oracle_estimates
from ml.evaluation.recognition import Answers
from ml.predictor import Interval, Predictor, Word, write_bundle

ROOT = Path(__file__).resolve().parents[1]


def test_wilson_interval_refuses_no_trials():
    with pytest.raises(ValueError, match="n must be"):
        metrics.wilson_interval(0, 0)


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


def test_holm_raises_p_values_and_keeps_their_order():
    given = {"b": 0.03, "a": 0.01, "c": 0.02}
    assert metrics.holm_adjusted(given) == {
        "b": pytest.approx(0.04),
        "a": pytest.approx(0.03),
        "c": pytest.approx(0.04),
    }
    assert list(metrics.holm_adjusted(given)) == list(given)
    assert metrics.holm_adjusted({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


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
    assert metrics.si_sdr_db(0.3 * target, target) == pytest.approx(objectives.LIMIT_DB)
    assert metrics.si_sdr_db(np.zeros_like(target), target) == pytest.approx(-objectives.LIMIT_DB)


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


# Choosing, speakers, places


def answers(posteriors: list[list[float]], labels: list[int], groups: list[str] | None = None) -> Answers:
    count = len(labels)
    return Answers(
        model="speech_classifier/cnn",
        modality="audio",
        split="test",
        ids=np.array([f"clip_{i}" for i in range(count)]),
        groups=np.array(groups or [""] * count),
        labels=np.array(labels),
        classes=("one", "two"),
        posteriors=np.array(posteriors),
    )


def test_the_least_cross_entropy_on_validation_is_chosen_then_the_smaller():
    sure, unsure, wrong = [[0.9, 0.1]] * 4, [[0.6, 0.4]] * 4, [[0.2, 0.8]] * 4
    sizes = {"cnn": {"parameters": 30}, "rnn": {"parameters": 20}, "lstm": {"parameters": 10}}

    def chosen(**posteriors) -> str:
        return recognition.choose({kind: answers(rows, [0] * 4) for kind, rows in posteriors.items()}, sizes)

    assert chosen(cnn=wrong, rnn=unsure, lstm=wrong) == "rnn"
    assert chosen(cnn=sure, rnn=unsure, lstm=unsure) == "cnn"
    assert chosen(cnn=sure, rnn=sure, lstm=sure) == "lstm"
    nearly = [*sure[:3], [0.45, 0.55]]
    assert chosen(cnn=nearly, rnn=unsure, lstm=wrong) == "cnn", "one clip more that is right does not decide"


def test_a_label_that_a_model_does_not_know_is_not_taken_for_its_last_one():
    assert answers([[0.0, 1.0]], [-1]).loss > answers([[0.0, 1.0]], [0]).loss - 1e-9 > 20


def test_speaker_accuracy_is_of_speakers_that_training_never_heard():
    given_answers = answers([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]], [0, 1, 1], ["ann", "bob", "ann"])
    assert recognition.speaker_accuracy(given_answers, {"bob"}) == {"ann": 1.0}
    assert recognition.speaker_accuracy(given_answers, set()) == {"ann": 1.0, "bob": 0.0}
    assert recognition.speaker_accuracy(given_answers, {"ann", "bob"}) is None


def test_labels_are_renumbered_by_name_and_unknown_ones_are_never_right():
    assert recognition.renumbered(np.array([0, 1, 2]), ("a", "b", "c"), ("c", "a")).tolist() == [1, -1, 0]


def found(shift_s: float, wrong_score: float | None = None) -> Found:
    """Three scenes about words 0, 1, 0, the last without its word; found `shift_s` late, or where nothing is."""
    true = [[(0.2, 0.6)], [(0.5, 0.9), (1.2, 1.6)], []]
    spans = [[Interval(a + shift_s, b + shift_s, 0.9) for a, b in scene] for scene in true]
    if wrong_score is not None:
        spans[2].append(Interval(0.0, 0.4, wrong_score))
    return Found(np.array([0, 1, 0]), np.array([0.9, 0.8, 0.1]), np.array([True, True, False]), spans, true)


def test_perfect_places_score_one_and_late_ones_show_in_the_boundaries():
    assert place_figures(found(0.0)) == {"localisation_map": 1.0, "boundary_error_ms_median": 0.0}
    late = place_figures(found(0.02))
    assert late["localisation_map"] == 1.0
    assert late["boundary_error_ms_median"] == pytest.approx(20)
    assert place_figures(found(0.3)) == {"localisation_map": 0.0, "boundary_error_ms_median": None}


def test_a_find_where_nothing_is_costs_precision_by_how_sure_it_was():
    assert place_figures(found(0.0, wrong_score=0.3))["localisation_map"] == 1.0
    assert place_figures(found(0.0, wrong_score=0.95))["localisation_map"] == pytest.approx((0.5 + 1.0) / 2)


def test_words_count_where_label_and_place_are_right():
    said = [[Word("a", 1.0, 0.0, 0.5), Word("a", 1.0, 1.0, 1.5)], [Word("b", 1.0, 0.0, 1.0)], []]
    heard = [[Word("a", 0.9, 0.1, 0.5), Word("b", 0.9, 1.0, 1.5)], [Word("b", 0.9, 0.6, 1.6)], []]
    found = words_figures(heard, said, 200, 0)
    assert found["words_f1"] == pytest.approx(2 * 1 / (3 + 3))
    assert found["words_f1_ci95"] == pytest.approx([0.0, 0.5])  # of both recordings, or of the first one alone
    assert words_figures(said, said, 200, 0) == {"words_f1": 1.0, "words_f1_ci95": [1.0, 1.0]}
    assert words_figures([[]], [[]], 200, 0) == {"words_f1": None, "words_f1_ci95": None}


def test_a_baseline_is_beaten_only_where_the_intervals_are_apart():
    ours, near, far = ({"mean_ci95": bounds} for bounds in ([4.0, 5.0], [3.0, 4.1], [1.0, 3.9]))
    assert beside(far, ours) == {**far, "beaten": True}
    assert beside(near, ours) == {**near, "beaten": False}
    assert beside(None, ours) is None


def test_presence_of_scenes_of_one_kind_is_not_measured():
    both = found(0.0)
    assert presence_figures(both) == {"presence_auc": 1.0, "miss_at_1pct_false_alarm": 0.0}
    alike = Found(both.words, both.presence, np.ones(3, bool), both.found, both.true_s)
    assert presence_figures(alike) == {"presence_auc": None, "miss_at_1pct_false_alarm": None}


# A whole evaluation, of models trained for a few seconds


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    candidates = toy_models.toy_candidates(folder / "candidates")
    chosen = load_settings(ROOT)
    scenes = dataclasses.replace(chosen.evaluation, scenes=PerBudget(20, 20, 20), scene_s=1.0, bootstrap=50)
    chosen = dataclasses.replace(chosen, evaluation=scenes)
    images, speech, out = toy_models.toy_images(), toy_models.toy_speech(), folder / "reports"
    brightness = pa.table({"id": images.ids, "brightness": np.arange(len(images)) / 1000})
    report = evaluate(
        images, speech, candidates, chosen, out,
        {"git": "abc", "data": {"raw_images": "1"}}, {"images": brightness}, progress=False,
    )  # fmt: skip
    return SimpleNamespace(report=report, out=out, candidates=candidates, images=images, speech=speech, settings=chosen)


def predictor_of(evaluated) -> Predictor:
    return Predictor.from_models(*parts_of(evaluated))


def parts_of(evaluated) -> list[Path]:
    folder, kind = evaluated.candidates, evaluated.report["speech"]["chosen"]
    return [folder / "image_classifier", folder / "speech_classifier" / kind, folder / "speech_extractor"]


SUMMARY = {"mean", "median", "p5", "below_zero", "n"}
RECOGNITION = {"accuracy", "ci95", "n", "ece", "parameters", "train_s"}
EXTRACTION = {
    "si_sdr_improvement_db", "unseen_speaker", "oracle_db", "baselines", "word_accuracy", "word_accuracy_answered",
    "word_accuracy_unprocessed", "word_accuracy_clean", "presence_auc", "miss_at_1pct_false_alarm",
    "boundary_error_ms_median", "localisation_map", "image_swap_success", "parameters", "real_time_factor", "train_s",
    "words_f1", "words_f1_ci95",
}  # fmt: skip


def test_the_report_has_every_key_of_the_contract_and_only_numbers_that_json_knows(evaluated):
    def refuse(constant: str):
        raise AssertionError(f"evaluation.json holds {constant}")

    report = json.loads((evaluated.out / "evaluation.json").read_text(), parse_constant=refuse)
    assert report == json.loads(json.dumps(evaluated.report))
    assert {"source", "budget", "seed", "device", "git", "settings", "data"} <= set(report)
    assert set(report["image"]) == RECOGNITION | {"objects"}
    assert set(report["image"]["objects"]) == {"f1", "precision", "recall", "n", "pictures"}
    for kind in ("cnn", "rnn", "lstm"):
        assert set(report["speech"][kind]) == RECOGNITION | {"unseen_speaker_accuracy", "latency_ms"}
    found_section = report["extraction"]
    assert set(found_section) == EXTRACTION
    buckets = found_section["si_sdr_improvement_db"]
    assert set(buckets) == {"full_overlap", "partial_overlap", "no_overlap"}
    assert all(set(bucket) >= SUMMARY for bucket in buckets.values())
    assert set(found_section["oracle_db"]) == {"irm", "psm", "complex"}
    assert set(found_section["baselines"]) == {
        "unprocessed", "constant_mask", "energy_gate", "audio_only", "separate_then_recognise"
    }  # fmt: skip


def test_the_report_says_what_the_models_can_do(evaluated):
    report, found_section = evaluated.report, evaluated.report["extraction"]
    full = found_section["si_sdr_improvement_db"]["full_overlap"]
    assert full["mean"] > 10
    assert full["mean"] < found_section["oracle_db"]["complex"]
    assert full["mean"] > found_section["baselines"]["audio_only"]["mean"] + 3
    assert found_section["baselines"]["unprocessed"]["mean"] == 0
    for blind in ("unprocessed", "constant_mask", "energy_gate", "audio_only"):
        assert found_section["baselines"][blind]["beaten"], blind
    assert found_section["words_f1"] > 0.8
    assert found_section["image_swap_success"] > 0.9
    assert found_section["word_accuracy_clean"] > 0.9
    assert 0.5 < found_section["word_accuracy_answered"] <= found_section["word_accuracy"]
    assert found_section["word_accuracy_unprocessed"] < 0.9
    assert report["image"]["accuracy"] > 0.9
    low, high = report["image"]["ci95"]
    assert low < report["image"]["accuracy"] <= high


def test_speakers_of_the_test_split_that_training_lacks_are_reported_apart(evaluated):
    assert set(evaluated.report["speech"]["cnn"]["unseen_speaker_accuracy"]) == {"new_speaker"}
    unseen = evaluated.report["extraction"]["unseen_speaker"]["full_overlap"]
    assert unseen == evaluated.report["extraction"]["si_sdr_improvement_db"]["full_overlap"]


def test_speakers_left_out_of_training_are_reported_for_the_chosen_model(evaluated):
    candidates, speech, asked = evaluated.candidates, evaluated.speech, []

    def leave_out(kind: str) -> dict[str, Path]:
        asked.append(kind)
        return {"known_speaker": candidates / "speech_classifier" / kind}

    section = report._with_left_out(evaluated.report["speech"], candidates, speech, leave_out)
    chosen = section["chosen"]
    assert asked == [chosen]
    figures = section["left_out"]["known_speaker"]
    assert figures["n"] == int((speech.group == "known_speaker").sum())
    assert section[chosen]["unseen_speaker_accuracy"] == {"known_speaker": figures["accuracy"]}
    assert figures["ci95"][0] < figures["accuracy"] <= 1
    assert evaluated.report["speech"]["left_out"] is None


def test_the_gate_is_measured_again_with_the_same_result(evaluated):
    again = gate_answers(predictor_of(evaluated), evaluated.images, evaluated.speech, evaluated.settings).section
    assert again == evaluated.report["gate"]
    assert again["majority_share"] == {"image_accuracy": pytest.approx(1 / 3), "speech_accuracy": pytest.approx(1 / 3)}


def test_the_gate_knows_class_speaker_and_snr_of_what_was_answered(evaluated):
    snr_db = {str(name): 5.0 if row % 2 else 25.0 for row, name in enumerate(evaluated.speech.ids)}
    arguments = (predictor_of(evaluated), evaluated.images, evaluated.speech, evaluated.settings)
    answers = gate_answers(*arguments, snr_db=snr_db)
    assert answers.section == evaluated.report["gate"]
    assert set(answers["speech_accuracy"].slices) == {"class", "speaker", "SNR"}
    assert set(answers["speech_accuracy"].slices["SNR"]) == {"0 to 10 dB", "20 to 30 dB"}
    assert set(answers["presence_auc"].slices["SNR"]) <= {"0 to 10 dB", "10 to 20 dB", "20 to 30 dB"}
    assert not decide_promotion(answers, gate_answers(*arguments), evaluated.settings.promotion).promote
    fewer = gate_answers(*arguments, asked=evaluated.speech.classes[:2])
    assert set(fewer["presence_auc"].slices["class"]) <= set(evaluated.speech.classes[:2])


def test_a_card_is_whole_or_refused(evaluated):
    answers = gate_answers(predictor_of(evaluated), evaluated.images, evaluated.speech, evaluated.settings)
    decision = decide_promotion(answers, None, evaluated.settings.promotion)
    about = {"version": "1", "digest": "d", "made": "today", "labels": ["across"], "licence": "MIT"}
    about |= {"licences": [{"data": "audio", "licence": "none", "items": 3}], "items": {"audio": {"gate": 3}}}
    report = evaluated.report | {"git": "none", "data": {"raw_audio": "1"}}
    card = model_card(report, answers, decision, about, 5, 50)
    text = card_text(card)
    for said in ("Intended use", "Limits", "raw_audio", "speech_accuracy", "Slices of the gate split", decision.reason):
        assert said in text
    assert all(len(row["interval"]) in (2, len(NOT_MEASURED)) for row in card["gate_figures"])
    for name, empty in (("licences", []), ("labels", []), ("version", " "), ("licence", None)):
        with pytest.raises(UserError, match=rf"{name}: empty"):
            model_card(report, answers, decision, about | {name: empty}, 5, 50)


def test_without_a_gate_split_nothing_is_measured_and_nothing_promoted(evaluated):
    images, speech = (one.where("train", "validation", "test") for one in (evaluated.images, evaluated.speech))
    answers = gate_answers(predictor_of(evaluated), images, speech, evaluated.settings)
    gate = answers.section
    assert (gate["image_accuracy"], gate["speech_accuracy"], gate["si_sdr_improvement_db"]) == (None, None, None)
    assert not decide_promotion(answers, None, evaluated.settings.promotion).promote


def test_the_predictions_give_the_reported_accuracies(evaluated):
    predictions = pd.read_parquet(evaluated.out / "predictions.parquet")
    assert list(predictions) == ["modality", "model", "id", "label", "predicted", "confidence", "split"]
    right = (predictions["label"] == predictions["predicted"]).groupby(predictions["model"]).mean()
    assert right["image_classifier"] == evaluated.report["image"]["accuracy"]
    for kind in ("cnn", "rnn", "lstm"):
        assert right[f"speech_classifier/{kind}"] == evaluated.report["speech"][kind]["accuracy"]


def test_the_reference_is_the_models_own_answers_in_the_schema_of_the_log(evaluated):
    table, predictor = pq.read_table(evaluated.out / "reference.parquet"), predictor_of(evaluated)
    assert table.schema.equals(REFERENCE_SCHEMA)
    rows = table.to_pandas()
    assert rows.groupby("endpoint").size().to_dict() == {"classify_image": 48, "recognize_speech": 48, "extract": 48}
    assert set(rows["model"]) == {predictor.digest} == {evaluated.report["models"]}
    seen = rows[rows["endpoint"] == "classify_image"]
    place = round(1000 * seen["image_brightness"].iloc[0])  # which picture it was, as the facts above say
    assert evaluated.images.split[place] in ("validation", "gate")
    answer = predictor.classify_image(evaluated.images.pixels[place])
    np.testing.assert_allclose(seen["image_embedding"].iloc[0], answer.embedding, atol=1e-4)
    assert seen["pictured"].iloc[0] == answer.label
    heard = rows[rows["endpoint"] == "recognize_speech"]
    assert heard["speech_embedding"].notna().all()
    assert heard["image_embedding"].isna().all()


def test_golden_requests_hold_once_they_are_bundled(evaluated, tmp_path):
    parts = parts_of(evaluated)
    goldens = golden_requests(evaluated.images, evaluated.speech, *parts)
    assert len(goldens) == 4
    write_bundle(tmp_path / "bundle", *parts, about={}, goldens=goldens)
    Predictor.load(tmp_path / "bundle").check_golden()


def test_plots_and_sounds_are_there_to_look_at_and_listen_to(evaluated):
    plots = {file.stem for file in (evaluated.out / "plots").iterdir()}
    confusions = {f"confusion_{name}" for name in ("image", "speech_cnn", "speech_rnn", "speech_lstm")}
    assert plots == confusions | {"learning_curves", "reliability", "separation_by_overlap", "extraction"}
    for file in (evaluated.out / "plots").iterdir():
        assert media.decode_picture(file).std() > 1
    page = (evaluated.out / "examples" / "index.html").read_text()
    named = re.findall(r'src="([^"]+)"', page)
    assert len(named) == 24
    assert {file.name for file in (evaluated.out / "examples").iterdir()} == {*named, "index.html"}
    for name in named:
        if name.endswith(".wav"):
            waveform, rate_hz = media.decode_recording(evaluated.out / "examples" / name)
            assert (len(waveform), rate_hz) == (toy_models.RATE_HZ, toy_models.RATE_HZ)


def test_a_separator_that_separates_nothing_is_an_opponent_that_gains_nothing(evaluated):
    predictor = predictor_of(evaluated)
    bench = bench_of(predictor, evaluated.images, evaluated.speech, "test", evaluated.settings)
    assert "blind_separation" not in headline(bench, 5, set(), int).others_db
    bench = dataclasses.replace(bench, separator=lambda mixture: np.stack([mixture, mixture]))
    assert np.allclose(headline(bench, 5, set(), int).others_db["blind_separation"], 0)


def test_words_without_a_picture_are_heard_but_never_asked_for(evaluated):
    images = dataclasses.replace(
        evaluated.images, split=np.where(evaluated.images.labels == 2, "train", evaluated.images.split)
    )
    predictor = predictor_of(evaluated)
    bench = bench_of(predictor, images, evaluated.speech, "test", evaluated.settings)
    assert bench.labels == list(predictor.labels[:2])
    heads = headline(bench, 20, set(), int)
    assert len(heads.gains_db) == 20
    assert 0 < len(heads.swapped) < 20
    assert len(golden_requests(images, evaluated.speech, *parts_of(evaluated))) == 4
