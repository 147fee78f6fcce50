"""The seeded evaluation scenes ("FSDD-Scenes"): a plan of plain arrays, and its rendering, both in numpy."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ml.config import UserError
from ml.scenes.levels import active_level, active_range, roomy_samples

if TYPE_CHECKING:
    from ml.datasets import SpeechSet

OVERLAPS = ("full", "partial", "none", "any")
# The spoken digit that is most easily taken for each: zero/four, one/nine and five/nine, completed by ear.
CONFUSABLE = {"0": "4", "1": "9", "2": "3", "3": "2", "4": "0", "5": "9", "6": "7", "7": "6", "8": "3", "9": "5"}
SHAPE_CLIPS, SHAPE_SLICES, SHAPE_BANDS = 12, 8, 16  # what other labels are compared by


@dataclass(frozen=True)
class ScenePlan:
    """Everything that decides n scenes of at most w words, as plain arrays; `clips` is -1 where there is no word.

    samples: length of every scene; clips (n, w): rows of the SpeechSet; starts (n, w): sample of the scene at which
    the clip's first sample lies; gains (n, w): factor on the clip; noise_levels (n,): root mean square of white noise;
    noise_seeds (n,); queries (n,): index in speech.classes of the word asked for; present (n,) bool.
    """

    samples: int
    clips: np.ndarray
    starts: np.ndarray
    gains: np.ndarray
    noise_levels: np.ndarray
    noise_seeds: np.ndarray
    queries: np.ndarray
    present: np.ndarray

    def __len__(self) -> int:
        return len(self.queries)


@dataclass(frozen=True)
class Scenes:
    """Rendered scenes: mixture, target (n, samples) and words (n, w, samples) float32, with

    word_labels (n, w) index in speech.classes or -1; intervals (n, w, 2) active samples of every word, (0, 0) if none;
    queries (n,) and present (n,) as planned. target is the sum of the words whose label is the query.
    """

    mixture: np.ndarray
    target: np.ndarray
    words: np.ndarray
    word_labels: np.ndarray
    intervals: np.ndarray
    queries: np.ndarray
    present: np.ndarray


def draw_scenes(
    speech: SpeechSet,
    n: int,
    overlap: str,
    seed: int,
    labels: Sequence[str] | None = None,
    words: tuple[int, int] = (1, 3),
    sir_db: tuple[float, float] = (-5.0, 5.0),
    noise_db: tuple[float, float] = (5.0, 30.0),
    absent_share: float = 0.3,
    distinct: bool = False,
    scene_s: float = 2.0,
    confusable_share: float = 0.5,
) -> ScenePlan:
    """Plans n evaluation scenes ("FSDD-Scenes"), the same for the same clips and arguments on every machine.

    Scene i uses only `numpy.random.default_rng((seed, i))` and draws in this order: query (uniform over `labels`),
    absence (share `absent_share`), if absent whether a confusable word is said (share `confusable_share`), number of
    words (uniform in `words`), every word's clip (uniform over the clips allowed: the first has the query's label
    unless absent, or that of CONFUSABLE, where this split says it, or for a query that is no digit the label that
    sounds most like it; none has the query's if absent; the others do not have it if `distinct`, and may repeat it
    otherwise), the places of all, the first word's level (uniform in
    -32..-22 dB), its ratio to every other word (uniform in `sir_db`), its ratio to the noise (uniform in `noise_db`),
    and the noise's seed. The first word is placed anywhere in the scene; every other one relative to its active
    samples:

    full: the shorter word's active samples lie inside the longer's; partial: 10-90 % of the shorter's overlap;
    none: all words are disjoint; any: one of these three for every word, drawn.
    Clips that do not fit are drawn again. Raises UserError where 1,000 draws do not fit or no clip is allowed.
    """
    if overlap not in OVERLAPS:
        raise UserError(f"overlap {overlap!r}: expected one of {', '.join(OVERLAPS)}")
    queries = [speech.classes.index(label) for label in (labels or speech.classes)]
    samples, clips = roomy_samples(speech, scene_s), _Clips(speech)
    drawn = []
    for i in range(n):
        rng = np.random.default_rng((seed, i))
        query, absent = int(rng.choice(queries)), bool(rng.random() < absent_share)
        first = query if not absent else clips.confusable(query) if rng.random() < confusable_share else None
        count = int(rng.integers(words[0], words[1] + 1))
        rows, starts = _fit(clips, rng, (query, first), distinct, count, overlap, samples)
        gains, noise, noise_seed = _levels(clips, rng, rows, sir_db, noise_db)
        drawn.append(
            (_pad(rows, words[1], -1), _pad(starts, words[1], 0), _pad(gains, words[1], 0.0), noise, noise_seed)
        )
        drawn[-1] += (query, not absent)
    columns = [np.array(column) for column in zip(*drawn, strict=True)]
    return ScenePlan(samples, *columns)


def headline_scenes(
    speech: SpeechSet, n: int, overlap: str, seed: int, labels: Sequence[str] | None = None, scene_s: float = 2.0
) -> ScenePlan:
    """The scenes of the headline figures: two different words at 0 dB, noise at 30 dB, the pictured word present."""
    return draw_scenes(
        speech,
        n,
        overlap,
        seed,
        labels,
        (2, 2),
        (0.0, 0.0),
        (30.0, 30.0),
        absent_share=0.0,
        distinct=True,
        scene_s=scene_s,
    )


class _Clips:
    """Active range and level of every clip, measured when first asked for."""

    def __init__(self, speech: SpeechSet):
        self.speech, self.labels = speech, np.asarray(speech.labels)
        self._measured: dict[int, tuple[int, int, float]] = {}
        self._shapes: dict[int, np.ndarray] = {}

    def __getitem__(self, row: int) -> tuple[int, int, float]:
        if row not in self._measured:
            waveform = self.speech.clip(row)
            self._measured[row] = (*active_range(waveform), active_level(waveform))
        return self._measured[row]

    def confusable(self, query: int) -> int | None:
        """The label that is easily taken for the query's, if there is one and it is said here."""
        classes = self.speech.classes
        if (name := CONFUSABLE.get(classes[query])) is not None:
            number = classes.index(name) if name in classes else None
            return number if number in self.labels else None
        said = [int(label) for label in np.unique(self.labels)]
        others = [label for label in said if label != query]
        if query not in said or not others:
            return None
        return min(others, key=lambda label: float(np.square(self._shape(label) - self._shape(query)).sum()))

    def _shape(self, label: int) -> np.ndarray:
        """What a label sounds like on the whole (slices, bands): the mean over its first clips that sound."""
        if label not in self._shapes:
            said = (int(row) for row in np.flatnonzero(self.labels == label))
            rows = [row for row in said if self[row][2] > 0][:SHAPE_CLIPS]
            shapes = [_shape_of(self.speech.clip(row)[slice(*self[row][:2])]) for row in rows]
            self._shapes[label] = np.mean(shapes, axis=0) if shapes else np.full((SHAPE_SLICES, SHAPE_BANDS), np.inf)
        return self._shapes[label]

    def allowed(self, query: int, label: int | None, distinct: bool) -> np.ndarray:
        """Rows of a word that is to have `label`, or else any but the query's if `distinct`."""
        if label is not None:
            rows = np.flatnonzero(self.labels == label)
        elif distinct:
            rows = np.flatnonzero(self.labels != query)
        else:
            rows = np.arange(len(self.labels))
        if len(rows) == 0:
            raise UserError(f"scenes about {self.speech.classes[query]!r}: this split has no clip to make them of")
        return rows


