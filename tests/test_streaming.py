"""A recording of any length, a piece at a time, gets the answer that it gets as a whole."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import tones
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ml import media, spotting
from ml.config import UserError
from ml.extraction import Extractor
from ml.models import save_model
from ml.predictor import Interval, Predictor, Word, separating, streaming
from ml.predictor.separating import Separator
from ml.predictor.spans import SpanTracker, located, told
from ml.predictor.streaming import BLOCK_SAMPLES, TOLD_WITHIN_S, Sound, SurestStretch, of_length, pieces, resampled

RATE_HZ = tones.RATE_HZ
LABELS = ("a", "b", "c")


@pytest.fixture(scope="module")
def predictor():
    return Predictor.load(tones.bundle())


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of 37 frames, and nothing kept in memory."""
    monkeypatch.setattr(separating, "PIECE_FRAMES", 37)
    monkeypatch.setattr(streaming, "WHOLE_S", 0.0)
    monkeypatch.setattr(streaming, "BLOCK_SAMPLES", 3000)


def cut(waveform: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """The waveform in blocks of these sizes, over and over."""
    blocks = []
    while len(waveform):
        size = sizes[len(blocks) % len(sizes)]
        blocks.append(waveform[:size])
        waveform = waveform[size:]
    return blocks


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


# Pieces and rates

sizes = st.lists(st.integers(1, 50), min_size=1, max_size=4)


@settings(max_examples=150)
@given(st.integers(0, 200), sizes, st.integers(1, 30), st.integers(0, 20))
def test_pieces_hold_every_sample_once_with_what_lies_around_it(samples, blocks, own, context):
    whole = np.arange(samples, dtype=np.float32)
    found = list(pieces(cut(whole, blocks), own, context))
    assert [piece.last for piece in found] == [False] * (len(found) - 1) + [True]
    assert [piece.start for piece in found] == [own * i for i in range(len(found))]
    for piece in found:
        around = slice(max(0, piece.start - context), piece.start + piece.own + (0 if piece.last else context))
        np.testing.assert_array_equal(piece.samples, whole[around])
        assert piece.before == piece.start - around.start
    assert sum(piece.own for piece in found) == samples


@pytest.mark.parametrize(
    ("from_hz", "to_hz"), [(44100, 8000), (8000, 44100), (11025, 8000), (8000, 16000), (48000, 8000), (8000, 8001)]
)
@pytest.mark.parametrize("samples", [1, 500, 60_001])
def test_resampling_in_blocks_equals_resampling_the_whole(monkeypatch, from_hz, to_hz, samples):
    monkeypatch.setattr(streaming, "BLOCK_SAMPLES", 3000)
    whole = noise(samples)
    blocks = list(resampled(cut(whole, [4999, 1, 777]), from_hz, to_hz))
    assert samples < 60_000 or len(blocks) > 3 or to_hz == 8001
    np.testing.assert_allclose(np.concatenate(blocks), media.resample(whole, from_hz, to_hz), atol=1e-7)


@pytest.mark.parametrize("from_hz", [1, 7, 100])
def test_a_recording_of_few_samples_a_second_is_resampled_in_blocks_as_well(from_hz):
    blocks = list(resampled([noise(BLOCK_SAMPLES * 3 * from_hz // 8000 + 50)], from_hz, 8000))
    assert len(blocks) > 2
    assert max(map(len, blocks)) <= 2 * BLOCK_SAMPLES


@given(sizes, st.integers(0, 300), st.integers(0, 300))
def test_a_recording_is_cut_or_filled_to_length(blocks, samples, wanted):
    whole = noise(samples)
    found = np.concatenate([np.zeros(0), *of_length(cut(whole, blocks), wanted)])
    np.testing.assert_array_equal(found, np.pad(whole[:wanted], (0, max(0, wanted - samples))).astype(np.float32))


# Intervals

shares = st.sampled_from([0.0, 0.1, 0.3, 0.6, 1.0])
frames = st.tuples(shares, st.integers(0, 15), st.integers(0, 15), shares, st.sampled_from([-9.0, 0.0, 2.0]))


@settings(max_examples=300)
@given(st.lists(frames, min_size=1, max_size=120), sizes, st.sampled_from([4, 5]))
def test_intervals_are_the_same_however_the_places_are_cut(given_frames, blocks, rows):
    whole = np.array(given_frames, np.float32).T[:rows]
    duration_s = 0.01 * (whole.shape[1] - 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spotting, "CONTEXT_FRAMES", 19)  # 15 and the reach of an edge, and one
        tracker, found = SpanTracker(0.01, duration_s, 0.2), []
        for part in cut(whole.T, blocks):
            settled_s = tracker.settled_s
            closed = tracker.feed(part.T)
            assert all(span.start_s >= settled_s for span in closed)
            found += closed
        found += tracker.finish()
    assert_same_spans(found, located(whole, 0.01, duration_s, 0.2))
    assert all(0 <= span.start_s < span.end_s <= duration_s for span in found)


def test_an_interval_is_reported_as_soon_as_no_other_can_overlap_it(monkeypatch):
    monkeypatch.setattr(spotting, "CONTEXT_FRAMES", 14)
    tracker, quiet = SpanTracker(0.01, 9.0, 0.2), np.tile(np.array([[0.0], [4.0], [6.0], [0.0]], np.float32), 24)
    spoken = quiet.copy()
    spoken[0, 8] = 0.9
    assert tracker.feed(spoken) == []
    assert tracker.settled_s == pytest.approx(0)
    assert tracker.feed(quiet[:, :17]) == []
    assert tracker.settled_s == pytest.approx(0.04)
    [found] = tracker.feed(quiet[:, :1])
    assert (found.start_s, found.end_s) == pytest.approx((0.04, 0.14))
    assert tracker.settled_s == pytest.approx(0.14)


@pytest.mark.parametrize("block", [1, 160, 7001])
def test_the_surest_stretch_is_the_end_of_the_surest_interval(block):
    whole, rate_hz = np.arange(30_000, dtype=np.float32), 1000
    spans = [Interval(1.0, 2.0, 0.7), Interval(3.0, 12.0, 0.9), Interval(20.0, 20.5, 0.8)]
    surest, longest = SurestStretch(rate_hz), 0
    for start in range(0, len(whole), block):
        end = min(start + block, len(whole))
        closed = [span for span in spans if start < rate_hz * span.end_s <= end]
        opened = [span.start_s for span in spans if rate_hz * span.start_s <= end < rate_hz * span.end_s]
        surest.feed(whole[start:end], closed, min([end / rate_hz, *opened]))
        longest = max(longest, len(surest._recent))
    np.testing.assert_array_equal(surest.samples, whole[7000:12000])
    assert longest <= 9000


@pytest.mark.parametrize("block", [7, 250, 2048])
def test_the_surest_word_is_held_until_it_is_told(block):
    """Words of half a second all along a recording; wherever a piece ends, the sound of the surest one is whole."""
    rng, hop, frames_there = np.random.default_rng(block), 128, 3000
    places = np.zeros((4, frames_there), np.float32)
    centres = np.arange(40, frames_there - 40, 37)
    places[0, centres], places[1:3] = rng.uniform(0.3, 0.4, len(centres)), 15
    whole = np.arange(frames_there * hop, dtype=np.float32)
    for surest_at in centres[::6]:
        spoken = places.copy()
        spoken[0, surest_at] = 0.9
        tracker, surest = SpanTracker(hop / RATE_HZ, 1e9, 0.2), SurestStretch(RATE_HZ)
        for start in range(0, frames_there, block):
            part, last = spoken[:, start : start + block], start + block >= frames_there
            closed = tracker.feed(part) + (tracker.finish() if last else [])
            surest.feed(whole[start * hop : (start + block) * hop], closed, tracker.settled_s)
        np.testing.assert_array_equal(surest.samples, whole[(surest_at - 15) * hop : (surest_at + 15) * hop])


# The models


def test_an_extractor_without_a_threshold_is_refused(tmp_path):
    arguments = {"labels": list(LABELS), "sample_rate_hz": RATE_HZ, "channels": 12, "blocks": 2}
    card = {"kind": "speech_extractor", "arguments": arguments, "presence_threshold": 0.5, "word_threshold": 0.5}
    save_model(tmp_path / "old", Extractor(**arguments), card)
    with pytest.raises(UserError, match="old: has no interval_threshold, so other code than this made it; train it"):
        Separator(tmp_path / "old", "cpu")


@pytest.mark.parametrize("extra", [0, 1, 100])
def test_deep_extractors_answer_by_pieces_as_on_the_whole(tmp_path, monkeypatch, extra):
    monkeypatch.setattr(streaming, "BLOCK_SAMPLES", 3000)
    torch.manual_seed(3)
    body = {"channels": 12, "blocks": 8, "extracting_blocks": 6, "looks": 3, "others": 1}
    model = Extractor(LABELS, RATE_HZ, **body).eval()
    with torch.no_grad():  # so far from the identity that the farthest frames matter
        for block in (*model.listening, *model.extracting):
            block.mix.weight.mul_(5)
            block.convolve.weight.mul_(2)
    card: dict = {"kind": "speech_extractor", **dict.fromkeys(separating.THRESHOLDS, 0.5)}
    card["arguments"] = {"labels": list(LABELS), "sample_rate_hz": RATE_HZ, **body}
    save_model(tmp_path / "extractor", model, card)
    mixture = noise(4 * RATE_HZ + extra) * np.linspace(0.01, 3, 4 * RATE_HZ + extra, dtype=np.float32)
    query = np.array([0.7, 0.2, 0.05], np.float32)
    separator = Separator(tmp_path / "extractor", "cpu")
    whole = separator.separate(mixture[None], query[None])
    monkeypatch.setattr(separating, "PIECE_FRAMES", 37)
    sound = Sound(cut(mixture, [999, 5000]), RATE_HZ, RATE_HZ, separator.window_samples)
    parts = list(separator.stream(sound, query))
    assert len(parts) > 5
    np.testing.assert_allclose(np.concatenate([part.estimate for part in parts]), whole.estimates[0], atol=2e-6)
    places = np.concatenate([part.places for part in parts], axis=1)
    np.testing.assert_allclose(places, whole.places[0], rtol=1e-4, atol=1e-5)
    assert parts[-1].presence == pytest.approx(whole.presence[0], abs=1e-5)
    heard = list(separator.listen(sound))
    assert len(heard) == len(parts)
    for alone, beside in zip(heard, parts, strict=True):
        assert np.array_equal(alone.word_places, beside.word_places), "whatever is asked for"
        assert np.array_equal(alone.word_presence, beside.word_presence)


@pytest.mark.parametrize(("rate_hz", "samples"), [(8000, 32_000), (8000, 31_337), (11025, 50_001), (44100, 180_000)])
def test_an_extraction_by_pieces_equals_that_of_the_whole(predictor, small_pieces, rate_hz, samples):
    spoken = media.resample(tones.recording("down", "across", "down", "slanted", seconds=3, seed=4), RATE_HZ, rate_hz)
    whole = np.pad(spoken, (0, max(0, samples - len(spoken))))[:samples]
    picture = predictor.classify_image(tones.picture("down", 1))
    written: list[np.ndarray] = []
    found = predictor.extract_stream(picture, cut(whole, [4000, 65536, 1]), rate_hz, written.append)
    sound = media.resample(whole, rate_hz, RATE_HZ)
    query = np.array([[picture.probabilities[label] for label in predictor.labels]], np.float32)
    once = predictor.separate(sound[None], query)
    assert len(written) > 2
    np.testing.assert_allclose(np.concatenate(written), once.estimates[0], atol=1e-5)
    assert found.presence == pytest.approx(once.presence[0], abs=1e-5)
    expected = predictor.intervals(once.places[0], samples / rate_hz)
    assert len(expected) == 2
    assert_same_spans(found.intervals, expected)
    [heard] = predictor.heard(once.estimates, [expected])
    assert (found.heard.label, found.duration_s) == (heard.label, samples / rate_hz)
    assert found.heard.probability == pytest.approx(heard.probability, abs=1e-4)
    estimate = np.concatenate(list(predictor.restored(written, rate_hz, samples)))
    expected_sound = media.resample(once.estimates[0], RATE_HZ, rate_hz)[:samples]
    np.testing.assert_allclose(estimate[: len(expected_sound)], expected_sound, atol=1e-5)
    assert len(estimate) == samples


def assert_same_spans(found: list, expected: list) -> None:
    for edge in ("start_s", "end_s"):
        assert [getattr(span, edge) for span in found] == pytest.approx([getattr(s, edge) for s in expected], abs=1e-4)
    sure = [[one.probability if isinstance(one, Word) else one.score for one in spans] for spans in (found, expected)]
    assert sure[0] == pytest.approx(sure[1], abs=1e-4)


def test_a_recording_in_one_block_is_answered_like_one_in_many(predictor, monkeypatch):
    recording, picture = tones.recording("across", "down", seconds=3, seed=8), tones.picture("across", 2)
    whole = predictor.extract(picture, recording, RATE_HZ)
    words = predictor.recognize_speech(recording, RATE_HZ)
    monkeypatch.setattr(separating, "PIECE_FRAMES", 23)
    pieced = predictor.extract(picture, recording, RATE_HZ)
    np.testing.assert_allclose(pieced.estimate, whole.estimate, atol=1e-5)
    assert_same_spans(pieced.intervals, whole.intervals)
    again = predictor.recognize_stream(cut(recording, [321]), RATE_HZ)
    assert [word.label for word in again.words] == [word.label for word in words.words] == ["across", "down"]
    assert_same_spans(again.words, words.words)
    assert again.probabilities == pytest.approx(words.probabilities, abs=1e-5)


def test_more_than_a_minute_is_named_by_its_surest_word(predictor):
    recording = np.pad(tones.recording("slanted", seed=1), (61 * RATE_HZ, 3 * RATE_HZ))
    spoken = predictor.recognize_stream(cut(recording, [65536]), RATE_HZ)
    assert spoken.label == "slanted"
    [word] = spoken.words
    assert word.start_s == pytest.approx(61.2, abs=0.05)
    nothing = predictor.recognize_stream([noise(61 * RATE_HZ) / 1000], RATE_HZ)
    assert (nothing.label, nothing.words) == (None, [])
    assert list(nothing.probabilities.values()) == pytest.approx([1 / 3] * 3)


# Files


def test_a_recording_on_disk_is_read_block_by_block_as_it_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("ml.media.recordings.BLOCK_SAMPLES", 1000)
    stereo = np.stack([noise(9001, 1), noise(9001, 2)], axis=1)
    soundfile.write(tmp_path / "in.flac", stereo, 11025, subtype="PCM_16")
    recording = media.RecordingFile(tmp_path / "in.flac")
    whole, rate_hz = media.decode_recording(tmp_path / "in.flac")
    assert (recording.rate_hz, recording.samples) == (rate_hz, len(whole)) == (11025, 9001)
    for _ in range(2):
        blocks = list(recording)
        assert len(blocks) > 10
        np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_what_only_reading_shows_is_refused_when_it_is_reached(tmp_path):
    sound = noise(200_000)
    sound[150_000] = np.inf
    soundfile.write(tmp_path / "in.wav", sound, 8000, subtype="FLOAT")
    blocks = iter(media.RecordingFile(tmp_path / "in.wav"))
    assert np.isfinite(next(blocks)).all()
    with pytest.raises(UserError, match=r"in\.wav: holds samples that are not finite"):
        list(blocks)


@pytest.mark.parametrize(("samples", "form"), [(2**31 - 100, "WAV"), (2**31, "RF64")])
def test_a_sound_of_more_than_4_gb_has_a_header_that_can_say_so(tmp_path, samples, form):
    with (tmp_path / "long.wav").open("wb") as file:
        header = media.wav_header(samples, 8000, "PCM_16")
        file.write(header)
        file.truncate(len(header) + 2 * samples)  # a sparse file: no disk is used
    found = soundfile.info(tmp_path / "long.wav")
    assert (found.format, found.frames, found.samplerate, found.channels) == (form, samples, 8000, 1)


# Input that is hard or wrong


def test_an_absent_word_and_silence_are_absent_by_pieces_too(predictor, small_pieces):
    picture = predictor.classify_image(tones.picture("down", 3))
    for recording in (tones.recording("across", seconds=3), np.zeros(3 * RATE_HZ, np.float32)):
        found = predictor.extract_stream(picture, cut(recording, [5000]), RATE_HZ)
        assert (found.present, found.intervals, found.heard) == (False, [], None)
    unknown = predictor.classify_image(tones.picture(None, 3))
    assert predictor.extract_stream(unknown, [tones.recording("down")], RATE_HZ).presence == 0


def test_a_clipped_recording_still_says_its_word(predictor, small_pieces):
    clipped = np.clip(20 * tones.recording("down", seed=1), -1, 1)
    found = predictor.extract_stream(predictor.classify_image(tones.picture("down")), cut(clipped, [900]), RATE_HZ)
    assert found.present


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ([], "at least one sample"),
        ([np.zeros(0, np.float32)], "at least one sample"),
        ([np.zeros(9000, np.float32), np.array([0.1, np.nan], np.float32)], "finite"),
        ([np.zeros(9000, np.float32), np.array([0.1, 1e20], np.float32)], "finite"),
        ([np.array([0.1, 1e300])], "finite"),
        ([np.zeros(9000, np.float32), np.zeros((4, 2), np.float32)], "one channel"),
    ],
)
def test_blocks_that_cannot_be_judged_are_refused(predictor, small_pieces, blocks, said):
    with pytest.raises(UserError, match=said):
        predictor.recognize_stream(blocks, RATE_HZ)


def test_blocks_that_come_only_once_are_refused(predictor, small_pieces):
    once = iter(cut(tones.recording("down"), [3000]))
    with pytest.raises(UserError, match="at least one sample"):
        predictor.recognize_stream(once, RATE_HZ)


def test_a_recording_that_grows_while_it_is_read_is_refused(predictor, small_pieces):
    class Growing(list):
        def __iter__(self):
            self.append(noise(4000))
            return super().__iter__()

    with pytest.raises(UserError, match="changed meanwhile"):
        predictor.recognize_stream(Growing([noise(9000)]), RATE_HZ)


def test_a_word_among_faint_ones_that_overlap_without_end_is_told_soon_after_it():
    places = np.zeros((4, 3000), np.float32)
    places[:, 5::6] = np.array([[0.03], [10], [10], [0]])
    places[0, 605] = 0.9
    tracker, told_at, held = SpanTracker(0.016, 48.0, 0.02), None, 0
    for frame in range(0, 3000, 20):
        closed = tracker.feed(places[:, frame : frame + 20])
        held = max(held, len(tracker._near))
        if any(span.score > 0.5 for span in closed):
            told_at = frame
    assert told_at is not None
    assert (told_at - 605) * 0.016 < TOLD_WITHIN_S
    assert held < 60
    (whole,) = told(located(places, 0.016, 48.0, 0.02), 0.5)
    assert (whole.start_s, whole.end_s, whole.score) == pytest.approx((9.52, 9.84, 0.9))
