"""Measured facts say what is in a picture or recording, and a damaged one is a row that says so."""

import io
import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import faults
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image, ImageFilter
from scipy.signal import butter, resample_poly, sosfilt
from sklearn.datasets import load_digits, load_sample_image

from data_checks import facts
from data_checks.expectations import outliers
from data_checks.facts import measure_picture, measure_recording, measure_shards, picture_facts, recording_facts, shards
from ml import workers
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


def write_shard(path, items, **columns) -> None:
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


def test_sharpness_is_one_for_a_hard_edge_whatever_its_contrast_and_falls_with_every_blurring():
    edge = np.zeros((20, 20), np.uint8)
    edge[:, 10:] = 200
    assert picture_facts(edge)["sharpness"] == picture_facts(edge // 4 + 60)["sharpness"] == 1.0
    softened = [np.asarray(Image.fromarray(DIGITS[0]).filter(ImageFilter.GaussianBlur(r))) for r in (0, 1, 2, 4)]
    values = [picture_facts(pixels)["sharpness"] for pixels in softened]
    assert values == sorted(values, reverse=True)
    assert picture_facts(np.full((9, 9), 7, np.uint8))["sharpness"] == 0.0


def test_what_is_lost_in_black_and_white_is_counted():
    pixels = np.full((10, 10), 128, np.uint8)
    pixels[:2], pixels[2:5] = 0, 255
    measured = picture_facts(pixels)
    assert (measured["dark_share"], measured["bright_share"]) == (0.2, 0.3)


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


def test_a_sound_of_half_the_rate_leaves_the_upper_half_of_its_band_empty():
    noise = np.random.default_rng(3).normal(size=RATE_HZ) * 0.1
    upsampled = resample_poly(resample_poly(noise, 1, 2), 2, 1)
    assert recording_facts(upsampled, RATE_HZ)["bandwidth_hz"] < 0.6 * RATE_HZ / 2
    quiet = np.rint(upsampled * 0.01 * 32768) / 32768  # rounding noise fills the band, and does not count
    assert recording_facts(quiet, RATE_HZ)["bandwidth_hz"] < 0.6 * RATE_HZ / 2


def test_noise_is_flat_and_a_chord_is_not():
    noise = np.random.default_rng(4).normal(size=RATE_HZ)
    assert recording_facts(noise, RATE_HZ)["flatness_db"] > -7
    assert recording_facts(words(), RATE_HZ)["flatness_db"] < -30
    drowned = words() + np.random.default_rng(5).normal(size=3 * RATE_HZ) * words().std()
    assert recording_facts(drowned, RATE_HZ)["flatness_db"] > -12


# Encoded items


def stereo(left: np.ndarray, right: np.ndarray) -> dict:
    stream = io.BytesIO()
    soundfile.write(stream, np.stack([left, right], axis=1), RATE_HZ, format="WAV")
    return measure_recording(stream.getvalue())


def test_a_dead_and_an_inverted_channel_are_told_from_a_sound_pair():
    sound = words()
    alike, dead, inverted = stereo(sound, 0.5 * sound), stereo(sound, 0 * sound), stereo(sound, -sound)
    assert alike["channel_balance_db"] == pytest.approx(-6, abs=0.1)
    assert alike["channel_correlation"] == pytest.approx(1, abs=1e-3)
    assert dead["channel_balance_db"] == facts.SILENT_DB
    assert inverted["channel_correlation"] == pytest.approx(-1, abs=1e-3)
    assert "channel_balance_db" not in measure_recording(encode_wav(sound, RATE_HZ))  # one channel agrees with itself


def test_every_byte_that_is_changed_in_a_png_is_noticed():
    stored, deflated = encode_png(DIGITS[0][:8, :8]), io.BytesIO()
    Image.fromarray(DIGITS[0]).save(deflated, "PNG")
    for whole in (stored, deflated.getvalue()):
        assert measure_picture(whole)["decodable"]
        for place in range(len(whole)):
            spoilt = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
            assert not measure_picture(spoilt)["decodable"], place


def test_every_byte_that_is_changed_in_the_header_of_a_wav_is_noticed():
    whole = encode_wav(tone(0.05), RATE_HZ)
    for place in range(44):
        for change in (0x01, 0x55, 0x80):
            spoilt = whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :]
            assert not measure_recording(spoilt)["decodable"], (place, change)


