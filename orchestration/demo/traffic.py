"""Who asks the service: at first people like those it was validated on, then a new speaker on a noisy line."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ml import datasets, media
from ml.config import Paths, UserError
from ml.sources import starter
from serving.client import direct

NEW_SPEAKER = "de"  # who reads the English words by German rules: a strong accent, which is none of the starter's
RATES_WPM, PITCHES = range(110, 230, 10), (20, 35, 50, 65, 80)
LINE_SNR_DB = (6.0, 12.0)
PICTURES = 60  # a day


@dataclass(frozen=True)
class Recording:
    wav: bytes
    word: str


@dataclass(frozen=True)
class Asked:
    """One request and what came back."""

    recording: Recording
    request_id: str
    said: str | None
    model: str

    @property
    def right(self) -> bool:
        return self.said == self.recording.word


def usual(paths: Paths, n: int, seed: int) -> list[Recording]:
    """Recordings of the validation split: speakers whom the models never learnt from, and the reports know."""
    known, rng = datasets.load_speech(paths).where("validation"), np.random.default_rng(seed)
    rows = rng.permutation(len(known))[:n]
    return [
        Recording(media.encode_wav(known.clip(int(row)), known.sample_rate_hz), known.classes[known.labels[row]])
        for row in rows
    ]


class NewSpeaker:
    """One voice in sixty manners on a noisy line; no recording is handed out twice."""

    def __init__(self, seed: int):
        self._rng = np.random.default_rng(seed)
        manners = [(rate, pitch, word) for rate in RATES_WPM for pitch in PITCHES for word in starter.WORDS]
        spoken = starter.spoken(NEW_SPEAKER, [" ".join(map(str, manner)) for manner in manners])
        self._left = [
            (starter.heard(spoken[number]), manners[number][2]) for number in self._rng.permutation(len(manners))
        ]

    def recordings(self, n: int) -> list[Recording]:
        taken, self._left = self._left[:n], self._left[n:]
        return [Recording(self._on_the_line(clip), str(starter.WORDS.index(word))) for clip, word in taken]

    def _on_the_line(self, clip: np.ndarray) -> bytes:
        """The telephone's band, and noise at 6 to 12 dB."""
        from scipy import signal

        band = signal.butter(4, (300, 3400), "bandpass", fs=starter.RATE_HZ, output="sos")
        sound = signal.sosfilt(band, clip)
        level = np.sqrt(np.mean(np.square(sound))) * 10 ** (-self._rng.uniform(*LINE_SNR_DB) / 20)
        noisy = np.asarray(sound) + level * self._rng.standard_normal(len(clip))
        return media.encode_wav((noisy / max(1.0, 1.01 * np.abs(noisy).max())).astype(np.float32), starter.RATE_HZ)


def ask(url: str, recordings: Sequence[Recording], clients: int = 2) -> list[Asked]:
    """Ask /recognize_speech every recording, by clients that take turns. Raises UserError where one is refused."""
    with ThreadPoolExecutor(clients) as pool, direct() as session:

        def one(recording: Recording) -> Asked:
            answer = session.post(f"{url}/recognize_speech", files={"audio": ("word.wav", recording.wav)}, timeout=60)
            if answer.status_code != 200:
                raise UserError(f"the service answered {answer.status_code}: {answer.text[:200]}")
            tree = answer.json()
            return Asked(recording, tree["request_id"], tree["label"], tree["model"])

        return list(pool.map(one, recordings))


def show_pictures(url: str, paths: Paths, seed: int) -> None:
    """Pictures of the validation split, which never change: whatever is reported has to be about the recordings."""
    known, rng = datasets.load_images(paths).where("validation"), np.random.default_rng(seed)
    with direct() as session:
        for row in rng.permutation(len(known))[:PICTURES]:
            png = media.encode_png(np.asarray(known.pixels[row]))
            session.post(f"{url}/classify_image", files={"image": ("picture.png", png)}, timeout=60).raise_for_status()


def correct(url: str, asked: Sequence[Asked]) -> int:
    """What people say about the answers they got, with their consent; the number of corrections taken."""
    taken = 0
    with direct() as session:
        for one in asked:
            body = {"request_id": one.request_id, "heard": one.recording.word, "consent": True}
            taken += session.post(f"{url}/feedback", json=body, timeout=60).status_code == 202
    return taken
