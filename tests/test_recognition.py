"""The comparison of recognisers: every training has a name of its own, its page says what was measured and no more."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from toy_models import toy_speech

from benchmarks.recognition import __main__ as comparison
from benchmarks.recognition import measure, pages, plan, plots, variants
from ml import features, models
from ml.config import Paths, UserError, load_settings
from ml.files import write_json

QUICK = dataclasses.replace(load_settings(), training=dataclasses.replace(load_settings().training, budget="quick"))


def judged(accuracy: float, n: int = 300) -> dict:
    bits = "1" * round(accuracy * n) + "0" * (n - round(accuracy * n))
    return {"accuracy": accuracy, "n": n, "loss": 1 - accuracy, "ece_before": 0.05, "ece": 0.01, "right": bits}


def a_result(piece: plan.Piece, accuracy: float) -> dict:
    part = {
        "final": {"test": judged(accuracy), "noise": dict.fromkeys(map(str, measure.SNRS_DB), 0.5), "latency_ms": 1.5},
        "unseen": {"unseen": judged(accuracy, 500)},
        "augmentation": {"unseen": judged(accuracy, 450)},
    }.get(piece.part, {"validation_0_db": judged(accuracy)})
    costs = {
        "parameters": 66_000,
        "bytes": 270_000,
        "train_s": 60,
        "cpu_s": 50,
        "machine": "2 x x86_64",
        "train_n": 222,
    }
    return {**dataclasses.asdict(piece), **costs, "validation": judged(accuracy), **part}


def measured(*parts: str) -> dict[str, dict]:
    """Results of these parts of the quick plan, better with every piece."""
    results: dict[str, dict] = {}
    while missing := [p for p in plan.pieces(QUICK, results) if p.part in parts and p.key(QUICK) not in results]:
        for piece in missing:
            results[piece.key(QUICK)] = a_result(piece, min(1.0, 0.97 + 0.003 * len(results)))
    return results


def written(tmp_path, results: dict[str, dict]) -> list[str]:
    (tmp_path / "docs").mkdir()
    kept = {"budget": "quick", "chosen": {}, "pieces": results}
    (tmp_path / "docs" / "recognition.json").write_text(json.dumps(kept))
    return [file.read_text(encoding="utf-8") for file in pages.write(Paths(tmp_path, "mnist-fsdd"))]


def test_every_training_has_its_own_key_and_a_changed_recipe_another():
    results = measured(*plan.PARTS)
    everything = list(plan.pieces(QUICK, results))
    assert len({piece.key(QUICK) for piece in everything}) == len(everything)
    milder = dataclasses.replace(QUICK.speech_classifier.augmentation, warp=0.0)
    changed = dataclasses.replace(QUICK.speech_classifier, extra_voices=0.1, augmentation=milder)
    other = dataclasses.replace(QUICK, speech_classifier=changed)
    assert everything[0].key(other) != everything[0].key(QUICK)


def test_nothing_is_tested_before_the_grid_is_whole_and_every_kind_gets_the_same_grid():
    first = list(plan.pieces(QUICK, {}))
    assert {piece.part for piece in first} == {"grid"}
    tried = {kind: {(p.optimizer, p.learning_rate) for p in first if p.kind == kind} for kind in ("cnn", "rnn", "lstm")}
    assert tried["cnn"] == tried["rnn"] == tried["lstm"]
    results = measured("grid")
    best = max((r for r in results.values() if r["kind"] == "rnn"), key=lambda r: r["validation"]["accuracy"])
    assert plan.chosen(results, "rnn", QUICK) == (best["optimizer"], best["learning_rate"])


def test_what_was_published_stays_until_it_is_measured_anew(tmp_path):
    paths = Paths(tmp_path, "mnist-fsdd")
    before = measured("grid", "final")
    of_medium = {"budget": "medium", "chosen": {}, "pieces": {"a": {}}}
    write_json(tmp_path / "docs" / "recognition.json", of_medium)
    comparison.publish(paths, QUICK)
    assert json.loads((tmp_path / "docs" / "recognition.json").read_text()) == of_medium
    write_json(tmp_path / "docs" / "recognition.json", {"budget": "quick", "chosen": {}, "pieces": before})
    again = next(key for key in before if key.startswith("final"))
    write_json(comparison.store(paths) / f"{again}.json", before[again] | {"cpu_s": 7})
    comparison.publish(paths, QUICK)
    after = json.loads((tmp_path / "docs" / "recognition.json").read_text())
    assert set(after["pieces"]) == set(before)
    assert {key for key in before if after["pieces"][key] != before[key]} == {again}
    assert set(after["chosen"]) == {"cnn", "rnn", "lstm"}


def test_speakers_that_choose_the_augmentation_are_not_reported():
    assert not set(plan.CHOOSING_SPEAKERS) & set(plan.LEFT_OUT)


def test_a_page_of_everything_has_no_gaps_and_both_languages_the_same_figures(tmp_path):
    english, chinese = written(tmp_path, measured(*plan.PARTS))
    assert english.count("not measured") == 1  # where the page says what it would mean
    figures = [re.findall(r"\d+\.\d+ %", page) for page in (english, chinese)]
    assert sorted(figures[0]) == sorted(figures[1])
    assert "reached" in english.partition("## How a CNN hears")[0]
    assert "$" not in english + chinese
    for name in ("accuracy", "noise", "data"):
        assert (tmp_path / "docs" / f"recognition-{name}.png").stat().st_size > 1000


def test_what_was_not_measured_is_said_to_be_so(tmp_path):
    english, chinese = written(tmp_path, measured("grid"))
    assert english.count("not measured") > 10
    assert chinese.count("未测") > 10
    assert "reached" not in english


def test_a_page_of_nothing_at_all_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="nothing measured yet; run `python -m benchmarks recognition`"):
        pages.write(Paths(tmp_path, "mnist-fsdd"))


@pytest.mark.parametrize("snr_db", [-5, 0, 20])
def test_noise_has_the_level_it_is_said_to_have(snr_db):
    speech = toy_speech().where("gate")
    noisy = measure.noisy(speech, snr_db)
    clean, rest = speech.clip(3), noisy.clip(3) - speech.clip(3)
    assert 10 * np.log10(np.mean(clean**2) / np.mean(rest**2)) == pytest.approx(snr_db, abs=0.01)
    assert noisy.lengths.tolist() == speech.lengths.tolist()


def test_the_gates_drawn_are_those_of_the_layer():
    torch.manual_seed(0)
    layer, steps = torch.nn.LSTM(6, 5, batch_first=True), torch.randn(9, 6)
    gates, states = plots.gates_of(layer, steps)
    assert torch.allclose(states, layer(steps[None])[0][0], atol=1e-6)
    assert gates.forget.shape == (5, 9)
    assert ((gates.input > 0) & (gates.input < 1)).all()


@pytest.mark.parametrize("kind", variants.MODELS)
def test_every_variant_learns_from_clips_of_any_length(kind):
    torch.manual_seed(0)
    model = variants.MODELS[kind](3, features.N_MELS, 12)
    mel, frames = torch.randn(4, features.N_MELS, 30), torch.tensor([7, 30, 12, 1])
    logits = model(mel * features.valid_mask(frames, 30)[:, None], frames)
    logits.sum().backward()
    assert logits.shape == (4, 3)
    assert torch.isfinite(logits).all()


def test_insides_of_models_can_be_drawn():
    torch.manual_seed(0)
    mel = torch.randn(features.N_MELS, 40)
    cnn, rnn, lstm = (models.SPEECH_MODELS[kind](3, features.N_MELS, 12).eval() for kind in ("cnn", "rnn", "lstm"))
    assert len(plots.cnn_figure(cnn, mel).subfigs) == 2
    assert len(plots.recurrent_figure(rnn, lstm, mel).axes) == 11  # six panels, five of them with a scale
