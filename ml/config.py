"""Settings: frozen dataclasses read once from params.yaml, and where everything lies on disk."""

from __future__ import annotations

import dataclasses
import math
import os
import types
import typing
from dataclasses import dataclass
from pathlib import Path

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
    """speed_change: how much faster or slower words are played in its scenes, at most, as a share."""

    blocks: int
    scene_s: float
    speed_change: float
    extra_voices: float


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


@dataclass(frozen=True)
class Paths:
    """Where everything lies under the project root; `source` picks the data folder."""

    root: Path
    source: str

    def raw(self, modality: str) -> Path:
        """Folder of Parquet shards."""
        return self.root / "data" / self.source / "raw" / modality

    def added(self, modality: str) -> Path:
        """Folder of the shards that were added later, each with its .dvc file."""
        return self.root / "data" / "added" / self.source / modality

    def facts(self, modality: str) -> Path:
        """One Parquet file, one measured row per item."""
        return self.root / "data" / self.source / "facts" / f"{modality}.parquet"

    def validated(self, modality: str) -> Path:
        """Folder with verdict.json and quarantine.parquet."""
        return self.root / "data" / self.source / "validated" / modality

    def prepared(self, modality: str) -> Path:
        """Folder with the packed arrays, index.parquet, meta.json and verdict.json."""
        return self.root / "data" / self.source / "prepared" / modality

    @property
    def pipeline(self) -> Path:
        """The dvc.yaml that makes this source's data; the default source's stands in the root."""
        return self.root / "dvc.yaml" if self.source == "starter" else self.root / "sources" / self.source / "dvc.yaml"

    @property
    def candidates(self) -> Path:
        """Folder with the latest trained model of every asset: image_classifier, speech_classifier/cnn, …"""
        return self.root / "models" / "candidates"

    @property
    def bentoml(self) -> Path:
        return self.root / "models" / "bentoml"

    @property
    def champion(self) -> Path:
        """The pointer: a JSON file replaced in one step."""
        return self.root / "models" / "champion.json"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def var(self) -> Path:
        return self.root / "var"

    @property
    def checkpoints(self) -> Path:
        return self.var / "checkpoints"

    @property
    def prediction_log(self) -> Path:
        return self.var / "prediction_log"


def project_root() -> Path:
    """SEEHEAR_ROOT, else the nearest folder upwards that holds params.yaml, else the checkout this file lies in."""
    if named := os.environ.get("SEEHEAR_ROOT"):
        return Path(named).resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file():
            return folder
    return Path(__file__).resolve().parents[1]


ENVIRONMENT = {
    "SEEHEAR_SOURCE": ("data", "source"),
    "SEEHEAR_MIRROR": ("data", "mirror"),
    "SEEHEAR_FOLDER": ("data", "folder"),
    "SEEHEAR_GROUP_PATTERN": ("data", "group_pattern"),
    "SEEHEAR_BUDGET": ("training", "budget"),
    "SEEHEAR_SEED": ("training", "seed"),
    "SEEHEAR_DEVICE": ("training", "device"),
    "SEEHEAR_WORKERS": ("serving", "workers"),
    "SEEHEAR_KEEP_MEDIA_DAYS": ("serving", "keep_media_days"),
    "SEEHEAR_WEBHOOK": ("alerts", "webhook"),
}
NUMBERS = ("seed", "workers", "keep_media_days")
CHOICES = {
    "data.source": SOURCES,
    "training.budget": BUDGETS,
    "training.device": ("auto", "cpu", "cuda"),
    "image_classifier.optimizer": OPTIMIZERS,
}
POSITIVE = ("serving.workers", "serving.deadline_s", "alerts.timeout_s", "data.shard_rows")
AT_LEAST_ONE = ("batch_size", "channels", "blocks", "quick", "medium", "full", "bootstrap")  # wherever they stand
LAST_SEED = 2**32 - 1
RANGES = {
    "promotion.confidence": (0.5, 0.9999),
    "retraining.backoff": (1, 100),
    "speech_extractor.speed_change": (0, 0.15),
}
ORDERED = (("least_snr_db", "most_snr_db"), ("cooldown_hours", "max_cooldown_hours"))  # of one section


