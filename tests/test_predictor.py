"""The predictor answers alone as in a batch, refuses what it cannot judge, and only loads what it can vouch for."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tones
from hypothesis import given, settings
from hypothesis import strategies as st

from ml import media
from ml.config import UserError
from ml.predictor import Interval, Predictor, models_digest, verify_bundle, write_bundle
from ml.predictor.boxes import ink_box
from ml.predictor.bundle import PARTS, read_goldens
from ml.predictor.spans import located, told

RATE_HZ = tones.RATE_HZ


@pytest.fixture(scope="module")
def predictor():
    return Predictor.load(tones.bundle())


@pytest.fixture
def bundle(tmp_path):
    """A copy of the bundle that a test may spoil."""
    return shutil.copytree(tones.bundle(), tmp_path / "bundle")


# One answer is the answer in a batch


def test_a_picture_gets_the_same_answer_alone_and_among_others(predictor):
    pixels = np.stack([tones.picture(label, seed) for seed in range(20) for label in (*tones.WORDS, None)])
    together = predictor.classify_images(pixels)
    assert together.shape == (80, len(tones.WORDS) + 1)
    alone = np.concatenate([predictor.classify_images(one[None]) for one in pixels])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    named = predictor.classify_image(pixels[1])
    assert list(named.probabilities.values()) == pytest.approx(together[1, :-1].tolist(), abs=1e-5)


def test_a_recording_gets_the_same_answer_alone_and_among_longer_ones(predictor):
    draw = np.random.default_rng(0)
    clips = [tones.word("down", s)[: int(draw.integers(900, 4000))] for s in draw.uniform(0.2, 0.6, 45)]
    together = predictor.recognize_batch(clips)
    alone = np.concatenate([predictor.recognize_batch([clip]) for clip in clips])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(
        predictor.hear(clips)[1][3], predictor.recognize_speech(clips[3], RATE_HZ).embedding, atol=1e-4
    )


def test_a_separation_is_the_same_alone_and_among_others(predictor):
    mixtures = np.stack([tones.recording(*tones.WORDS, seed=seed) for seed in range(40)])
    queries = np.eye(3, dtype=np.float32)[np.arange(40) % 3]
    together = predictor.separate(mixtures, queries)
    for row in (0, 17, 39):
        alone = predictor.separate(mixtures[row : row + 1], queries[row : row + 1])
        np.testing.assert_allclose(together.estimates[row], alone.estimates[0], atol=1e-5)
        np.testing.assert_allclose(together.presence[row], alone.presence[0], atol=1e-5)
        np.testing.assert_allclose(together.places[row], alone.places[0], rtol=1e-5, atol=1e-5)


def test_listening_for_all_words_finds_what_asking_for_each_finds(predictor):
    mixture = tones.recording("down", "across", seed=6)
    asked = predictor.separate(np.stack([mixture] * 3), np.eye(3, dtype=np.float32))
    presence, places = predictor.listen(mixture)
    np.testing.assert_allclose(presence, asked.presence, atol=1e-5)
    np.testing.assert_allclose(places, asked.places, rtol=1e-5, atol=1e-5)
    located = predictor.locate(np.stack([mixture] * 3), np.eye(3, dtype=np.float32))
    for name, found in vars(located).items():
        np.testing.assert_allclose(found, getattr(asked, name), rtol=1e-5, atol=1e-5)


def test_threads_that_share_a_predictor_get_the_answers_of_one(predictor):
    requests = [
        (tones.picture(label, seed), tones.recording(label, seed=seed)) for seed in range(8) for label in tones.WORDS
    ]
    alone = [predictor.extract(*request, RATE_HZ) for request in requests]
    with ThreadPoolExecutor(4) as pool:
        shared = list(pool.map(lambda request: predictor.extract(*request, RATE_HZ), requests))
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one.estimate, other.estimate)
        assert (one.present, one.intervals, one.heard) == (other.present, other.intervals, other.heard)


# What it answers


def test_the_pictured_word_is_found_where_it_is_and_recognised(predictor):
    answer = predictor.extract(tones.picture("down", 3), tones.recording("across", "down", seed=4), RATE_HZ)
    assert answer.pictured.label == "down"
    assert answer.present
    assert answer.heard.label == "down"
    [interval] = answer.intervals
    assert (interval.start_s, interval.end_s) == pytest.approx((0.8, 1.2), abs=0.05)


def test_swapping_the_picture_swaps_the_word(predictor):
    mixture, words = np.zeros(RATE_HZ, np.float32), {}
    for label, start in (("across", 1000), ("slanted", 1600)):
        words[label] = np.zeros_like(mixture)
        words[label][start : start + 3200] = tones.word(label, seed=5)
        mixture = mixture + words[label]
    for label, other in (("across", "slanted"), ("slanted", "across")):
        estimate = predictor.extract(tones.picture(label, 1), mixture, RATE_HZ).estimate
        assert np.corrcoef(estimate, words[label])[0, 1] > 0.9
        assert abs(np.corrcoef(estimate, words[other])[0, 1]) < 0.3


def test_an_absent_word_is_silence_without_intervals(predictor):
    answer = predictor.extract(tones.picture("down", 3), tones.recording("across", "slanted", seed=4), RATE_HZ)
    assert (answer.present, answer.intervals, answer.heard) == (False, [], None)
    assert answer.estimate.shape == (2 * RATE_HZ,)
    assert not answer.estimate.any()


def test_a_picture_of_nothing_known_has_no_label_no_object_and_no_word(predictor):
    answer = predictor.extract(tones.picture(None, 3), tones.recording("across", "down"), RATE_HZ)
    assert answer.pictured.label is None
    assert answer.pictured.objects == []
    assert (answer.present, answer.presence, answer.intervals, answer.heard) == (False, 0.0, [], None)
    assert not answer.estimate.any()


def test_every_word_of_a_recording_is_found_in_order(predictor):
    words = predictor.recognize_speech(tones.recording("slanted", "across", "down", seed=2), RATE_HZ).words
    assert [word.label for word in words] == ["slanted", "across", "down"]
    assert [word.start_s for word in words] == pytest.approx([0.2, 0.8, 1.4], abs=0.05)
    assert [word.end_s for word in words] == pytest.approx([0.6, 1.2, 1.8], abs=0.05)


@pytest.mark.parametrize("rate_hz", [8000, 11025, 16000, 44100.0])
@pytest.mark.parametrize("extra_samples", [0, 1, 77])
def test_the_estimate_has_the_length_rate_and_level_of_the_recording(predictor, rate_hz, extra_samples):
    spoken = media.resample(tones.recording("down", seed=1), RATE_HZ, int(rate_hz))
    recording = np.pad(spoken, (0, extra_samples))
    for level in (1.0, 0.05):
        answer = predictor.extract(tones.picture("down", 1), level * recording, rate_hz)
        assert answer.rate_hz == rate_hz
        assert answer.estimate.shape == recording.shape
        assert answer.estimate.dtype == np.float32
        assert np.std(answer.estimate) == pytest.approx(level * np.std(recording), rel=0.15)
        assert np.corrcoef(answer.estimate, recording)[0, 1] > 0.95


def test_a_minute_of_sound_is_searched_as_a_whole(predictor):
    recording = np.random.default_rng(0).normal(0, 0.002, 60 * RATE_HZ).astype(np.float32)
    starts_s = (3.0, 31.5, 58.9)
    for start_s in starts_s:
        recording[int(start_s * RATE_HZ) :][:3200] += tones.word("across", seed=1)
    answer = predictor.extract(tones.picture("across", 1), recording, RATE_HZ)
    assert [interval.start_s for interval in answer.intervals] == pytest.approx(starts_s, abs=0.05)
    assert len(answer.estimate) == len(recording)


def test_a_colour_copy_of_a_grey_picture_gets_the_same_answer(predictor):
    grey = tones.picture("slanted", 2)
    one, other = predictor.classify_image(grey), predictor.classify_image(np.repeat(grey, 3, axis=2))
    assert one.probabilities == pytest.approx(other.probabilities, abs=1e-2)
    assert one.objects[0].box == other.objects[0].box


# Input that is hard or wrong


def test_silence_says_nothing(predictor):
    silence = np.zeros(RATE_HZ, np.float32)
    spoken = predictor.recognize_speech(silence, RATE_HZ)
    assert spoken.label is None
    assert spoken.words == []
    assert list(spoken.probabilities.values()) == pytest.approx([1 / 3] * 3)
    answer = predictor.extract(tones.picture("down"), silence, RATE_HZ)
    assert (answer.present, answer.presence, answer.heard) == (False, 0.0, None)


@pytest.mark.parametrize("samples", [1, 80, 255])
def test_a_recording_shorter_than_one_window_gets_an_answer_of_its_length(predictor, samples):
    recording = tones.word("down")[1000 : 1000 + samples]
    assert len(predictor.extract(tones.picture("down"), recording, RATE_HZ).estimate) == samples
    probabilities = predictor.recognize_speech(recording, RATE_HZ).probabilities
    assert sum(probabilities.values()) == pytest.approx(1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-4, 0.1, 30.0]), st.integers(1, 9000))
def test_noise_of_any_level_and_length_gets_a_whole_answer(predictor, seed, level, samples):
    noise = np.random.default_rng(seed).normal(0, level, samples).astype(np.float32)
    answer = predictor.extract(tones.picture("across"), noise, RATE_HZ)
    assert answer.estimate.shape == noise.shape
    assert np.isfinite(answer.estimate).all()
    assert all(0 <= span.start_s < span.end_s <= samples / RATE_HZ for span in answer.intervals)
    assert answer.present == bool(answer.intervals) == (answer.heard is not None)


@pytest.mark.parametrize(
    ("recording", "rate_hz", "said"),
    [
        (np.zeros(0, np.float32), 8000, "at least one sample"),
        (np.array([0.1, np.nan], np.float32), 8000, "finite"),
        (np.array([0.1, np.inf], np.float32), 8000, "finite"),
        (np.zeros((4410, 2), np.float32), 44100, "one channel"),
        (np.zeros(100, np.int16), 8000, "floating-point"),
        (np.zeros(100, np.float32), 0, "rate"),
        (np.zeros(100, np.float32), 8000.5, "rate"),
        (np.zeros(100, np.float32), float("nan"), "rate"),
    ],
)
def test_a_recording_that_cannot_be_judged_is_refused_in_one_line(predictor, recording, rate_hz, said):
    for ask in (
        lambda: predictor.recognize_speech(recording, rate_hz),
        lambda: predictor.extract(tones.picture("down"), recording, rate_hz),
    ):
        with pytest.raises(UserError, match=said) as refusal:
            ask()
        assert "\n" not in str(refusal.value)


def test_a_recording_played_backwards_by_a_view_is_answered_as_its_copy(predictor):
    word = tones.word("down")
    backwards, copied = (predictor.recognize_speech(one, RATE_HZ) for one in (word[::-1], word[::-1].copy()))
    assert backwards.probabilities == copied.probabilities


def test_stereo_at_44100_hz_is_answered_once_it_is_decoded(predictor):
    import io

    import soundfile

    left = media.resample(tones.recording("down", seed=1), RATE_HZ, 44100)
    file = io.BytesIO()
    soundfile.write(file, np.stack([left, 0.5 * left], axis=1), 44100, format="WAV")
    waveform, rate_hz = media.decode_recording(file.getvalue())
    answer = predictor.extract(tones.picture("down"), waveform, rate_hz)
    assert answer.present
    assert len(answer.estimate) == len(left)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 1), np.uint8),
        np.zeros((8, 8, 1), np.float32),
    ],
)
def test_pixels_that_are_no_picture_are_refused(predictor, pixels):
    with pytest.raises(UserError, match="picture: expected"):
        predictor.classify_image(pixels)


# The bundle


def test_a_bundle_answers_as_the_models_it_was_made_of(predictor):
    parts = [tones.bundle() / part for part in PARTS]
    made = Predictor.from_models(*parts)
    assert made.digest == predictor.digest == models_digest(*parts)
    picture, recording = tones.picture("down"), tones.recording("down")
    np.testing.assert_array_equal(
        made.extract(picture, recording, RATE_HZ).estimate, predictor.extract(picture, recording, RATE_HZ).estimate
    )


def test_notes_and_goldens_leave_the_digest_as_it_is_but_a_model_changes_it(bundle, tmp_path):
    parts = [bundle / part for part in PARTS]
    digest = write_bundle(tmp_path / "other", *parts, about={"note": 1})
    assert digest == verify_bundle(bundle)["digest"] == verify_bundle(tmp_path / "other")["digest"]
    card = json.loads((parts[1] / "model.json").read_text())
    (parts[1] / "model.json").write_text(json.dumps(card | {"temperature": 2.0}))
    assert write_bundle(tmp_path / "other", *parts, about={}) == verify_bundle(tmp_path / "other")["digest"] != digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "other"]


def files_of_the_bundle() -> list[str]:
    parts = [f"{part}/{name}" for part in PARTS for name in ("model.json", "weights.safetensors")]
    return [*parts, "about.json", "golden/golden.json", "golden/00.png", "golden/01.wav"]


@pytest.mark.parametrize("name", files_of_the_bundle())
@pytest.mark.parametrize("spoil", ["flip", "remove"])
def test_a_bundle_with_a_changed_or_missing_file_is_refused_by_name(bundle, name, spoil):
    file = bundle / name
    content = bytearray(file.read_bytes())
    file.unlink()
    if spoil == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: (changed|missing)"):
        Predictor.load(bundle)


@pytest.mark.parametrize("manifest", [b"", b"{}", b"[1]", b'{"files": {}, "digest": "0"}', b"\xff"])
def test_a_bundle_with_a_spoilt_manifest_is_refused_by_name(bundle, manifest):
    (bundle / "manifest.json").write_bytes(manifest)
    with pytest.raises(UserError, match=r"manifest\.json"):
        Predictor.load(bundle)


def test_models_in_each_others_place_are_refused(tmp_path):
    image, speech, extractor = (tones.bundle() / part for part in PARTS)
    with pytest.raises(UserError, match="kind 'speech_cnn'"):
        Predictor.from_models(speech, speech, extractor)
    with pytest.raises(UserError, match="kind 'image_cnn'"):
        Predictor.from_models(image, image, extractor)
    with pytest.raises(UserError, match="kind 'speech_cnn'"):
        Predictor.from_models(image, speech, speech)


def test_golden_requests_are_answered_as_stored(predictor):
    predictor.check_golden()


def test_an_answer_off_by_more_than_the_tolerance_fails_the_golden_check(tmp_path):
    parts, goldens = [tones.bundle() / part for part in PARTS], read_goldens(tones.bundle())
    goldens[0].expected["presence"][0] += 0.5e-4
    write_bundle(tmp_path / "near", *parts, about={}, goldens=goldens)
    Predictor.load(tmp_path / "near").check_golden()
    goldens[0].expected["presence"][0] += 2e-4
    write_bundle(tmp_path / "far", *parts, about={}, goldens=goldens)
    with pytest.raises(UserError, match="golden request 0: presence differs"):
        Predictor.load(tmp_path / "far").check_golden()


def test_a_bundle_without_golden_requests_cannot_vouch_for_itself(tmp_path):
    write_bundle(tmp_path / "bundle", *(tones.bundle() / part for part in PARTS), about={})
    with pytest.raises(UserError, match="no golden requests"):
        Predictor.load(tmp_path / "bundle").check_golden()


# Places


def places(frames: int, *words: tuple[int, float, float, float]) -> np.ndarray:
    """Places (4, frames) with a word for each centre, its probability and the frames to its start and end."""
    made = np.full((4, frames), 5.0, np.float32)
    made[[0, 3]] = 0.01
    for centre, *rest in words:
        made[:3, centre] = rest
    return made


def spans(places: np.ndarray, duration_s: float = 1.0, least: float = 0.3) -> list[tuple[float, float]]:
    return [(round(span.start_s, 4), round(span.end_s, 4)) for span in located(places, 0.01, duration_s, least)]


def test_a_word_lies_around_its_centre_and_is_as_sure_as_that():
    [found] = located(places(60, (20, 0.6, 8, 12.5)), 0.01, 1.0, 0.3)
    assert (found.start_s, found.end_s, found.score) == pytest.approx((0.12, 0.325, 0.6))


def test_a_word_said_twice_over_itself_is_found_twice():
    assert spans(places(60, (20, 0.6, 10, 10), (28, 0.9, 9, 10))) == [(0.1, 0.3), (0.19, 0.38)]


def test_of_two_centres_of_one_word_the_surer_stays():
    assert spans(places(60, (20, 0.6, 10, 10), (22, 0.9, 12, 9))) == [(0.1, 0.31)]


def test_what_is_too_unsure_or_too_short_is_no_word():
    assert spans(places(60, (20, 0.25, 10, 10), (40, 0.9, 1, 1))) == []


def test_of_a_word_that_is_present_the_surest_place_is_told_even_if_unsure():
    unsure, sure = Interval(0, 1, 0.1), Interval(2, 3, 0.2)
    assert told([unsure, sure], 0.15) == [sure]
    assert told([unsure, sure], 0.5) == [sure]
    assert told([unsure, sure], 0.05) == [unsure, sure]
    assert told([], 0.5) == []


def test_a_word_ends_where_the_recording_does():
    assert spans(places(16, (2, 0.9, 4, 5), (9, 0.9, 4, 9)), duration_s=0.1) == [(0.0, 0.07), (0.05, 0.1)]
    assert spans(places(11, (5, 0.9, 40, 40)), duration_s=0.1) == [(0.0, 0.1)]


def test_what_the_scores_within_a_span_say_makes_it_less_sure():
    heard = np.concatenate((places(16, (4, 0.9, 3, 3), (12, 0.8, 3, 3)), np.full((1, 16), -8.0, np.float32)))
    heard[4, 3:6] = 2.0
    [first, second] = located(heard, 0.01, 0.2, 0.0)
    present = 1 / (1 + np.exp(-np.logaddexp.reduce(4 * heard[4, 1:8].astype(float)) / 4))
    assert first.score == pytest.approx(0.9 * present)
    assert second.score < 0.01
    assert located(heard, 0.01, 0.2, 0.02) == [first]


def test_a_word_is_as_sure_as_its_own_stretch_and_every_threshold_has_its_place(predictor):
    card = predictor.cards["speech_extractor"]
    thresholds = [card[f"{name}_threshold"] for name in ("presence", "interval", "word")]
    assert len(set(thresholds)) == 3
    assert [predictor.presence_threshold, predictor._interval_threshold, predictor._word_threshold] == thresholds
    sound = tones.recording("across", "down", seconds=2.0, seed=3)
    [part] = predictor._separator.listen(predictor._sound([sound], tones.RATE_HZ))
    words = predictor.words(sound)
    assert [word.label for word in words] == ["across", "down"]
    for word in words:
        places = part.word_places[predictor.labels.index(word.label)]
        [heard] = located(places, predictor.hop_s, 2.0, thresholds[2])
        assert (word.start_s, word.end_s, word.probability) == (heard.start_s, heard.end_s, heard.score)
        assert word.probability < max(one.score for one in located(places[:4], predictor.hop_s, 2.0, thresholds[2]))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dark_on_light", [False, True])
def test_the_box_holds_the_ink_in_the_pictures_own_pixels(channels, dark_on_light):
    pixels = np.zeros((90, 140, channels), np.uint8)
    pixels[20:70, 30:50] = 200
    pixels[20:30, 30:95] = 180
    pixels[85, 135] = 255  # a speck
    pixels = 255 - pixels if dark_on_light else pixels
    assert ink_box(pixels) == (30, 20, 95, 70)


def test_ink_of_a_picture_too_large_to_search_is_boxed_in_its_own_pixels():
    pixels = np.zeros((900, 4000, 3), np.uint8)
    pixels[300:600, 1000:3000] = 200
    box = ink_box(pixels)
    assert box is not None
    assert np.abs(np.array(box) - (1000, 300, 3000, 600)).max() <= 4


def test_a_plain_picture_has_no_box_and_one_pixel_is_enough_of_a_picture():
    assert ink_box(np.full((20, 20, 1), 90, np.uint8)) is None
    assert ink_box(np.full((1, 1, 3), 255, np.uint8)) is None


def test_the_object_is_boxed_in_pixels_of_the_picture_as_given(predictor):
    small = tones.picture("down", 1)
    large = np.kron(small, np.ones((4, 4, 1), np.uint8))
    x0, y0, x1, y1 = predictor.classify_image(small).objects[0].box
    assert predictor.classify_image(large).objects[0].box == (4 * x0, 4 * y0, 4 * x1, 4 * y1)
