"""The source that needs no network: handwritten digits that scikit-learn carries, and digits spoken by eSpeak NG."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ml.config import UserError
from ml.media import encode_png, encode_wav, resample
from ml.sources import espeak
from ml.sources.shards import Item, Listing

RATE_HZ = 8000
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# Speakers of eSpeak NG but those that whisper, croak or swallow sounds; of two that sound alike one is here.
SPEAKERS = (
    *("f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "Alex", "Andrea", "Andy"),
    *("Annie", "Denis", "Gene", "Hugo", "Jacky", "Lee", "Marco", "Mario", "Michael", "Mike", "Nguyen", "Reed"),
    *("anika", "announcer", "antonio", "belinda", "boris", "caleb", "david", "ed", "edward", "grandma", "grandpa"),
    *("ian", "iven", "john", "linda", "marcelo", "max", "miguel", "norbert", "pablo", "paul", "pedro", "quincy"),
    *("rob", "sandro", "shelby", "steph", "travis", "victor"),
)
ACCENTS = (
    *("en-us", "en", "en-gb-scotland", "en-gb-x-rp"),
    *("en-us-nyc", "en-029", "en-gb-x-gbclan", "en-gb-x-gbcwmd"),
)
MANNERS = ((130, 35), (145, 45), (160, 50), (175, 60), (190, 45))  # words a minute, pitch of 0 to 100
SILENT = 2  # int16 steps; an edge that never exceeds this is digital silence
GREY_LEVELS = 16


def pictures() -> Listing:
    """1,797 handwritten digits of 8 x 8 pixels (UCI, Alpaydin and Kaynak 1998), 17 grey levels spread over 0 to 255."""
    from sklearn.datasets import load_digits

    flat, labels = load_digits(return_X_y=True)  # (1797, 64) in 0 to 16
    pixels = np.rint(np.asarray(flat) * (255 / GREY_LEVELS)).astype(np.uint8).reshape(-1, 8, 8)
    items = (
        Item(f"digit-{number:04d}", encode_png(image), str(label))
        for number, (image, label) in enumerate(zip(pixels, np.asarray(labels), strict=True))
    )
    return Listing(items, len(pixels), "CC BY 4.0")


def recordings(speakers: tuple[str, ...] = SPEAKERS) -> Listing:
    """The ten digits in five manners by every speaker, the accents taking turns, at 8 kHz; `group` is the speaker.

    Raises UserError where eSpeak NG cannot speak.
    """
    voices = [(ACCENTS[turn % len(ACCENTS)], speaker) for turn, speaker in enumerate(speakers)]
    return Listing(_items(voices), len(voices) * len(MANNERS) * len(WORDS), "synthesised, free of rights")


def _items(voices: list[tuple[str, str]]) -> Iterator[Item]:
    lines = [f"{rate_wpm} {pitch} {word}" for rate_wpm, pitch in MANNERS for word in WORDS]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        said = pool.map(lambda voice: spoken("+".join(voice), lines), voices)
        for (accent, speaker), clips in zip(voices, said, strict=True):
            for number, clip in enumerate(clips):
                manner, digit = divmod(number, len(WORDS))
                yield Item(
                    f"{digit}_{accent}+{speaker}_{manner}", encode_wav(heard(clip), RATE_HZ), str(digit), group=speaker
                )


def spoken(voice: str, lines: Sequence[str]) -> list[np.ndarray]:
    """What a voice of eSpeak NG says of every line, `rate_wpm pitch word`, as int16 (samples,) at its own rate.

    In a process of its own. Raises UserError where it cannot speak.
    """
    import espeakng_loader

    library = espeakng_loader.get_library_path()
    command = [sys.executable, "-I", "-S", str(Path(espeak.__file__)), library, voice]
    said = subprocess.run(command, input="\n".join(lines).encode(), capture_output=True, check=False)
    if said.returncode != 0:
        last = said.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise UserError(f"starter audio: voice {voice}: {' '.join(last) or f'ended with {said.returncode}'}")
    clips, at = [], 0
    while at < len(said.stdout):
        (samples,) = struct.unpack_from("<I", said.stdout, at)
        clips.append(np.frombuffer(said.stdout, "<i2", samples, at + 4))
        at += 4 + 2 * samples
    if len(clips) != len(lines):
        raise UserError(f"starter audio: voice {voice}: {len(clips)} words spoken, expected {len(lines)}")
    return clips


def heard(clip: np.ndarray) -> np.ndarray:
    """A clip of `spoken` without the silence around it, float32 (samples,) at RATE_HZ. Raises UserError where it is all
    silence."""
    loud = np.flatnonzero(np.abs(clip.astype(np.int32)) > SILENT)
    if len(loud) == 0:
        raise UserError("starter audio: eSpeak NG gave silence, expected speech")
    return resample(clip[loud[0] : loud[-1] + 1] / 32768, espeak.SAMPLE_RATE_HZ, RATE_HZ)
