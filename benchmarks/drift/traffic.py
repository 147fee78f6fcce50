"""What arrives: real pictures and recordings as a service would log them, as ever or with one thing changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
from scipy import ndimage, signal

from benchmarks.drift.held_out import LIVE, HeldOut
from data_checks.drift import LOG_SCHEMA
from data_checks.facts import recording_facts, stacked_picture_facts
from ml.evaluation.reference import AUDIO_FACTS, IMAGE_FACTS
from ml.predictor.classifying import PictureClassifier, SpeechClassifier

TELEPHONE_HZ = (300, 3400)
MOST_PICTURES = 6000  # of the live ones; ten windows of 500
NEW_SHARE, NEW_SPEAKER_SHARE, TRIPLED = 0.1, 0.5, 3.0


@dataclass(frozen=True)
class Pool:
    """The logged columns of every item of one side under one change; truth and speaker are known here, not there."""

    rows: pd.DataFrame
    truth: np.ndarray  # str (n,)
    group: np.ndarray  # str (n,)

    def without(self, taken: np.ndarray) -> Pool:
        """All but these of its items."""
        free = np.setdiff1d(np.arange(len(self.truth)), taken)
        return Pool(self.rows.iloc[free], self.truth[free], self.group[free])


@dataclass(frozen=True)
class Change:
    """One shift: how an item is altered, or which items come; `causes` are how the right cause may begin."""

    side: str
    causes: tuple[str, ...]
    alter: Callable[[np.ndarray], np.ndarray] | None = None
    odds: Callable[[Pool, HeldOut], np.ndarray] | None = None


def _as_int16(waveform: np.ndarray) -> np.ndarray:
    """As it would have been recorded: in 16 bits."""
    return (waveform * 32768).round().clip(-32768, 32767).astype(np.float32) / 32768


def brighter(pixels: np.ndarray) -> np.ndarray:
    """Every grey level times 1.15, white stays white."""
    return (pixels * 1.15).round().clip(0, 255).astype(np.uint8)


def blurred(pixels: np.ndarray) -> np.ndarray:
    """Gaussian blur of one pixel in 28."""
    sigma = pixels.shape[1] / 28
    return ndimage.gaussian_filter(pixels.astype(np.float32), (0, sigma, sigma, 0)).round().astype(np.uint8)


def noisy(waveform: np.ndarray) -> np.ndarray:
    """White noise 10 dB below the recording."""
    noise = np.random.default_rng(len(waveform)).normal(size=len(waveform))
    return _as_int16(waveform + noise * np.sqrt((waveform**2).mean() / 10))


def telephone(rate_hz: int) -> Callable[[np.ndarray], np.ndarray]:
    """What lies outside 300-3,400 Hz filtered away."""
    band = signal.butter(8, TELEPHONE_HZ, "bandpass", fs=rate_hz, output="sos")
    return lambda waveform: _as_int16(signal.sosfilt(band, waveform))


def quieter(waveform: np.ndarray) -> np.ndarray:
    """12 dB less."""
    return _as_int16(waveform * 10 ** (-12 / 20))


def _known(pool: Pool, sets: HeldOut) -> np.ndarray:
    return ((pool.truth != sets.new_class) & (pool.group != sets.new_speaker)).astype(float)


def _with_share(known: np.ndarray, new: np.ndarray, share: float) -> np.ndarray:
    """Odds by which `share` of what is drawn is new."""
    return known / known.sum() * (1 - share) + new / new.sum() * share


def _new_class(pool: Pool, sets: HeldOut) -> np.ndarray:
    new = (pool.truth == sets.new_class) & (pool.group != sets.new_speaker)
    return _with_share(_known(pool, sets), new, NEW_SHARE)


def _new_speaker(pool: Pool, sets: HeldOut) -> np.ndarray:
    new = (pool.truth != sets.new_class) & (pool.group == sets.new_speaker)
    return _with_share(_known(pool, sets), new, NEW_SPEAKER_SHARE)


def _tripled(label: int) -> Callable[[Pool, HeldOut], np.ndarray]:
    def odds(pool: Pool, sets: HeldOut) -> np.ndarray:
        return _known(pool, sets) * np.where(pool.truth == sets.images.classes[label], TRIPLED, 1.0)

    return odds


def changes(rate_hz: int) -> dict[str, Change]:
    return {
        "brightness +15 %": Change("picture", ("pictures are brighter",), brighter),
        "Gaussian blur, 1 px in 28": Change("picture", ("pictures are more blurred",), blurred),
        "10 % pictures of a new class": Change(
            "picture", ("a new kind of picture", "nothing known is"), odds=_new_class
        ),
        "one class of pictures tripled": Change("picture", ("'4' is pictured",), odds=_tripled(4)),
        "noise at 10 dB SNR": Change("recording", ("recordings are noisier",), noisy),
        "300-3,400 Hz": Change("recording", ("a narrower band arrives",), telephone(rate_hz)),
        "gain -12 dB": Change("recording", ("recordings are quieter",), quieter),
        "half from a new speaker": Change(
            "recording", ("recordings sound different whatever they say",), odds=_new_speaker
        ),
        "10 % words of a new class": Change("recording", ("a new word",), odds=_new_class),
        "one word tripled": Change("recording", ("'4' is heard",), odds=_tripled(4)),
    }


@dataclass
class Traffic:
    """Draws windows of a log. Answers are computed once for every change of the items, then only drawn from."""

    sets: HeldOut
    see: PictureClassifier
    hear: SpeechClassifier
    _pools: dict[tuple[str, Callable | None], Pool] = field(default_factory=dict)

    def pool(self, side: str, alter: Callable | None = None) -> Pool:
        if (side, alter) not in self._pools:
            make = self._pictures if side == "picture" else self._recordings
            self._pools[side, alter] = make(alter or (lambda item: item))
        return self._pools[side, alter]

    def _pictures(self, alter: Callable) -> Pool:
        live = self.sets.images.where(LIVE)
        kept = np.sort(np.random.default_rng(0).permutation(len(live))[:MOST_PICTURES])
        pixels = alter(np.asarray(live.pixels[kept]))
        posteriors, embeddings = self.see(pixels)
        facts = stacked_picture_facts(pixels)
        rows = pd.DataFrame({column: [fact[name] for fact in facts] for column, name in IMAGE_FACTS.items()})
        rows = rows.assign(**_answers(posteriors, (*self.see.card["classes"], None), "pictured"))
        rows["image_embedding"] = list(embeddings)
        truth = np.array(live.classes)[live.labels[kept]]
        return Pool(rows, truth, np.array(live.group[kept]))

    def _recordings(self, alter: Callable) -> Pool:
        live = self.sets.speech.where(LIVE)
        clips = [alter(live.clip(row)).astype(np.float32) for row in range(len(live))]
        posteriors, embeddings = self.hear(clips)
        facts = [recording_facts(clip, live.sample_rate_hz) for clip in clips]
        rows = pd.DataFrame({column: [fact[name] for fact in facts] for column, name in AUDIO_FACTS.items()})
        rows = rows.assign(**_answers(posteriors, self.hear.card["classes"], "heard"))
        rows["speech_embedding"] = list(embeddings)
        return Pool(rows, np.array(live.classes)[live.labels], np.array(live.group))

    def split(self, reference_rows: Mapping[str, int], seed: int) -> Draws:
        """A reference of so many unchanged rows of each side, and windows from what is left."""
        rng = np.random.default_rng(seed)
        taken = {}
        for side in ("picture", "recording"):
            known = np.flatnonzero(_known(self.pool(side), self.sets))
            taken[side] = rng.permutation(known)[: reference_rows[side]]
        return Draws(self, taken, rng)


@dataclass
class Draws:
    traffic: Traffic
    taken: dict[str, np.ndarray]  # rows of each side's pool that are the reference
    rng: np.random.Generator

    def reference(self) -> pd.DataFrame:
        sides = [self._side(side, self.traffic.pool(side), rows) for side, rows in self.taken.items()]
        return self._logged(pd.concat(sides, ignore_index=True))

    def window(self, rows: int, change: Change | None = None) -> pd.DataFrame:
        """So many answers, none to an item of the reference, and no item twice where there are enough of its kind."""
        drawn = []
        for side, taken in self.taken.items():
            mine = change if change and change.side == side else None
            pool = self.traffic.pool(side, mine and mine.alter).without(taken)
            odds = ((mine and mine.odds) or _known)(pool, self.traffic.sets)
            drawn.append(self._side(side, pool, _draw(self.rng, odds, rows)))
        return self._logged(pd.concat(drawn, axis=1))

    def _side(self, side: str, pool: Pool, rows: np.ndarray) -> pd.DataFrame:
        name = {"picture": "pictured", "recording": "heard"}[side]
        frame = pool.rows.iloc[rows].reset_index(drop=True)
        return frame.assign(**{f"corrected_{name}": pool.truth[rows]})

    def _logged(self, frame: pd.DataFrame) -> pd.DataFrame:
        frame["endpoint"], frame["model"], frame["present"] = "extract", "held-out", True
        frame["request_id"] = [f"{self.rng.integers(2**63):032x}" for _ in range(len(frame))]
        frame["time"] = [datetime(2026, 3, 2, tzinfo=UTC) + timedelta(seconds=i) for i in range(len(frame))]
        return frame.reindex(columns=[*LOG_SCHEMA.names, "corrected_pictured", "corrected_heard"])


def _draw(rng: np.random.Generator, odds: np.ndarray, rows: int) -> np.ndarray:
    """Rows drawn by their odds; among those of the same odds none twice where there are enough."""
    levels = np.unique(odds[odds > 0])
    alike = [np.flatnonzero(odds == level) for level in levels]
    shares = np.array([odds[group].sum() for group in alike])
    counts = rng.multinomial(rows, shares / shares.sum())
    drawn = [rng.choice(group, count, replace=count > len(group)) for group, count in zip(alike, counts, strict=True)]
    return rng.permutation(np.concatenate(drawn))


def _answers(posteriors: np.ndarray, names, side: str) -> dict:
    best = posteriors.argmax(1)
    known = posteriors[:, : len([name for name in names if name is not None])]
    return {side: np.array(names, object)[best], f"{side}_confidence": known.max(1).astype(float)}
