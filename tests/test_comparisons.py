"""Items are compared with each other: near copies are found and look-alikes left alone, and wrong labels stand out."""

import io
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from PIL import Image
from sklearn.datasets import load_digits

from data_checks.comparisons.label_errors import doubted_labels
from data_checks.comparisons.pictures import Encoded
from data_checks.comparisons.signatures import (
    PICTURE_BYTES,
    RECORDING_BYTES,
    picture_signature,
    picture_signatures,
    recording_signature,
)
from data_checks.comparisons.similar import near_copies_of_pictures, near_copies_of_recordings
from ml import media
from ml.sources import starter

DIGITS = load_digits()
PICTURES = np.rint(DIGITS.images * (255 / 16)).astype(np.uint8)[..., None]  # (1797, 8, 8, 1)
SIGNATURES = picture_signatures(PICTURES)
LABELS = [str(label) for label in DIGITS.target]
COPIED = range(3, 1797, 90)  # 20 of them


def copies_among_pictures(encoded: list[bytes | None]) -> np.ndarray:
    """The clusters of encoded pictures, None standing for one that was never measured."""
    pixels = [None if one is None else media.decode_picture(one) for one in encoded]
    signatures = [None if one is None else picture_signature(one) for one in pixels]
    jpeg = np.array([one is not None and one[:2] == b"\xff\xd8" for one in encoded], bool)
    size = np.array([(0, 0) if one is None else one.shape[1::-1] for one in pixels], np.int64).reshape(-1, 2)
    return near_copies_of_pictures(signatures, Encoded(lambda places: [encoded[i] or b"" for i in places], jpeg, size))


def copies_among_recordings(waves: list[np.ndarray], rate_hz: int = 8000) -> np.ndarray:
    signatures = [recording_signature(wave, rate_hz) for wave in waves]
    return near_copies_of_recordings(
        signatures, lambda places: [media.encode_wav(waves[i], rate_hz, "FLOAT") for i in places]
    )


def png(pixels: np.ndarray) -> bytes:
    return media.encode_png(pixels)


def resized(pixels: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels[..., 0]).resize((side, side), Image.Resampling.BILINEAR))[..., None]


def jpeg(pixels: np.ndarray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    """150 words of three voices at 8 kHz."""
    listing = starter.recordings(("m1", "f2", "Mario"))
    return [media.decode_recording(item.content)[0] for item in listing.items]


def test_a_signature_has_one_length_whatever_the_picture_or_recording():
    generator = np.random.default_rng(0)
    for shape in ((1, 1, 1), (3, 700, 3), (1500, 40, 1)):
        assert len(picture_signature(generator.integers(0, 256, shape, dtype=np.uint8))) == PICTURE_BYTES
    for samples, rate_hz in ((0, 8000), (1, 8000), (3000, 4000), (100_000, 44_100)):
        assert len(recording_signature(generator.normal(size=samples), rate_hz)) == RECORDING_BYTES


def test_many_pictures_at_once_have_the_signatures_they_have_alone():
    assert SIGNATURES[:5] == [picture_signature(pixels) for pixels in PICTURES[:5]]


def test_a_grey_picture_stored_in_colour_has_the_same_signature_and_another_colour_another_one():
    grey = PICTURES[0]
    assert picture_signature(np.repeat(grey, 3, axis=2)) == SIGNATURES[0]
    red = np.zeros((9, 9, 3), np.uint8)
    red[..., 0] = 200
    assert picture_signature(red) != picture_signature(red[..., ::-1])


def test_a_louder_recording_has_the_same_signature(clips):
    assert recording_signature(clips[0] * 0.5, 8000) == recording_signature(clips[0], 8000)


def test_digits_that_look_alike_are_no_copies():
    assert (copies_among_pictures([png(pixels) for pixels in PICTURES]) == -1).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda pixels: png(resized(pixels, 16)),
        lambda pixels: png(resized(pixels, 10)),
        lambda pixels: jpeg(pixels, 80),
        lambda pixels: jpeg(pixels, 40),
        lambda pixels: jpeg(resized(pixels, 24), 75),
    ],
    ids=["twice the size", "a quarter larger", "JPEG", "strong JPEG", "larger and JPEG"],
)
def test_pictures_resized_or_encoded_anew_are_found_and_no_others(change):
    copies = [change(PICTURES[place]) for place in COPIED]
    cluster = copies_among_pictures([*map(png, PICTURES), *copies])
    assert (cluster[len(PICTURES) :] == cluster[list(COPIED)]).mean() >= 0.95
    others = np.delete(cluster[: len(PICTURES)], list(COPIED))
    assert (others == -1).all()


def test_pictures_that_all_are_jpeg_and_look_alike_are_no_copies():
    assert (copies_among_pictures([jpeg(pixels, 50) for pixels in PICTURES[:600]]) == -1).all()


