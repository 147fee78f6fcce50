"""Training of the extractor: scenes mixed on the fly, asked for by the posteriors of real pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ml import datasets, extraction, features, models, objectives, scenes, spotting
from ml.config import UserError
from ml.training.loop import CHECKPOINT_STEPS, Run, finish, fit, half_precision, plan_run, required, seeded

if TYPE_CHECKING:
    from ml.config import ExtractorRecipe, Training
    from ml.datasets import ImageSet, SpeechSet

QUERY_PICTURES = 300  # per label
SCENE_WORDS = 1.1  # long words that a scene holds at least: what is silence teaches little, and costs as much
WORD_SCENES, SCENES_PER_PASS = 900, 60  # in which the threshold of words is chosen; fewer would leave it to chance
CANDIDATES = [k / 100 for k in range(2, 99)]  # thresholds of probabilities, among which validation chooses
Places = tuple[np.ndarray, list[list[float]]]  # of one label in one scene, and the spans where it is said
PRESENCE_WEIGHT, ACTIVITY_WEIGHT, SPOTTING_WEIGHT = 10.0, 20.0, 2.0  # bring these losses to the size of decibels


def train_speech_extractor(
    speech: SpeechSet,
    image_dir: Path,
    images: ImageSet,
    recipe: ExtractorRecipe,
    training: Training,
    out: Path,
    checkpoints: Path,
    progress: bool = True,
    checkpoint_steps: int = CHECKPOINT_STEPS,
    body: type[extraction.Extractor] = extraction.Extractor,
    extra: SpeechSet | None = None,
) -> dict:
    """Trains and saves the extractor; its queries are the posteriors of real pictures by the model in `image_dir`.

    The thresholds of presence, of an interval of the word asked for and of a word where none is asked for are chosen on
    validation scenes and stand in the card, as probabilities.
    body: another kind of extractor to compare; what is saved of it no Predictor takes. extra: further voices that say
    the same words; recipe.extra_voices is their share of the words in its scenes.
    """
    name = "speech_extractor" if body is extraction.Extractor else f"speech_extractor_{body.__name__}"
    image_model, image_card = models.load_model(image_dir)
    data = {"audio": speech.digest, "images": images.digest, "image_classifier": image_card["digests"][models.WEIGHTS]}
    data |= {"extra_voices": extra.digest} if extra else {}
    run = half_precision(plan_run(name, recipe, training, data, checkpoints, progress, checkpoint_steps))
    run = dataclasses.replace(run, identity={**run.identity, **recipe.body(training.budget)})
    labels = extraction.shared_labels(image_card["classes"], speech.classes)
    if len(labels) < 2:
        raise UserError(f"{run.name}: {len(labels)} labels are both pictured and spoken; expected at least 2")
    arguments = {"labels": list(labels), "sample_rate_hz": speech.sample_rate_hz, **recipe.body(training.budget)}
    with seeded(run.seed):
        model = body(**arguments)
    train, held = required(speech, "train", run.name), required(speech, "validation", run.name)
    ask = Asker(image_model, image_card, labels, speech.classes, run.device)
    asked = ask.pictures(required(images, "train", run.name), run.seed)
    samples = scenes.scene_samples(train, recipe.scene_s, SCENE_WORDS)
    spoken, speeds = datasets.joined(train, extra) if extra else train, scenes.speeds_within(recipe.speed_change)
    bank = scenes.clip_bank(spoken, run.device, speeds, own=len(train))
    queryable = ~asked[:, 0, 0].isnan().cpu()
    mixed = mixed_scenes(run, bank, recipe.extra_voices, queryable, samples, model.hop_samples)
    loss_of = scene_loss(mixed, asked, speech.classes, labels, model.hop_samples)
    trial = Trial(held, *judged(ask, required(images, "validation", run.name), held, labels, run.seed), run)
    trained = fit(run, model, loss_of, lambda model: {"validation_si_sdr_improvement_db": trial.improvement(model, 50)})
    assert isinstance(trained.model, extraction.Extractor)
    thresholds, metrics = trial.conclude(trained.model)
    card = {"kind": run.name, "arguments": arguments, "classes": list(labels), "temperature": 1.0}
    card |= {"sample_rate_hz": speech.sample_rate_hz, **thresholds, "metrics": metrics}
    return finish(run, trained, out, card)


def judged(
    ask: Asker, images: ImageSet, speech: SpeechSet, labels: tuple[str, ...], seed: int
) -> tuple[Tensor, tuple[str, ...]]:
    """Queries and labels of validation: those of `labels` that it has pictures and clips of; UserError without any."""
    pictured = {images.classes[number] for number in np.unique(images.labels)}
    heard = {speech.classes[number] for number in np.unique(speech.labels)}
    both = tuple(label for label in labels if label in pictured & heard)
    if not both or len(heard) < 2:
        raise UserError(
            f"speech_extractor: the validation split has pictures and clips of {len(both)} labels, clips of "
            f"{len(heard)}; expected at least 1 and 2, add more of each label"
        )
    return ask.pictures(images, seed, both), both


class Asker:
    """Turns pictures into queries: calibrated posteriors of the image classifier over the shared labels."""

    def __init__(
        self, model: nn.Module, card: dict, labels: tuple[str, ...], heard: tuple[str, ...], device: torch.device
    ):
        self.model, self.card, self.labels, self.heard, self.device = model.to(device), card, labels, heard, device

    def pictures(self, images: ImageSet, seed: int, labels: tuple[str, ...] | None = None) -> Tensor:
        """Queries (speech classes, pictures, labels) of pictures of every label, lightly moved; NaN where none is.

        labels: those that pictures are required of; all that are both pictured and spoken where it is None.
        """
        generator = torch.Generator().manual_seed(seed)
        table = torch.full((len(self.heard), QUERY_PICTURES, len(self.labels)), torch.nan)
        for label in self.labels if labels is None else labels:
            rows = np.flatnonzero(np.asarray(images.labels) == images.classes.index(label))
            if len(rows) == 0:
                raise UserError(f"speech_extractor: no picture of {label!r} in this split; expected at least one")
            chosen = rows[torch.randint(len(rows), (QUERY_PICTURES,), generator=generator).numpy()]
            table[self.heard.index(label)] = self.queries(np.array(images.pixels[np.sort(chosen)]), generator).cpu()
        return table.to(self.device)

    @torch.no_grad()
    def queries(self, pixels: np.ndarray, generator: torch.Generator) -> Tensor:
        """Queries (n, labels) of pixels uint8 (n, h, w, c)."""
        pictures = features.to_pictures(torch.from_numpy(pixels).to(self.device))
        maps = features.draw_affine(len(pictures), features.AffineRange(), generator)
        logits = self.model(features.apply_affine(pictures, maps)).float()
        posteriors = torch.softmax(logits / self.card["temperature"], dim=1)
        return extraction.query_of(posteriors, self.card["classes"], self.labels)


def scene_loss(
    mixed: Callable[[torch.Generator], scenes.SceneBatch],
    asked: Tensor,
    heard: tuple[str, ...],
    labels: tuple[str, ...],
    hop_samples: int,
) -> Callable[[nn.Module, int, torch.Generator], Tensor]:
    """The loss of a step on a batch of `mixed` scenes: separation of the words asked for; presence, activity and places
    of all.

    asked: queries by class of `heard` and picture, of `Asker.pictures`.
    """
    device = asked.device
    known = torch.tensor([heard.index(label) for label in labels], device=device)
    numbers = [labels.index(word) if word in labels else -1 for word in heard]
    numbers = torch.tensor([*numbers, -1], device=device)  # of every class among the labels; the last is no word

    def loss_of(model: nn.Module, step: int, generator: torch.Generator) -> Tensor:
        batch = mixed(generator)
        picked = torch.randint(asked.shape[1], (len(batch.queries),), generator=generator).to(device)
        output = model(batch.mixture, asked[batch.queries, picked], about=batch.scene)
        active = batch.active[:, known]  # (b, labels, frames)
        spans, said = batch.spans / hop_samples, numbers[batch.labels]
        return (
            objectives.separation_loss(output.estimate, batch.target, batch.mixture[batch.scene], batch.present)
            + PRESENCE_WEIGHT * objectives.presence_loss(output.word_presence, active.any(2))
            + ACTIVITY_WEIGHT * objectives.presence_loss(output.word_places[:, :, 3], active)
            + SPOTTING_WEIGHT * spotting.spotting_loss(output.word_places, spans, said)
        )

    return loss_of


def mixed_scenes(
    run: Run, bank: scenes.ClipBank, extra_share: float, queryable: Tensor, samples: int, hop_samples: int
) -> Callable[[torch.Generator], scenes.SceneBatch]:
    """What mixes a batch of scenes on the run's device; queryable (classes,) bool: labels that have pictures."""
    noise = scenes.noise_bank(torch.Generator().manual_seed(run.seed), run.device, bank.sample_rate_hz)
    confusable = scenes.confusable_labels(word_shapes(bank), bank.labels, bank.classes)
    n = run.recipe.batch_size

    def mixed(generator: torch.Generator) -> scenes.SceneBatch:
        drawn = scenes.draw_training_scenes(bank, n, confusable, generator, queryable, extra_share)
        return scenes.mix(bank, noise, drawn, samples, hop_samples)

    return mixed


