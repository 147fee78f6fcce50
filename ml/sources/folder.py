"""The user's own files, in a folder or an archive: images/<label>/… and audio/<label>/…, each with or without a person.

A file is images/<label>/<file> or images/<label>/<writer>/<file>, and audio/<label>/<file> or
audio/<label>/<speaker>/<file>. Links to files and folders are followed, wherever they lead; loops are refused.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ml.config import MODALITIES, UserError, place_of
from ml.sources import archives
from ml.sources.shards import Item, Listing

LICENCE = "the owner's"
LAYOUT = {
    "images": "images/<label>/* or images/<label>/<writer>/*",
    "audio": "audio/<label>/* or audio/<label>/<speaker>/*",
}
PERSON = {"images": "writer", "audio": "speaker"}
NOT_DATA = ("thumbs.db", "desktop.ini", "__macosx")
LEAST_PARTS, MOST_PARTS = 2, 3  # label and file, and a person between them
LARGEST_FILE_BYTES = archives.LARGEST_MEMBER_BYTES


@dataclass(frozen=True)
class Found:
    """A file by the names that lead to it inside its modality (label, perhaps a person, file), and how to read it.

    size_bytes and changed_ns: what tells without reading whether it is still the same; of a member, its archive's.
    """

    names: tuple[str, ...]
    size_bytes: int
    changed_ns: int
    read: Callable[[], bytes]

    @property
    def path(self) -> str:
        return "/".join(map(spelled, self.names))


def listing(folder: str | None, modality: str, root: Path, group_pattern: str | None = None) -> Listing:
    """The files of one modality, their bytes untouched; the id is the path inside the modality's folder.

    folder: a folder or an archive (.zip, .tar, .tar.gz, .tgz), relative to `root`. group_pattern: a regular expression
    with a group named `group`, sought in every file's name; where it is not found, the folder between label and file
    names the person, and where there is none nobody is known. Names that only capitals or the spelling of accents tell
    apart get a suffix, so that ids stay different on every file system.
    Raises UserError where the folder is not set, missing, empty, laid out otherwise, or a file cannot be read.
    """
    if not folder:
        raise UserError(f"data.folder (FOLDER=…) is not set; expected a folder that holds {LAYOUT[modality]}")
    pattern = person_pattern(group_pattern)
    found = _found(place_of(folder, root, "data.folder (FOLDER=…)"), modality)
    _note_unmatched(found, pattern, modality)
    _note_similar_labels(found, modality)
    return Listing(_items(found, pattern), len(found), LICENCE)


def state(folder: str | None, modality: str, root: Path) -> str:
    """A digest that changes where a file comes, goes, or is written anew; nothing is read.

    Of a folder that cannot be listed it is that of the reason.
    """
    try:
        found = _found(place_of(folder or "", root, "data.folder (FOLDER=…)"), modality)
        told = "".join(f"{one.path}\0{one.size_bytes}\0{one.changed_ns}\n" for one in found)
    except UserError as fault:
        told = str(fault)
    return hashlib.sha256(told.encode()).hexdigest()


def person_pattern(text: str | None) -> re.Pattern | None:
    """data.group_pattern compiled, None where it is off. Raises UserError where it is no such expression."""
    if not text:
        return None
    wanted = "expected a regular expression with one named group, such as ^[^_]+_(?P<group>[^_]+)_"
    try:
        pattern = re.compile(text)
    except re.error as fault:
        raise UserError(f"data.group_pattern (GROUP_PATTERN=…): {text!r}: {fault}; {wanted}") from None
    if set(pattern.groupindex) != {"group"}:
        named = ", ".join(pattern.groupindex) or "none"
        raise UserError(f"data.group_pattern (GROUP_PATTERN=…): {text!r}: its named groups are {named}; {wanted}")
    return pattern


def spelled(name: str) -> str:
    """One spelling per name: file systems disagree on how accents are composed (Unicode NFC and NFD).

    Bytes that are no UTF-8 and signs that do not print stand as backslash escapes.
    """
    text = unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


# ---------------------------------------------------------------------------------------------------- where files lie


def _found(place: Path, modality: str) -> list[Found]:
    found = _in_archive(place, modality) if archives.is_archive(place) else _in_folder(place / modality, modality)
    if not found:
        raise UserError(f"{place / modality}: holds no files; expected {LAYOUT[modality]}")
    return found


def _in_folder(top: Path, modality: str) -> list[Found]:
    with _reading(top):
        if not top.exists():
            raise UserError(f"{top}: missing; expected files as {LAYOUT[modality]}")
        if not top.is_dir():
            raise UserError(f"{top}: is no folder; expected files as {LAYOUT[modality]}")
    return list(_walk(top, (), modality, (_identity(top),)))


def _walk(folder: Path, names: tuple[str, ...], modality: str, above: tuple[tuple[int, int], ...]) -> Iterator[Found]:
    """Every file below `folder`, whose own identity and those of the folders around it are `above`."""
    with _reading(folder):
        entries = [entry.name for entry in folder.iterdir()]
    for name in _in_order(entries):
        entry, inside = folder / name, (*names, name)
        with _reading(entry):
            kind = entry.stat()
        if stat.S_ISDIR(kind.st_mode):
            if (kind.st_dev, kind.st_ino) in above:
                raise UserError(f"{entry}: is a link to a folder around it and would never end; remove it")
            if len(inside) == MOST_PARTS:
                raise UserError(f"{entry}: is no file; expected {LAYOUT[modality]}")
            yield from _walk(entry, inside, modality, (*above, (kind.st_dev, kind.st_ino)))
        else:
            yield _regular(entry, inside, modality, kind)


def _regular(entry: Path, inside: tuple[str, ...], modality: str, kind: os.stat_result) -> Found:
    if not stat.S_ISREG(kind.st_mode):  # opening a pipe would wait for ever
        raise UserError(f"{entry}: is no file but a pipe, socket or device; expected {LAYOUT[modality]}")
    if len(inside) < LEAST_PARTS:
        raise UserError(f"{entry}: lies outside every label; expected {LAYOUT[modality]}")
    if kind.st_size > LARGEST_FILE_BYTES:
        raise UserError(f"{entry}: {kind.st_size:,} bytes, expected at most {LARGEST_FILE_BYTES:,} in one file")
    return Found(inside, kind.st_size, kind.st_mtime_ns, lambda: _content(entry))


def _content(file: Path) -> bytes:
    with _reading(file):
        return file.read_bytes()


def _identity(folder: Path) -> tuple[int, int]:
    kind = folder.stat()
    return kind.st_dev, kind.st_ino


@contextmanager
def _reading(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        gone = place.is_symlink() and isinstance(fault, FileNotFoundError)
        reason = "a link that leads nowhere" if gone else fault.strerror
        raise UserError(f"{place}: cannot be read: {reason}") from None


def _in_order(names: Iterable[str]) -> list[str]:
    """Names in an order that no file system changes, without hidden files and what desktops leave behind."""
    return sorted((name for name in names if _is_data(name)), key=lambda name: (spelled(name), os.fsencode(name)))


def _is_data(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in NOT_DATA


# --------------------------------------------------------------------------------------------------------- archives


def modality_of(folders: Sequence[str]) -> str | None:
    """Whether a member of an archive in these folders is of the images or the audio; a label may be called so too."""
    return next((name for name in folders[:2] if name in MODALITIES), None)


def _in_archive(place: Path, modality: str) -> list[Found]:
    """The members below images/ or audio/, at the top of the archive or in one folder there."""
    found, kind = [], place.stat()
    for member in archives.members(place):
        above, below = member.parts[:-1], member.parts
        if not all(map(_is_data, below)) or modality_of(above) != modality:
            continue
        inside = below[below.index(modality) + 1 :]
        where = f"{place}: {member.name}"
        if len(inside) < LEAST_PARTS:
            raise UserError(f"{where}: lies outside every label; expected {LAYOUT[modality]}")
        if len(inside) > MOST_PARTS:
            raise UserError(f"{where}: lies too deep; expected {LAYOUT[modality]}")
        found.append(Found(inside, kind.st_size, kind.st_mtime_ns, member.read))
    return found


# ------------------------------------------------------------------------------------------------------------ items


def _items(found: Sequence[Found], pattern: re.Pattern | None) -> Iterator[Item]:
    alike = Counter(one.path.casefold() for one in found)
    for one in found:
        name = one.path if alike[one.path.casefold()] == 1 else f"{one.path}~{_mark(one.names)}"
        yield Item(name, one.read(), spelled(one.names[0]), group=_person(one, pattern))


def _mark(names: tuple[str, ...]) -> str:
    """Eight letters for the exact bytes of a path, where its spelling alone does not tell it from another."""
    return hashlib.sha256(os.fsencode("/".join(names))).hexdigest()[:8]


def _person(one: Found, pattern: re.Pattern | None) -> str | None:
    if match := pattern and pattern.search(spelled(one.names[-1])):
        return match["group"] or None
    return spelled(one.names[1]) if len(one.names) == MOST_PARTS else None


def _note_unmatched(found: Sequence[Found], pattern: re.Pattern | None, modality: str) -> None:
    if pattern is None:
        return
    missed = [one for one in found if not pattern.search(spelled(one.names[-1]))]
    unknown = sum(_person(one, pattern) is None for one in found)
    if missed:
        _note(
            f"{len(missed)} of {len(found)} names of {modality} do not match data.group_pattern: {missed[0].path}…"
            f"; of {unknown} the {PERSON[modality]} is unknown"
        )


def _note_similar_labels(found: Sequence[Found], modality: str) -> None:
    spellings = defaultdict(set)
    for one in found:
        label = spelled(one.names[0])
        spellings[label.casefold()].add(label)
    for labels in spellings.values():
        if len(labels) > 1:
            _note(f"{', '.join(sorted(labels))} of {modality} are labels of their own, though only capitals differ")


def _note(line: str) -> None:
    print(f"note: {line}", file=sys.stderr)
