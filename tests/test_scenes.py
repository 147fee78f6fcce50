"""Scenes are what their plan says: overlap, levels, presence and intervals, the same for the same seed."""

import dataclasses

import numpy as np
import pytest
import torch
from toy_models import CLASSES, RATE_HZ, toy_speech

from ml import scenes
from ml.config import UserError
from ml.datasets import SpeechSet

DIGEST = "cf3244d49d8ac74cc76a8790b0725a58c64d5ad41d5ace6e55a18b9539811e1a"


@pytest.fixture(scope="module")
def speech() -> SpeechSet:
    return toy_speech().where("train")


@pytest.fixture(scope="module")
def bank(speech) -> scenes.ClipBank:
    return scenes.clip_bank(speech, torch.device("cpu"))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def overlap_share(intervals: np.ndarray) -> np.ndarray:
    """Share (n,) of the shorter of the first two words that the longer one covers."""
    (begin, end), (start, stop) = intervals[:, 0].T, intervals[:, 1].T
    shared = np.clip(np.minimum(end, stop) - np.maximum(begin, start), 0, None)
    return shared / np.minimum(end - begin, stop - start)


def db(ratio) -> np.ndarray:
    return 20 * np.log10(ratio)


def level_of(words: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    return np.array([np.sqrt(np.mean(w[b:e].astype(float) ** 2)) for w, (b, e) in zip(words, intervals, strict=True)])


def test_the_active_range_runs_between_the_first_and_last_sample_above_40_db_below_the_peak():
    clip = np.array([0.0, 0.009, 0.011, 1.0, 0.0, -0.02, 0.0099, 0.0])
    assert scenes.active_range(clip) == (2, 6)
    assert scenes.active_range(np.zeros(5)) == (0, 0)
    assert scenes.active_level(clip) == pytest.approx(np.sqrt((0.011**2 + 1 + 0.02**2) / 4))


@pytest.mark.parametrize(("overlap", "low", "high"), [("full", 1, 1), ("partial", 0.1, 0.9), ("none", 0, 0)])
def test_two_words_overlap_as_asked(speech, overlap, low, high):
    rendered = scenes.render(scenes.headline_scenes(speech, 60, overlap, seed=3), speech)
    share = overlap_share(rendered.intervals)
    assert share.min() >= low - 1e-9
    assert share.max() <= high + 1e-9
    assert np.unique(np.round(share, 2)).size > 10 or low == high


def test_three_words_asked_not_to_overlap_are_all_apart(speech):
    plan = scenes.draw_scenes(speech, 30, "none", seed=0, words=(3, 3))
    for intervals in scenes.render(plan, speech).intervals:
        ordered = intervals[intervals[:, 0].argsort()]
        assert (ordered[1:, 0] >= ordered[:-1, 1]).all()


def test_headline_scenes_are_two_different_words_at_0_db_in_noise_at_30_db(speech):
    rendered = scenes.render(scenes.headline_scenes(speech, 40, "full", seed=1), speech)
    first, second = (level_of(rendered.words[:, k], rendered.intervals[:, k]) for k in (0, 1))
    noise = rendered.mixture.astype(float) - rendered.words.sum(1)
    assert np.allclose(db(first / second), 0, atol=0.01)
    assert np.allclose(db(first / noise.std(1)), 30, atol=0.5)
    assert rendered.present.all()
    assert (rendered.word_labels[:, 0] == rendered.queries).all()
    assert (rendered.word_labels[:, 1] != rendered.queries).all()
    assert np.array_equal(rendered.target, rendered.words[:, 0])


def test_mixed_scenes_keep_their_ranges_and_their_share_of_absent_words(speech):
    plan = scenes.draw_scenes(speech, 400, "any", seed=2)
    counts = (plan.clips >= 0).sum(1)
    assert {1, 2, 3} == set(counts)
    assert 0.23 < 1 - plan.present.mean() < 0.37
    assert set(plan.queries) == set(range(len(CLASSES)))
    two = counts >= 2
    rendered = scenes.render(plan, speech)
    first, second = (level_of(rendered.words[two, k], rendered.intervals[two, k]) for k in (0, 1))
    ratio = db(first / second)
    assert -5.1 < ratio.min() < -3.5
    assert 3.5 < ratio.max() < 5.1


def test_a_word_is_present_exactly_where_the_plan_says_and_then_every_occurrence_is_the_target(speech):
    rendered = scenes.render(scenes.draw_scenes(speech, 200, "any", seed=5, words=(2, 3)), speech)
    wanted = rendered.word_labels == rendered.queries[:, None]
    assert np.array_equal(wanted.any(1), rendered.present)
    assert (wanted.sum(1) > 1).any()
    assert np.allclose(rendered.target, (rendered.words * wanted[:, :, None]).sum(1), atol=1e-7)
    assert (rendered.target[~rendered.present] == 0).all()


def test_the_plan_of_a_scene_depends_on_the_seed_and_its_number_alone(speech):
    few, many = (scenes.draw_scenes(speech, n, "partial", seed=9) for n in (5, 12))
    for field in dataclasses.fields(scenes.ScenePlan):
        short, long = getattr(few, field.name), getattr(many, field.name)
        assert np.array_equal(short, long[:5] if isinstance(long, np.ndarray) else long), field.name
    other = scenes.draw_scenes(speech, 5, "partial", seed=10)
    assert not np.array_equal(other.clips, few.clips)


def test_rendering_in_pieces_gives_the_same_samples(speech):
    plan = scenes.draw_scenes(speech, 7, "any", seed=0)
    whole, piece = scenes.render(plan, speech), scenes.render(plan, speech, 3, 6)
    assert np.array_equal(whole.mixture[3:6], piece.mixture)
    assert np.array_equal(whole.target[3:6], piece.target)


def test_only_the_labels_asked_for_become_queries(speech):
    plan = scenes.draw_scenes(speech, 50, "any", seed=0, labels=("ring",))
    assert set(plan.queries) == {CLASSES.index("ring")}


def test_half_of_the_absent_words_have_a_confusable_one_beside_them(speech):
    digits = dataclasses.replace(speech, classes=("0", "4", "8"))  # whose confusable 3 nobody says here
    plan = scenes.draw_scenes(digits, 300, "any", seed=4, absent_share=1.0)
    assert not plan.present.any()
    first = np.array(digits.classes)[digits.labels[plan.clips[:, 0]]]
    asked = np.array(digits.classes)[plan.queries]
    beside = np.array([scenes.CONFUSABLE[query] == said for query, said in zip(asked, first, strict=True)])
    assert 0.65 < beside[asked != "8"].mean() < 0.85  # half by choice, and half of the other half by chance
    assert not beside[asked == "8"].any()
    assert set(scenes.CONFUSABLE) == set(scenes.CONFUSABLE.values()) | {"1", "8"}


def test_a_label_that_is_no_digit_is_confused_with_what_sounds_most_like_it(speech):
    rng, time = np.random.default_rng(0), np.arange(2000) / 8000
    tone = lambda hz: np.sin(2 * np.pi * hz * time) + 0.01 * rng.standard_normal(2000)  # noqa: E731
    clips = [tone(hz) for hz in (400, 520, 410) for _ in range(3)]
    clips = [
        np.pad(clip, (0, 2100 - len(clip)), "wrap" if number > 5 else "constant") for number, clip in enumerate(clips)
    ]
    three = dataclasses.replace(
        speech,
        samples=np.round(8000 * np.concatenate(clips)).astype(np.int16),
        offsets=2100 * np.arange(9),
        lengths=np.full(9, 2100),
        labels=np.repeat([0, 1, 2], 3),
        split=np.full(9, "train"),
        group=np.full(9, ""),
        ids=np.arange(9).astype(str),
        classes=("low", "high", "also low"),
    )
    plan = scenes.draw_scenes(three, 60, "any", seed=2, absent_share=1.0, confusable_share=1.0)
    first = three.labels[plan.clips[:, 0]]
    assert (first[plan.queries == 0] == 2).all()
    assert (first[plan.queries == 2] == 0).all()
    assert set(plan.queries) == {0, 1, 2}


def test_the_scenes_are_the_same_everywhere(speech):
    plan = scenes.draw_scenes(dataclasses.replace(speech, classes=("0", "4", "8")), 12, "any", seed=6)
    assert scenes.scenes_digest(plan, speech) == DIGEST


def test_what_cannot_be_composed_is_refused(speech):
    with pytest.raises(UserError, match="overlap 'sideways': expected one of full"):
        scenes.draw_scenes(speech, 1, "sideways", seed=0)
    alone = dataclasses.replace(speech, labels=np.zeros_like(speech.labels))
    with pytest.raises(UserError, match="has no clip"):
        scenes.headline_scenes(alone, 1, "full", seed=0)
    with pytest.raises(UserError, match="too long"):
        scenes.draw_scenes(speech, 1, "none", seed=0, words=(12, 12), scene_s=0.1)


def test_long_words_get_long_scenes(speech):
    stretched = dataclasses.replace(speech, lengths=speech.lengths * 10)
    assert scenes.scene_samples(speech, 2.0) == 2 * RATE_HZ
    assert scenes.scene_samples(stretched, 2.0) >= 3 * np.percentile(stretched.lengths, 85)


def test_one_label_of_long_clips_alone_gets_room_as_well(speech):
    labels, lengths, offsets = (np.array(x) for x in (speech.labels, speech.lengths, speech.offsets))
    labels[0], lengths[0], offsets[0] = len(speech.classes), 3 * RATE_HZ, 0
    classes = (*speech.classes, "a phrase")
    mixed = dataclasses.replace(speech, labels=labels, lengths=lengths, offsets=offsets, classes=classes)
    for overlap in scenes.OVERLAPS[:3]:
        plan = scenes.headline_scenes(mixed, 6, overlap, seed=0, labels=["a phrase"])
        assert plan.samples > 3 * RATE_HZ


def test_the_bank_holds_every_clip_at_level_1_and_every_speed(speech, bank):
    same = scenes.mixing.SPEEDS.index((1, 1))
    for row in (0, 17, len(speech) - 1):
        clip, size = speech.clip(row), int(bank.lengths[row, same])
        placed = bank.place(torch.tensor([row]), torch.tensor([same]), torch.tensor([0]), size)[0].numpy()
        assert size == len(clip)
        assert np.allclose(placed, clip / scenes.active_level(clip), atol=2e-3)
    ratios = bank.lengths[:, -1] / bank.lengths[:, 0]
    assert ratios.numpy() == pytest.approx(0.85 / 1.15, rel=0.01)


def test_a_faster_clip_sounds_higher(bank):
    def pitch(speed: int) -> float:
        size = int(bank.lengths[0, speed])
        clip = bank.place(torch.tensor([0]), torch.tensor([speed]), torch.tensor([0]), size)[0]
        return int(torch.fft.rfft(clip, n=65536).abs().argmax()) / 65536

    assert pitch(6) / pitch(0) == pytest.approx(1.15 / 0.85, rel=0.02)


def test_a_placed_clip_is_shifted_and_silent_elsewhere(bank):
    row, speed, size = torch.tensor([4]), torch.tensor([2]), int(bank.lengths[4, 2])
    at_zero = bank.place(row, speed, torch.tensor([0]), size)
    late = bank.place(row, speed, torch.tensor([50]), size + 80)
    early = bank.place(row, speed, torch.tensor([-30]), size)
    assert torch.equal(late[:, 50 : 50 + size], at_zero)
    assert (late[:, :50] == 0).all()
    assert (late[:, 50 + size :] == 0).all()
    assert torch.equal(early[:, : size - 30], at_zero[:, 30:])


@pytest.mark.parametrize("hiss", [0, 1])
def test_a_word_after_a_long_pause_is_what_is_kept_of_a_long_clip(speech, hiss):
    lead = hiss * np.random.default_rng(0).integers(-2, 3, 4 * speech.sample_rate_hz)
    word = np.array(speech.samples[: speech.lengths[0]])
    late = dataclasses.replace(
        speech.of(*speech.group[:1]),
        samples=np.concatenate((lead.astype(word.dtype), word)),
        offsets=np.array([0]),
        lengths=np.array([len(lead) + len(word)]),
        ids=speech.ids[:1],
        labels=speech.labels[:1],
    )
    bank = scenes.clip_bank(late, torch.device("cpu"), speeds=((1, 1),))
    assert bank.active_starts[0, 0] == 0
    assert bank.lengths[0, 0] <= len(word)
    assert bank.active_ends[0, 0] > len(word) / 2


def test_silent_clips_are_refused_by_name(speech):
    mute = dataclasses.replace(speech, samples=np.zeros_like(speech.samples))
    with pytest.raises(UserError, match=f"clip {speech.ids[0]}: expected sound"):
        scenes.clip_bank(mute, torch.device("cpu"))


def training_batch(bank, n: int = 400, seed: int = 0) -> tuple[scenes.TrainingScenes, scenes.SceneBatch]:
    noise = scenes.noise_bank(generator(), torch.device("cpu"), RATE_HZ)
    confusable, queryable = torch.tensor([1, 2, 0]), torch.ones(3, dtype=torch.bool)
    drawn = scenes.draw_training_scenes(bank, n, confusable, generator(seed), queryable)
    return drawn, scenes.mix(bank, noise, drawn, 2 * RATE_HZ, 64)


def test_training_scenes_have_a_target_exactly_where_the_word_is_present(bank):
    drawn, batch = training_batch(bank)
    said = ((drawn.levels > 0) & ~drawn.backwards)[batch.scene]
    heard = ((bank.labels[drawn.clips][batch.scene] == batch.queries[:, None]) & said).any(1)
    assert torch.equal(heard, batch.present)
    assert torch.equal((batch.target != 0).any(1), batch.present)
    asked_for = batch.active[batch.scene, batch.queries]
    assert torch.equal(asked_for.any(1), batch.present)
    assert 0.75 < float(batch.present[: len(batch.mixture)].float().mean()) < 0.95


def test_two_different_words_of_a_scene_are_both_asked_for(bank):
    drawn, batch = training_batch(bank)
    first, second = batch.scene[: len(batch.mixture)], batch.scene[len(batch.mixture) :]
    assert torch.equal(first, torch.arange(len(batch.mixture)))
    assert torch.equal(second, torch.where(drawn.queries[:, 1] >= 0)[0])
    assert len(second) > len(first) / 3
    assert batch.present[len(first) :].all()
    assert (batch.queries[second] != batch.queries[len(first) :]).all()
    assert (batch.labels[second, 1] == batch.queries[len(first) :]).all()
    clear = (drawn.levels[second] > 0).sum(1) == 2  # both words and nothing but noise
    rest = batch.mixture[second] - batch.target[second] - batch.target[len(first) :]
    both = clear & batch.present[second]
    assert rest[both].square().mean() < 0.1 * batch.mixture[second][both].square().mean()


def test_a_clip_played_backwards_sounds_where_it_is_placed(bank):
    clips, speeds, backwards = torch.tensor([2, 2]), torch.tensor([1, 1]), torch.tensor([False, True])
    length = int(bank.lengths[2, 1])
    forwards, reverse = bank.place(clips, speeds, torch.tensor([100, 100]), length + 300, backwards)
    assert torch.equal(reverse[100 : 100 + length], forwards[100 : 100 + length].flip(0))
    assert not reverse[:100].any()
    assert not reverse[100 + length :].any()


def test_words_of_no_label_sound_in_easy_scenes_and_nobody_is_to_find_them(bank):
    drawn, batch = training_batch(bank, 2000)
    unknown = drawn.backwards & (drawn.levels > 0)
    assert 0.05 < unknown.float().sum() / (drawn.levels > 0).sum() < 0.2
    assert (batch.labels[unknown] == -1).all()
    assert (batch.labels[(drawn.levels > 0) & ~drawn.backwards] >= 0).all()
    alone = unknown[:, 0] & (unknown.sum(1) == (drawn.levels > 0).sum(1))
    assert alone.any()
    assert not batch.active[alone].any()
    assert not batch.target[: len(batch.mixture)][alone].any()
    quiet = drawn.noise_level[alone] < 0.1
    spans = batch.spans[alone][quiet, 0]
    parts = zip(batch.mixture[alone][quiet], spans, strict=True)
    inside = [mixture[start:end].square().mean() for mixture, (start, end) in parts]
    assert min(inside) > 0.5, "at level 1, where its span says"


def test_extra_voices_speak_their_share_of_the_words(speech):
    bank = scenes.clip_bank(speech, torch.device("cpu"), own=len(speech) // 2)
    confusable, queryable = torch.tensor([1, 2, 0]), torch.ones(3, dtype=torch.bool)
    shares = {}
    for share in (0.0, 0.25):
        drawn = scenes.draw_training_scenes(bank, 2000, confusable, generator(), queryable, share)
        shares[share] = float((drawn.clips >= bank.own).float().mean())
    assert shares[0.0] == 0
    assert 0.22 < shares[0.25] < 0.28


def test_training_scenes_have_one_to_three_words(bank):
    drawn, _ = training_batch(bank)
    counts = (drawn.levels > 0).sum(1)
    assert set(counts.tolist()) == {1, 2, 3}
    assert (drawn.levels[:, 0] == 1).all()


def test_half_of_the_training_scenes_are_two_words_at_one_level_in_little_noise(bank):
    drawn = scenes.draw_training_scenes(
        bank, 800, torch.tensor([1, 2, 0]), generator(), torch.ones(3, dtype=torch.bool)
    )
    two, alike = (drawn.levels > 0).sum(1) == 2, drawn.levels[:, 1].log10().mul(20).abs() <= 2.5
    hard = two & alike & drawn.inside[:, :2].all(1) & (drawn.noise_level <= 10 ** (-15 / 20))
    assert 0.5 < hard.float().mean() < 0.66
    assert drawn.noise_level.max() > 10 ** (-8 / 20)


def test_the_target_lies_in_the_active_frames(bank):
    _, batch = training_batch(bank)
    energy = torch.nn.functional.avg_pool1d(batch.target.square()[:, None], 64)[:, 0]  # (b, samples / 64)
    active = batch.active[batch.scene, batch.queries]  # (q, frames)
    outside = ~(active[:, :-1] | active[:, 1:])
    assert float((energy * outside).sum() / energy.sum()) < 0.001


def test_training_scenes_repeat_with_their_generator(bank):
    assert torch.equal(training_batch(bank, 8, seed=3)[1].mixture, training_batch(bank, 8, seed=3)[1].mixture)
    assert not torch.equal(training_batch(bank, 8, seed=3)[1].mixture, training_batch(bank, 8, seed=4)[1].mixture)


def test_labels_without_pictures_are_never_asked_for(bank):
    queryable = torch.tensor([True, False, True])
    drawn = scenes.draw_training_scenes(bank, 300, torch.tensor([1, 2, 0]), generator(), queryable)
    assert queryable[drawn.queries[drawn.queries >= 0]].all()
    assert (drawn.queries[:, 0] >= 0).all()


def test_noise_has_unit_level_and_its_colours_differ():
    noise = scenes.noise_bank(generator(), torch.device("cpu"), RATE_HZ)
    assert torch.allclose(noise.square().mean(1), torch.ones(6), atol=1e-4)
    spectrum = torch.fft.rfft(noise).abs().square()
    low_share = spectrum[:, : spectrum.shape[1] // 4].sum(1) / spectrum.sum(1)
    assert low_share[0] == pytest.approx(0.25, abs=0.02)
    assert (low_share[1:].diff() > 0).all()


def test_the_confusable_label_is_the_nearest_other_one():
    features, labels = torch.tensor([[0.0], [0.2], [5.0], [1.0], [1.2]]), torch.tensor([0, 0, 1, 2, 2])
    assert scenes.confusable_labels(features, labels, 3).tolist() == [2, 2, 0]


@pytest.mark.parametrize(("change", "speeds"), [(0, [1.0]), (0.05, [0.95, 1.0, 1.05]), (0.15, None)])
def test_words_are_played_no_faster_or_slower_than_asked_for(change, speeds):
    found = [faster / slower for faster, slower in scenes.speeds_within(change)]
    assert found == speeds if speeds else len(found) == 7
    assert max(abs(speed - 1) for speed in found) <= change + 1e-9