def photograph(quality: int, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(load_sample_image("china.jpg")[100:220, 200:360]).save(stream, "JPEG", quality=quality, **options)
    return stream.getvalue()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}, {"subsampling": 0}])
def test_a_sound_jpeg_is_taken_for_one_at_any_quality(options):
    for quality in (20, 60, 95):
        measured = measure_picture(photograph(quality, **options))
        assert (measured["decodable"], measured["bytes_after_end"]) == (True, 0), measured["error"]


def test_a_jpeg_whose_codes_do_not_add_up_to_its_picture_is_damaged_though_it_can_be_decoded():
    whole = photograph(90)
    middle = len(whole) // 2
    doubled = whole[:-2] + whole[middle:-2] + whole[-2:]
    halved = whole[:middle] + whole[-2:]
    assert "go on after its picture" in measure_picture(doubled)["error"]
    assert not measure_picture(halved)["decodable"]
    rng, found = np.random.default_rng(0), 0
    for _ in range(20):
        at = int(rng.integers(middle, len(whole) - 600))
        found += not measure_picture(whole[:at] + rng.bytes(512) + whole[at + 512 :])["decodable"]
    assert found >= 19


def test_every_length_short_of_the_whole_is_noticed():
    stream = io.BytesIO()
    Image.fromarray(DIGITS[0]).save(stream, "JPEG")
    for measure, whole in (
        (measure_picture, encode_png(DIGITS[0][:8, :8])),
        (measure_picture, stream.getvalue()),
        (measure_recording, encode_wav(tone(0.01), RATE_HZ)),
    ):
        assert measure(whole)["decodable"]
        for length in range(0, len(whole), 1 if len(whole) < 300 else 7):
            assert not measure(whole[:length])["decodable"], length


@pytest.mark.parametrize("measure", [measure_picture, measure_recording])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_the_bytes_are_there_is_a_row(measure, data):
    starts = (
        b"",
        b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"RIFF\xff\0\0\0WAVEfmt ",
        b"OggS",
        b"fLaC",
        b"II*\0",
    )
    content = data.draw(st.sampled_from(starts)) + data.draw(st.binary(max_size=200))
    measured = measure(content)
    assert measured["size_bytes"] == len(content)
    assert measured["decodable"] or len(measured["error"].splitlines()) == 1


def test_what_stands_behind_the_end_is_counted():
    for measure, whole in ((measure_picture, encode_png(DIGITS[0])), (measure_recording, encode_wav(tone(), RATE_HZ))):
        assert measure(whole)["bytes_after_end"] == 0
        assert measure(whole + bytes(100))["bytes_after_end"] == 100


def test_a_whole_wav_says_what_it_is():
    measured = measure_recording(encode_wav(tone(), RATE_HZ))
    assert measured["decodable"]
    assert (measured["sample_rate_hz"], measured["channels"], measured["format"]) == (RATE_HZ, 1, "WAV")


