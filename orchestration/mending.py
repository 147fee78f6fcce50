"""What DVC recorded of its outputs, held against what lies on disk; and the locks that dead processes left."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml.files import turn_at, whole_file


@dataclass(frozen=True)
class Output:
    """Something DVC keeps: `target` is a stage or a .dvc file, `md5` DVC's hash of the file or folder at `path`."""

    target: str
    path: Path
    md5: str

    @property
    def intact(self) -> bool:
        """Whether the file or folder is there with the content that was recorded; every byte is read."""
        return self.path.exists() and dvc_hash(self.path) == self.md5


def dvc_hash(path: Path) -> str:
    """DVC's hash: the MD5 of a file, or of the listing of a folder (then ending in .dir)."""
    if not path.is_dir():
        return _md5(path)
    return hashlib.md5(_listing(path)).hexdigest() + ".dir"


def _listing(folder: Path) -> bytes:
    """The object by which DVC's cache names a folder's files."""
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    return json.dumps([{"md5": _md5(folder / name), "relpath": name} for name in names], sort_keys=True).encode()


def _md5(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


class Cache:
    """DVC's cache on this machine, whose objects DVC itself hands out without looking at them."""

    def __init__(self, folder: Path):
        self.folder = folder

    def place(self, md5: str) -> Path:
        return self.folder / md5[:2] / md5[2:]

    def drop_damaged(self, md5: str) -> int:
        """Remove the objects of an output that are not what their name says; how many there were."""
        return sum(self._dropped(one) for one in self._objects(md5))

    def holds(self, md5: str) -> bool:
        """Whether every object of an output is there; damaged ones have been dropped before."""
        return self.place(md5).is_file() and all(self.place(one).is_file() for one in self._objects(md5))

    def keep(self, output: Output) -> None:
        """Put an intact output's missing objects back."""
        files = [file for file in output.path.rglob("*") if file.is_file()] if output.path.is_dir() else [output.path]
        for file in files:
            if not (place := self.place(_md5(file))).exists():
                with whole_file(place) as new:
                    shutil.copyfile(file, new)
                    new.chmod(0o444)
        if output.path.is_dir() and not (place := self.place(output.md5)).exists():
            with whole_file(place) as new:
                new.write_bytes(_listing(output.path))
                new.chmod(0o444)

    def _objects(self, md5: str) -> list[str]:
        """An output's own object and, where that is a folder's listing in good order, those of its files."""
        place = self.place(md5)
        if not md5.endswith(".dir") or not place.is_file() or not self._right(md5):
            return [md5]
        return [*dict.fromkeys(entry["md5"] for entry in json.loads(place.read_bytes())), md5]

    def _right(self, md5: str) -> bool:
        return _md5(self.place(md5)) == md5.removesuffix(".dir")

    def _dropped(self, md5: str) -> bool:
        damaged = self.place(md5).is_file() and not self._right(md5)
        if damaged:
            self.place(md5).unlink()
        return damaged


def release_dead_locks(folder: Path) -> list[str]:
    """Take what dead processes hold out of DVC's list of locks in .dvc/tmp; their commands.

    DVC does so itself while no other process has got their number, and stops for good where a process died while
    it wrote the list.
    """
    file = folder / "rwlock"
    if not file.exists():
        return []
    with turn_at(folder / "rwlock.lock"):  # as DVC does while it edits the list
        try:
            held = json.loads(file.read_text() or "{}")
        except ValueError:
            file.unlink()
            return ["a process that died while it wrote the list"]
        edited_s = file.stat().st_mtime
        kept, gone = _without_dead(held, edited_s)
        if gone:
            with whole_file(file) as new:
                new.write_text(json.dumps(kept))
    return gone


def _without_dead(held: dict[str, Any], edited_s: float) -> tuple[dict[str, Any], list[str]]:
    gone: dict[str, None] = {}
    kept: dict[str, Any] = {"read": {}, "write": {}}
    for mode in kept:
        for path, holders in held.get(mode, {}).items():
            listed = holders if isinstance(holders, list) else [holders]
            living = [holder for holder in listed if _lives(holder, edited_s)]
            gone |= {str(holder["cmd"]): None for holder in listed if holder not in living}
            if living:
                kept[mode][path] = living if isinstance(holders, list) else living[0]
    return kept, list(gone)


def _lives(holder: dict[str, Any], edited_s: float) -> bool:
    """Whether the process with this number is still the one that took the lock."""
    import psutil

    try:
        process = psutil.Process(int(holder["pid"]))
        words = process.cmdline()
        if process.status() == psutil.STATUS_ZOMBIE or process.create_time() > edited_s:
            return False
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    return int(holder["pid"]) == os.getpid() or words[-1:] == [] or words[-1].split()[-1:] == holder["cmd"].split()[-1:]
