"""A folder such as a user brings: colour photographs and spoken words of three classes, in mixed formats and sizes.

The photographs are random cuts of those that scikit-learn and matplotlib carry, the words are spoken by eSpeak NG.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image, ImageEnhance

from ml.media import resample
from ml.sources import espeak, starter


@dataclass(frozen=True)
class Class:
    """A label as the user spells it, the photograph it is cut from, and the word that is spoken for it."""

    label: str
    photograph: str
    word: str


CLASSES = (
    Class("red flower", "flower", "flower"),
    Class("寺院", "china", "temple"),
    Class("Ádmiral", "hopper", "admiral"),
    Class("cadeau", "present", "present"),
    Class("тигр", "flower", "tiger"),
)
FLOWER, TEMPLE, ADMIRAL, PRESENT, TIGER = (one.label for one in CLASSES)
PICTURE_FORMS = (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("TIFF", "tiff"), ("BMP", "bmp"), ("GIF", "gif"))
SOUND_FORMS = (
    *(("WAV", 16000, 1), ("FLAC", 16000, 1), ("OGG", 16000, 1), ("MP3", 16000, 1)),
    *(("WAV", 16000, 2), ("WAV", 44100, 1), ("FLAC", 44100, 2), ("WAV", 16000, 1)),
)
VOICES = tuple(f"{starter.ACCENTS[turn % 4]}+{name}" for turn, name in enumerate(starter.SPEAKERS[:24]))
LARGEST_CUT, PLAINEST = 160, 25.0  # pixels of the largest cut; a cut of less contrast (8-bit steps) shows nothing


def make(
    place: Path,
    pictures: dict[str, int],
    recordings: dict[str, int],
    speakers: int = 12,
    seed: int = 0,
    sides: tuple[int, int] = (48, 128),
) -> Path:
    """Write images/<label>/* and audio/<label>/<speaker>/* with so many items of each label; the same every time.

    sides: the least and the greatest width and height of a picture in pixels.
    """
    for number, one in enumerate(CLASSES):
        rng = np.random.default_rng((seed, number))
        for item in range(pictures.get(one.label, 0)):
            form, suffix = PICTURE_FORMS[item % len(PICTURE_FORMS)]
            _write(
                place / "images" / one.label / f"{item:04d}.{suffix}",
                saved(cut(one.photograph, rng, sides), form, item),
            )
        spoken = _spoken(one.word, recordings.get(one.label, 0), speakers, rng)
        for item, (speaker, clip) in enumerate(spoken):
            form, rate_hz, channels = SOUND_FORMS[item % len(SOUND_FORMS)]
            sound = recorded(clip, rate_hz, channels, form, rng)
            _write(place / "audio" / one.label / speaker / f"{item:04d}.{form.lower()}", sound)
    return place


def cut(photograph: str, rng: np.random.Generator, sides: tuple[int, int]) -> Image.Image:
    """A random cut of a photograph, flipped, turned, lit and scaled at random."""
    whole = _photograph(photograph)
    while True:
        side = int(rng.integers(48, min(LARGEST_CUT, *whole.size)))
        left, top = (int(rng.integers(0, edge - side + 1)) for edge in whole.size)
        part = whole.crop((left, top, left + side, top + side))
        if np.asarray(part.convert("L")).std() > PLAINEST:
            break
    if rng.random() < 0.5:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    part = part.rotate(float(rng.uniform(-30, 30)), Image.Resampling.BICUBIC).crop(
        (side // 8,) * 2 + (side * 7 // 8,) * 2
    )
    part = ImageEnhance.Brightness(part).enhance(float(rng.uniform(0.7, 1.2)))
    width, height = (int(rng.integers(sides[0], sides[1] + 1)) for _ in range(2))
    return part.resize((width, height), Image.Resampling.BICUBIC)


def saved(picture: Image.Image, form: str, turn: int) -> bytes:
    """The picture as a file; some PNG are grey or have transparency, some JPEG are CMYK."""
    match form, turn // len(PICTURE_FORMS) % 8:
        case "PNG", 3:
            picture = picture.convert("L")
        case "PNG", 5:
            picture = picture.convert("RGBA")
        case "JPEG", 3:
            picture = picture.convert("CMYK")
        case "GIF", _:
            picture = picture.quantize(128)
    out = io.BytesIO()
    picture.save(out, form)
    return out.getvalue()


def recorded(clip: np.ndarray, rate_hz: int, channels: int, form: str, rng: np.random.Generator) -> bytes:
    """int16 (samples,) of eSpeak NG as a file at another rate, with the room's noise about 40 dB below the voice."""
    voice = resample(clip / 32768, espeak.SAMPLE_RATE_HZ, rate_hz) * rng.uniform(0.5, 0.9)
    pause = np.zeros(int(0.1 * rate_hz), np.float32)
    voice = np.concatenate([pause, voice, pause])
    noise = rng.standard_normal((len(voice), channels)) * 0.01 * np.sqrt(np.mean(voice**2))
    out = io.BytesIO()
    soundfile.write(out, np.clip(voice[:, None] + noise, -0.999, 0.999), rate_hz, format=form)
    return out.getvalue()


def _spoken(word: str, count: int, speakers: int, rng: np.random.Generator) -> list[tuple[str, np.ndarray]]:
    """`count` clips, the speakers taking turns, each time at another speed and pitch."""
    voices = VOICES[:speakers]
    turns = [range(turn, count, len(voices)) for turn in range(len(voices))]
    clips: dict[int, tuple[str, np.ndarray]] = {}
    for voice, own in zip(voices, turns, strict=True):
        lines = [f"{rng.integers(110, 221)} {rng.integers(15, 86)} {word}" for _ in own]
        for item, clip in zip(own, starter.spoken(voice, lines) if lines else [], strict=True):
            clips[item] = voice.partition("+")[2], clip
    return [clips[item] for item in range(count)]


@lru_cache
def _photograph(name: str) -> Image.Image:
    carried = {"hopper": "grace_hopper.jpg", "present": "Minduka_Present_Blue_Pack.png"}
    if name in carried:
        from matplotlib.cbook import get_sample_data

        with Image.open(str(get_sample_data(carried[name], asfileobj=False))) as picture:
            return picture.convert("RGB")
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image(f"{name}.jpg"))


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
