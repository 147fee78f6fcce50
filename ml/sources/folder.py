"""The user's own files: images/<label>/* and audio/<label>/* or audio/<label>/<speaker>/*."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

from ml.config import UserError
from ml.sources.shards import Item, Listing

LICENCE = "the owner's"
LAYOUT = {"images": "images/<label>/*", "audio": "audio/<label>/* or audio/<label>/<speaker>/*"}
SPEAKER_LEVELS = {"images": 0, "audio": 1}
NOT_DATA = ("thumbs.db", "desktop.ini")


def listing(folder: str | None, modality: str, root: Path) -> Listing:
    """The files of one modality, their bytes untouched; the id is the path inside the modality's folder.

    Raises UserError where the folder is not set, missing, empty, laid out otherwise, or a file cannot be read.
    """
    if not folder:
        raise UserError(f"data.folder (FOLDER=…) is not set; expected a folder that holds {LAYOUT[modality]}")
    top = root / Path(folder).expanduser() / modality
    if not top.is_dir():
        raise UserError(f"{top}: missing; expected files as {LAYOUT[modality]}")
    files = [file for label in _entries(top) for file in _files(label, SPEAKER_LEVELS[modality], modality)]
    if not files:
        raise UserError(f"{top}: holds no files; expected {LAYOUT[modality]}")
    return Listing(_items(files, top), len(files), LICENCE)


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, in an order that no file system changes, without hidden files."""
    try:
        found = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as fault:
        raise UserError(f"{folder}: cannot be read: {fault.strerror}") from None
    return sorted((entry for entry in found if entry.name.lower() not in NOT_DATA), key=lambda entry: _name(entry.name))


def _files(label: Path, levels: int, modality: str) -> Iterator[Path]:
    if not label.is_dir():
        raise UserError(f"{label}: lies outside every label; expected {LAYOUT[modality]}")
    for entry in _entries(label):
        if entry.is_file():
            yield entry
        elif levels:
            yield from _files(entry, levels - 1, modality)
        else:
            raise UserError(f"{entry}: is no file; expected {LAYOUT[modality]}")


def _items(files: list[Path], top: Path) -> Iterator[Item]:
    for file in files:
        names = [_name(part) for part in file.relative_to(top).parts]
        try:
            content = file.read_bytes()
        except OSError as fault:
            raise UserError(f"{file}: cannot be read: {fault.strerror}") from None
        yield Item("/".join(names), content, names[0], group=names[1] if len(names) == 3 else None)


def _name(text: str) -> str:
    """One spelling per name: file systems disagree on how accents are composed (Unicode NFC and NFD)."""
    return unicodedata.normalize("NFC", text)
