"""The loop learns, stops at nonsense, and after a kill goes on as if nothing had happened."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_models import CLASSES, image_recipe, recipe, speech_recipe, toy_images, toy_speech

from ml import extraction, models, training, unknowns
from ml.config import OPTIMIZERS, ExtractorRecipe, PerBudget, Training, UserError
from ml.datasets import ImageSet, SpeechSet
from ml.training import loop, optimizers, pictures, separation
from ml.training.batches import AHEAD, Shuffle

CPU = Training("quick", "cpu", 0)
EXTRACTOR = ExtractorRecipe(
    *(PerBudget(60, 60, 60), 16, 0.01, 0.0, "adamw", 24, 2),
    *(PerBudget(32, 32, 32), PerBudget(1, 1, 1)),  # channels and blocks that extract
    PerBudget(0, 0, 0),  # disguised
    *(1, False),  # looks, others
    *(0.8, 0.15, 0),  # scene_s, speed_change, extra_voices
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return toy_images()


@pytest.fixture(scope="module")
def speech() -> SpeechSet:
    return toy_speech()


@pytest.fixture(scope="module")
def image_dir(images, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("image") / "image_classifier"
    training.train_image_classifier(images, image_recipe(60, 8), CPU, out, out.parent / "checkpoints", False)
    return out


def weights_of(folder: Path) -> bytes:
    return (folder / models.WEIGHTS).read_bytes()


# --- the loop itself ------------------------------------------------------------------------------------------------


class Crash(Exception):
    """What stands for the end of the process where only the loop is looked at."""


def turn_loss(crash_at: int | None = None):
    """Loss of learning to turn 16 numbers by one place, drawn at every step; ends the run at a step if asked to."""

    def loss_of(model, step, generator):
        if step == crash_at:
            raise Crash
        x = torch.randn(64, 16, generator=generator)
        return (model(x) - x.roll(1, dims=1)).square().sum(1).mean()

    return loss_of


def a_run(tmp_path: Path, **changes) -> loop.Run:
    how = dataclasses.replace(recipe(50, 1), learning_rate=0.1, **changes)
    return loop.plan_run("line", how, CPU, {"points": "drawn"}, tmp_path, progress=False, checkpoint_steps=10)


def fitted(run: loop.Run, crash_at: int | None = None) -> loop.Trained:
    with loop.seeded(0):
        model = torch.nn.Linear(16, 16)
    return loop.fit(run, model, turn_loss(crash_at), lambda model: {"figure": 1.0})


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_loop_finds_the_turn(tmp_path, optimizer):
    trained = fitted(a_run(tmp_path, optimizer=optimizer))
    assert torch.allclose(trained.model.weight, torch.eye(16).roll(1, dims=0), atol=0.2)
    losses = [row["loss"] for row in trained.history]
    assert losses[-1] < losses[0] / 10


def test_the_history_names_steps_losses_and_figures(tmp_path):
    history = fitted(a_run(tmp_path)).history
    assert [row["step"] for row in history] == [10, 20, 30, 40, 50]
    assert all(row["figure"] == 1.0 for row in history)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("crash_at", [5, 23, 49])
def test_a_run_that_was_ended_gives_the_same_weights_and_history(tmp_path, optimizer, crash_at):
    whole = fitted(a_run(tmp_path / "whole", optimizer=optimizer))
    with pytest.raises(Crash):
        fitted(a_run(tmp_path / "ended", optimizer=optimizer), crash_at)
    again = fitted(a_run(tmp_path / "ended", optimizer=optimizer))
    assert torch.equal(again.model.weight, whole.model.weight)
    assert again.history == whole.history


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(16, 16), (16, 40), (40, 16)])
def test_muon_steps_along_the_singular_vectors_about_one_far_in_each_of_them(shape, dtype):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    matrices = torch.stack((matrix, -matrix.flip(0)))
    steps = optimizers.orthogonal(matrices.to(dtype))
    assert steps.dtype == dtype
    made, of = (torch.linalg.svd(m, full_matrices=False) for m in (steps.float(), matrices))
    assert 0.15 < made.S.min() < made.S.max() < 1.9
    assert 0.8 < made.S.median() < 1.5
    assert torch.allclose(made.U @ made.Vh, of.U @ of.Vh, atol=1e-3 if dtype == torch.float32 else 0.1)


def test_muon_steps_weights_of_one_shape_together_as_each_alone():
    seed = torch.Generator().manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(*shape, generator=seed)) for shape in [(16, 8, 3), (16, 16), (16, 8, 3)]]
    alone = [torch.nn.Parameter(weight.detach().clone()) for weight in weights]
    together, single = optimizers.Muon(weights, 0.1, 0.01), [optimizers.Muon([weight], 0.1, 0.01) for weight in alone]
    for _ in range(3):
        for weight, same in zip(weights, alone, strict=True):
            weight.grad = torch.randn(weight.shape, generator=seed)
            same.grad = weight.grad.clone()
        for optimizer in [together, *single]:
            optimizer.step()
    for weight, same in zip(weights, alone, strict=True):
        assert torch.allclose(weight, same, atol=1e-5)


def test_muon_takes_what_has_two_wide_sides_and_leaves_the_rest_to_adamw():
    model = torch.nn.Sequential(torch.nn.Conv2d(4, 16, 3), torch.nn.Conv2d(1, 16, 3), torch.nn.Linear(16, 10))
    muon, adamw = optimizers.make_optimizers(model, dataclasses.replace(recipe(50, 1), optimizer="muon"))
    assert [p.shape for p in muon.param_groups[0]["params"]] == [(16, 4, 3, 3)]
    assert sum(len(group["params"]) for group in adamw.param_groups) == 5


def test_where_nothing_is_wide_adamw_takes_all():
    model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Linear(8, 2))
    (adamw,) = optimizers.make_optimizers(model, dataclasses.replace(recipe(50, 1), optimizer="muon"))
    assert sum(len(group["params"]) for group in adamw.param_groups) == 4


def test_known_and_unknown_pictures_are_moved_alike():
    shown = toy_images()
    pixels, labels = pictures.resident_pixels(shown, torch.device("cpu")), torch.from_numpy(shown.labels)
    seed = torch.Generator().manual_seed
    drawn, labelled = pictures.draw_pictures(pixels, labels, torch.arange(len(pixels))[None], len(CLASSES), seed(0))
    (batch,), (wanted,) = drawn, labelled
    known = pixels.permute(0, 3, 1, 2).float() / 255
    unknown = unknowns.draw_unknowns(known[: len(known) // pictures.UNKNOWN_SHARE], seed(0))
    assert wanted.tolist() == [*shown.labels.tolist(), *[len(CLASSES)] * len(unknown)]
    still = (batch == torch.cat((known, unknown))).flatten(1).all(1)
    for part in still.split([len(known), len(unknown)]):
        assert 0 < part.float().mean() < 0.6


def test_every_step_has_its_own_pictures_whichever_step_was_drawn_before():
    shown, size = toy_images(), 20
    pixels, labels = pictures.resident_pixels(shown, torch.device("cpu")), torch.from_numpy(shown.labels)
    batches = pictures.picture_batches(pixels, labels, len(CLASSES), size, seed=3)
    told = [batches.of(step) for step in range(2 * AHEAD)]
    again = pictures.picture_batches(pixels, labels, len(CLASSES), size, seed=3).of(AHEAD + 3)
    assert torch.equal(again[0], told[AHEAD + 3][0])
    rows = Shuffle(len(pixels), size, seed=3)
    for step, (seen, wanted) in enumerate(told):
        assert len(seen) == len(wanted) == size + size // pictures.UNKNOWN_SHARE
        assert wanted.tolist() == [*labels[rows.batch(step)].tolist(), len(CLASSES), len(CLASSES)]
    assert len({float(seen.sum()) for seen, _ in told}) == len(told)
    assert pictures.by_batch(torch.arange(12), 8, 2).tolist() == [[0, 1, 2, 3, 8, 10], [4, 5, 6, 7, 9, 11]]


def test_a_checkpoint_of_other_settings_is_not_resumed(tmp_path):
    with pytest.raises(Crash):
        fitted(a_run(tmp_path / "a"), 35)
    changed = fitted(a_run(tmp_path / "a", weight_decay=0.3))
    fresh = fitted(a_run(tmp_path / "b", weight_decay=0.3))
    assert torch.equal(changed.model.weight, fresh.model.weight)


def test_a_checkpoint_of_other_code_is_not_resumed(tmp_path, monkeypatch):
    with pytest.raises(Crash):
        fitted(a_run(tmp_path), 35)
    monkeypatch.setattr(loop, "code_digest", lambda: "another")
    run = a_run(tmp_path)
    assert loop.resume(run, parts=None)[0] == 0  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("content", [b"", b"\0" * 1000, b"no checkpoint"])
def test_a_checkpoint_that_cannot_be_read_is_begun_anew(tmp_path, content, capsys):
    run = a_run(tmp_path)
    run.checkpoint.write_bytes(content)
    assert len(fitted(run).history) == 5
    assert f"{run.checkpoint}: cannot be read" in capsys.readouterr().err


def test_a_gradient_that_is_not_finite_ends_the_run_and_is_never_kept(tmp_path):
    run = a_run(tmp_path)

    def loss_of(model, step, generator):
        return (model.weight.sum() * 0 + (step == 19) * 0.0).sqrt() if step == 19 else model.weight.sum()

    with pytest.raises(FloatingPointError, match="at step 20: expected a finite number"):
        loop.fit(run, torch.nn.Linear(2, 1), loss_of, lambda model: {})
    assert torch.load(run.checkpoint, weights_only=True)["step"] == 10


def test_neighbouring_seeds_drop_out_differently(tmp_path):
    drawn = {}
    for seed in (0, 1):
        how = dataclasses.replace(recipe(5, 1), learning_rate=0.1)
        run = loop.plan_run("line", how, dataclasses.replace(CPU, seed=seed), {}, tmp_path, False)
        drawn[seed] = []

        def loss_of(model, step, generator, seen=drawn[seed]):
            seen.append(torch.rand(()).item())
            return model.weight.sum()

        loop.fit(run, torch.nn.Linear(2, 1), loss_of, lambda model: {})
    assert not set(drawn[0]) & set(drawn[1])


def test_a_loss_that_is_not_finite_ends_the_run_and_is_never_kept(tmp_path):
    run = a_run(tmp_path)

    def loss_of(model, step, generator):
        return model.weight.sum() * (float("nan") if step == 14 else 1.0)

    with pytest.raises(FloatingPointError, match="line: the loss is nan at step 20: expected a finite number"):
        loop.fit(run, torch.nn.Linear(2, 1), loss_of, lambda model: {})
    assert torch.load(run.checkpoint, weights_only=True)["step"] == 10


def test_the_learning_rate_goes_up_once_and_down_to_nothing():
    shares = [loop.one_cycle(step, 100) for step in range(100)]
    top = shares.index(max(shares))
    assert max(shares) == 1
    assert 5 < top < 30
    assert shares[: top + 1] == sorted(shares[: top + 1])
    assert shares[top:] == sorted(shares[top:], reverse=True)
    assert shares[-1] < 0.01


def test_every_row_comes_once_an_epoch():
    shuffle = Shuffle(10, 4, seed=0)
    rows = torch.cat([shuffle.batch(step) for step in range(5)])
    assert sorted(rows[:10].tolist()) == sorted(rows[10:].tolist()) == list(range(10))
    assert rows[:10].tolist() != rows[10:].tolist()
    assert torch.equal(Shuffle(10, 4, seed=0).batch(3), rows[12:16])
    assert len(Shuffle(3, 8, seed=0).batch(1)) == 8


def test_the_average_follows_the_model_and_lags_behind():
    model = torch.nn.BatchNorm1d(2)
    average = loop.copy_of(model)
    torch.nn.init.constant_(model.weight, 3.0)
    model.running_mean += 3
    loop.update_average(loop.averages(average, model), step=90)
    assert 1 < float(average.weight[0]) < 3
    assert 0 < float(average.running_mean[0]) < 3
    assert torch.equal(model.weight, torch.full((2,), 3.0))


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_calibration_finds_the_temperature(factor):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 5, generator=generator)
    labels = torch.multinomial(torch.softmax(logits, 1), 1, generator=generator)[:, 0]
    assert loop.calibrate(factor * logits, labels) == pytest.approx(factor, rel=0.1)


def test_first_weights_are_drawn_without_touching_the_global_generator():
    before = torch.get_rng_state()
    with loop.seeded(3):
        first = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
    with loop.seeded(3):
        assert torch.equal(torch.rand(4), first)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(UserError, match=r"training\.device: cuda: this machine has no GPU"):
        loop.pick_device(dataclasses.replace(CPU, device="cuda"))
    assert loop.pick_device(dataclasses.replace(CPU, device="auto")).type == "cpu"


def test_thresholds_lie_in_the_middle_of_the_best():
    scores, truth = torch.tensor([0.1, 0.3, 0.7, 0.9]), torch.tensor([False, False, True, True])
    chosen = training.separation.best_threshold(
        lambda least: training.separation.balanced_accuracy(scores > least, truth)
    )
    assert chosen == pytest.approx(0.5, abs=0.02)


# --- the three kinds of model ---------------------------------------------------------------------------------------


def test_the_picture_classifier_learns_and_its_card_says_how(images, image_dir):
    model, card = models.load_model(image_dir)
    held = images.where("gate")
    logits = training.pictures.classify_pixels(model, torch.from_numpy(np.array(held.pixels)))
    assert loop.accuracy(logits, torch.from_numpy(held.labels)) >= 0.9
    assert card["kind"] == "image_cnn"
    assert card["classes"] == list(CLASSES)
    assert (card["side"], card["channels"], card["steps"], card["seed"]) == (14, 1, 60, 0)
    assert card["data"] == {"images": images.digest}
    assert card["parameters"] == models.count_parameters(model)
    assert card["temperature"] > 0
    assert card["history"][-1]["step"] == 60
    assert card["train_s"] > 0


def test_pictures_of_one_class_are_told_from_nothing_known(images, tmp_path):
    one = dataclasses.replace(images, split=np.where(images.labels == 0, images.split, "unused"))
    card = training.train_image_classifier(one, image_recipe(60, 8), CPU, tmp_path / "m", tmp_path / "c", False)
    assert card["metrics"]["validation_accuracy"] >= 0.9
    assert card["metrics"]["validation_unknown_accuracy"] >= 0.9


def test_a_blank_and_a_noisy_picture_are_nothing_known(image_dir):
    model, _ = models.load_model(image_dir)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (20, 14, 14, 1), dtype=np.uint8)
    blank = np.repeat(rng.integers(0, 256, (20, 1, 1, 1), dtype=np.uint8), 14, axis=1).repeat(14, axis=2)
    decided = training.pictures.classify_pixels(model, torch.from_numpy(np.concatenate((noise, blank)))).argmax(1)
    assert float((decided == len(CLASSES)).float().mean()) >= 0.9


@pytest.mark.parametrize("kind", models.SPEECH_MODELS)
def test_each_speech_classifier_learns(kind, speech, tmp_path):
    card = training.train_speech_classifier(
        kind, speech, speech_recipe(50, 12), CPU, tmp_path / "m", tmp_path / "c", False
    )
    model, read = models.load_model(tmp_path / "m")
    assert read == card
    assert card["metrics"]["validation_accuracy"] >= 0.9
    assert card["sample_rate_hz"] == speech.sample_rate_hz
    assert not model.training


def test_the_extractor_learns_and_its_thresholds_stand_in_the_card(speech, images, image_dir, tmp_path):
    how = dataclasses.replace(EXTRACTOR, steps=PerBudget(200, 200, 200))
    card = training.train_speech_extractor(speech, image_dir, images, how, CPU, tmp_path / "m", tmp_path / "c", False)
    assert card["metrics"]["validation_si_sdr_improvement_db"] > 3
    assert card["metrics"]["validation_presence_auc"] > 0.9
    assert all(0 < card[name] < 1 for name in ("presence_threshold", "interval_threshold", "word_threshold"))
    assert all(card["metrics"][name] > 0.5 for name in ("validation_interval_f1", "validation_word_f1"))
    assert card["classes"] == list(CLASSES)
    assert card["data"]["image_classifier"] == models.read_card(image_dir)["digests"][models.WEIGHTS]
    loaded, _ = extraction.load_extractor(tmp_path / "m")
    assert loaded.labels == CLASSES


def test_a_checkpoint_of_another_size_is_not_gone_on_with(speech, images, image_dir, tmp_path, monkeypatch):
    def ended(run, model, *_):
        found.append((run.digest, (model.mask.in_channels, len(model.extracting), len(model.shifts))))
        raise Crash

    found: list[tuple[str, tuple[int, int, int]]] = []
    monkeypatch.setattr(separation, "fit", ended)
    sizes = {"extracting_channels": PerBudget(24, 24, 40), "extracting_blocks": PerBudget(1, 1, 3)}
    how = dataclasses.replace(EXTRACTOR, **sizes, looks=2)
    for budget in ("quick", "medium", "full"):
        with pytest.raises(Crash):
            training.train_speech_extractor(
                *(speech, image_dir, images, how, dataclasses.replace(CPU, budget=budget)),
                *(tmp_path / "m", tmp_path / "c", False),
            )
    (quick, small), medium, (full, large) = found
    assert (quick, small) == medium
    assert (small, large) == ((24, 1, 2), (40, 3, 2))
    assert quick != full


def test_the_extractor_learns_from_extra_voices_too_and_its_card_names_them(speech, images, image_dir, tmp_path):
    other = dataclasses.replace(toy_speech(5), digest="other voices")
    how = dataclasses.replace(EXTRACTOR, steps=PerBudget(3, 3, 3), extra_voices=0.5)
    place = (tmp_path / "m", tmp_path / "c", False)
    card = training.train_speech_extractor(speech, image_dir, images, how, CPU, *place, extra=other)
    assert card["data"]["extra_voices"] == "other voices"


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(speech, tmp_path):
    def train(folder: str, seed: int) -> bytes:
        how = dataclasses.replace(CPU, seed=seed)
        training.train_speech_classifier(
            "rnn", speech, speech_recipe(8, 8), how, tmp_path / folder, tmp_path / "c", False
        )
        return weights_of(tmp_path / folder)

    assert train("a", 0) == train("b", 0)
    assert train("c", 1) != train("a", 0)


def test_data_without_a_validation_split_is_refused(images, tmp_path):
    only = images.where("train")
    with pytest.raises(UserError, match="image_classifier: the data has no validation split"):
        training.train_image_classifier(only, image_recipe(5, 8), CPU, tmp_path / "m", tmp_path / "c", False)


def test_words_of_a_single_class_are_refused(speech, tmp_path):
    alone = dataclasses.replace(speech, split=np.where(speech.labels > 0, "test", speech.split))
    with pytest.raises(UserError, match="the training data say 1 word; expected at least 2 to tell apart"):
        trained_words(alone, tmp_path)


def trained_words(speech: SpeechSet, tmp_path: Path, **more) -> dict:
    steps = speech_recipe(6, 8, extra_voices=0.5 if more else 0.0)
    return training.train_speech_classifier("cnn", speech, steps, CPU, tmp_path / "m", tmp_path / "c", False, **more)


def test_a_class_of_three_clips_is_learnt_with_the_others(speech, tmp_path):
    rare = np.flatnonzero((speech.labels == 1) & (speech.split == "train"))[3:]
    split = speech.split.copy()
    split[rare] = "left over"
    card = trained_words(dataclasses.replace(speech, split=split), tmp_path)
    assert card["classes"] == list(CLASSES)


def test_a_silent_clip_is_named_and_refused(speech, tmp_path):
    samples, row = np.array(speech.samples), int(np.flatnonzero(speech.split == "train")[2])
    samples[speech.offsets[row] :][: speech.lengths[row]] = 0
    with pytest.raises(UserError, match=f"clip {speech.ids[row]}: expected sound, got silence"):
        trained_words(dataclasses.replace(speech, samples=samples), tmp_path)


def test_clips_of_10_ms_are_learnt_from_like_others(speech, tmp_path):
    middle = speech.offsets + speech.lengths // 2  # where there is sound
    short = speech.sample_rate_hz // 100
    clipped = dataclasses.replace(speech, offsets=middle, lengths=np.full(len(speech), short))
    card = trained_words(clipped, tmp_path)
    assert all(np.isfinite(row["loss"]) for row in card["history"])


def test_samples_that_are_no_numbers_end_the_training_in_one_line(speech, tmp_path):
    samples = np.array(speech.samples, np.float32)
    samples[speech.offsets[0]] = np.nan
    with pytest.raises(UserError, match=rf"clip {speech.ids[0]}: holds samples that are no finite numbers"):
        trained_words(dataclasses.replace(speech, samples=samples), tmp_path)


def test_extra_voices_join_every_batch_and_the_card_names_them(speech, tmp_path):
    other = dataclasses.replace(toy_speech(5), classes=("bar", "hum", "slash"), digest="other voices")
    card = trained_words(speech, tmp_path, extra=other)
    assert card["data"] == {"audio": speech.digest, "extra_voices": "other voices"}
    train = speech.where("train")
    batches = training.speech.Batches(train, other, speech_recipe(6, 8, extra_voices=0.25), 0)
    rows = batches.rows(3).numpy()
    assert (rows >= len(train)).sum() == 6  # of 24
    assert {batches.speech.classes[k] for k in batches.speech.labels[len(train) :]} == {"bar", "slash"}
    borrowed = int(rows[-1])
    assert np.array_equal(
        batches.speech.clip(borrowed), other.clip(int(np.flatnonzero(other.ids == batches.speech.ids[borrowed])[0]))
    )


def test_extra_voices_of_another_rate_or_other_words_are_refused(speech, tmp_path):
    with pytest.raises(UserError, match="extra voices: 8000 Hz: expected 4000 Hz"):
        trained_words(speech, tmp_path, extra=dataclasses.replace(speech, sample_rate_hz=8000))
    with pytest.raises(UserError, match="extra voices: they say none of bar, ring, slash"):
        trained_words(speech, tmp_path, extra=dataclasses.replace(speech, classes=("a", "b", "c")))


# --- speakers left out ----------------------------------------------------------------------------------------------


def spoken_by(speech: SpeechSet, *speakers: str) -> SpeechSet:
    """The same clips, spoken by these in turn, in every split."""
    return dataclasses.replace(speech, group=np.array([speakers[i % len(speakers)] for i in range(len(speech))]))


def test_wanted_speakers_are_left_out_else_the_first_by_name(speech):
    four = spoken_by(speech, "dora", "carl", "bert", "anna")
    assert training.speakers_to_leave_out(four, ["carl", "nobody"]) == ["carl"]
    assert training.speakers_to_leave_out(four, ["dora", "carl", "anna"]) == ["dora", "carl", "anna"]
    assert training.speakers_to_leave_out(four, []) == ["anna", "bert"]


def test_nobody_is_left_out_where_the_test_is_new_or_nobody_is_known_or_can_be_spared(speech):
    assert training.speakers_to_leave_out(speech, []) == []  # its test speaker is new
    assert training.speakers_to_leave_out(spoken_by(speech, ""), []) == []
    assert training.speakers_to_leave_out(spoken_by(speech, "anna"), []) == []
    own_word = np.where(speech.labels == 1, "bert", np.where(np.arange(len(speech)) % 2, "anna", "carl"))
    assert training.speakers_to_leave_out(dataclasses.replace(speech, group=own_word), ["bert"]) == ["anna", "carl"]


def test_a_left_out_speaker_is_never_learnt_from_and_a_model_made_once_is_kept(speech, tmp_path):
    two = spoken_by(speech, "anna", "bert")
    card = trained_words(two, tmp_path)
    rest = training.unseen.without_speaker(two, "bert")
    assert set(rest.where("train", "validation", "gate", "test").group) == {"anna"}
    assert len(two.of("bert")) == len(rest.of("bert")) == len(speech) // 2

    def made() -> Path:
        return training.train_left_out(card, two, ["bert"], CPU, tmp_path / "o", tmp_path / "c", False)["bert"]

    model = models.read_card(made())
    assert (model["recipe"], model["steps"], model["seed"]) == (card["recipe"], card["steps"], card["seed"])
    assert model["metrics"]["validation_n"] == card["metrics"]["validation_n"] / 2
    written = (made() / models.CARD).stat().st_mtime_ns
    assert (made() / models.CARD).stat().st_mtime_ns == written


@pytest.mark.parametrize("classes", [("one", "two", "three"), (CLASSES[0], "two", "three")])
def test_pictures_and_words_that_share_fewer_than_two_labels_are_refused(classes, speech, images, image_dir, tmp_path):
    other, shared = dataclasses.replace(speech, classes=classes), len(set(classes) & set(CLASSES))
    with pytest.raises(UserError, match=f"{shared} labels are both pictured and spoken; expected at least 2"):
        training.train_speech_extractor(other, image_dir, images, EXTRACTOR, CPU, tmp_path / "m", tmp_path / "c", False)


def test_a_label_that_validation_lacks_is_learnt_all_the_same(speech, images, image_dir, tmp_path):
    unjudged = dataclasses.replace(speech, split=np.where(speech.labels == 2, "train", speech.split))
    how = dataclasses.replace(EXTRACTOR, steps=PerBudget(3, 3, 3))
    card = training.train_speech_extractor(unjudged, image_dir, images, how, CPU, tmp_path / "m", tmp_path / "c", False)
    assert card["classes"] == list(CLASSES)
    alone = dataclasses.replace(speech, split=np.where(speech.labels > 0, "train", speech.split))
    with pytest.raises(
        UserError, match="the validation split has pictures and clips of 1 labels, clips of 1; expected"
    ):
        training.train_speech_extractor(alone, image_dir, images, how, CPU, tmp_path / "m", tmp_path / "c", False)


NEEDED_BY_TRAINING = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from toy_models import image_recipe, speech_recipe, toy_images, toy_speech
from ml import training
from ml.config import ExtractorRecipe, PerBudget, Training
out, how = Path(sys.argv[1]), Training("quick", "cpu", 0)
training.train_image_classifier(toy_images(), image_recipe(3, 8, 2), how, out / "image", out / "notes", False)
training.train_speech_classifier("cnn", toy_speech(), speech_recipe(2, 8), how, out / "cnn", out / "notes", False)
small = ExtractorRecipe(
    PerBudget(2, 2, 2), 4, 0.01, 0.0, "adamw", 8, 1, PerBudget(8, 8, 8), PerBudget(1, 1, 1), PerBudget(1, 1, 1),
    looks=1, others=False,
    scene_s=0.8, speed_change=0.15, extra_voices=0,
)  # fmt: skip
training.train_speech_extractor(
    toy_speech(), out / "image", toy_images(), small, how, out / "extractor", out / "notes", False
)
found = {name.partition(".")[0] for name in sys.modules if getattr(sys.modules[name], "__file__", None)}
print(*sorted(found))
"""
WATCHED = {"PIL", "scipy", "soundfile", "pandas", "sklearn", "matplotlib", "yaml", "torchvision", "soxr", "dvc"}
WATCHED |= {"dagster", "bentoml", "great_expectations", "evidently", "pydantic", "requests", "cv2", "numba", "librosa"}


