"""Measured facts say what is in a picture or recording, and a damaged one is a row that says so."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image, ImageFilter
from scipy.signal import butter, sosfilt
from sklearn.datasets import load_digits

from data_checks import facts
from data_checks.facts import measure_picture, measure_recording, measure_shards, picture_facts, recording_facts
from ml.config import UserError
from ml.media import encode_png, encode_wav

CHECKOUT = Path(__file__).resolve().parents[1]
RATE_HZ = 8000
DIGITS = np.kron(load_digits().images[:40].astype(np.uint8) * 15, np.ones((3, 3), np.uint8))  # (40, 24, 24)


def tone(seconds: float = 1.0, frequency_hz: float = 200.0, level: float = 0.5) -> np.ndarray:
    time_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return (level * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32)


def words(seed: int = 0) -> np.ndarray:
    """Three seconds in which a gated chord sounds and pauses."""
    chord = sum(tone(3, f, 0.1) for f in (200, 430, 910))
    gate = np.repeat(np.random.default_rng(seed).permutation([1, 1, 1, 0, 0, 0]), RATE_HZ // 2)
    return (chord * gate).astype(np.float32)


def shard(path, items, **columns) -> None:
    count = len(items)
    table = {"id": [f"item_{i}" for i in range(count)], "bytes": items, "label": ["a"] * count, "source": ["s"] * count}
    table |= {"split": [None] * count, "group": [None] * count} | columns
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = {"bytes": pa.binary()}
    pq.write_table(pa.table({k: pa.array(v, kinds.get(k, pa.string())) for k, v in table.items()}), path)


# Pictures


def test_half_black_half_white_has_brightness_a_half_contrast_a_half_and_one_bit():
    pixels = np.zeros((10, 20), np.uint8)
    pixels[:, 10:] = 255
    measured = picture_facts(pixels)
    assert (measured["brightness"], measured["contrast"], measured["information_bits"]) == (0.5, 0.5, 1.0)
    assert (measured["width_px"], measured["height_px"], measured["aspect"], measured["channels"]) == (20, 10, 2.0, 1)


def test_a_picture_of_one_grey_level_has_no_contrast_no_information_and_no_detail():
    measured = picture_facts(np.full((9, 9, 3), 77, np.uint8))
    assert (measured["contrast"], measured["information_bits"], measured["blur"]) == (0.0, 0.0, 1.0)


def test_blur_grows_with_every_blurring():
    picture = Image.fromarray(DIGITS[0])
    softened = [np.asarray(picture.filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 0.5, 1, 2, 4)]
    values = [picture_facts(pixels)["blur"] for pixels in softened]
    assert values == sorted(values)
    assert values[0] < values[-1] - 0.3


def test_the_difference_hash_ignores_brightness_and_sees_a_mirroring():
    assert picture_facts(DIGITS[3])["dhash"] == picture_facts(DIGITS[3] // 2)["dhash"]
    assert picture_facts(DIGITS[3])["dhash"] != picture_facts(DIGITS[3][:, ::-1])["dhash"]
    assert len(picture_facts(DIGITS[3])["dhash"]) == 16


def test_grey_stored_as_colour_measures_the_same():
    grey, colour = picture_facts(DIGITS[5]), picture_facts(np.repeat(DIGITS[5][:, :, None], 3, axis=2))
    assert {**grey, "channels": 3} == colour


def test_one_picture_measures_as_among_many():
    many = facts.stacked_picture_facts(DIGITS[..., None])
    assert many == [picture_facts(pixels) for pixels in DIGITS]


def test_a_large_picture_measures_like_its_small_original():
    small = np.kron(DIGITS[:6], np.ones((1, 20, 20), np.uint8))  # 480 px
    large = np.kron(small[0], np.ones((5, 5), np.uint8))  # 2400 px, averaged down by 3
    assert picture_facts(large)["brightness"] == pytest.approx(picture_facts(small[0])["brightness"], abs=0.01)
    assert picture_facts(large)["width_px"] == 2400


@settings(max_examples=60, deadline=None)
@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)))
def test_every_picture_measures_within_bounds(pixels):
    measured = picture_facts(pixels)
    assert 0 <= measured["brightness"] <= 1
    assert 0 <= measured["contrast"] <= 0.5
    assert 0 <= measured["blur"] <= 1
    assert 0 <= measured["information_bits"] <= 8


def test_agrees_with_plain_formulas():
    pixels = DIGITS[7].astype(float)
    shares = np.unique(DIGITS[7], return_counts=True)[1] / DIGITS[7].size
    measured = picture_facts(DIGITS[7])
    assert measured["contrast"] == pytest.approx(pixels.std() / 255, abs=1e-4)
    assert measured["information_bits"] == pytest.approx(-(shares * np.log2(shares)).sum(), abs=1e-4)


# Recordings


def test_a_sine_at_half_of_full_scale_peaks_at_minus_6_and_sounds_at_minus_9_decibels():
    measured = recording_facts(tone(), RATE_HZ)
    assert measured["peak_db"] == pytest.approx(-6.02, abs=0.01)
    assert measured["loudness_db"] == pytest.approx(-9.03, abs=0.05)
    assert measured["duration_s"] == 1.0
    assert (measured["clipping_share"], measured["silence_share"]) == (0.0, 0.0)


def test_an_offset_is_measured():
    assert recording_facts(tone() + 0.1, RATE_HZ)["dc_offset"] == pytest.approx(0.1, abs=1e-3)


def test_silence_is_counted_and_does_not_lower_the_loudness():
    half = np.concatenate([tone(0.5), np.zeros(RATE_HZ // 2, np.float32)])
    measured = recording_facts(half, RATE_HZ)
    assert measured["silence_share"] == 0.5
    assert measured["loudness_db"] == recording_facts(tone(0.5), RATE_HZ)["loudness_db"]


@pytest.mark.parametrize("gain", [1.0, 0.1])
def test_flat_tops_are_found_also_after_the_level_was_turned_down(gain):
    clipped = np.clip(4 * tone(), -1, 1) * np.float32(gain)
    assert recording_facts(clipped, RATE_HZ)["clipping_share"] > 0.3


def test_digital_silence_and_nothing_at_all_are_silent():
    for waveform in (np.zeros(RATE_HZ, np.float32), np.zeros(0, np.float32)):
        measured = recording_facts(waveform, RATE_HZ)
        assert measured["silence_share"] == 1.0
        assert measured["loudness_db"] == measured["peak_db"] == facts.SILENT_DB
    assert set(recording_facts(words(), RATE_HZ)) == set(recording_facts(np.zeros(0, np.float32), RATE_HZ))


def test_the_snr_falls_with_the_noise_and_is_near_the_true_one():
    clean, noise = words(), np.random.default_rng(1).normal(size=3 * RATE_HZ)
    found = []
    for true_db in (30, 20, 10, 0):
        scaled = noise / noise.std() * clean.std() * 10 ** (-true_db / 20)
        found.append(recording_facts(clean + scaled, RATE_HZ)["snr_db"])
        assert found[-1] == pytest.approx(true_db, abs=4)
    assert found == sorted(found, reverse=True)


def test_the_bandwidth_is_that_of_the_telephone():
    noise = np.random.default_rng(2).normal(size=3 * RATE_HZ) * 0.1
    telephone = sosfilt(butter(12, (300, 3400), "bandpass", fs=RATE_HZ, output="sos"), noise)
    assert recording_facts(noise, RATE_HZ)["bandwidth_hz"] == RATE_HZ / 2
    assert recording_facts(telephone, RATE_HZ)["bandwidth_hz"] < 3900


# Encoded items


def test_a_whole_wav_declares_what_it_holds():
    measured = measure_recording(encode_wav(tone(), RATE_HZ))
    assert measured["decodable"]
    assert measured["declared_samples"] == measured["decoded_samples"] == RATE_HZ
    assert (measured["sample_rate_hz"], measured["channels"], measured["format"]) == (RATE_HZ, 1, "WAV")


def test_a_wav_cut_in_half_declares_more_than_it_holds():
    whole = encode_wav(tone(), RATE_HZ)
    measured = measure_recording(whole[: len(whole) // 2])
    assert not measured["decodable"]
    assert "cut short" in measured["error"]
    assert measured["declared_samples"] == RATE_HZ
    assert measured["decoded_samples"] < RATE_HZ / 2


@pytest.mark.parametrize("measure", [measure_picture, measure_recording])
@pytest.mark.parametrize("content", [b"", b"neither", b"RIFF\x00\x00", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_picture_and_no_recording_is_a_row_with_a_reason_in_one_line(measure, content):
    measured = measure(content)
    assert measured["decodable"] is False
    assert measured["error"]
    assert "\n" not in measured["error"]
    assert "0x" not in measured["error"]  # no address of this run: the facts are the same on every machine


def test_the_same_picture_encoded_otherwise_has_the_same_content_and_another_digest():
    stored, deflated = encode_png(DIGITS[0]), io.BytesIO()
    Image.fromarray(DIGITS[0]).convert("RGB").save(deflated, "PNG")
    one, other = measure_picture(stored), measure_picture(deflated.getvalue())
    assert one["content_sha256"] == other["content_sha256"]
    assert one["sha256"] != other["sha256"]


# Shards


def test_every_row_of_every_shard_is_measured_in_order_whatever_its_size_or_state(tmp_path):
    pictures = [encode_png(pixels[: 24 - i % 5]) for i, pixels in enumerate(DIGITS)]
    pictures[7] = b"broken"
    shard(tmp_path / "raw" / "shard-00000.parquet", pictures[:25])
    shard(tmp_path / "raw" / "shard-00001.parquet", pictures[25:], id=[f"late_{i}" for i in range(15)])
    assert measure_shards(tmp_path / "raw", "images", tmp_path / "facts.parquet") == 40
    table = pq.read_table(tmp_path / "facts.parquet").to_pylist()
    assert [row["id"] for row in table] == [f"item_{i}" for i in range(25)] + [f"late_{i}" for i in range(15)]
    assert [row["shard"] for row in table[24:26]] == ["shard-00000.parquet", "shard-00001.parquet"]
    for i, row in enumerate(table):
        if i == 7:
            assert (row["decodable"], row["brightness"]) == (False, None)
        else:
            assert (row["height_px"], row["dhash"]) == (24 - i % 5, picture_facts(DIGITS[i][: 24 - i % 5])["dhash"])


def test_one_process_and_several_write_the_same_bytes(tmp_path, monkeypatch):
    clips = [encode_wav(tone(0.2, 100 + i), RATE_HZ) for i in range(60)]
    shard(tmp_path / "raw" / "shard-00000.parquet", clips)
    monkeypatch.setattr(facts, "BATCH_ROWS", 7)
    measure_shards(tmp_path / "raw", "audio", tmp_path / "one.parquet")
    monkeypatch.setattr(facts, "PARALLEL_FROM_ROWS", {"audio": 0})
    measure_shards(tmp_path / "raw", "audio", tmp_path / "several.parquet")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "several.parquet").read_bytes()


def test_a_folder_without_shards_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"raw: expected Parquet shards"):
        measure_shards(tmp_path / "raw", "audio", tmp_path / "facts.parquet")


def test_the_command_ends_with_one_line_where_raw_data_are_missing(tmp_path):
    command = [sys.executable, "-m", "data_checks.facts", "starter", "images"]
    environment = {**os.environ, "SEEHEAR_ROOT": str(tmp_path)}
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "expected Parquet shards" in done.stderr
