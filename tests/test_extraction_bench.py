"""The benchmark's page holds what was measured, and a speaker left out is heard in the test alone."""

import dataclasses
import json

import numpy as np
import pytest
import tones
import torch
import toy_models

from benchmarks import blind, bodies, extraction, extraction_page, minutes, unknown
from ml import media, models, scenes
from ml.config import ExtractorRecipe, Paths, PerBudget, Settings, UserError, load_settings
from ml.evaluation.metrics import improvement_db
from ml.predictor import Predictor

SUMMARY = {"mean": 4.0, "mean_ci95": [3.5, 4.5]}
FOUND = {
    "si_sdr_improvement_db": {"full_overlap": SUMMARY, "partial_overlap": SUMMARY, "no_overlap": SUMMARY},
    "oracle_db": {"irm": 10.7, "psm": 12.9, "complex": 33.0},
    "baselines": {"audio_only": {"mean": 1.0, "mean_ci95": [0.5, 1.5], "beaten": True}},
    "word_accuracy": 0.98, "word_accuracy_unprocessed": 0.5, "word_accuracy_clean": None, "presence_auc": 0.97,
    "miss_at_1pct_false_alarm": 0.04, "localisation_map": 0.9, "boundary_error_ms_median": 14.0, "words_f1": 0.8,
    "words_f1_ci95": [0.77, 0.83], "image_swap_success": 0.95, "real_time_factor": 0.01, "parameters": 7,
}  # fmt: skip
RECORD = {
    "source": "toy", "budget": "quick", "left_out": "theo", "seed": 0, "scenes": 20, "steps": 5, "train_s": 1.0,
    "machine": "here", "digests": {"full": "ab" * 32}, "extraction": FOUND,
}  # fmt: skip


def test_a_speaker_left_out_is_all_of_the_test_and_nothing_else():
    speech = toy_models.toy_speech()
    kept = extraction.without(speech, "known_speaker")
    assert np.array_equal(kept.split == "test", speech.group == "known_speaker")
    assert set(kept.split) == {"test", "unused"}
    assert kept.digest != speech.digest  # so that no training of other data is gone on with
    with pytest.raises(UserError, match="expected one of known_speaker, new_speaker"):
        extraction.without(speech, "nobody")


@pytest.mark.slow  # for each of its trainings is judged on a thousand scenes
def test_what_was_trained_without_a_speaker_is_kept_until_the_settings_change(tmp_path):
    paths, images = Paths(tmp_path, "starter"), toy_models.toy_images()
    speech = extraction.without(toy_models.toy_speech(), "new_speaker")
    size = {"classes": len(images.classes), "side": 14, "channels_in": 1, "channels": 8}
    about = {"classes": list(images.classes), "side": 14, "channels": 1, "temperature": 1.0}
    card = {"kind": "image_cnn", "arguments": size, **about}
    models.save_model(paths.candidates / "image_classifier", models.ImageCNN(**size), card)
    chosen = load_settings()
    words = dataclasses.replace(chosen.speech_classifier.cnn, steps=PerBudget(3, 3, 3))
    chosen = dataclasses.replace(
        chosen,
        speech_classifier=dataclasses.replace(chosen.speech_classifier, cnn=words),
        speech_extractor=dataclasses.replace(chosen.speech_extractor, steps=PerBudget(3, 3, 3), channels=8),
    )

    def trained(settings: Settings) -> set[tuple[str, int]]:
        extraction.trained_without(settings, paths, images, speech, "new_speaker")
        return {(str(card), card.stat().st_mtime_ns) for card in tmp_path.rglob("without_new_speaker/**/model.json")}

    first = trained(chosen)
    assert len(first) == 2
    assert trained(chosen) == first
    other = dataclasses.replace(chosen, training=dataclasses.replace(chosen.training, seed=7))
    assert len(trained(other) - first) == 2


def test_the_page_says_what_was_measured_and_which_goals_were_missed(tmp_path):
    (tmp_path / "extraction.json").write_text(json.dumps({"toy theo": RECORD}))
    (tmp_path / "extraction_tries.csv").write_text("try,dB\nmore steps,4.5\n")
    extraction_page.write(tmp_path)
    page = (tmp_path / "extraction.md").read_text()
    assert "SEEHEAR_BUDGET=quick python -m benchmarks extraction --leave-out theo --scenes 20`, seed 0" in page
    assert "| **SeeHear** | 4.00 | 3.50 to 4.50 |  |" in page
    assert "| audio only (the word heard most surely) | 1.00 | 0.50 to 1.50 | beaten |" in page
    assert "| presence AUC | ≥ 0.99 | 0.97 (not reached) |" in page
    assert "| misses at 1 % false alarms | ≤ 0.05 | 0.04 |" in page
    assert "| words of a scene, F1 | ≥ 0.93 | 0.8 [0.77, 0.83] (not reached) |" in page
    assert "| more steps | 4.5 |" in page
    assert "of the clean word not measured." in page
    assert "other English words" not in page
    shares = {"share": 0.125, "any": 0.5, "n": 30}
    found = FOUND | {"unknown_words": {"other_words": shares, "backwards": shares}}
    (tmp_path / "extraction.json").write_text(json.dumps({"toy theo": RECORD | {"extraction": found}}))
    extraction_page.write(tmp_path)
    said = "is found in 12.5% of 30 recordings of other English words (each by 5 voices of eSpeak NG), at least one of"
    assert said in (tmp_path / "extraction.md").read_text()
    assert media.decode_picture(tmp_path / "extraction-systems.png").std() > 1


