"""What a predictor makes of the frozen gate split, item by item, so that two predictors can be compared in pairs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ml.config import Settings
from ml.datasets import ImageSet, SpeechSet
from ml.evaluation import benchmark, recognition
from ml.evaluation.benchmark import Advance, Bench
from ml.evaluation.recognition import Answers
from ml.objectives import roc_auc
from ml.predictor import Predictor
from ml.scenes import ScenePlan, active_level

SNR_EDGES_DB = (0, 10, 20, 30)
AUC_ROUNDS = 500


@dataclass(frozen=True)
class Scored:
    """One figure of merit over n items: `scores` (n,), the higher the better, and slices, each a name (n,) per item.

    positive (n,) bool: the scores are presences, and the figure is their AUC; otherwise it is the mean score.
    right (n,): what slices compare; of an AUC, which has no items, whether each was decided rightly.
    slack: how many units of this figure a margin of 1 stands for.
    """

    name: str
    scores: np.ndarray
    slices: Mapping[str, np.ndarray] = field(default_factory=dict)
    positive: np.ndarray | None = None
    right: np.ndarray | None = None
    slack: float = 1.0

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def by_item(self) -> np.ndarray:
        return self.scores if self.right is None else self.right

    def figure(self, rows: np.ndarray | slice = slice(None)) -> float | None:
        """The figure over these rows; None where they cannot have one."""
        if self.positive is None:
            return float(self.scores[rows].mean()) if len(self.scores[rows]) else None
        positive = self.positive[rows]
        if not len(positive) or positive.all() or not positive.any():
            return None
        return roc_auc(torch.from_numpy(self.scores[rows]), torch.from_numpy(positive))

    def interval(self, rounds: int, seed: int) -> list[float] | None:
        """95 % bootstrap interval of the figure; None where it has none."""
        if self.figure() is None:
            return None
        rng, n = np.random.default_rng(seed), len(self)
        rounds = rounds if self.positive is None else min(rounds, AUC_ROUNDS)
        drawn = [self.figure(rng.integers(0, n, n)) for _ in range(rounds)]
        return [float(bound) for bound in np.percentile([one for one in drawn if one is not None], (2.5, 97.5))]


@dataclass(frozen=True)
class GateAnswers:
    """The four figures of the gate, and the share of the commonest class of the two accuracies."""

    scored: tuple[Scored, ...]
    majority_share: Mapping[str, float | None]

    def __getitem__(self, name: str) -> Scored:
        return next(one for one in self.scored if one.name == name)

    @property
    def section(self) -> dict:
        """As evaluation.json has it; null where the split holds nothing to measure."""
        names = {"images": "image_accuracy", "speech": "speech_accuracy", "scenes": "presence_auc"}
        counts = {key: len(self[name]) for key, name in names.items()}
        figures = {one.name: one.figure() for one in self.scored}
        return {**figures, "majority_share": dict(self.majority_share), "n": counts}


def gate_answers(
    predictor: Predictor,
    images: ImageSet,
    speech: SpeechSet,
    settings: Settings,
    asked: Sequence[str] | None = None,
    snr_db: Mapping[str, float] | None = None,
    advance: Advance = int,
) -> GateAnswers:
    """Answers to the gate split; for the same data, settings and `asked` the same items in the same order.

    asked: the words that scenes ask for, which all predictors that are compared have to know; None: all it knows.
    snr_db: of recordings by id, as measured in the data; without it recordings have no slices by SNR.
    """
    pictured = recognition.answer_images(predictor, images, "gate")
    heard = recognition.answer_speech(predictor, "chosen", speech, "gate")
    bench = benchmark.bench_of(predictor, images, speech, "gate", settings, asked)
    scenes = settings.evaluation.scenes.of(settings.training.budget)
    separated, found = (_separated(bench, scenes, advance), _found(bench, scenes, advance))
    recorded = np.array([(snr_db or {}).get(str(name), np.nan) for name in heard.ids], float)
    return GateAnswers(
        (
            Scored("image_accuracy", _right(pictured), _classes_and_groups(pictured, images, "writer")),
            Scored("speech_accuracy", _right(heard), _classes_and_groups(heard, speech, "speaker") | _by_snr(recorded)),
            found,
            separated,
        ),
        {
            "image_accuracy": recognition.majority_share(pictured),
            "speech_accuracy": recognition.majority_share(heard),
        },
    )


def _right(answers: Answers) -> np.ndarray:
    return answers.correct.astype(float)


def _classes_and_groups(answers: Answers, data: ImageSet | SpeechSet, person: str) -> dict[str, np.ndarray]:
    """Slices by true class, and by who wrote or spoke where that is known."""
    rows = data.where("gate")
    return {"class": np.array(rows.classes)[rows.labels], person: answers.groups}


def _by_snr(snr_db: np.ndarray) -> dict[str, np.ndarray]:
    """Slices by bands of 10 dB; "" where the SNR is not known."""
    edges = SNR_EDGES_DB
    names = [f"below {edges[0]} dB", *(f"{a} to {b} dB" for a, b in itertools.pairwise(edges))]
    names.append(f"{edges[-1]} dB and more")
    bands = np.array([*names, ""])[np.where(np.isnan(snr_db), len(names), np.digitize(snr_db, edges))]
    return {"SNR": bands}


def _separated(bench: Bench, scenes: int, advance: Advance) -> Scored:
    """SI-SDR improvement on full overlap, 0.01 of margin standing for 0.3 dB."""
    if len(bench.labels) < 2:
        return Scored("si_sdr_improvement_db", np.zeros(0), slack=30.0)
    words = benchmark.headline_plan(bench, "full", scenes).queries
    gains_db = benchmark.separation_gains(bench, "full", scenes, advance)
    return Scored("si_sdr_improvement_db", gains_db, {"class": np.array(bench.speech.classes)[words]}, slack=30.0)


def _found(bench: Bench, scenes: int, advance: Advance) -> Scored:
    """Presence of the pictured word in mixed scenes."""
    if len(bench.labels) < 2:
        return Scored("presence_auc", np.zeros(0), positive=np.zeros(0, bool))
    plan, found = benchmark.detection_plan(bench, scenes), benchmark.detections(bench, scenes, advance)
    said = found.presence > bench.predictor.presence_threshold
    slices = {"class": np.array(bench.speech.classes)[found.words]} | _by_snr(_snr_db(bench, plan))
    return Scored("presence_auc", found.presence, slices, found.present, (said == found.present).astype(float))


def _snr_db(bench: Bench, plan: ScenePlan) -> np.ndarray:
    """Of every scene's first word to its noise (n,)."""
    levels = [active_level(bench.speech.clip(row)) for row in plan.clips[:, 0]]
    return 20 * np.log10(np.maximum(plan.gains[:, 0] * levels, 1e-12) / np.maximum(plan.noise_levels, 1e-12))
