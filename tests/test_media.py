"""Decoding, encoding, resizing and resampling."""

import hashlib
import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from scipy.signal import resample_poly

from ml import media
from ml.config import UserError

PICTURES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3])).flatmap(
    lambda shape: arrays.arrays(np.uint8, shape)
)


def saved(picture: Image.Image, form: str, **options) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def recorded(samples: np.ndarray, rate_hz: int = 8000, form: str = "WAV", subtype: str | None = None) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate_hz, format=form, subtype=subtype)
    return out.getvalue()


def tone(seconds: float = 0.5, rate_hz: int = 8000, hz: float = 440) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate_hz)) / rate_hz)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(PICTURES)
def test_a_picture_encoded_and_decoded_is_the_same(pixels):
    assert np.array_equal(media.decode_picture(media.encode_png(pixels)), pixels)


def test_a_large_png_of_many_stored_blocks_is_read_by_pillow():
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(media.encode_png(pixels)))), pixels)


def test_a_png_has_the_same_bytes_on_every_machine():
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    digest = hashlib.sha256(media.encode_png(pixels)).hexdigest()
    assert digest == "b0eb4945328da0f6a155a9246905713af8277632e60ed7ee9bca9bcdf82977de"


def test_a_grey_picture_has_one_channel_and_a_colour_picture_three():
    assert media.decode_picture(saved(Image.new("L", (4, 3), 7), "PNG")).shape == (3, 4, 1)
    assert media.decode_picture(saved(Image.new("RGB", (4, 3), (1, 2, 3)), "BMP")).shape == (3, 4, 3)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_common_formats_are_decoded(form):
    picture = Image.new("RGB", (16, 12), (200, 100, 50))
    pixels = media.decode_picture(saved(picture, form))
    assert pixels.shape == (12, 16, 3)
    assert np.abs(pixels.astype(int) - (200, 100, 50)).max() < 12


def test_a_picture_is_turned_upright_as_exif_says():
    lying = Image.new("L", (4, 2))
    lying.putpixel((0, 0), 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    upright = media.decode_picture(saved(lying, "PNG", exif=exif))
    assert upright.shape == (4, 2, 1)
    assert upright[0, 1, 0] == 255


def test_transparency_is_laid_on_black():
    half = Image.new("RGBA", (2, 1), (255, 255, 255, 0))
    half.putpixel((1, 0), (255, 255, 255, 255))
    assert media.decode_picture(saved(half, "PNG"))[0].tolist() == [[0, 0, 0], [255, 255, 255]]
    grey = Image.new("LA", (1, 1), (255, 0))
    assert media.decode_picture(saved(grey, "PNG")).tolist() == [[[0]]]


def test_dark_ink_on_a_transparent_ground_is_laid_on_white():
    ink = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    ink.putpixel((1, 0), (0, 0, 0, 255))
    ink.putpixel((2, 0), (255, 255, 255, 60))  # a faint light edge
    assert media.decode_picture(saved(ink, "PNG"))[0].tolist() == [[255] * 3, [0] * 3, [255] * 3]
    grey = Image.new("LA", (2, 1), (0, 0))
    grey.putpixel((1, 0), (20, 255))
    assert media.decode_picture(saved(grey, "PNG")).tolist() == [[[255], [20]]]


def test_an_opaque_picture_with_an_alpha_channel_is_as_without():
    dark = Image.new("RGB", (8, 8), (40, 30, 20))
    opaque = media.decode_picture(saved(dark.convert("RGBA"), "PNG"))
    assert np.array_equal(opaque, media.decode_picture(saved(dark, "PNG")))


def test_sixteen_bit_grey_is_scaled_to_eight():
    deep = Image.fromarray(np.array([[0, 257, 65535]], np.uint16))
    assert media.decode_picture(saved(deep, "PNG"))[..., 0].tolist() == [[0, 1, 255]]


def test_a_whole_picture_is_read_whatever_stands_where_its_exif_should():
    tagged = saved(Image.new("RGB", (4, 2), (200, 100, 50)), "PNG", exif=b"Exif\0\0garbage")
    assert media.decode_picture(tagged)[1, 3].tolist() == [200, 100, 50]


def test_grey_is_the_luminance_of_a_colour():
    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]], np.uint8)
    assert media.grey(pixels).tolist() == [[[76], [150], [29], [9]]]


