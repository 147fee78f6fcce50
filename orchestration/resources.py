"""What the assets stand on: the project's settings and folders, and digests of what an asset is made of."""

import ast
import functools
import hashlib
import json
import subprocess
from collections.abc import Iterable
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
    """Digest of the source text of `modules` and of all that they stand on, see `sources`."""
    return files_digest(sources(*modules))


def files_digest(files: Iterable[Path]) -> str:
    """Digest of the names and contents of this project's `files`, in whatever order."""
    seen = hashlib.sha256()
    for file in sorted(files):
        seen.update(file.relative_to(CODE).as_posix().encode() + file.read_bytes())
    return seen.hexdigest()[:16]


def sources(*modules: str) -> set[Path]:
    """Files of `modules` ("ml.models", …; a folder counts whole), of this project's that they import, and so on."""
    found: set[Path] = set()
    due = [file for module in modules for file in _files(module, whole=True)]
    while due:
        file = due.pop()
        if file not in found:
            found.add(file)
            due += _imported(file)
    return found


@functools.cache
def _imported(file: Path) -> tuple[Path, ...]:
    """This project's files that a source file imports, wherever in it."""
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(place for name in names for place in _files(name))


def _files(module: str, whole: bool = False) -> list[Path]:
    """Files of a module of this project, none where it is of another; of a package its __init__.py, or all of it."""
    place = CODE / module.replace(".", "/")
    if whole and place.is_dir():
        return sorted(place.rglob("*.py"))
    return [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
