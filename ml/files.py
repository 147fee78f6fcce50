"""Writing whole: beside the place and renamed into it; and faults a person can put right as one line."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ml.config import UserError

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is too large",
}


def sha256_of(file: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def beside(place: Path) -> Path:
    """Where what is to stand at `place` is written first; hidden, in the same folder."""
    return place.with_name(f".{place.name}.new")


@contextmanager
def whole_folder(place: Path) -> Iterator[Path]:
    """Yield an empty folder beside `place` that takes its place when the block ends, and goes when it fails."""
    new = empty_beside(place)
    try:
        yield new
        publish(new, place)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def empty_beside(place: Path) -> Path:
    """An empty folder at beside(place); what a killed run left there is removed."""
    new = beside(place)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    return new


def publish(new: Path, place: Path) -> None:
    """Put the folder `new` in the place of `place`, whose former content goes; on Linux no moment is without either."""
    former = place.with_name(f".{place.name}.old")
    shutil.rmtree(former, ignore_errors=True)
    if place.exists() and _exchange(new, place):
        return shutil.rmtree(new, ignore_errors=True)
    if place.exists():
        place.rename(former)
    new.rename(place)
    return shutil.rmtree(former, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step (renameat2 of Linux); False where the system or the file system cannot."""
    swap = getattr(ctypes.CDLL(None), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE
    return swap is not None and swap(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


@contextmanager
def whole_file(place: Path) -> Iterator[Path]:
    """Yield a path beside `place`; the file written there takes its place at the end, and goes when the block fails."""
    new = beside(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield new
        os.replace(new, place)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def write_json(place: Path, tree: object) -> None:
    """Write `tree` as JSON with sorted keys, the same bytes for the same content."""
    with whole_file(place) as new:
        new.write_text(json.dumps(tree, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def turn_at(file: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock `file`, made with its folder where it is not there; the kernel frees that of a dead process.

    Raises BlockingIOError where another process holds it and this one is not to wait.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


@contextmanager
def one_line_faults() -> Iterator[None]:
    """End the process with exit code 1 and one line on standard error where a person can put the fault right."""
    try:
        yield
    except UserError as fault:
        raise SystemExit(_say(str(fault))) from None
    except OSError as fault:
        if fault.errno not in FULL:
            raise
        where = f" while writing {fault.filename}" if fault.filename else ""
        raise SystemExit(_say(f"{FULL[fault.errno]}{where}; make room and start again, nothing was changed")) from None


def _say(line: str) -> int:
    print(f"seehear: {line}", file=sys.stderr)
    return 1
