"""What the assets stand on: the project's settings and folders, DVC, and digests of what an asset is made of."""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from pydantic import Field

from ml.config import Paths, Settings, UserError, load_settings, project_root

CODE = Path(__file__).resolve().parents[1]
LOCKED = ("is busy, it is being blocked by", "Unable to acquire lock")


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
    def dvc(self) -> "DvcPipeline":
        return DvcPipeline(self.paths)

    @property
    def git_revision(self) -> str:
        """The commit, with "+" where tracked files differ from it; "none" outside of git."""
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"], cwd=self.root, capture_output=True, text=True
        )
        return said.stdout.strip() if said.returncode == 0 else "none"


class DvcPipeline:
    """The data stages of one source, reproduced by DVC, one call at a time."""

    def __init__(self, paths: Paths):
        self.paths = paths
        self.pipeline = paths.pipeline.relative_to(paths.root).as_posix()

    def reproduce(self, *stages: str) -> None:
        """Bring `stages` ("raw@images", …) up to date; a stage's own one-line reason becomes the failure.

        Raises UserError with that line.
        """
        with self._turn():
            said = self._call(["repro", "--single-item", *(f"{self.pipeline}:{stage}" for stage in stages)])
        if said is not None:
            raise UserError(said)

    def outdated(self) -> set[str]:
        """Stages whose inputs, outputs or settings differ from what the lock records."""
        with self._turn():
            done = subprocess.run(
                [sys.executable, "-m", "dvc", "status", "--json", self.pipeline],
                cwd=self.paths.root,
                capture_output=True,
                text=True,
                env=self._environment(),
            )
        if done.returncode:
            raise UserError(f"dvc status {self.pipeline}: {_last_line(done.stderr)}")
        changes = json.loads(done.stdout or "{}")
        return {
            stage.rpartition(":")[2] for stage, change in changes.items() if set(map(str, change)) != {"always changed"}
        }

    def version(self, stage: str) -> str:
        """The DVC hash of the stage's output, from the lock beside the pipeline."""
        return str(self._locked(stage)["outs"][0]["md5"])

    def _locked(self, stage: str) -> dict[str, Any]:
        file = self.paths.pipeline.with_suffix(".lock")
        try:
            return yaml.safe_load(file.read_text())["stages"][stage]
        except (OSError, KeyError, TypeError) as fault:
            raise UserError(f"{file.name}: records no {stage} ({fault}); run `dvc repro {self.pipeline}`") from None

    def _call(self, arguments: list[str], patience_s: float = 300) -> str | None:
        """Run dvc, passing its output on; None when it went well, else the line that says why not."""
        deadline = time.monotonic() + patience_s
        while True:
            code, said = self._stream([sys.executable, "-m", "dvc", *arguments])
            if code == 0:
                return None
            if not any(phrase in said for phrase in LOCKED) or time.monotonic() > deadline:
                return _reason(said)
            time.sleep(1)

    def _stream(self, command: list[str]) -> tuple[int, str]:
        process = subprocess.Popen(
            command,
            cwd=self.paths.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment(),
        )
        said = b""
        assert process.stdout is not None
        while chunk := os.read(process.stdout.fileno(), 4096):
            said += chunk
            sys.stderr.write(chunk.decode(errors="replace"))
            sys.stderr.flush()
        return process.wait(), said.decode(errors="replace")

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "SEEHEAR_PYTHON": sys.executable,
            "SEEHEAR_ROOT": str(self.paths.root),
            "DVC_NO_ANALYTICS": "1",
        }

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One DVC call of ours at a time; the kernel frees the lock of a dead process."""
        file = self.paths.var / "dvc.lock"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _reason(said: str) -> str:
    """The line in which a stage named its own trouble, else the last line DVC printed."""
    ours = [line for line in said.replace("\r", "\n").splitlines() if line.startswith("seehear: ")]
    return ours[-1].removeprefix("seehear: ") if ours else _last_line(said)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


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