def test_how_often_a_label_is_heard_in_what_says_none_of_them():
    """A tone burst is the same backwards, so there all are heard; eSpeak NG says none of them."""
    predictor = Predictor.load(tones.bundle())
    said = unknown._taken(predictor, [tones.word(label) for label in tones.WORDS])
    assert said["share"] == pytest.approx(1 / len(tones.WORDS), abs=0.1)
    assert (said["any"], said["n"]) == (1.0, len(tones.WORDS))
    quiet = unknown._taken(predictor, [np.zeros(tones.RATE_HZ, np.float32)])
    assert (quiet["share"], quiet["any"]) == (0.0, 0.0)
    found = unknown.unknown_words(predictor, toy_models.toy_speech().where("test"))
    assert found["other_words"]["n"] == len(unknown.WORDS) * len(unknown.VOICES)
    assert found["other_words"]["any"] >= found["other_words"]["share"]


def test_the_bodies_are_of_one_size_and_hear_what_is_asked_for():
    sizes, mixture = [], torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    for body in bodies.BODIES.values():
        model = body([str(digit) for digit in range(10)], 8000, channels=128, blocks=8)
        sizes.append(sum(weights.numel() for weights in model.parameters()))
        output = model(mixture, torch.eye(10)[[3, 7]])
        assert output.estimate.shape == mixture.shape
        output.estimate.square().mean().backward()
        told = [name for name, weights in model.named_parameters() if "condition.weight" in name and weights.grad.any()]
        assert told
    assert max(sizes) / min(sizes) < 1.02


def test_the_page_sets_the_bodies_side_by_side(tmp_path):
    found = {"body": "LSTM", "learning_rate": 0.001, "parameters": 7, "steps": 5, "seed": 0, "train_s": 3.0}
    found |= {"si_sdr_improvement_db": 1.5, "presence_auc": 0.9, "interval_f1": 0.8}
    record = {"source": "toy", "machine": "here", "bodies": [found]}
    (tmp_path / "extraction_bodies.json").write_text(json.dumps(record))
    extraction_page.write(tmp_path)
    assert "| LSTM | 0.001 | 7 | 3 | 1.50 | 0.900 | 0.800 |" in (tmp_path / "extraction.md").read_text()


def test_without_figures_the_page_says_that_nothing_was_measured(tmp_path):
    extraction_page.write(tmp_path)
    page = (tmp_path / "extraction.md").read_text()
    assert "FSDD-Scenes" in page
    assert page.count("| not measured |") == len(extraction_page.GOALS)


def test_a_blind_separator_splits_two_sounds_and_is_trained_once(tmp_path):
    speech, chosen = toy_models.toy_speech(), load_settings()
    recipe = ExtractorRecipe(
        *(PerBudget(80, 80, 80), 16, 0.01, 0.0, "adamw", 24, 2),
        *(PerBudget(24, 24, 24), PerBudget(1, 1, 1)),  # channels and blocks that extract
        PerBudget(0, 0, 0),  # disguised
        *(1, True),  # looks, others
        *(0.4, 0.15, 0),  # scene_s, speed_change, extra_voices
    )  # fmt: skip
    chosen = dataclasses.replace(chosen, speech_extractor=recipe)
    separate = blind.blind_separator(speech, chosen, tmp_path)
    heard = speech.where("validation")
    scene = scenes.render(scenes.headline_scenes(heard, 12, "full", 0, list(heard.classes), 0.5), heard)
    one, other = separate(scene.mixture)
    gains = [improvement_db(sound, scene.mixture, scene.target) for sound in (one, other)]
    assert np.maximum(*gains).mean() > 3
    assert one.shape == other.shape == scene.mixture.shape
    card = tmp_path / "blind_separator" / "model.json"
    written = card.stat().st_mtime_ns
    again = blind.blind_separator(speech, chosen, tmp_path)
    assert np.array_equal(again(scene.mixture)[0], one)
    assert card.stat().st_mtime_ns == written


def toned_speech():
    """Three clips of every tone, at its own rate."""
    clips = [(32767 * tones.word(label, seed=seed)).astype(np.int16) for label in tones.WORDS for seed in range(3)]
    labels, sizes = np.repeat(np.arange(len(tones.WORDS)), 3), np.array([len(clip) for clip in clips])
    return dataclasses.replace(
        toy_models.toy_speech(), samples=np.concatenate(clips), offsets=np.cumsum(sizes) - sizes, lengths=sizes,
        labels=labels, split=np.full(len(clips), "test"), group=np.full(len(clips), "a"),
        ids=np.arange(len(clips)).astype(str), classes=tuple(tones.WORDS), sample_rate_hz=tones.RATE_HZ,
    )  # fmt: skip


def test_a_minute_says_the_label_in_one_of_its_scenes_or_in_none(monkeypatch):
    monkeypatch.setattr(minutes, "SECONDS", 6.0)
    said, spans = minutes._minute(toned_speech(), "down", True, 5, 2.0)
    other, nowhere = minutes._minute(toned_speech(), "down", False, 5, 2.0)
    assert nowhere is None
    assert len(said) == len(other) == 6 * tones.RATE_HZ
    [scene] = {int(edge) // (2 * tones.RATE_HZ) for edge in spans.ravel()}
    differs = (said != other).reshape(3, -1).any(axis=1)
    assert np.flatnonzero(differs).tolist() == [scene]


def test_a_label_is_found_where_it_is_said_more_often_than_where_it_is_not(monkeypatch):
    monkeypatch.setattr(minutes, "SECONDS", 6.0)
    monkeypatch.setattr(minutes, "PER_LABEL", 4)
    predictor = Predictor.load(tones.bundle())
    found = minutes.minutes(predictor, toned_speech(), 2.0)
    assert found["n"] == 4 * len(predictor.labels)
    assert found["present"] > found["absent"]