def load_settings(root: Path | None = None) -> Settings:
    """Settings of params.yaml with the environment's overrides.

    Raises UserError naming the key where a key is unknown or missing, or a value has the wrong type or range; where it
    came from the environment, naming its variable.
    """
    import yaml

    file = (root or project_root()) / "params.yaml"
    try:
        tree = yaml.safe_load(file.read_text("utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError) as fault:  # ValueError: not UTF-8, or a date that there is not
        raise UserError(f"{file}: cannot be read as settings: {' '.join(str(fault).split())}") from None
    for name, (section, key) in ENVIRONMENT.items():
        if (text := os.environ.get(name)) not in (None, ""):
            value = _number(text, name) if key in NUMBERS else text
            tree.setdefault(section, {})[key] = _in_range(value, f"{section}.{key}", name)
    return _build(Settings, tree, "", file.name)


def load_paths(settings: Settings | None = None, root: Path | None = None) -> Paths:
    root = root or project_root()
    return Paths(root, (settings or load_settings(root)).data.source)


def _number(text: str, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{name}={text!r}: expected a whole number") from None


def _build(kind: type, tree: object, where: str, file: str):
    if not isinstance(tree, dict):
        raise UserError(f"{file}: {where.rstrip('.') or 'the file'}: expected a section of keys, got {tree!r}")
    hints = typing.get_type_hints(kind)
    for key in tree:
        if key not in hints:
            raise UserError(f"{file}: {where}{key}: unknown key; expected one of {', '.join(hints)}")
    for key in hints:
        if key not in tree:
            raise UserError(f"{file}: {where}{key}: missing")
    values = {key: _value(hint, tree[key], f"{where}{key}", file) for key, hint in hints.items()}
    for least, most in ORDERED:
        if least in values and (got := values[least]) > values[most]:
            raise UserError(f"{file}: {where}{least}: expected at most {most}, {values[most]:g}, got {got:g}")
    return kind(**values)


def _value(hint, value: object, where: str, file: str):
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _build(hint, value, f"{where}.", file)
    kinds = hint.__args__ if isinstance(hint, types.UnionType) else (hint,)
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kinds) or isinstance(value, bool) != (bool in kinds):
        names = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
        raise UserError(f"{file}: {where}: expected {names}, got {value!r}")
    return _in_range(value, where, file)


def _in_range(value, where: str, file: str):
    allowed = CHOICES.get(where) or (OPTIMIZERS if where.endswith(".optimizer") else None)
    if allowed and value not in allowed:
        raise UserError(f"{file}: {where}: expected one of {', '.join(allowed)}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{file}: {where}: expected a finite number, got {value!r}")
    if where.endswith("seed") and not 0 <= value <= LAST_SEED:
        raise UserError(f"{file}: {where}: expected a whole number from 0 to {LAST_SEED}, got {value!r}")
    if where.rpartition(".")[2] in AT_LEAST_ONE and value < 1:
        raise UserError(f"{file}: {where}: expected a number from 1 up, got {value!r}")
    if isinstance(value, int | float) and not where.endswith("_db") and value < 0:
        raise UserError(f"{file}: {where}: expected a number from 0 up, got {value!r}")
    if where in POSITIVE and not value:
        raise UserError(f"{file}: {where}: expected a number above 0, got {value!r}")
    if (bounds := RANGES.get(where)) and not bounds[0] <= value <= bounds[1]:
        raise UserError(f"{file}: {where}: expected a number from {bounds[0]:g} to {bounds[1]:g}, got {value!r}")
    if where.endswith(("_share", "extra_voices")) and not 0 <= value < 1:
        raise UserError(f"{file}: {where}: expected a share from 0 up to 1, got {value!r}")
    return value