def _shape_of(active: np.ndarray) -> np.ndarray:
    """Where a clip's active samples have their power: its decibels (slices of time, bands of frequency), mean 0."""
    parts = np.array_split(active, SHAPE_SLICES)
    size = 2 ** max(6, len(parts[0]).bit_length())
    power = np.abs(np.fft.rfft([np.pad(part, (0, size - len(part))) for part in parts])) ** 2 / size
    edges = (np.geomspace(1 / 32, 1, SHAPE_BANDS, endpoint=False) * size / 2).astype(int)  # at the same pitch for all
    decibels = 10 * np.log10(np.add.reduceat(power, edges, axis=1) + 1e-9)
    return decibels - decibels.mean()


def _fit(clips: _Clips, rng, asked: tuple[int, int | None], distinct: bool, count: int, overlap: str, samples: int):
    """Clips and their starts; asked: the query and the first word's label, None where it is any but the query's."""
    query, first = asked
    distinct = distinct or first != query
    for _ in range(1000):
        rows = [int(rng.choice(clips.allowed(query, None if k else first, distinct))) for k in range(count)]
        if (starts := _place(clips, rng, rows, overlap, samples)) is not None:
            return rows, starts
    about = f"scenes of {samples} samples about {clips.speech.classes[query]!r}"
    raise UserError(f"{about}: the words are too long or too silent for overlap {overlap!r}")


