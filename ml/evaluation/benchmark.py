"""Extraction measured on seeded scenes: separation, presence, places, and whether another picture fetches another word.

SI-SDR and word accuracy are measured on the extractor's estimate from before the presence decision, so that a missed
word counts where misses are counted (presence AUC, misses, localisation) and not a second time as silence. How often
the whole answer is right, said to be present and recognised, is a figure of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ml import scenes, spotting
from ml.config import Settings
from ml.datasets import ImageSet, SpeechSet
from ml.evaluation import metrics
from ml.evaluation.examples import Example
from ml.evaluation.oracles import blind_estimates, oracle_estimates
from ml.evaluation.recognition import one_thread, renumbered, seconds
from ml.objectives import roc_auc
from ml.predictor import Interval, Predictor, Separated, Word

SCENES_PER_PASS = 60
SPEED_SCENES = 7
Advance = Callable[[int], object]
Separator = Callable[[np.ndarray], np.ndarray]  # mixtures (b, samples) to two sounds of each (2, b, samples)


@dataclass(frozen=True)
class Bench:
    """What a benchmark is made of: one split's clips and pictures, a predictor, and the seed.

    asked: the only words. separator: one more opponent, which separates without the picture.
    """

    predictor: Predictor
    speech: SpeechSet
    images: ImageSet
    scene_s: float
    seed: int
    asked: Sequence[str] | None = None
    separator: Separator | None = None

    @property
    def labels(self) -> list[str]:
        """Labels that this split has pictures and clips of."""
        pictured = {self.images.classes[i] for i in set(self.images.labels.tolist())}
        heard = {self.speech.classes[i] for i in set(self.speech.labels.tolist())}
        asked = pictured & heard & set(self.predictor.labels if self.asked is None else self.asked)
        return [label for label in self.speech.classes if label in asked]

    def pictures(self, words: np.ndarray) -> np.ndarray:
        """One picture (n, h, w, c) of each word (n,), a position in speech.classes."""
        pictured = renumbered(self.images.labels, self.images.classes, self.speech.classes)
        rng = np.random.default_rng((self.seed, 7))
        return np.stack([self.images.pixels[rng.choice(np.flatnonzero(pictured == word))] for word in words])


@dataclass(frozen=True)
class Headline:
    """Per scene of two words at 0 dB, arrays (n,): gains in dB, which words were right, which swaps succeeded.

    answered_right: the extracted word was, and it was said to be present. swapped: only of the scenes whose other word
    has a picture.
    """

    gains_db: np.ndarray
    unseen: np.ndarray
    extracted_right: np.ndarray
    answered_right: np.ndarray
    unprocessed_right: np.ndarray
    clean_right: np.ndarray
    swapped: np.ndarray
    others_db: dict[str, np.ndarray]  # oracles and baselines


@dataclass(frozen=True)
class Found:
    """Per mixed scene: presence (n,) and truth (n,), and where the word may be and where it is, in seconds.

    found: also what is too unsure to be told, for average precision weighs every span by how sure it is.
    """

    words: np.ndarray
    presence: np.ndarray
    present: np.ndarray
    found: list[list[Interval]]
    true_s: list[list[tuple[float, float]]]


def bench_of(
    predictor: Predictor,
    images: ImageSet,
    speech: SpeechSet,
    split: str,
    settings: Settings,
    asked: Sequence[str] | None = None,
) -> Bench:
    """The benchmark on one split."""
    chosen = settings.evaluation
    return Bench(predictor, speech.where(split), images.where(split), chosen.scene_s, chosen.seed, asked)


def rendered(bench: Bench, plan: scenes.ScenePlan, advance: Advance) -> Iterator[tuple[scenes.Scenes, slice]]:
    """The planned scenes in parts small enough for memory, with the rows that each part holds."""
    for start in range(0, len(plan), SCENES_PER_PASS):
        stop = min(start + SCENES_PER_PASS, len(plan))
        yield scenes.render(plan, bench.speech, start, stop), slice(start, stop)
        advance(stop - start)


def headline_plan(bench: Bench, overlap: str, n: int) -> scenes.ScenePlan:
    return scenes.headline_scenes(bench.speech, n, overlap, bench.seed, bench.labels, bench.scene_s)


def separation_gains(bench: Bench, overlap: str, n: int, advance: Advance) -> np.ndarray:
    """SI-SDR improvement (n,) in dB on scenes of two words at 0 dB."""
    plan, gains = headline_plan(bench, overlap, n), []
    queries = bench.predictor.queries(bench.predictor.classify_images(bench.pictures(plan.queries)))
    for scene, rows in rendered(bench, plan, advance):
        estimates = bench.predictor.separate(scene.mixture, queries[rows]).estimates
        gains.append(metrics.improvement_db(estimates, scene.mixture, scene.target))
    return np.concatenate(gains)


def headline(bench: Bench, n: int, trained_on: set[str], advance: Advance) -> Headline:
    """Everything that is measured on full overlap; trained_on: the speakers that training heard."""
    plan = headline_plan(bench, "full", n)
    ask = bench.predictor.queries
    shown = ask(bench.predictor.classify_images(bench.pictures(plan.queries)))
    others = other_words(bench.speech, plan)
    pictured = np.isin(others, [bench.speech.classes.index(label) for label in bench.labels])
    swapped = ask(bench.predictor.classify_images(bench.pictures(np.where(pictured, others, plan.queries))))
    parts = [_headline_part(bench, scene, shown[rows], swapped[rows]) for scene, rows in rendered(bench, plan, advance)]
    groups = bench.speech.group[plan.clips]  # (n, words)
    unseen = np.isin(groups, [*trained_on, ""], invert=True).all(axis=1)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name != "others_db"}
    joined["swapped"] = joined["swapped"][pictured]
    others_db = {name: np.concatenate([part["others_db"][name] for part in parts]) for name in parts[0]["others_db"]}
    return Headline(**joined, unseen=np.asarray(unseen), others_db=others_db)


def other_words(speech: SpeechSet, plan: scenes.ScenePlan) -> np.ndarray:
    """Of two different words in every scene the one that was not asked for (n,)."""
    labels = speech.labels[plan.clips]  # (n, 2)
    return np.where(labels[:, 0] == plan.queries, labels[:, 1], labels[:, 0])


def _headline_part(bench: Bench, scene: scenes.Scenes, shown: np.ndarray, swapped: np.ndarray) -> dict:
    predictor, mixture, target = bench.predictor, scene.mixture, scene.target
    found = predictor.separate(mixture, shown)
    other = scene.words.sum(axis=1) - target  # two words, one of them the target
    estimates = oracle_estimates(mixture, target) | blind_estimates(mixture)
    sounds, places = _surest_words(bench, scene, found.word_presence)
    estimates["audio_only"] = sounds[0]
    estimates["separate_then_recognise"] = _recognised(bench, scene, sounds, places)
    if bench.separator is not None:
        spans = [[Interval(*one, 1.0) for one in true] for true in true_intervals_s(scene, bench.speech.sample_rate_hz)]
        estimates["blind_separation"] = _recognised(bench, scene, bench.separator(mixture), [spans, spans])
    refound = predictor.separate(mixture, swapped).estimates
    nearer = metrics.si_sdr_db(refound, other) > metrics.si_sdr_db(refound, target)
    return {
        "gains_db": metrics.improvement_db(found.estimates, mixture, target),
        "swapped": nearer,
        "others_db": {name: metrics.improvement_db(one, mixture, target) for name, one in estimates.items()},
        **_words_right(bench, scene, found),
    }


def _surest_words(bench: Bench, scene: scenes.Scenes, word_presence: np.ndarray) -> tuple[np.ndarray, list]:
    """The two words heard most surely, by word_presence (b, labels): their sounds (2, b, samples) and places."""
    predictor, duration_s = bench.predictor, scene.mixture.shape[1] / bench.speech.sample_rate_hz
    sounds, places = [], []
    for labels in np.argsort(-word_presence, axis=1)[:, :2].T:
        found = predictor.separate(scene.mixture, np.eye(word_presence.shape[1], dtype=np.float32)[labels])
        sounds.append(found.estimates)
        places.append([predictor.intervals(one, duration_s) for one in found.places])
    return np.stack(sounds), places


def _recognised(bench: Bench, scene: scenes.Scenes, sounds: np.ndarray, places: list) -> np.ndarray:
    """Estimates (b, samples) of who separates first and looks at the picture last.

    Of all sounds (sounds, b, samples) with their intervals, the one that the speech classifier most surely calls the
    pictured word.
    """
    wanted, sureness = np.array(bench.speech.classes)[scene.queries], []
    for sound, place in zip(sounds, places, strict=True):
        sureness.append([
            (1 if one.label == word else -1) * one.probability if one else -1.0
            for one, word in zip(bench.predictor.heard(sound, place), wanted, strict=True)
        ])  # fmt: skip
    return sounds[np.argmax(sureness, axis=0), np.arange(len(wanted))]


def _words_right(bench: Bench, scene: scenes.Scenes, answers: Separated) -> dict[str, np.ndarray]:
    """Whether the asked word is recognised: in the estimate where it was found, in mixture and target where it is."""
    predictor, duration_s = bench.predictor, scene.mixture.shape[1] / bench.speech.sample_rate_hz
    wanted = np.array(bench.speech.classes)[scene.queries]
    found = [predictor.intervals(one, duration_s) for one in answers.places]
    true = [[Interval(*span, 1.0) for span in spans] for spans in true_intervals_s(scene, bench.speech.sample_rate_hz)]
    asked = {
        "extracted": (answers.estimates, found),
        "unprocessed": (scene.mixture, true),
        "clean": (scene.target, true),
    }
    right = {
        f"{name}_right": np.array([
            heard is not None and heard.label == word
            for heard, word in zip(predictor.heard(*sounds), wanted, strict=True)
        ])
        for name, sounds in asked.items()
    }  # fmt: skip
    said = answers.presence > predictor.presence_threshold
    return right | {"answered_right": right["extracted_right"] & said}


def true_intervals_s(scene: scenes.Scenes, rate_hz: int) -> list[list[tuple[float, float]]]:
    """Where the asked word is in every scene, in seconds."""
    wanted = scene.word_labels == scene.queries[:, None]
    return [
        [(start / rate_hz, end / rate_hz) for start, end in spans[mine].tolist()]
        for spans, mine in zip(scene.intervals, wanted, strict=True)
    ]


def detection_plan(bench: Bench, n: int) -> scenes.ScenePlan:
    return scenes.draw_scenes(bench.speech, n, "any", bench.seed + 1, bench.labels, scene_s=bench.scene_s)


def detections(bench: Bench, n: int, advance: Advance) -> Found:
    """What is found in mixed scenes: 1 to 3 words, any overlap, 30 % of them without the pictured word."""
    plan = detection_plan(bench, n)
    queries = bench.predictor.queries(bench.predictor.classify_images(bench.pictures(plan.queries)))
    presence, found, true, rate_hz = [], [], [], bench.speech.sample_rate_hz
    for scene, rows in rendered(bench, plan, advance):
        answers = bench.predictor.locate(scene.mixture, queries[rows])
        presence.append(answers.presence)
        duration_s = plan.samples / rate_hz
        found += [bench.predictor.candidates(one, duration_s) for one in answers.places]
        true += true_intervals_s(scene, rate_hz)
    return Found(plan.queries, np.concatenate(presence), plan.present, found, true)


def all_words(bench: Bench, n: int, advance: Advance) -> tuple[list[list[Word]], list[list[Word]]]:
    """Of every scene of `detections` all words that are heard when none is asked for, and all that are said."""
    heard, said = [], []
    for scene, _ in rendered(bench, detection_plan(bench, n), advance):
        heard += [bench.predictor.words(mixture) for mixture in scene.mixture]
        said += _said(bench, scene)
    return heard, said


def _said(bench: Bench, scene: scenes.Scenes) -> list[list[Word]]:
    """Every word of every scene that the extractor could find, and where it is."""
    rate_hz, classes = bench.speech.sample_rate_hz, bench.speech.classes
    return [
        [
            Word(classes[label], 1.0, float(start) / rate_hz, float(end) / rate_hz)
            for label, (start, end) in zip(labels, spans, strict=True)
            if label >= 0 and classes[label] in bench.predictor.labels
        ]
        for labels, spans in zip(scene.word_labels, scene.intervals, strict=True)
    ]


def words_figures(heard: list[list[Word]], said: list[list[Word]], rounds: int, seed: int) -> dict[str, object]:
    """words_f1 of the words of all recordings, and words_f1_ci95 by resampling these; null where no word is.

    One heard is right if a word of its label is said with IoU >= 0.5.
    """
    counts = np.array([_counted(*pair) for pair in zip(heard, said, strict=True)], float)  # (recordings, 2)
    if not counts[:, 1].sum():
        return {"words_f1": None, "words_f1_ci95": None}
    interval = metrics.ratio_interval(counts[:, 0], counts[:, 1], rounds, seed)
    return {"words_f1": float(counts[:, 0].sum() / counts[:, 1].sum()), "words_f1_ci95": interval}


def _counted(heard: list[Word], said: list[Word]) -> tuple[int, int]:
    """Of one recording, the words that are right, those heard and those said; and all of both."""
    right = 0
    for label in {word.label for word in heard}:
        mine, there = ([word for word in words if word.label == label] for words in (heard, said))
        edges = [[(word.start_s, word.end_s) for word in words] for words in (mine, there)]
        right += len(spotting.matched(edges[0], [word.probability for word in mine], edges[1]))
    return 2 * right, len(heard) + len(said)


def presence_figures(found: Found) -> dict[str, float | None]:
    """presence_auc and miss_at_1pct_false_alarm; null where all scenes are of one kind."""
    if found.present.all() or not found.present.any():
        return {"presence_auc": None, "miss_at_1pct_false_alarm": None}
    return {
        "presence_auc": roc_auc(torch.from_numpy(found.presence), torch.from_numpy(found.present)),
        "miss_at_1pct_false_alarm": metrics.miss_at_false_alarm(found.presence, found.present, 0.01),
    }


def place_figures(found: Found) -> dict[str, float | None]:
    """localisation_map, the mean over words of average precision at IoU 0.5, and boundary_error_ms_median."""
    scores, hits, words, errors_ms = [], [], [], []
    for word, spans, true in zip(found.words, found.found, found.true_s, strict=True):
        edges, sure = [(span.start_s, span.end_s) for span in spans], [span.score for span in spans]
        matched = spotting.matched(edges, sure, true)
        scores += sure
        hits += [index in matched for index in range(len(spans))]
        words += [word] * len(spans)
        errors_ms += [1000 * abs(a - b) for i, j in matched.items() for a, b in zip(edges[i], true[j], strict=True)]
    precisions = _precisions(found, np.array(scores), np.array(hits, bool), np.array(words))
    return {
        "localisation_map": float(np.mean(precisions)) if precisions else None,
        "boundary_error_ms_median": float(np.median(errors_ms)) if errors_ms else None,
    }


def _precisions(found: Found, scores: np.ndarray, hits: np.ndarray, words: np.ndarray) -> list[float]:
    there = {int(word): 0 for word in found.words}
    for word, true in zip(found.words, found.true_s, strict=True):
        there[int(word)] += len(true)
    return [
        metrics.average_precision(scores[words == word], hits[words == word], count)
        for word, count in there.items()
        if count
    ]


def real_time_factor(bench: Bench) -> float:
    """Time of `Predictor.extract` on one thread over the length of the recording; the median of a few scenes."""
    plan = headline_plan(bench, "full", SPEED_SCENES)
    mixtures, pictures = scenes.render(plan, bench.speech).mixture, bench.pictures(plan.queries)
    rate_hz = bench.speech.sample_rate_hz
    with one_thread():
        bench.predictor.extract(pictures[0], mixtures[0], rate_hz)
        times = [seconds(bench.predictor.extract, *pair, rate_hz) for pair in zip(pictures, mixtures, strict=True)]
    return float(np.median(times)) * rate_hz / mixtures.shape[1]


def examples(bench: Bench, per_bucket: int = 2) -> list[Example]:
    """The first scenes of every overlap, asked as a user would."""
    made = []
    for overlap in ("full", "partial", "none"):
        plan = headline_plan(bench, overlap, per_bucket)
        scene, pictures = scenes.render(plan, bench.speech), bench.pictures(plan.queries)
        made += [_example(bench, overlap, scene, pictures, row) for row in range(per_bucket)]
    return made


def _example(bench: Bench, overlap: str, scene: scenes.Scenes, pictures: np.ndarray, row: int) -> Example:
    rate_hz = bench.speech.sample_rate_hz
    answer = bench.predictor.extract(pictures[row], scene.mixture[row], rate_hz)
    gain_db = metrics.improvement_db(answer.estimate, scene.mixture[row], scene.target[row])
    return Example(
        label=bench.speech.classes[scene.queries[row]],
        bucket="no overlap" if overlap == "none" else f"{overlap} overlap",
        picture=pictures[row],
        mixture=scene.mixture[row],
        target=scene.target[row],
        estimate=answer.estimate,
        rate_hz=rate_hz,
        true_s=true_intervals_s(scene, rate_hz)[row],
        found_s=[(span.start_s, span.end_s) for span in answer.intervals],
        presence=answer.presence,
        heard=answer.heard.label if answer.heard else None,
        improvement_db=float(gain_db),
    )
