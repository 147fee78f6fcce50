"""A bundle: the three models that answer together, golden requests, and the digests that hold them to their bytes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ml.config import UserError
from ml.files import sha256_of, whole_folder, write_json

PARTS = ("image_classifier", "speech_classifier", "speech_extractor")
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class GoldenRequest:
    """A picture (PNG) and a recording (WAV) with the figures that every copy of the bundle must answer them with."""

    picture: bytes
    recording: bytes
    expected: dict


def write_bundle(
    out: Path, image: Path, speech: Path, extractor: Path, about: Mapping, goldens: Sequence[GoldenRequest] = ()
) -> str:
    """Copy three model artefacts and golden requests to `out`, replacing it in one step; returns the digest.

    The digest is of the models alone, so `about` (plain JSON values) and the goldens leave it as it is.
    """
    with whole_folder(Path(out)) as folder:
        for part, source in zip(PARTS, (image, speech, extractor), strict=True):
            shutil.copytree(source, folder / part)
        write_json(folder / "about.json", dict(about))
        _write_goldens(folder / "golden", goldens)
        files = _files_of(folder)
        write_json(folder / MANIFEST, {"digest": _digest_of(files), "files": files})
    return _digest_of(files)


def read_goldens(bundle: Path) -> list[GoldenRequest]:
    """The golden requests of a bundle; none where it was written without."""
    file = Path(bundle) / "golden" / "golden.json"
    if not file.is_file():
        return []
    rows = json.loads(file.read_text())
    names = [(file.parent / row["picture"], file.parent / row["recording"]) for row in rows]
    pairs = zip(names, rows, strict=True)
    return [GoldenRequest(png.read_bytes(), wav.read_bytes(), row["expected"]) for (png, wav), row in pairs]


def verify_bundle(bundle: Path) -> dict:
    """The manifest of a bundle whose every file has the bytes that it was written with.

    Raises UserError naming the file that is missing, changed or unreadable.
    """
    file = Path(bundle) / MANIFEST
    try:
        manifest = json.loads(file.read_bytes())
        files, stated = dict(manifest["files"]), manifest["digest"]
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise UserError(f"{file}: expected the manifest of a bundle: {type(fault).__name__}: {fault}") from None
    for name, expected in files.items():
        _verify_file(file.parent / name, expected)
    if stated != _digest_of(files):
        raise UserError(f"{file}: expected the digest of its files {_digest_of(files)}, got {stated}")
    return manifest


def models_digest(image: Path, speech: Path, extractor: Path) -> str:
    """The digest that a bundle of these three artefacts gets."""
    folders = zip(PARTS, (image, speech, extractor), strict=True)
    return _digest_of({f"{part}/{name}": sha for part, folder in folders for name, sha in _files_of(folder).items()})


def _digest_of(files: Mapping[str, str]) -> str:
    models = sorted(f"{name} {sha}\n" for name, sha in files.items() if name.split("/")[0] in PARTS)
    return hashlib.sha256("".join(models).encode()).hexdigest()


def _files_of(folder: Path) -> dict[str, str]:
    found = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in found}


def _verify_file(file: Path, expected: str) -> None:
    if not file.is_file():
        raise UserError(f"{file}: missing; the bundle's manifest lists it")
    if (got := sha256_of(file)) != expected:
        raise UserError(f"{file}: changed since the bundle was written: expected SHA-256 {expected}, got {got}")


def _write_goldens(folder: Path, goldens: Sequence[GoldenRequest]) -> None:
    folder.mkdir()
    rows = []
    for index, golden in enumerate(goldens):
        row = {"picture": f"{index:02d}.png", "recording": f"{index:02d}.wav", "expected": golden.expected}
        (folder / row["picture"]).write_bytes(golden.picture)
        (folder / row["recording"]).write_bytes(golden.recording)
        rows.append(row)
    write_json(folder / "golden.json", rows)