def word_shapes(bank: scenes.ClipBank, slices: int = 8, batch: int = 64) -> Tensor:
    """What every clip sounds like in a few numbers (clips, d): its log-mel spectrogram averaged in `slices` of time."""
    device = bank.samples.device
    log_mel, shapes = features.LogMel(bank.sample_rate_hz).to(device), []
    speed = bank.speeds // 2
    for rows in torch.arange(len(bank), device=device).split(batch):
        speeds = torch.full_like(rows, speed)
        sizes = bank.active_ends[rows, speed] - bank.active_starts[rows, speed]
        waveforms = bank.place(rows, speeds, -bank.active_starts[rows, speed], int(sizes.max()))
        mel, frames = log_mel(waveforms, sizes)
        shapes += [
            nn.functional.adaptive_avg_pool1d(m[:, :n], slices).flatten() for m, n in zip(mel, frames, strict=True)
        ]
    return torch.stack(shapes).cpu()


class Trial:
    """Validation scenes of the extractor: the headline ones, mixed ones with absent words for the thresholds, and more
    of these for that of words that nothing asks for, which takes listening alone."""

    def __init__(self, speech: SpeechSet, asked: Tensor, labels: tuple[str, ...], run: Run):
        heads = scenes.headline_scenes(speech, 150, "full", run.seed, labels)
        mixed = scenes.draw_scenes(speech, 300, "any", run.seed + 1, labels, absent_share=0.5)
        self.headline, self.mixed = scenes.render(heads, speech), scenes.render(mixed, speech)
        self.words, self.speech = scenes.draw_scenes(speech, WORD_SCENES, "any", run.seed + 2, labels), speech
        self.asked, self.device = asked, run.device

    def parts(self, rendered: scenes.Scenes, n: int, batch: int = 25) -> Iterator[tuple[Tensor, Tensor]]:
        """Mixtures (b, samples) and queries (b, labels) of the first n scenes."""
        for start in range(0, n, batch):
            part = slice(start, min(start + batch, n))
            queries = torch.from_numpy(rendered.queries[part]).to(self.device)
            picked = torch.arange(start, start + len(queries), device=self.device) % self.asked.shape[1]
            yield torch.from_numpy(rendered.mixture[part]).to(self.device), self.asked[queries, picked]

    @torch.no_grad()
    def improvement(self, model: nn.Module, n: int) -> float:
        """Mean SI-SDR improvement in dB on the first n headline scenes."""
        n = min(n, len(self.headline.queries))
        target, mixture = (torch.from_numpy(x[:n]) for x in (self.headline.target, self.headline.mixture))
        estimate = torch.cat([model(*part).estimate.float().cpu() for part in self.parts(self.headline, n)])
        return float((objectives.si_sdr_db(estimate, target) - objectives.si_sdr_db(mixture, target)).mean())

    @torch.no_grad()
    def conclude(self, model: extraction.Extractor) -> tuple[dict, dict]:
        """Thresholds chosen on, and figures of, all the validation scenes."""
        present = torch.from_numpy(self.mixed.present)
        answers = [model.listen(mixture).asked(query) for mixture, query in self.parts(self.mixed, len(present))]
        logits, places = (torch.cat(parts).float().cpu() for parts in zip(*answers, strict=True))
        presence, asked = logits.sigmoid(), spotted(self.asked_for(places, model.hop_samples))
        every = spotted(self.heard(model))
        thresholds = {
            "presence_threshold": best_threshold(lambda least: balanced_accuracy(presence > least, present)),
            "interval_threshold": best_threshold(asked.f1),
            "word_threshold": best_threshold(every.f1),
        }
        metrics = {
            "validation_si_sdr_improvement_db": self.improvement(model, len(self.headline.queries)),
            "validation_presence_auc": objectives.roc_auc(presence, present),
            "validation_presence_balanced_accuracy": balanced_accuracy(
                presence > thresholds["presence_threshold"], present
            ),
            "validation_interval_f1": asked.f1(thresholds["interval_threshold"]),
            "validation_word_f1": every.f1(thresholds["word_threshold"]),
        }
        return thresholds, metrics

    def asked_for(self, found: Tensor, hop_samples: int) -> Iterator[Places]:
        """Of every scene that says the word asked for its places (4, frames), and its spans in frames; found (mixed
        scenes, 4, frames): places with logits."""
        places = extraction.probable(found).numpy()
        for row in np.flatnonzero(self.mixed.present):
            yield places[row], said_in(self.mixed, int(row), self.mixed.queries[row], hop_samples)

    @torch.no_grad()
    def heard(self, model: extraction.Extractor) -> Iterator[Places]:
        """Of every scene of `words` and label the places (5, frames), and the label's spans in frames."""
        numbers = [self.speech.classes.index(label) for label in model.labels]
        for start in range(0, len(self.words), SCENES_PER_PASS):
            part = scenes.render(self.words, self.speech, start, start + SCENES_PER_PASS)
            heard = model.listen(torch.from_numpy(part.mixture).to(self.device))
            places = torch.cat((extraction.probable(heard.word_places), heard.word_scores[:, :, None]), dim=2).cpu()
            for row, column in np.ndindex(*places.shape[:2]):
                yield places[row, column].numpy(), said_in(part, row, numbers[column], model.hop_samples)