def test_a_recording_cut_in_half_is_a_row_with_a_reason():
    flac = io.BytesIO()
    soundfile.write(flac, tone(), RATE_HZ, format="FLAC")
    for whole in (encode_wav(tone(), RATE_HZ), flac.getvalue()):
        measured = measure_recording(whole[: len(whole) // 2])
        assert not measured["decodable"]
        assert "cut short" in measured["error"] or "cannot be decoded" in measured["error"]


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


# What is built to do harm


def peak_bytes(measure, content: bytes) -> tuple[dict, int]:
    """What is measured, and the most memory that took, as Python and NumPy allocate it."""
    tracemalloc.start()
    try:
        return measure(content), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_small_picture_that_unpacks_to_many_megabytes_is_a_row_with_a_reason():
    stream = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(stream, "PNG")
    measured, peak = peak_bytes(measure_picture, stream.getvalue())
    assert len(stream.getvalue()) < 100_000
    assert "9000 x 9000 pixels, expected at most 25 megapixels" in measured["error"]
    assert peak < 20 << 20


def test_a_wav_that_declares_four_gigabytes_is_a_row_with_a_reason():
    whole = encode_wav(tone(), RATE_HZ)
    for size in (0xFFFFFFFF, 0xFFFF0000, 0x7FFFFFFF):
        claim = struct.pack("<I", size)
        measured, peak = peak_bytes(measure_recording, whole[:4] + claim + whole[8:40] + claim + whole[44:])
        assert not measured["decodable"]
        assert "are there" in measured["error"] or "cut short" in measured["error"]
        assert peak < 20 << 20


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_a_row_with_a_reason(value):
    spoilt = tone()
    spoilt[100] = value
    assert "not finite" in measure_recording(encode_wav(spoilt, RATE_HZ, "FLOAT"))["error"]


def test_a_png_of_three_gigapixels_is_a_row_with_a_reason():
    bomb = faults.bomb(np.random.default_rng(0))
    measured, peak = peak_bytes(measure_picture, bomb)
    assert "decompression bomb" in measured["error"]
    assert peak < 20 << 20


def test_two_hours_are_measured_in_bounded_memory():
    stream = io.BytesIO()
    with soundfile.SoundFile(stream, "w", 16_000, 1, format="FLAC", subtype="PCM_16") as file:
        for _ in range(120):
            file.write(np.zeros(60 * 16_000, np.int16))
    measured, peak = peak_bytes(measure_recording, stream.getvalue())
    assert "longer than the 180 s that are allowed" in measured["error"]
    assert peak < 64 << 20  # the whole would be 460 MB


# Beside the others of the set


def test_a_deviation_is_counted_in_spreads_of_its_own_side_and_never_less_than_the_floor():
    values = pd.Series([*range(41), 400.0, None])  # 41 items from 0 to 40: median 20, quartiles 10 and 30
    found = outliers.deviations(values, floor=0.1)
    assert found[20] == pytest.approx(0, abs=0.06)
    assert found[40] == pytest.approx(20 / (10 * 1.4826), rel=0.1)
    assert found[41] > 20
    assert np.isnan(found[42])
    assert outliers.deviations(values, floor=1000.0).max() < 1
    assert outliers.deviations(values[:20], floor=0.1).isna().all()


def test_a_quarter_of_faulty_items_does_not_hide_them():
    clean = pd.Series(np.random.default_rng(0).normal(0, 1, 300))
    mixed = pd.concat([clean, pd.Series([-50.0] * 70)], ignore_index=True)
    found = outliers.deviations(mixed, floor=0.1)
    assert (found[300:] < -5).all()
    assert (found[:300].abs() < 5).all()


def test_a_rate_is_unusual_only_beside_one_that_nearly_all_have():
    rates = pd.DataFrame({"sample_rate_hz": [8000] * 38 + [16000] * 2})
    assert outliers.with_outliers(rates)["unusual_rate"].sum() == 2
    assert outliers.with_outliers(pd.DataFrame({"sample_rate_hz": [8000, 16000] * 20}))["unusual_rate"].sum() == 0


# Shards


def test_every_row_of_every_shard_is_measured_in_order_whatever_its_size_or_state(tmp_path):
    pictures = [encode_png(pixels[: 24 - i % 5]) for i, pixels in enumerate(DIGITS)]
    pictures[7] = b"broken"
    write_shard(tmp_path / "raw" / "shard-00000.parquet", pictures[:25])
    write_shard(tmp_path / "raw" / "shard-00001.parquet", pictures[25:], id=[f"late_{i}" for i in range(15)])
    assert measure_shards(tmp_path / "raw", "images", tmp_path / "facts.parquet") == 40
    table = pq.read_table(tmp_path / "facts.parquet").to_pylist()
    assert [row["id"] for row in table] == [f"item_{i}" for i in range(25)] + [f"late_{i}" for i in range(15)]
    assert [row["shard"] for row in table[24:26]] == ["shard-00000.parquet", "shard-00001.parquet"]
    for i, row in enumerate(table):
        if i == 7:
            assert (row["decodable"], row["brightness"]) == (False, None)
        else:
            assert (row["height_px"], row["blur"]) == (24 - i % 5, picture_facts(DIGITS[i][: 24 - i % 5])["blur"])


def test_one_process_and_several_write_the_same_bytes(tmp_path, monkeypatch):
    clips = [encode_wav(tone(0.2, 100 + i), RATE_HZ) for i in range(60)]
    write_shard(tmp_path / "raw" / "shard-00000.parquet", clips)
    monkeypatch.setattr(shards, "BATCH_ROWS", 7)
    measure_shards(tmp_path / "raw", "audio", tmp_path / "one.parquet")
    monkeypatch.setattr(workers, "PROCESSES_FROM_S", 0.0)
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
