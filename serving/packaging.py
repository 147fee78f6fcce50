"""The model store and the Bento: a bundle becomes a BentoML model, a model and this code become an immutable Bento.

Both tags are named after their contents, so making the same thing again finds what is there. Both are made beside the
store and renamed into it, so what the store shows is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ml.config import Paths, UserError

NAME = "seehear"
BUNDLE = "bundle"  # folder of a stored model that holds the bundle
CODE = Path(__file__).resolve().parents[1]
INCLUDED = ("params.yaml", "ml/**/*.py", "serving/**/*.py", "serving/page/*", "data_checks/__init__.py")
INCLUDED += ("data_checks/facts/*.py",)
REQUIREMENTS = "requirements.txt"  # BentoML adds a line without a hash to it, so ours replaces what it wrote
RUNTIME = ("bentoml", "click", "numpy", "pillow", "pyarrow", "python-multipart", "pyyaml", "safetensors", "scipy")
RUNTIME += ("soundfile", "torch", "torchaudio", "tqdm")


@dataclass(frozen=True)
class Champion:
    """What models/champion.json points at: the tag of a stored model, and the digest of its bundle."""

    tag: str
    digest: str


def read_champion(paths: Paths) -> Champion:
    """The champion. Raises UserError where there is none yet or the pointer cannot be read."""
    pointer = read_pointer(paths)
    if pointer is None:
        raise UserError(f"{paths.champion}: there is no champion yet; run `make run` first")
    return Champion(pointer["tag"], pointer["digest"])


def read_pointer(paths: Paths) -> dict | None:
    """What models/champion.json says, None where there is no champion yet. Raises UserError where it says nothing."""
    try:
        pointer = json.loads(paths.champion.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as fault:
        raise UserError(f"{paths.champion}: cannot be read ({fault}); `seehear rollback` writes it anew") from None
    if not isinstance(pointer, dict) or not {"tag", "digest"} <= pointer.keys():
        raise UserError(f"{paths.champion}: names no tag and digest; `seehear rollback` writes it anew")
    return pointer


def save_bundle_as_bento_model(bundle: Path, paths: Paths) -> str:
    """Put a bundle into the BentoML store under models/; returns its tag, `seehear:<version>`.

    The version is made of the bundle's digests, so that saving a bundle twice gives the same model.
    """
    import bentoml
    from bentoml._internal.models import ModelStore

    manifest = (Path(bundle) / "manifest.json").read_bytes()
    digest = json.loads(manifest)["digest"]
    tag = f"{NAME}:{digest[:12]}-{hashlib.sha256(manifest).hexdigest()[:6]}"
    place = _place(paths.bentoml / "models", tag)
    if not is_whole(place / BUNDLE):
        shutil.rmtree(place, ignore_errors=True)
        with _draft(paths.bentoml) as draft:
            with bentoml.models.create(tag, labels={"digest": digest}, _model_store=ModelStore(draft)) as model:
                shutil.copytree(bundle, Path(model.path) / BUNDLE)
            _move_in(_place(Path(draft), tag), place)
    return tag


def is_whole(bundle: Path) -> bool:
    """Whether every file of a bundle has the bytes that it was stored with."""
    from ml.predictor import verify_bundle

    try:
        verify_bundle(bundle)
    except UserError:
        return False
    return True


def stored_bundle(tag: str, paths: Paths) -> Path:
    """The bundle of a stored model. Raises UserError where the store lacks it."""
    folder = _place(paths.bentoml / "models", tag) / BUNDLE
    if not folder.is_dir():
        raise UserError(f"{tag}: no such model in {paths.bentoml}; run `make run` to make it")
    return folder


def build_bento(tag: str, paths: Paths) -> str:
    """Build the Bento of a stored model from this code; returns its tag, `seehear:<model>-<code>`.

    It holds the model, the code, params.yaml and pinned requirements. Built in a process of its own, because BentoML
    binds its store and the service's model at import. Raises UserError with the last line of the build where it fails.
    """
    stored_bundle(tag, paths)
    with tempfile.TemporaryDirectory(prefix="seehear-bento-") as staged:
        context = Path(staged)
        version = f"{tag.split(':')[1]}-{_stage(context)[:8]}"
        place = _place(paths.bentoml / "bentos", f"{NAME}:{version}")
        if place.exists():
            (place / "bento.yaml").touch()  # the code may have gone back to it: bento_of takes the newest
        else:
            with _draft(paths.bentoml) as draft:
                _run_build(context, tag, version, draft, paths)
                made = _place(Path(draft), f"{NAME}:{version}")
                shutil.copyfile(context / REQUIREMENTS, made / "env" / "python" / REQUIREMENTS)
                _move_in(made, place)
    return f"{NAME}:{version}"


def bento_of(tag: str, paths: Paths) -> str:
    """The tag of the Bento that build_bento last gave for a stored model. Raises UserError where there is none."""
    folder = paths.bentoml / "bentos" / NAME
    built = sorted(folder.glob(f"{tag.split(':')[1]}-*/bento.yaml"), key=lambda file: file.stat().st_mtime)
    if not built:
        raise UserError(f"{tag}: no Bento has been built from this model; run `make run` to build it")
    return f"{NAME}:{built[-1].parent.name}"


def bento_folder(tag: str, paths: Paths) -> Path:
    """Where a built Bento lies. Raises UserError where the store lacks it."""
    folder = _place(paths.bentoml / "bentos", tag)
    if not (folder / "bento.yaml").is_file():
        raise UserError(f"{tag}: no such Bento in {paths.bentoml}; run `make run` to build it")
    return folder


def requirements(lock: Path = CODE / "requirements.lock") -> str:
    """What the service needs of the lock, in the lock's own lines: versions and hashes."""
    entries = {
        entry.partition("==")[0]: entry
        for entry in re.findall(r"^[\w.-]+==.*(?:\n +--hash.*)+", lock.read_text(), re.M)
    }
    needed = _closure(RUNTIME) & entries.keys()
    return "".join(f"{entries[name]}\n" for name in sorted(needed))


