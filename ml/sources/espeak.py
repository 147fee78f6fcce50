"""One eSpeak NG voice speaks words; run as a script in a fresh process, because what was said before tells.

`python espeak.py LIBRARY VOICE` reads lines `rate_wpm pitch word` from standard input and answers each on standard
output with a little-endian uint32 count of samples and that many int16 samples at 22,050 Hz. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from pathlib import Path

SAMPLE_RATE_HZ = 22050
SYNCHRONOUS, CHARS_UTF8, RATE, VOLUME, PITCH = 2, 1, 1, 2, 3
SEED = 1
VOLUME_PERCENT = 60  # at 100 the louder voices clip
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Voice:
    """A voice of the library at `library`, whose data lie in the folder espeak-ng-data beside it.

    Raises RuntimeError where the library refuses a call, an unknown voice among them.
    """

    def __init__(self, library: str, name: str):
        self._library = ctypes.CDLL(library)
        self._blocks: list[bytes] = []
        self._callback = CALLBACK(self._collect)  # the library keeps only the pointer
        folder = Path(library).parent
        os.chdir(folder)  # the library cuts a data path after 160 characters, so it gets a short one
        if self._library.espeak_Initialize(SYNCHRONOUS, 0, b".", 0) != SAMPLE_RATE_HZ:
            raise RuntimeError(f"eSpeak NG cannot be started with the data in {folder}/espeak-ng-data")
        self._library.espeak_SetSynthCallback(self._callback)
        self._require(self._library.espeak_SetVoiceByName(name.encode()), f"voice {name}")
        self._require(self._library.espeak_SetParameter(VOLUME, VOLUME_PERCENT, 0), f"volume {VOLUME_PERCENT}")
        variant = name.partition("+")[2]
        if variant and not (folder / "espeak-ng-data" / "voices" / "!v" / variant).is_file():
            raise RuntimeError(f"eSpeak NG has no variant {variant}")  # it would speak on without a word

    def speak(self, word: str, rate_wpm: int, pitch: int) -> bytes:
        """The word as int16 samples, spoken at `rate_wpm` words a minute and `pitch` of 0 to 100."""
        self._blocks.clear()
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(SEED))  # breath is noise, else seeded by the clock
        self._require(self._library.espeak_SetParameter(RATE, rate_wpm, 0), f"rate {rate_wpm}")
        self._require(self._library.espeak_SetParameter(PITCH, pitch, 0), f"pitch {pitch}")
        text = word.encode()
        size = ctypes.c_size_t(len(text) + 1)
        self._require(self._library.espeak_Synth(text, size, 0, 0, 0, CHARS_UTF8, None, None), f"word {word}")
        return b"".join(self._blocks)

    def _collect(self, samples, count: int, _events) -> int:
        if samples and count > 0:
            self._blocks.append(ctypes.string_at(samples, 2 * count))
        return 0

    @staticmethod
    def _require(status: int, what: str) -> None:
        if status != 0:
            raise RuntimeError(f"eSpeak NG refuses {what} (status {status})")


def main(library: str, name: str) -> None:
    voice = Voice(library, name)
    for line in sys.stdin:
        rate_wpm, pitch, word = line.split()
        samples = voice.speak(word, int(rate_wpm), int(pitch))
        sys.stdout.buffer.write(struct.pack("<I", len(samples) // 2) + samples)


if __name__ == "__main__":
    main(*sys.argv[1:])