def _place(clips: _Clips, rng, rows: list[int], overlap: str, samples: int) -> list[int] | None:
    """Start of every clip so that its active samples lie in the scene, or None if these clips do not fit."""
    spans = [clips[row][:2] for row in rows]
    sizes = [end - start for start, end in spans]
    if min(sizes) < 1 or max(sizes) > samples:
        return None
    places: list[tuple[int, int]] = []
    for k, size in enumerate(sizes):
        wish = "any" if k == 0 else str(rng.choice(OVERLAPS[:3])) if overlap == "any" else overlap
        low, high = (0, samples - size) if k == 0 else _bounds(places[0], size, wish, samples, rng)
        if high < low:
            return None
        start = int(rng.integers(low, high + 1))
        if wish == "none" and any(start < end and begin < start + size for begin, end in places):
            return None
        places.append((start, start + size))
    starts = [place[0] - span[0] for place, span in zip(places, spans, strict=True)]
    return starts


def _bounds(first: tuple[int, int], size: int, wish: str, samples: int, rng) -> tuple[int, int]:
    """Lowest and highest start of a word of `size` active samples that has the wished overlap with the first word."""
    begin, end = first
    if wish == "none":
        low, high = 0, samples - size
    elif wish == "full":
        low, high = sorted((begin, end - size))
    else:
        shorter = min(size, end - begin)
        least, most = -(-shorter // 10), 9 * shorter // 10
        low, high = (begin - size + least, begin - size + most) if rng.random() < 0.5 else (end - most, end - least)
    return max(low, 0), min(high, samples - size)


def _levels(clips: _Clips, rng, rows: list[int], sir_db: tuple[float, float], noise_db: tuple[float, float]):
    level_db = rng.uniform(-32.0, -22.0)
    levels_db = [level_db] + [level_db - rng.uniform(*sir_db) for _ in rows[1:]]
    noise_level = 10 ** ((level_db - rng.uniform(*noise_db)) / 20)
    gains = [10 ** (db / 20) / clips[row][2] for db, row in zip(levels_db, rows, strict=True)]
    return gains, noise_level, int(rng.integers(2**31))


def _pad(values: list, size: int, filler) -> list:
    return values + [filler] * (size - len(values))


def render(plan: ScenePlan, speech: SpeechSet, start: int = 0, stop: int | None = None) -> Scenes:
    """The planned scenes start..stop as waveforms, in float64 sums rounded once to float32.

    The noise of a scene is `default_rng(noise_seed).standard_normal(samples)` times its level.
    """
    rows = range(len(plan))[start:stop]
    count, width = len(rows), plan.clips.shape[1]
    words = np.zeros((count, width, plan.samples))
    intervals = np.zeros((count, width, 2), dtype=np.int64)
    noise = np.empty((count, plan.samples))
    for i, row in enumerate(rows):
        noise[i] = (
            np.random.default_rng(int(plan.noise_seeds[row])).standard_normal(plan.samples) * plan.noise_levels[row]
        )
        for k in np.flatnonzero(plan.clips[row] >= 0):
            waveform, at = speech.clip(int(plan.clips[row, k])), int(plan.starts[row, k])
            _add(words[i, k], waveform * float(plan.gains[row, k]), at)
            intervals[i, k] = np.clip(np.add(active_range(waveform), at), 0, plan.samples)
    labels = np.where(plan.clips[rows] >= 0, np.asarray(speech.labels)[plan.clips[rows]], -1)
    wanted = (labels == plan.queries[rows, None])[:, :, None]
    return Scenes(
        mixture=(words.sum(1) + noise).astype(np.float32),
        target=(words * wanted).sum(1).astype(np.float32),
        words=words.astype(np.float32),
        word_labels=labels,
        intervals=intervals,
        queries=plan.queries[rows],
        present=plan.present[rows],
    )


def scenes_digest(plan: ScenePlan, speech: SpeechSet) -> str:
    """SHA-256 of the planned scenes: mixture and target of each in turn, as 16-bit integers, little-endian.

    So rounded, they do not depend on the last bit of a machine's powers of ten.
    """
    digest = hashlib.sha256()
    for row in range(len(plan)):
        scene = render(plan, speech, row, row + 1)
        for waveform in (scene.mixture[0], scene.target[0]):
            digest.update(np.round(np.clip(waveform, -1, 1) * 32767).astype("<i2").tobytes())
    return digest.hexdigest()


def _add(scene: np.ndarray, waveform: np.ndarray, start: int) -> None:
    begin, end = max(start, 0), min(start + len(waveform), len(scene))
    scene[begin:end] += waveform[begin - start : end - start]