def ogg(waveform: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, 8000, format="OGG", subtype="VORBIS")
    return media.decode_recording(buffer.getvalue())[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda wave: np.concatenate([np.zeros(400), wave]),
        lambda wave: wave * 10 ** (-6 / 20),
        ogg,
        lambda wave: ogg(np.concatenate([np.zeros(400), wave / 2])),
    ],
    ids=["50 ms later", "6 dB lower", "OGG", "all of these"],
)
def test_recordings_shifted_louder_or_encoded_anew_are_found_and_no_others(clips, change):
    copied = range(2, len(clips), 8)
    cluster = copies_among_recordings([*clips, *(change(clips[i]) for i in copied)])
    own = cluster[list(copied)]
    assert ((cluster[len(clips) :] == own) & (own >= 0)).mean() >= 0.95
    assert (np.delete(cluster[: len(clips)], list(copied)) == -1).all()


def test_a_copy_is_found_whatever_its_rate_and_whichever_way_up_it_is(clips):
    waves = [media.resample(clip, 8000, 16000) for clip in clips[:60]]
    other_rate = near_copies_of_recordings(
        [*(recording_signature(wave, 16000) for wave in waves), recording_signature(-clips[7], 8000)],
        lambda places: [media.encode_wav(*((waves[i], 16000) if i < 60 else (-clips[7], 8000))) for i in places],
    )
    assert np.flatnonzero(other_rate >= 0).tolist() == [7, 60]


def test_hums_vowels_and_bursts_of_one_pitch_are_no_copies_of_each_other():
    draw = np.random.default_rng(0)
    time_s = np.arange(4000) / 8000
    tones = [np.sin(2 * np.pi * 500 * time_s + draw.uniform(0, 6)) * np.hanning(4000) for _ in range(40)]
    hums = [
        np.sign(np.sin(2 * np.pi * 50 * time_s + draw.uniform(0, 6))) + 0.5 * draw.normal(size=4000) for _ in range(40)
    ]
    noisy = [0.3 * tone + draw.normal(0, 0.003, 4000) for tone in tones]
    assert (copies_among_recordings([*noisy, *(0.1 * hum for hum in hums)]) == -1).all()


def test_what_shows_or_says_nothing_or_was_never_measured_is_no_copy_of_anything():
    flat, digit = png(np.full((8, 8, 1), 7, np.uint8)), png(PICTURES[0])
    assert (copies_among_pictures([flat, flat, None, digit]) == -1).all()
    assert (copies_among_recordings([np.zeros(800), np.zeros(800)]) == -1).all()
    assert copies_among_recordings([]).shape == (0,)
    assert copies_among_pictures([digit, None, digit]).tolist() == [0, -1, 0]


def test_clean_labels_are_hardly_doubted():
    doubts = doubted_labels(SIGNATURES, LABELS, "images")
    assert doubts.doubted.mean() <= 0.01


def test_of_ten_percent_wrong_labels_most_stand_in_the_first_tenth_with_the_right_one_suggested():
    generator = np.random.default_rng(1)
    wrong = generator.choice(len(LABELS), len(LABELS) // 10, replace=False)
    labels = list(LABELS)
    for place in wrong:
        labels[place] = str((int(labels[place]) + generator.integers(1, 10)) % 10)
    doubts = doubted_labels(SIGNATURES, labels, "images")
    first = np.argsort(doubts.quality, kind="stable")[: len(labels) // 10]
    assert np.isin(first, wrong).mean() >= 0.7
    assert np.isin(np.flatnonzero(doubts.doubted), wrong).mean() >= 0.7
    assert np.mean([doubts.suggested[place] == LABELS[place] for place in wrong]) >= 0.9


def test_labels_that_the_signatures_cannot_tell_are_not_doubted():
    noise = np.random.default_rng(2).permutation(LABELS).tolist()
    assert not doubted_labels(SIGNATURES, noise, "images").doubted.any()
    assert not doubted_labels(SIGNATURES[:8], LABELS[:8], "images").doubted.any()
    assert not doubted_labels([None, *SIGNATURES], [None, *LABELS], "images").doubted[0]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names kinds of x86-64 processors")
def test_two_kinds_of_processor_say_the_same_of_every_label():
    program = (
        "from tests.test_comparisons import LABELS, SIGNATURES, doubted_labels;"
        "print(doubted_labels(SIGNATURES, LABELS, 'images').quality.tobytes().hex())"
    )
    kernels = ("Nehalem", "Haswell")  # OpenBLAS sums in another order for each
    said = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "OPENBLAS_CORETYPE": kernel},
            capture_output=True,
            check=True,
        ).stdout
        for kernel in kernels
    ]
    assert said[0] == said[1]
    assert len(said[0]) == 2 * 8 * len(LABELS) + 1
