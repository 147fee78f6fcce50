"""Reading the settings from params.yaml and the environment: what is unknown, missing or out of range is named."""

from __future__ import annotations

import dataclasses
import math
import os
import types
import typing
from pathlib import Path

from ml.config.places import Paths, project_root
from ml.config.settings import BUDGETS, OPTIMIZERS, SOURCES, Settings, UserError

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
}
POSITIVE = (
    *("serving.workers", "serving.deadline_s", "alerts.timeout_s"),
    *("data.shard_rows", "data.validation_share", "data.gate_share"),
)
SHARES = ("validation_share", "gate_share", "test_share")  # of the data; what they leave is learnt from
AT_LEAST_ONE = (  # wherever they stand
    *("batch_size", "detector_batch_size", "channels", "blocks", "looks"),
    *("quick", "medium", "full", "bootstrap"),
)
AUGMENTED = ("noise_share", "room_share")  # of the clips, which may be all
LAST_SEED = 2**32 - 1
RANGES = {
    "image_classifier.detector_channels": (2, 4096),
    "promotion.confidence": (0.5, 0.9999),
    "retraining.backoff": (1, 100),
    "speech_extractor.speed_change": (0, 0.15),
    "data.image_side": (8, 512),
    "data.sample_rate_hz": (4000, 192_000),
    **{f"speech_extractor.disguised.{budget}": (0, 1) for budget in BUDGETS},
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
            value = _in_range(value, f"{section}.{key}", name)
            if isinstance(tree, dict) and isinstance(keys := tree.setdefault(section, {}), dict):
                keys[key] = value
    return _build(Settings, tree, "", str(file))


def load_paths(settings: Settings | None = None) -> Paths:
    return Paths(project_root(), (settings or load_settings()).data.source)


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
    if values.keys() >= set(SHARES) and sum(values[name] for name in SHARES) >= 1:
        raise UserError(f"{file}: {where}{' + '.join(SHARES)}: expected less than 1; the rest is learnt from")
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


def _in_range(value: typing.Any, where: str, file: str) -> typing.Any:
    if value is None:  # where null is allowed it stands for a default
        return value
    allowed = CHOICES.get(where) or (OPTIMIZERS if where.endswith(".optimizer") else None)
    if allowed and value not in allowed:
        raise UserError(f"{file}: {where}: expected one of {', '.join(allowed)}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{file}: {where}: expected a finite number, got {value!r}")
    if where.endswith("seed") and not 0 <= value <= LAST_SEED:
        raise UserError(f"{file}: {where}: expected a whole number from 0 to {LAST_SEED}, got {value!r}")
    if where.rpartition(".")[2] in AT_LEAST_ONE and where not in RANGES and value < 1:
        raise UserError(f"{file}: {where}: expected a number from 1 up, got {value!r}")
    if isinstance(value, int | float) and not where.endswith("_db") and value < 0:
        raise UserError(f"{file}: {where}: expected a number from 0 up, got {value!r}")
    if where in POSITIVE and not value:
        raise UserError(f"{file}: {where}: expected a number above 0, got {value!r}")
    if (bounds := RANGES.get(where)) and not bounds[0] <= value <= bounds[1]:
        raise UserError(f"{file}: {where}: expected a number from {bounds[0]:g} to {bounds[1]:g}, got {value!r}")
    if where.endswith(AUGMENTED) and value > 1:
        raise UserError(f"{file}: {where}: expected a share from 0 to 1, got {value!r}")
    if where.endswith(("_share", "extra_voices")) and not where.endswith(AUGMENTED) and value >= 1:
        raise UserError(f"{file}: {where}: expected a share from 0 up to 1, got {value!r}")
    return value
