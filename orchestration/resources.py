"""What the assets stand on: the project's settings and folders, and digests of what an asset is made of."""

import hashlib
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from ml.config import Paths, Settings, load_settings, project_root
from orchestration.dvc import DvcPipeline

CODE = Path(__file__).resolve().parents[1]


class Project(dg.ConfigurableResource):
    """Settings, folders and the device of this project."""

    root: str = Field(
        default_factory=lambda: str(project_root()), description="Folder that holds params.yaml and everything else."
    )

    @property
    def settings(self) -> Settings:
        return load_settings(Path(self.root))

    @property
    def paths(self) -> Paths:
        return Paths(Path(self.root), self.settings.data.source)

    @property
    def dvc(self) -> DvcPipeline:
        return DvcPipeline(self.paths)

    def now(self) -> datetime:
        """The clock of everything that is decided by time."""
        return datetime.now(UTC)

    @property
    def git_revision(self) -> str:
        """The commit, with "+" where tracked files differ from it; "none" outside of git."""
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"], cwd=self.root, capture_output=True, text=True
        )
        return said.stdout.strip() if said.returncode == 0 else "none"


def digest(*parts: Any) -> str:
    """Sixteen hex digits that change when any of `parts` (anything JSON can write) does."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def source_digest(*modules: str) -> str:
    """Digest of the source text of `modules` ("ml.models", …; a folder counts whole)."""
    seen = hashlib.sha256()
    for module in modules:
        place = CODE / module.replace(".", "/")
        files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
        for file in files:
            seen.update(file.read_bytes())
    return seen.hexdigest()[:16]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
