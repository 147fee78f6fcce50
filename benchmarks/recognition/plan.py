"""Which trainings the comparison consists of. One piece is one training, cached under its key; any order resumes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace

from ml.config import OPTIMIZERS, SPEECH_KINDS, Augmentation, PerBudget, Settings, SpeechRecipe

RATES = {"adamw": (0.002, 0.005), "sgd": (0.03, 0.1), "muon": (0.003, 0.01)}  # about half a decade apart
DECAYS = {"adamw": 0.01, "sgd": 0.0005, "muon": 0.1}  # usual ones, of what the recipe is not trained by
EXTRA_SHARE = 0.15
LEFT_OUT = ("nicolas", "theo", "george", "lucas")  # their figures choose nothing
CHOOSING_SPEAKERS = ("jackson", "yweweler")  # noise and augmentation are chosen on these
SPEAKERS = (*LEFT_OUT, *CHOOSING_SPEAKERS)
LAYERS = ("cnn", "cnn_shallow", "cnn_strided", "cnn_mean", "cnn_max", "cnn_dense")
PARTS = ("grid", "final", "unseen", "augmentation", "data", "layers")


@dataclass(frozen=True)
class Effort:
    """How much one budget spends beside its final trainings."""

    grid_steps: dict[str, int]
    seeds: int
    short_steps: int  # of ablations and learning curves
    left_out: int


_QUICK = Effort({"cnn": 100, "rnn": 160, "lstm": 160}, seeds=2, short_steps=300, left_out=2)
_MEDIUM = Effort({"cnn": 150, "rnn": 250, "lstm": 250}, seeds=5, short_steps=300, left_out=len(SPEAKERS))
EFFORT = {"quick": _QUICK, "medium": _MEDIUM, "full": _MEDIUM}  # at full only the final trainings are longer


@dataclass(frozen=True)
class Piece:
    """One training. left_out: a speaker; share: of the training clips; changed: what of the augmentation is off."""

    part: str
    kind: str
    optimizer: str
    learning_rate: float
    steps: int
    seed: int = 0
    left_out: str = ""
    extra_voices: float = 0.0
    share: float = 1.0
    changed: str = "all"

    def key(self, settings: Settings) -> str:
        """A name that changes with the piece and with the recipe it is trained by."""
        made_of = json.dumps([asdict(self), asdict(self.recipe(settings))], sort_keys=True)
        return f"{self.part}-{self.kind}-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"

    def recipe(self, settings: Settings) -> SpeechRecipe:
        recipe = settings.speech_classifier.of(self.kind.partition("_")[0])
        own = self.optimizer == recipe.optimizer
        return replace(
            recipe,
            weight_decay=recipe.weight_decay if own else DECAYS[self.optimizer],
            steps=PerBudget(self.steps, self.steps, self.steps),
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            augmentation=changed(recipe.augmentation, self.changed),
            extra_voices=self.extra_voices,
        )


def changed(whole: Augmentation, name: str) -> Augmentation:
    """The augmentation as it is ("all"), as it was ("before"), without a part ("no warp"), or with none ("none")."""
    off = {
        "warp": {"warp": 0.0},
        "stretch": {"stretch": 0.0},
        "equaliser": {"equaliser": 0.0},
        "noise": {"noise_share": 0.0},
        "rooms": {"room_share": 0.0},
    }
    if name == "all":
        return whole
    if name == "before":
        noise = {"noise_share": 0.75, "least_snr_db": 0.0, "most_snr_db": 40.0}
        return replace(whole, warp=0.0, stretch=0.0, equaliser=0.2, room_share=0.0, **noise)
    if name == "none":
        return replace(whole, **{key: value for change in off.values() for key, value in change.items()})
    return replace(whole, **off[name.removeprefix("no ")])


AUGMENTATIONS = ("before", "all", "none", "no warp", "no stretch", "no equaliser", "no noise", "no rooms")


def grid(budget: str) -> Iterator[Piece]:
    """The same small grid for every kind."""
    effort = EFFORT[budget]
    for kind in SPEECH_KINDS:
        for optimizer in OPTIMIZERS:
            for rate in RATES[optimizer]:
                yield Piece("grid", kind, optimizer, rate, effort.grid_steps[kind])


def chosen(results: Mapping[str, dict], kind: str, settings: Settings) -> tuple | None:
    """(optimizer, learning rate) of the grid's best validation loss for this kind; None before its grid is whole."""
    pieces = [piece for piece in grid(settings.training.budget) if piece.kind == kind]
    found = [results.get(piece.key(settings)) for piece in pieces]
    if not all(found):
        return None
    best = min(zip(pieces, found, strict=True), key=lambda pair: pair[1]["validation"]["loss"])[0]
    return best.optimizer, best.learning_rate


def pieces(settings: Settings, results: Mapping[str, dict]) -> Iterator[Piece]:
    """Every piece that can be named yet: those behind the grid wait for its outcome."""
    budget = settings.training.budget
    effort = EFFORT[budget]
    yield from grid(budget)
    how = {kind: chosen(results, kind, settings) for kind in SPEECH_KINDS}
    if not all(how.values()):
        return
    recipes = {kind: settings.speech_classifier.of(kind) for kind in SPEECH_KINDS}
    final_steps = {kind: recipe.steps.of(budget) for kind, recipe in recipes.items()}
    # more of them hear noise better, and strangers no better
    steps = {kind: min(final_steps[kind], recipe.steps.medium) for kind, recipe in recipes.items()}
    for kind in SPEECH_KINDS:
        yield Piece("final", kind, *how[kind], final_steps[kind])
    for extra in (0.0, EXTRA_SHARE):
        for speaker in SPEAKERS[: effort.left_out]:
            yield Piece("unseen", "cnn", *how["cnn"], steps["cnn"], 0, speaker, extra)
    for seed in range(1, effort.seeds):
        for kind in SPEECH_KINDS:
            yield Piece("final", kind, *how[kind], final_steps[kind], seed)
    short = effort.short_steps
    for speaker in CHOOSING_SPEAKERS:
        for name in AUGMENTATIONS:
            yield Piece("augmentation", "cnn", *how["cnn"], short, 0, speaker, changed=name)
        yield Piece("augmentation", "cnn", *how["cnn"], short, 0, speaker, EXTRA_SHARE)
    for share in (0.05, 0.1, 0.25, 0.5, 1.0):
        for kind in SPEECH_KINDS:
            if (kind, share) != ("cnn", 1.0):  # which the layers begin with
                yield Piece("data", kind, *how[kind], short, share=share)
    for kind in LAYERS:
        yield Piece("layers", kind, *how["cnn"], short)
    for kind in ("rnn", "lstm"):
        for speaker in SPEAKERS[: effort.left_out]:
            for extra in (0.0, EXTRA_SHARE):
                yield Piece("unseen", kind, *how[kind], steps[kind], 0, speaker, extra)
