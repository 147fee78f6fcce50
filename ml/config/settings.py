"""The settings as frozen dataclasses, one for each concern; what every one means stands beside it in params.yaml."""

from __future__ import annotations

from dataclasses import dataclass

MODALITIES = ("images", "audio")
SOURCES = ("starter", "mnist-fsdd", "folder")
BUDGETS = ("quick", "medium", "full")
SPEECH_KINDS = ("cnn", "rnn", "lstm")
OPTIMIZERS = ("adamw", "sgd", "muon")


class UserError(Exception):
    """Something a person can put right; its text is one line that names the thing and says what was expected."""


@dataclass(frozen=True)
class Data:
    source: str
    mirror: str | None
    folder: str | None
    group_pattern: str | None
    seed: int
    shard_rows: int
    image_side: int | None
    sample_rate_hz: int | None
    validation_share: float
    gate_share: float
    test_share: float


@dataclass(frozen=True)
class Checks:
    max_quarantine_share: float


@dataclass(frozen=True)
class Training:
    budget: str
    device: str
    seed: int


@dataclass(frozen=True)
class PerBudget:
    quick: int
    medium: int
    full: int

    def of(self, budget: str) -> int:
        return getattr(self, budget)


@dataclass(frozen=True)
class Recipe:
    """How one model is built and optimised; the same fields serve every classifier."""

    steps: PerBudget
    batch_size: int
    learning_rate: float
    weight_decay: float
    optimizer: str
    channels: int


@dataclass(frozen=True)
class NoiseAugmentation:
    """How loud noise is in training, from least_snr_db to most_snr_db, and in which share of all clips."""

    noise_share: float
    least_snr_db: float
    most_snr_db: float


@dataclass(frozen=True)
class VoiceAugmentation:
    """How far spoken words are changed in training, as other people say them in other rooms.

    warp, stretch: most by which formants and duration change, as a share. equaliser: deviation of its widest wave.
    room_share: of all clips.
    """

    warp: float
    stretch: float
    equaliser: float
    room_share: float


@dataclass(frozen=True)
class Augmentation(NoiseAugmentation, VoiceAugmentation):
    """Both; 0 everywhere leaves only the speeds and pauses."""


@dataclass(frozen=True)
class SpeechRecipe(Recipe):
    augmentation: Augmentation
    extra_voices: float


@dataclass(frozen=True)
class ImageRecipe(Recipe):
    detector_steps: PerBudget
    detector_batch_size: int
    detector_channels: int


@dataclass(frozen=True)
class ExtractorRecipe(Recipe):
    """speed_change: how much faster or slower words are played in its scenes, at most, as a share. disguised: 1 where
    its listening half hears every scene of training through another microphone."""

    blocks: int
    extracting_channels: PerBudget
    extracting_blocks: PerBudget
    disguised: PerBudget
    looks: int
    others: bool
    scene_s: float
    speed_change: float
    extra_voices: float

    def body(self, budget: str) -> dict[str, int]:
        """The extractor's own arguments at this budget."""
        own = {name: getattr(self, name) for name in ("channels", "blocks", "looks", "others")}
        by_budget = ("extracting_channels", "extracting_blocks", "disguised")
        return own | {name: getattr(self, name).of(budget) for name in by_budget}


@dataclass(frozen=True)
class SpeechKind(Recipe):
    noise: NoiseAugmentation


@dataclass(frozen=True)
class SpeechClassifiers:
    cnn: SpeechKind
    rnn: SpeechKind
    lstm: SpeechKind
    augmentation: VoiceAugmentation
    extra_voices: float

    def of(self, kind: str) -> SpeechRecipe:
        """The recipe of one kind; all but the noise in its augmentation, and the extra voices, are the same for all."""
        own = vars(getattr(self, kind)).copy()
        augmentation = Augmentation(**vars(self.augmentation), **vars(own.pop("noise")))
        return SpeechRecipe(**own, augmentation=augmentation, extra_voices=self.extra_voices)


@dataclass(frozen=True)
class Evaluation:
    scenes: PerBudget
    scene_s: float
    seed: int
    bootstrap: int
    left_out: list


@dataclass(frozen=True)
class Promotion:
    margin: float
    slice_margin: float
    least_slice: int
    confidence: float


@dataclass(frozen=True)
class Monitoring:
    drift_cron: str
    min_window: int
    alpha: float
    min_corrections: int
    max_calibration_error: float


@dataclass(frozen=True)
class Retraining:
    """When a retraining starts by itself; what every field means stands beside it in params.yaml."""

    cron: str
    on_drift: bool
    on_accuracy: bool
    on_new_data: bool
    accuracy_drop: float
    min_new_labels: int
    drift_needs_labels: bool
    cooldown_hours: float
    backoff: float
    max_cooldown_hours: float


@dataclass(frozen=True)
class Alerts:
    webhook: str | None
    timeout_s: float


@dataclass(frozen=True)
class Serving:
    workers: int
    max_waiting: int
    deadline_s: float
    max_body_mb: float
    max_megapixels: float
    max_audio_s: float
    keep_media_days: int


@dataclass(frozen=True)
class Settings:
    data: Data
    checks: Checks
    training: Training
    image_classifier: ImageRecipe
    speech_classifier: SpeechClassifiers
    speech_extractor: ExtractorRecipe
    evaluation: Evaluation
    promotion: Promotion
    monitoring: Monitoring
    retraining: Retraining
    alerts: Alerts
    serving: Serving