def _closure(roots: tuple[str, ...]) -> set[str]:
    """Distributions that the roots need in this environment, extras included."""
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    seen: set[tuple[str, str]] = set()
    waiting = [(name, "") for name in roots]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            lines = requires(name) or []
        except PackageNotFoundError:  # an optional part that the lock leaves out
            continue
        for needed in map(Requirement, lines):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(needed.name), wanted) for wanted in ("", *needed.extras)]
    return {name for name, _ in seen}


def packed() -> list[Path]:
    """The project's files that a Bento holds beside its model and its `requirements`."""
    return sorted({file for pattern in INCLUDED for file in CODE.glob(pattern) if file.is_file()})


def _stage(context: Path) -> str:
    """Copy what the Bento holds to an empty folder; the digest of it. (BentoML would walk the whole checkout.)"""
    (context / REQUIREMENTS).write_text(requirements())
    for file in packed():
        target = context / file.relative_to(CODE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    digest = hashlib.sha256()
    for file in sorted(path for path in context.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(context)}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _run_build(context: Path, tag: str, version: str, store: str, paths: Paths) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serving.packaging", tag, version, store],
        cwd=context,
        env={**os.environ, "BENTOML_HOME": str(paths.bentoml)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise UserError(f"{tag}: the Bento cannot be built: {lines[-1]}")


def _place(store: Path, tag: str) -> Path:
    name, _, version = tag.partition(":")
    if not version or "/" in tag:
        raise UserError(f"{tag!r}: expected a tag, name:version")
    return store / name / version


def _draft(home: Path) -> tempfile.TemporaryDirectory:
    home.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=".draft-", dir=home)


def _move_in(made: Path, place: Path) -> None:
    """Rename a finished item into the store; where another process was first, its equal item stands."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(made, place)
    except OSError:
        if not place.is_dir():
            raise


def _build_here(tag: str, version: str, store: str) -> None:
    """Build in this process, whose working folder is the staged code."""
    import bentoml
    from bentoml._internal.bento import BentoStore

    bentoml.bentos.build(
        "serving.service:SeeHear",
        name=NAME,
        version=version,
        labels={"model": tag.replace(":", "--")},
        include=["**"],
        description="SeeHear: takes the word that a picture shows out of a recording. The page is at /app/.\n",
        args={"model": tag},
        python={"requirements_txt": REQUIREMENTS, "lock_packages": False},
        docker={"python_version": "3.11"},
        build_ctx=".",
        _bento_store=BentoStore(store),
    )


if __name__ == "__main__":
    _build_here(*sys.argv[1:])
