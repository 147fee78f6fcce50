"""Where everything lies on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ml.config.settings import UserError


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
    """SEEHEAR_ROOT, else the nearest folder upwards that is a project, else the checkout this file lies in."""
    if named := os.environ.get("SEEHEAR_ROOT"):
        return Path(named).resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file() and (folder / "sources").is_dir():  # other DVC projects have the former
            return folder
    return Path(__file__).resolve().parents[2]


def place_of(name: str, root: Path, setting: str) -> Path:
    """A file or folder that a setting names, relative to `root`. Raises UserError where ~ names nobody."""
    try:
        return root / Path(name).expanduser()
    except RuntimeError as fault:
        raise UserError(f"{setting}: {name}: {fault}; expected a path") from None