def test_a_program_is_no_picture():
    with pytest.raises(UserError, match=r"^cat: EPS is a program, not a picture; expected PNG"):
        media.decode_picture(saved(Image.new("RGB", (4, 3)), "EPS"), name="cat")


def test_a_damaged_picture_is_refused_by_its_name():
    whole = saved(Image.effect_noise((64, 64), 50), "JPEG")
    for content in (b"", b"not a picture", whole[: len(whole) // 2]):
        with pytest.raises(UserError, match=r"^cat\.jpg: cannot be decoded as a picture: \S"):
            media.decode_picture(content, name="cat.jpg")


@pytest.mark.parametrize(("content", "reason"), [(b"", "it is empty"), (b"not a picture", "its format is not known")])
def test_what_is_no_picture_is_told_what_was_expected(content, reason):
    with pytest.raises(UserError, match=f"^cat: cannot be decoded as a picture: {reason}; expected PNG, JPEG"):
        media.decode_picture(content, name="cat")


@pytest.mark.parametrize(("content", "reason"), [(b"", "it is empty"), (b"not a sound", "its format is not known")])
def test_what_is_no_recording_is_told_what_was_expected(content, reason):
    with pytest.raises(UserError, match=f"^cat: cannot be decoded as a recording: {reason}; expected WAV, FLAC"):
        media.decode_recording(content, name="cat")


def test_a_huge_picture_is_refused_before_it_is_unpacked():
    small_file = saved(Image.new("1", (9000, 9000)), "PNG")
    with pytest.raises(UserError, match="bomb: 9000 x 9000 pixels, expected at most 25 megapixels"):
        media.decode_picture(small_file, name="bomb")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def declared(width: int, height: int) -> bytes:
    """A PNG of one bit a pixel, without its pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_size_that_pillow_refuses_is_said_in_our_words_an_icon_s_hidden_one_too():
    huge = declared(20000, 20000)
    icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(huge), 22) + huge
    for content in (huge, icon):
        with pytest.raises(UserError, match=r"^bomb: over 178 megapixels, expected at most 25 megapixels"):
            media.decode_picture(content, name="bomb")


def test_a_huge_picture_brings_no_warning_of_pillow(tmp_path):
    (tmp_path / "p.png").write_bytes(declared(10000, 10000))
    code = "import sys, pathlib; from ml import media; media.decode_picture(pathlib.Path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "p.png"], capture_output=True, text=True)
    assert "10000 x 10000 pixels, expected at most 25" in done.stderr
    assert "Warning" not in done.stderr


def test_floating_point_pixels_are_refused():
    with pytest.raises(UserError, match="floating-point"):
        media.decode_picture(saved(Image.new("F", (2, 2)), "TIFF"))


def test_a_missing_file_is_refused_by_its_name(tmp_path):
    with pytest.raises(UserError, match="gone: cannot be read: No such file"):
        media.decode_picture(tmp_path / "x.png", name="gone")


@settings(max_examples=40, deadline=None)
@given(arrays.arrays(np.int16, st.integers(1, 500)))
def test_int16_samples_survive_encoding_and_decoding(samples):
    waveform, rate_hz = media.decode_recording(media.encode_wav(samples / 32768, 8000))
    assert rate_hz == 8000
    assert np.array_equal(media.to_int16(waveform), samples)


def test_float_samples_survive_encoding_and_decoding():
    waveform = np.random.default_rng(0).normal(0, 2, 300).astype(np.float32)
    assert np.array_equal(media.decode_recording(media.encode_wav(waveform, 16000, "FLOAT"))[0], waveform)


def test_what_lies_beyond_full_scale_is_clipped():
    assert media.to_int16(np.array([-2.0, -1.0, 1.0, 2.0])).tolist() == [-32768, -32768, 32767, 32767]


@pytest.mark.parametrize(("form", "tolerance"), [("WAV", 1e-4), ("FLAC", 1e-4), ("OGG", 0.05), ("AIFF", 1e-4)])
def test_common_sound_formats_are_decoded(form, tolerance):
    waveform, rate_hz = media.decode_recording(recorded(tone(), form=form))
    assert rate_hz == 8000
    assert waveform.dtype == np.float32
    assert np.abs(waveform - tone()).max() < tolerance


def test_channels_are_averaged():
    stereo = np.stack([tone(), np.zeros_like(tone())], axis=1)
    waveform, _ = media.decode_recording(recorded(stereo, subtype="FLOAT"))
    assert np.allclose(waveform, tone() / 2)


@pytest.mark.parametrize("form", ["WAV", "FLAC", "AIFF", "RF64"])
def test_a_recording_that_was_cut_off_is_refused(form):
    whole = recorded(tone(2), form=form)
    assert len(media.decode_recording(whole)[0]) == len(tone(2))
    with pytest.raises(UserError, match=r"^word: (cut short|cannot be decoded)"):
        media.decode_recording(whole[: len(whole) * 2 // 3], name="word")


def test_a_wave_written_without_knowing_its_length_is_read():
    whole = bytearray(media.encode_wav(tone(), 8000))
    struct.pack_into("<I", whole, 40, 0xFFFFFFFF)
    assert len(media.decode_recording(bytes(whole))[0]) == len(tone())


def test_channels_that_cancel_each_other_are_not_taken_for_silence(tmp_path):
    tone = 0.3 * np.sin(np.arange(8000) / 5)
    for name, other in (("against", -tone), ("with", tone), ("alone", 0 * tone)):
        soundfile.write(tmp_path / f"{name}.wav", np.stack([tone, other], axis=1), 8000)
    with pytest.raises(UserError, match=r"^audio: its channels cancel each other, one is the other upside down"):
        media.decode_recording(tmp_path / "against.wav", name="audio", heard=True)
    with pytest.raises(UserError, match="cancel each other"):
        list(media.RecordingFile(tmp_path / "against.wav"))
    assert len(media.decode_recording(tmp_path / "against.wav")[0]) == 8000, "the checks say it of data themselves"
    for name in ("with", "alone"):
        assert len(media.decode_recording(tmp_path / f"{name}.wav", heard=True)[0]) == 8000


def test_a_wave_whose_writer_was_killed_is_read_whole(tmp_path):
    writer = "import os, soundfile, numpy as np; f = soundfile.SoundFile('k.wav', 'w', 8000, 1); "
    writer += "f.write(np.full(300000, 0.3)); os._exit(1)"
    subprocess.run([sys.executable, "-c", writer], cwd=tmp_path, check=False)
    content = (tmp_path / "k.wav").read_bytes()
    assert content[4:8] == (8).to_bytes(4, "little")
    assert len(media.decode_recording(content)[0]) > 100_000


@pytest.mark.parametrize("declared", [0, 16_000])
def test_a_wave_whose_header_was_never_finished_is_not_read_in_part(tmp_path, declared):
    sound = media.wav_samples(0.3 * np.sin(np.arange(40_000) / 5), "PCM_16")
    whole = bytearray(media.encode_wav(np.zeros(0), 8000) + sound)
    whole[40:44] = declared.to_bytes(4, "little")
    said = f"its header declares {declared} bytes of sound, 80000 are there"
    with pytest.raises(UserError, match=f"^recording: {said}"):
        media.decode_recording(bytes(whole))
    (tmp_path / "talk.wav").write_bytes(whole)
    with pytest.raises(UserError, match=said):
        media.RecordingFile(tmp_path / "talk.wav")


def test_what_follows_the_sound_of_a_wave_does_not_matter():
    wave = media.encode_wav(np.full(800, 0.3, np.float32), 8000)
    listed = b"LIST" + (4000).to_bytes(4, "little") + b"INFO" + bytes(3996)
    for after in (listed, listed[:3000], bytes(5000), b"read by nobody" * 300):
        assert len(media.decode_recording(wave + after)[0]) == 800
    odd = bytearray(wave[:44]) + bytes(range(100, 201))  # 8 bits, 101 samples and no byte of padding
    odd[32:36], odd[40:44] = b"\x01\0\x08\0", (101).to_bytes(4, "little")
    assert len(media.decode_recording(bytes(odd) + listed)[0]) == 101


def test_silent_hours_in_a_small_file_are_refused_without_unpacking_them():
    packed = recorded(np.zeros(8000 * 600, np.int16), form="FLAC")
    assert len(packed) < 100_000
    with pytest.raises(UserError, match="longer than the 60 s"):
        media.decode_recording(packed, max_s=60)
    assert len(media.decode_recording(packed, max_s=600)[0]) == 8000 * 600


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be decoded"),
        (b"RIFF....WAVE", "cannot be decoded"),
        (recorded(np.zeros(0, np.float32)), "holds no sound"),
        (recorded(np.array([0, np.nan], np.float32), subtype="FLOAT"), "not finite"),
        (recorded(np.array([0, np.inf], np.float32), subtype="FLOAT"), "not finite"),
    ],
    ids=["empty", "a bare header", "no samples", "NaN", "infinite"],
)
def test_what_is_no_sound_is_refused_by_its_name(content, reason):
    with pytest.raises(UserError, match=f"word: .*{reason}"):
        media.decode_recording(content, name="word")


@pytest.mark.parametrize(("from_hz", "to_hz"), [(22050, 8000), (8000, 16000), (44100, 8000), (48000, 16000)])
def test_resampling_agrees_with_scipy_and_keeps_a_tone(from_hz, to_hz):
    heard = media.resample(tone(1, from_hz), from_hz, to_hz)
    assert heard.dtype == np.float32
    assert len(heard) == to_hz
    ours, expected = heard[1000:-1000], tone(1, to_hz)[1000:-1000]
    assert np.abs(ours - expected).max() < 0.01
    g = np.gcd(from_hz, to_hz)
    reference = resample_poly(tone(1, from_hz).astype(np.float64), to_hz // g, from_hz // g)
    assert np.allclose(heard, reference, atol=1e-6)


def test_resampling_to_the_same_rate_changes_nothing():
    assert np.array_equal(media.resample(tone(), 8000, 8000), tone())


@pytest.mark.parametrize("rate_hz", [50_001, 383_987, 384_100])
def test_a_rate_that_no_device_has_is_refused_before_it_costs_seconds(rate_hz):
    for content in (media.encode_wav(tone(0.01), rate_hz), recorded(tone(0.01), rate_hz, subtype="PCM_24")):
        with pytest.raises(UserError, match=f"^word: {rate_hz} Hz, expected a common sample rate of at most 384000 Hz"):
            media.decode_recording(content, name="word")


def test_rates_that_share_no_factor_are_refused_and_common_high_ones_are_not():
    with pytest.raises(UserError, match=r"^recording: 383987 Hz, expected a common sample rate$"):
        media.resample(tone(0.01), 383_987, 8000)
    for rate_hz in (88_200, 96_000, 176_400, 352_800, 384_000):
        waveform, own_hz = media.decode_recording(media.encode_wav(tone(0.01, rate_hz), rate_hz))
        assert len(media.resample(waveform, own_hz, 8000)) == 80


@settings(max_examples=60, deadline=None)
@given(PICTURES, st.integers(1, 48))
def test_a_resized_picture_is_square_and_within_the_range_of_its_pixels(pixels, side):
    square = media.resize_square(pixels, side)
    assert square.shape == (side, side, pixels.shape[2])
    assert square.dtype == np.uint8
    assert square.min() >= pixels.min()
    assert square.max() <= pixels.max()


def test_a_very_long_strip_is_not_padded_to_its_own_square():
    strip = np.full((1, 2_000_000, 1), 9, np.uint8)
    assert (media.resize_square(strip, 28) == 9).all()


def test_padding_takes_the_colour_of_the_border():
    wide = np.full((2, 6, 3), (10, 20, 30), np.uint8)
    wide[1, 3] = (255, 255, 255)
    square = media.resize_square(wide, 6)
    assert square[0, 0].tolist() == [10, 20, 30]
    assert (square == 255).all(axis=2).sum() == 1


def test_shrinking_averages_areas():
    checks = np.kron([[0, 200], [200, 0]], np.ones((2, 2))).astype(np.uint8)[..., None]
    assert media.resize_square(checks, 2)[..., 0].tolist() == [[0, 200], [200, 0]]
    assert media.resize_square(checks, 1).item() == 100
