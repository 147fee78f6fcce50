"""A folder of its own with this code, data made anew, small settings, and a clock that jumps by days."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from ml.config import MODALITIES, Paths
from orchestration.resources import CODE, Project

SOURCE = "starter"
COPIED = ("ml", "data_checks", "serving", "orchestration", "sources", ".dvc/config", "dvc.yaml", "dvc.lock")
COPIED += (".dvcignore", ".gitignore", "params.yaml")
STEPS = {  # optimiser steps: enough to learn the words of this source, few enough for the whole story in a few minutes
    "image_classifier.steps": 300,
    "image_classifier.detector_steps": 300,
    "speech_classifier.cnn.steps": 700,
    "speech_classifier.rnn.steps": 60,
    "speech_classifier.lstm.steps": 60,
    "speech_extractor.steps": 1500,
}
SCENES = 100
SETTINGS = {  # margins as wide as figures of so few steps and scenes are uncertain
    ("promotion", "margin"): 0.05,
    ("promotion", "slice_margin"): 0.1,
    ("retraining", "drift_needs_labels"): True,
}
START_DAY = 6  # days ago


class Accelerated(Project):
    """A project whose days pass when the story says so."""

    days: ClassVar[list[int]] = [0]

    @classmethod
    def pass_days(cls, days: int) -> None:
        cls.days[0] += days

    @classmethod
    def back(cls) -> timedelta:
        """How far the story's clock is behind the real one."""
        return timedelta(days=START_DAY - cls.days[0])

    def now(self) -> datetime:
        return datetime.now(UTC) - self.back()


def build(root: Path) -> Accelerated:
    """Copy the code into `root`, shorten the trainings, and let this process work there from now on."""
    ignored = shutil.ignore_patterns("__pycache__", "cache", "tmp")
    for name in COPIED:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if (CODE / name).is_dir():
            shutil.copytree(CODE / name, root / name, ignore=ignored)
        else:
            shutil.copy2(CODE / name, root / name)
    for source in (SOURCE, "mnist-fsdd", "folder"):
        for modality in MODALITIES:
            Paths(root, source).added(modality).mkdir(parents=True)
    (root / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")  # a folder without git
    _shorten(root / "params.yaml")
    _move_in(root)
    return Accelerated(root=str(root))


def _shorten(file: Path) -> None:
    tree = yaml.safe_load(file.read_text())
    for name, steps in STEPS.items():
        section = tree
        for part in name.split("."):
            section = section[part]
        section["quick"] = steps
    tree["evaluation"]["scenes"]["quick"] = SCENES
    for (section, key), value in SETTINGS.items():
        tree[section][key] = value
    file.write_text(yaml.safe_dump(tree, sort_keys=False))


def _move_in(root: Path) -> None:
    """Before anything of Dagster, DVC or BentoML is imported, for they look at these once."""
    for name in [name for name in os.environ if name.startswith("SEEHEAR_")]:
        del os.environ[name]
    os.environ |= {
        "SEEHEAR_ROOT": str(root),
        "DAGSTER_HOME": str(root / "var" / "dagster"),
        "BENTOML_HOME": str(root / "models" / "bentoml"),
        "SEEHEAR_KEEP_MEDIA_DAYS": "30",  # what was sent becomes data only where it was kept
    }
    os.chdir(root)


def restamp(paths: Paths, back: timedelta) -> None:
    """Set what the service has logged since the last call back to the story's day; what was set back stays."""
    for folder in (paths.prediction_log, paths.var / "feedback"):
        for shard in sorted(folder.glob("date=*/*.parquet")):
            table = pq.ParquetFile(shard).read()
            newest = pc.max(table["time"]).as_py()  # type: ignore[attr-defined]
            if newest is None or datetime.now(UTC) - newest > timedelta(hours=12):
                continue
            moved = pc.subtract(table["time"], pa.scalar(back))  # type: ignore[attr-defined]
            place = table.schema.get_field_index("time")
            table = table.set_column(place, table.schema.field(place), moved.cast(table.schema.field(place).type))
            day = (newest - back).date().isoformat()
            target = folder / f"date={day}" / shard.name
            target.parent.mkdir(exist_ok=True)
            pq.write_table(table, target)
            shard.unlink()
