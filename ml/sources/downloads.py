"""Published files, from a mirror folder, a mirror's URL or their publisher; used once their content is verified."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from tqdm import tqdm

from ml.config import UserError, place_of

ATTEMPTS = 5
PAUSE_S = 1.0
TIMEOUT_S = 30.0
BLOCK_BYTES = 1 << 18
RANGE_NOT_SATISFIABLE = 416


@dataclass(frozen=True)
class Published:
    """A file by its place in a mirror, its publisher's URL, and the digest its content must have."""

    name: str
    url: str
    expected: str
    digest_of: Callable[[Path], str]


class Interrupted(Exception):
    """A transfer broke off; what has arrived is kept and the next attempt goes on from there."""


def obtain(published: Published, mirror: str | None, root: Path, pause_s: float = PAUSE_S) -> Path:
    """The verified file: in the mirror folder where `mirror` is one, else downloaded into data/downloads of `root`.

    A transfer that broke off is resumed, here or in the next run; only whole, verified files get their final name.
    Raises UserError naming the file where it is missing, cannot be fetched, or has another digest than expected.
    """
    if mirror and "://" not in mirror:
        return _from_folder(published, place_of(mirror, root, "data.mirror (MIRROR=…)"))
    url = f"{mirror.rstrip('/')}/{published.name}" if mirror else published.url
    place = root / "data" / "downloads" / published.name
    if place.is_file() and _digest(published, place) == published.expected:
        return place
    part = place.with_name(f"{place.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    resumed = part.is_file()
    _transfer(url, part, pause_s)
    got = _digest(published, part)
    if got != published.expected and resumed:  # what was left there may be of another version
        part.unlink()
        _transfer(url, part, pause_s)
        got = _digest(published, part)
    if got != published.expected:
        part.unlink()
        raise UserError(f"{url}: content has digest {got}, expected {published.expected}")
    part.replace(place)
    return place


def _from_folder(published: Published, folder: Path) -> Path:
    file = folder / published.name
    if not file.is_file():
        raise UserError(f"{file}: missing; data.mirror (MIRROR=…) must name a folder that holds {published.name}")
    got = _digest(published, file)
    if got != published.expected:
        raise UserError(f"{file}: content has digest {got}, expected {published.expected}")
    return file


def _digest(published: Published, file: Path) -> str:
    try:
        return published.digest_of(file)
    except Exception as fault:  # a damaged archive fails in as many ways as there are archive formats
        return f"none ({type(fault).__name__}: {fault})"


def _transfer(url: str, part: Path, pause_s: float) -> None:
    """Bring `part` to its full length, going on from what is there. Raises UserError where that cannot be done."""
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(pause_s * 2 ** (attempt - 1))
        try:
            return _receive(url, part)
        except Interrupted as fault:
            reason = str(fault)
    raise UserError(
        f"{url}: cannot be fetched ({reason}); start again to go on from there, "
        "or set data.mirror (MIRROR=…) to a folder or URL that holds mnist/ and fsdd/"
    )


def _receive(url: str, part: Path) -> None:
    have = part.stat().st_size if part.is_file() else 0
    try:
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            _append(answer, part, have if answer.status == 206 else 0)
    except urllib.error.HTTPError as fault:
        if fault.code == RANGE_NOT_SATISFIABLE and have:
            return  # all of it is there already; the digest decides
        if fault.code >= 500:
            raise Interrupted(f"HTTP {fault.code}") from None
        raise UserError(f"{url}: the server answers {fault.code} {fault.reason}, expected the file") from None
    except ValueError as fault:
        raise UserError(
            f"{url}: is no address ({fault}); expected a folder or URL that holds mnist/ and fsdd/"
        ) from None
    except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError) as fault:
        raise Interrupted(str(getattr(fault, "reason", fault)) or type(fault).__name__) from None


def _append(answer, part: Path, start: int) -> None:
    length = answer.headers.get("Content-Length")
    total = None if length is None else start + int(length)
    name = part.name.removesuffix(".part")
    with (
        part.open("ab" if start else "wb") as file,
        tqdm(total=total, initial=start, desc=name, unit="B", unit_scale=True, disable=None) as bar,
    ):
        while block := answer.read(BLOCK_BYTES):
            bar.update(file.write(block))
        size = file.tell()
    if total is not None and size < total:
        raise Interrupted(f"the connection closed after {size} of {total} bytes")