def test_training_needs_torch_torchaudio_numpy_and_pyarrow_and_safetensors_alone(tmp_path):
    paths = os.pathsep.join((str(Path(__file__).parent), str(Path(__file__).parents[1])))
    command = [sys.executable, "-c", NEEDED_BY_TRAINING, tmp_path]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=True)
    found = set(done.stdout.split())
    assert {"torch", "torchaudio", "numpy", "pyarrow", "safetensors"} <= found
    assert found & WATCHED == set()


TRAINING_PROCESS = """
import dataclasses, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from toy_models import toy_images, toy_speech
from test_training import CPU, EXTRACTOR
from ml import training
from ml.config import PerBudget
disguised = dataclasses.replace(EXTRACTOR, disguised=PerBudget(1, 1, 1))
image_dir, out, checkpoints = map(Path, sys.argv[1:])
training.train_speech_extractor(
    toy_speech(), image_dir, toy_images(), disguised, CPU, out, checkpoints, False, checkpoint_steps=5
)
"""


def test_killed_and_started_again_gives_the_same_weights_bit_by_bit(speech, images, image_dir, tmp_path):
    command = [sys.executable, "-c", TRAINING_PROCESS, image_dir, tmp_path / "killed", tmp_path / "checkpoints"]
    paths = os.pathsep.join((str(Path(__file__).parent), str(Path(__file__).parents[1])))
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths})
    checkpoint, deadline = tmp_path / "checkpoints" / "speech_extractor.pt", time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    assert torch.load(checkpoint, weights_only=True)["step"] >= 5

    def train(folder: str, checkpoints: str) -> dict:
        out = tmp_path / folder
        return training.train_speech_extractor(
            speech, image_dir, images, EXTRACTOR, CPU, out, tmp_path / checkpoints, False, checkpoint_steps=5
        )

    resumed, whole = train("killed", "checkpoints"), train("whole", "other")
    assert weights_of(tmp_path / "killed") == weights_of(tmp_path / "whole")
    assert resumed["history"] == whole["history"]
    assert resumed["metrics"] == whole["metrics"]
    assert not checkpoint.exists()