def said_in(rendered: scenes.Scenes, row: int, word: int, hop_samples: int) -> list[list[float]]:
    """Spans in frames at which a scene says a word, a position in the classes."""
    return (rendered.intervals[row][rendered.word_labels[row] == word] / hop_samples).tolist()


@dataclass(frozen=True)
class Spotted:
    """Of all spans found (n,): how sure each is and whether it is right; `said` are to be found."""

    sure: Tensor
    right: Tensor
    said: int

    def f1(self, threshold: float) -> float:
        decided = self.sure > threshold
        return float(2 * (decided & self.right).sum() / (decided.sum() + self.said).clamp(min=1))


def spotted(places: Iterable[Places]) -> Spotted:
    """All spans that places give, each with the true spans of its label."""
    sure, right, said = [], [], 0
    for where, true in places:
        centres = spotting.peaks(where)
        spans = spotting.spans_at(where, centres)
        scores = spotting.own_scores(spans.tolist(), spotting.scores_at(where, centres, spans).tolist())
        hits = spotting.matched(spans.tolist(), scores, true)
        sure += scores
        right += [index in hits for index in range(len(spans))]
        said += len(true)
    return Spotted(torch.tensor(sure), torch.tensor(right, dtype=torch.bool), said)


def best_threshold(figure: Callable[[float], float]) -> float:
    """The middle of the CANDIDATES at which a figure is best."""
    figures = [figure(threshold) for threshold in CANDIDATES]
    best = [one for one, value in zip(CANDIDATES, figures, strict=True) if value >= max(figures) - 1e-9]
    return best[len(best) // 2]


def balanced_accuracy(decided: Tensor, truth: Tensor) -> float:
    hits, rejections = decided[truth].float(), (~decided[~truth]).float()
    parts = [part.mean() for part in (hits, rejections) if len(part)]
    return float(torch.stack(parts).mean())
