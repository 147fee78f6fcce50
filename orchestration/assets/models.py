"""The models: each asset trains one, and leaves it as the candidate of its kind."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
from pydantic import Field

from ml.config import BUDGETS, OPTIMIZERS, SPEECH_KINDS, ImageRecipe, PerBudget, Recipe, Training, UserError
from orchestration import previews
from orchestration.assets.common import SETTINGS, in_turn, plainly, provenance
from orchestration.resources import Project, digest, source_digest

R = TypeVar("R", bound=Recipe)


class TrainingConfig(dg.Config):
    """One run's own training settings; whatever stays null is taken from params.yaml."""

    budget: str | None = Field(None, description="quick, medium or full: how many optimiser steps.")
    steps: int | None = Field(None, description="Exactly this many optimiser steps, whatever the budget.", gt=0)
    batch_size: int | None = Field(None, description="Items in one step.", gt=0)
    learning_rate: float | None = Field(None, description="Peak of the schedule.", gt=0)
    weight_decay: float | None = Field(None, description="Decoupled weight decay.", ge=0)
    optimizer: str | None = Field(None, description="adamw, sgd with momentum, or muon.")
    seed: int | None = Field(None, description="Draws first weights, batches, augmentation.", ge=0, lt=2**32)

    def applied(self, recipe: R, training: Training) -> tuple[R, Training]:
        """Recipe and training settings with this run's values in place."""
        own = {key: value for key, value in self.model_dump().items() if value is not None}
        self._check(own)
        if steps := own.pop("steps", None):
            own["steps"] = PerBudget(steps, steps, steps)
            if isinstance(recipe, ImageRecipe):
                own["detector_steps"] = own["steps"]
        training = replace(training, **{key: own.pop(key) for key in ("budget", "seed") if key in own})
        return replace(recipe, **own), training

    @staticmethod
    def _check(own: dict[str, Any]) -> None:
        for key, choices in (("budget", BUDGETS), ("optimizer", OPTIMIZERS)):
            if key in own and own[key] not in choices:
                raise UserError(f"run config: {key}: expected one of {', '.join(choices)}, got {own[key]!r}")


@dg.asset(
    deps=["image_dataset"],
    group_name="models",
    kinds={"pytorch"},
    owners=["team:ml"],
    description="A CNN that says what is pictured, or that nothing known is.",
    code_version=digest(
        source_digest("ml.training.pictures"), asdict(SETTINGS.image_classifier), asdict(SETTINGS.training)
    ),
)
@plainly
@in_turn
def image_classifier(
    context: dg.AssetExecutionContext, project: Project, config: TrainingConfig
) -> dg.MaterializeResult:
    from ml import datasets, training

    recipe, how = config.applied(project.settings.image_classifier, project.settings.training)
    images = datasets.load_images(project.paths)
    out = project.paths.candidates / "image_classifier"
    card = training.train_image_classifier(images, recipe, how, out, project.paths.checkpoints / "image_classifier")
    return _model_result(context, project, card, recipe, how)


def _speech_asset(kind: str) -> dg.AssetsDefinition:
    said = {"cnn": "convolutions over the spectrogram", "rnn": "a plain recurrent network", "lstm": "an LSTM"}[kind]

    @dg.asset(
        key=["speech_classifier", kind],
        deps=["speech_dataset"],
        group_name="models",
        kinds={"pytorch", "torchaudio"},
        owners=["team:ml"],
        description=f"Recognises a spoken word by {said}.",
        code_version=digest(
            source_digest("ml.training.speech"), asdict(SETTINGS.speech_classifier.of(kind)), asdict(SETTINGS.training)
        ),
    )
    @plainly
    @in_turn
    def classifier(context: dg.AssetExecutionContext, project: Project, config: TrainingConfig) -> dg.MaterializeResult:
        from ml import datasets, training

        recipe, how = config.applied(project.settings.speech_classifier.of(kind), project.settings.training)
        speech = datasets.load_speech(project.paths)
        place = Path("speech_classifier") / kind
        extra = datasets.extra_voices(project.paths, recipe.extra_voices)
        out, notes = project.paths.candidates / place, project.paths.checkpoints / place
        card = training.train_speech_classifier(kind, speech, recipe, how, out, notes, extra=extra)
        return _model_result(context, project, card, recipe, how)

    return classifier


@dg.asset(
    deps=["image_dataset", "speech_dataset", "image_classifier"],
    group_name="models",
    kinds={"pytorch", "torchaudio"},
    owners=["team:ml"],
    description="Finds the pictured word in a recording and separates it from everything else.",
    code_version=digest(
        source_digest("ml.training.separation"),
        asdict(SETTINGS.speech_extractor),
        asdict(SETTINGS.training),
    ),
)
@plainly
@in_turn
def speech_extractor(
    context: dg.AssetExecutionContext, project: Project, config: TrainingConfig
) -> dg.MaterializeResult:
    from ml import datasets, training

    recipe, how = config.applied(project.settings.speech_extractor, project.settings.training)
    images, speech = datasets.load_images(project.paths), datasets.load_speech(project.paths)
    card = training.train_speech_extractor(
        speech,
        project.paths.candidates / "image_classifier",
        images,
        recipe,
        how,
        project.paths.candidates / "speech_extractor",
        project.paths.checkpoints / "speech_extractor",
        extra=datasets.extra_voices(project.paths, recipe.extra_voices),
    )
    return _model_result(context, project, card, recipe, how)


def _model_result(
    context: dg.AssetExecutionContext, project: Project, card: dict, recipe: Recipe, how: Training
) -> dg.MaterializeResult:
    """The result of a training: its version is what it was made of, its metadata what came out."""
    code = context.assets_def.code_versions_by_key[context.asset_key]
    version = digest(code, asdict(recipe), how.budget, how.seed, card["data"])
    figures = {name: value for name, value in card["metrics"].items() if isinstance(value, int | float)}
    return dg.MaterializeResult(
        data_version=dg.DataVersion(version),
        metadata=provenance(project)
        | {name: dg.MetadataValue.float(float(value)) for name, value in figures.items()}
        | {
            "seed": how.seed,
            "steps": card["steps"],
            "parameters": card["parameters"],
            "train_s": card["train_s"],
            "device": card.get("device", how.device),
            "settings": dg.MetadataValue.json(asdict(recipe)),
            "learning": previews.learning_curve(card["history"]),
            "weights_sha256": card["digests"]["weights.safetensors"],
        },
    )


ASSETS = [image_classifier, *map(_speech_asset, SPEECH_KINDS), speech_extractor]
