"""DVC as the assets use it: stages brought up to date, data added and sent, what is damaged put right."""

import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ml.config import MODALITIES, Paths, UserError
from ml.files import turn_at
from ml.sources import added
from orchestration.mending import Cache, Output, release_dead_locks

LOCKED = ("is busy, it is being blocked by", "Unable to acquire lock")
HOLDER = re.compile(r"\(PID \d+\): .*")
PATIENCE_S = 300
REMOTE_ANSWERS_S = 20


class DvcPipeline:
    """The data stages of one source, and what was added to it; one call of ours at a time."""

    def __init__(self, paths: Paths):
        self.paths = paths
        self.pipeline = paths.pipeline.relative_to(paths.root).as_posix()

    def reproduce(self, *stages: str) -> None:
        """Bring `stages` ("raw@images", …) up to date, their outputs and the data added to them intact.

        What is missing or damaged comes from the cache or the default remote where they have it, and is made anew
        where not. Raises UserError with a stage's own one-line reason, or naming added data that is nowhere intact.
        """
        with self._turn():
            sound = self._restore([*self._outputs(stages), *self._added(stages)])
            self._repro(stages)
            if damaged := self._damaged(stages, sound):  # taken over from the cache, which nobody had looked at
                for output in damaged:
                    self._cache.drop_damaged(output.md5)
                    _discard(output.path)
                self._repro(stages)
                if damaged := self._damaged(stages, sound):
                    raise UserError(f"{damaged[0].path}: not what DVC recorded, though just made; is the disk sound?")

    def add(self, files: Callable[[], Sequence[Path]]) -> list[Path]:
        """Let DVC track the shards that a killed addition left whole, then those that `files` writes.

        In this order, for `files` compares only with what is tracked, all of which has to be there. Returns what was
        left.
        """
        with self._turn():
            self._restore(self._added([f"raw@{modality}" for modality in MODALITIES]))
            left = [file for modality in MODALITIES for file in added.unfinished(self.paths, modality)]
            self._track(left)
            self._track(files())
        return left

    def push(self, files: Sequence[Path]) -> str | None:
        """Send added shards to the default remote, and nothing else; None when they are there, else why not."""
        with self._turn():
            try:
                self._remotely("push", [f"{self._relative(file)}.dvc" for file in files])
            except UserError as fault:
                return str(fault)
        return None

    def outdated(self) -> set[str]:
        """Stages whose inputs, outputs or settings differ from what the lock records."""
        with self._turn():
            changes = self._status(self.pipeline)
        return {stage for stage, changed in changes.items() if set(map(str, changed)) != {"always changed"}}

    def version(self, stage: str) -> str:
        """The DVC hash of the stage's output, from the lock beside the pipeline; of raw data with what was added."""
        name, _, modality = stage.partition("@")
        later = added.version(self.paths, modality) if name == "raw" else None
        return str(self._locked(stage)["outs"][0]["md5"]) + (f"+{later}" if later else "")

    def learnt_from(self, modality: str) -> tuple[str, list[str]]:
        """The `version` of the raw data that the prepared ones are made of, and the added shards among them: more may
        have been added since."""
        shards = self.shards_of(f"prepared@{modality}")
        later = f"+{added.version_of(shards)}" if shards else ""
        return str(self._locked(f"raw@{modality}")["outs"][0]["md5"]) + later, [file.stem for file in shards]

    def shards_of(self, stage: str) -> list[Path]:
        """.dvc files of the added shards that a stage has read, as its lock tells."""
        modality = stage.partition("@")[2]
        place = self._relative(self.paths.added(modality))
        then = next(dep["md5"] for dep in self._locked(stage)["deps"] if dep["path"] == place)
        return added.tracked_at(self.paths, modality, then)

    def _locked(self, stage: str) -> dict[str, Any]:
        file = self.paths.pipeline.with_suffix(".lock")
        try:
            return yaml.safe_load(file.read_text())["stages"][stage]
        except (OSError, KeyError, TypeError) as fault:
            raise UserError(f"{file.name}: records no {stage} ({fault}); run `dvc repro {self.pipeline}`") from None

    def _outputs(self, stages: Sequence[str]) -> list[Output]:
        """What the lock records of these stages; nothing where it records nothing."""
        file = self.paths.pipeline.with_suffix(".lock")
        recorded = yaml.safe_load(file.read_text())["stages"] if file.is_file() else {}
        return [
            Output(f"{self.pipeline}:{stage}", self.paths.root / out["path"], out["md5"])
            for stage in stages
            for out in recorded.get(stage, {}).get("outs", ())
        ]

    def _added(self, stages: Sequence[str]) -> list[Output]:
        found = []
        for modality in sorted({stage.partition("@")[2] for stage in stages}):
            for file in sorted(self.paths.added(modality).glob("*.parquet.dvc")):
                md5 = yaml.safe_load(file.read_text())["outs"][0]["md5"]
                found.append(Output(self._relative(file), file.with_suffix(""), md5))
        return found

    # ------------------------------------------------------------------------------------------------------- mending

    def _restore(self, outputs: Sequence[Output]) -> set[Output]:
        """Take what is missing or damaged from the cache or the remote; drop what is nowhere intact, to be made anew.

        Returns what is intact now. Raises UserError where data that was added is not.
        """
        wrong = [output for output in outputs if not self._is_right(output)]
        if wrong:
            self._fetch(wrong)
        broken = {output for output in wrong if not output.intact}
        for output in broken:
            if output.target.endswith(".dvc"):
                raise UserError(f"{output.path}: missing or damaged, and neither cache nor remote holds it intact")
            if output.path.exists():
                _note(f"{output.path}: is not what DVC recorded; making it anew")
                _discard(output.path)
        return set(outputs) - broken

    def _fetch(self, wrong: Sequence[Output]) -> None:
        """Check out what the cache holds, and pull what the remote does."""
        cached = [output for output in wrong if self._cache.holds(output.md5)]
        sent = self._on_remote([output for output in wrong if output not in cached])
        valid = self._otherwise_unchanged([*cached, *sent], {self._relative(output.path) for output in wrong})
        for how, found in (("checkout", cached), ("pull", sent)):
            if targets := [output.target for output in found if output.target in valid]:
                _note(self._call([how, "--force", "--quiet", *targets]))

    def _is_right(self, output: Output) -> bool:
        """Whether an output is intact; its damaged copies in the cache go, and come back from an intact one."""
        dropped = self._cache.drop_damaged(output.md5)
        if dropped:
            _note(f"{output.target}: {dropped} damaged in DVC's cache; put right")
        intact = output.intact
        if intact and dropped:
            self._cache.keep(output)
        return intact

    def _damaged(self, stages: Sequence[str], sound: set[Output]) -> list[Output]:
        return [output for output in self._outputs(stages) if output not in sound and not output.intact]

    @cached_property
    def _cache(self) -> Cache:
        from dvc.repo import Repo

        with Repo(str(self.paths.root)) as repo:
            return Cache(Path(repo.cache.local.path))

    def _on_remote(self, outputs: Sequence[Output]) -> list[Output]:
        """Those that the default remote holds; none where it does not answer, which is said."""
        if not outputs:
            return []
        try:
            held = self._remotely("held", [output.md5 for output in outputs])
        except UserError as fault:
            _note(f"{fault}; going on without it")
            return []
        return [output for output in outputs if output.md5 in held]

    def _remotely(self, action: str, words: Sequence[str]) -> set[str]:
        """See orchestration.remote. Raises UserError where the remote does not answer in time, or fails."""
        command = [sys.executable, "-m", "orchestration.remote", action, *words]
        with tempfile.TemporaryFile() as complaints:
            process = subprocess.Popen(
                command, cwd=self.paths.root, env=self._environment(), stdout=subprocess.PIPE, stderr=complaints
            )
            assert process.stdout is not None
            if not select.select([process.stdout], [], [], REMOTE_ANSWERS_S)[0]:
                process.kill()
                process.wait()
                raise UserError(f"DVC's default remote did not answer within {REMOTE_ANSWERS_S} s")
            said, _ = process.communicate()
            complaints.seek(0)
            if process.returncode:
                raise UserError(f"DVC's default remote: {_last_line(complaints.read().decode(errors='replace'))}")
        return set(said.decode().split()) - {"answers"}

    def _otherwise_unchanged(self, outputs: Sequence[Output], wrong: set[str]) -> set[str]:
        """Targets whose record is of today's inputs and settings, but for inputs that are missing or `wrong` too."""
        stages = [output.target for output in outputs if not output.target.endswith(".dvc")]
        changes = self._status(*stages) if stages else {}
        return {output.target for output in outputs} - {
            target for target in stages if not _only_missing(changes.get(target.rpartition(":")[2], []), wrong)
        }

    # ------------------------------------------------------------------------------------------------------- calling

    def _repro(self, stages: Sequence[str]) -> None:
        self._done(["repro", "--single-item", *(f"{self.pipeline}:{stage}" for stage in stages)])

    def _status(self, *targets: str) -> dict[str, list]:
        """What `dvc status` finds changed, by stage."""
        code, said, complaint = self._patiently(lambda: self._captured(["status", "--json", *targets]))
        if code:
            raise UserError(f"dvc status {' '.join(targets)}: {_reason(complaint)}")
        return {stage.rpartition(":")[2]: changed for stage, changed in json.loads(said or "{}").items()}

    def _track(self, shards: Sequence[Path]) -> None:
        if shards:
            self._done(["add", "--quiet", *map(self._relative, shards)])

    def _done(self, arguments: list[str]) -> None:
        if (said := self._call(arguments)) is not None:
            raise UserError(said)

    def _call(self, arguments: list[str]) -> str | None:
        """Run dvc, passing its output on; None when it went well, else the line that says why not."""
        code, _, said = self._patiently(lambda: self._streamed(arguments))
        return None if code == 0 else _reason(said)

    def _patiently(self, call: Callable[[], tuple[int, str, str]]) -> tuple[int, str, str]:
        """Repeat a call of DVC while another living process holds what it needs. Raises UserError when that is long."""
        deadline, waiting = time.monotonic() + PATIENCE_S, False
        while True:
            for command in release_dead_locks(self.paths.root / ".dvc" / "tmp"):
                _note(f"released a lock that a dead process held: {command}")
            code, said, complaint = call()
            if code == 0 or not any(phrase in complaint for phrase in LOCKED):
                return code, said, complaint
            holder = found[0] if (found := HOLDER.search(complaint)) else "unknown"
            if time.monotonic() > deadline:
                raise UserError(f"another DVC process works on this data: {holder}; let it end, then start again")
            if not waiting:
                _note(f"waiting for another DVC process: {holder}")
            waiting = True
            time.sleep(1)

    def _captured(self, arguments: list[str]) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "dvc", *arguments]
        done = subprocess.run(
            command, cwd=self.paths.root, capture_output=True, text=True, env=self._environment(), check=False
        )
        return done.returncode, done.stdout, done.stderr

    def _streamed(self, arguments: list[str]) -> tuple[int, str, str]:
        """A call whose output goes on to standard error as it comes."""
        process = subprocess.Popen(
            [sys.executable, "-m", "dvc", *arguments],
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
        return process.wait(), "", said.decode(errors="replace")

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "SEEHEAR_PYTHON": sys.executable,
            "SEEHEAR_ROOT": str(self.paths.root),
            "DVC_NO_ANALYTICS": "1",
        }

    def _relative(self, file: Path) -> str:
        return file.relative_to(self.paths.root).as_posix()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One DVC call of ours at a time."""
        _show_to_dvc(self.paths)
        with turn_at(self.paths.var / "dvc.lock"):
            yield


def _only_missing(changed: Sequence[Any], wrong: set[str]) -> bool:
    """Whether all that changed about a stage is its outputs, and inputs that are not there or `wrong`."""
    for change in changed:
        if not isinstance(change, dict) or set(change) - {"changed outs", "changed deps"}:
            return False
        inputs = change.get("changed deps", {})
        if any(how != "deleted" and path not in wrong for path, how in inputs.items()):
            return False
    return True


def _show_to_dvc(paths: Paths) -> None:
    """Let DVC see the pipeline of a source that is not the default, which .dvcignore hides until it is used."""
    seen = paths.pipeline.with_name(".dvcignore")
    if paths.pipeline.parent != paths.root and not seen.exists():
        seen.write_text("!dvc.yaml\n")


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _note(line: str | None) -> None:
    if line:
        print(f"seehear: {line}", file=sys.stderr, flush=True)


def _reason(said: str) -> str:
    """The line in which a stage named its own trouble, else the last line DVC printed."""
    ours = [line for line in said.replace("\r", "\n").splitlines() if line.startswith("seehear: ")]
    return ours[-1].removeprefix("seehear: ") if ours else _last_line(said)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"
