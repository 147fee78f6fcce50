"""Archives read member by member and never unpacked; what leads out of them or would swell beyond bounds is refused."""

from __future__ import annotations

import lzma
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Protocol

from ml.config import UserError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
LARGEST_MEMBER_BYTES = 512 * 1024**2
LARGEST_SWELLING = 200  # times; photographs and recordings that are compressed already hardly swell at all
LARGEST_EXTENSION_BYTES = 1024**2  # of a tar's header: names and their like
EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
HARMLESS_BYTES = 64 * 1024**2  # up to here plain pictures and silence may swell as they like


DAMAGED = (  # UnicodeError: of a name
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
    *(EOFError, NotImplementedError, UnicodeError),
)


class Reader(Protocol):
    def __call__(self) -> bytes: ...


@dataclass(frozen=True)
class Member:
    """A file of an archive; `read` gives its bytes, fastest where members are read in the order of `members`."""

    name: str
    parts: tuple[str, ...]
    read: Reader


def is_archive(place: Path) -> bool:
    """Whether the name is one of an archive and there is a file of that name."""
    return place.name.lower().endswith(SUFFIXES) and place.is_file()


def members(archive: Path) -> list[Member]:
    """The regular files of an archive.

    Raises UserError naming the member where one leads out of the archive, is a link or device, occurs twice, is
    encrypted, or declares more bytes than can be meant; and where the archive is damaged.
    """
    found = _zipped(archive) if archive.name.lower().endswith(".zip") else _tarred(archive)
    seen: set[str] = set()
    for member in found:
        if member.name in seen:
            raise UserError(f"{archive}: {member.name}: is in the archive twice; expected every name once")
        seen.add(member.name)
    return found


def _zipped(archive: Path) -> list[Member]:
    found, total = [], 0
    with _damage(archive):
        opened = zipfile.ZipFile(archive)  # stays open for the readers
        for info in opened.infolist():
            parts = _inside(archive, info.filename)
            if info.is_dir():
                continue
            kind = info.external_attr >> 16
            if stat.S_IFMT(kind) not in (0, stat.S_IFREG):
                raise UserError(f"{archive}: {info.filename}: is a link or device; expected files only")
            if info.flag_bits & 1:
                raise UserError(f"{archive}: {info.filename}: is encrypted; expected an archive without a password")
            _bounded(archive, info.filename, info.file_size, info.compress_size)
            total += info.file_size
            _bounded_whole(archive, info.filename, total)
            found.append(Member(info.filename, parts, _ZipReader(archive, opened, info)))
    return sorted(found, key=lambda member: unicodedata.normalize("NFC", member.name))


def _tarred(archive: Path) -> list[Member]:
    """Sizes are checked header by header, before what lies between two headers is decompressed or a header is read."""
    found, total = [], 0
    shared = _TarPass(archive)
    with _damage(archive), tarfile.open(archive, tarinfo=_Header) as opened:
        for number, info in enumerate(opened):
            parts = _inside(archive, info.name)
            if info.isdir():
                continue
            if not info.isreg():
                raise UserError(f"{archive}: {info.name}: is a link or device; expected files only")
            _bounded(archive, info.name, info.size, info.size)
            total += info.size
            _bounded_whole(archive, info.name, total)
            found.append(Member(info.name, parts, _TarReader(shared, number)))
    return found


class _Header(tarfile.TarInfo):
    """One whose extension, of which tarfile would hold all in memory, is no longer than a name can be."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:  # where the library lets subclasses in
        if self.type in EXTENSIONS and self.size > LARGEST_EXTENSION_BYTES:
            raise UserError(
                f"{tar.name}: a header of {self.size:,} bytes; expected {LARGEST_EXTENSION_BYTES:,} at most"
            )
        return super()._proc_member(tar)  # pyright: ignore[reportAttributeAccessIssue]


def _inside(archive: Path, name: str) -> tuple[str, ...]:
    """The parts of a member's name. Raises UserError where they lead out of the archive."""
    parts = tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
    if ".." in parts or name.startswith(("/", "\\")) or name[1:2] == ":" or "\0" in name:
        raise UserError(f"{archive}: {name!r}: leads out of the archive; expected names below images/ or audio/")
    return parts


def _bounded(archive: Path, name: str, size: int, packed: int) -> None:
    if size > LARGEST_MEMBER_BYTES:
        raise UserError(f"{archive}: {name}: declares {size:,} bytes, expected at most {LARGEST_MEMBER_BYTES:,}")
    if size > max(HARMLESS_BYTES, LARGEST_SWELLING * packed):
        raise UserError(f"{archive}: {name}: {packed:,} bytes swell to {size:,}; expected pictures and recordings")


def _bounded_whole(archive: Path, name: str, total: int) -> None:
    held = archive.stat().st_size
    if total > max(HARMLESS_BYTES, LARGEST_SWELLING * held):
        raise UserError(
            f"{archive}: {name}: by here {held:,} bytes swell to {total:,}; expected pictures and recordings"
        )


@dataclass(frozen=True)
class _ZipReader:
    archive: Path
    opened: zipfile.ZipFile
    info: zipfile.ZipInfo

    def __call__(self) -> bytes:
        with _damage(self.archive, self.info.filename), self.opened.open(self.info) as file:
            return file.read(self.info.file_size)


class _TarPass:
    """One pass over a tar archive, shared by the readers of its members; who asks in its order costs no second pass."""

    def __init__(self, archive: Path):
        self.archive, self._next = archive, 0
        self._reads = _tar_reads(archive)

    def read(self, number: int) -> bytes:
        if number < self._next:
            self._reads, self._next = _tar_reads(self.archive), 0
        with _damage(self.archive):
            for read in self._reads:
                self._next += 1
                if self._next > number:
                    return read()
        raise UserError(f"{self.archive}: changed while it was read; start again")


def _tar_reads(archive: Path) -> Iterator[Reader]:
    with tarfile.open(archive) as opened:
        for info in opened:
            yield partial(_tar_content, opened, info)


def _tar_content(opened: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    with closing(opened.extractfile(info) or BytesIO()) as file:
        return file.read()


@dataclass(frozen=True)
class _TarReader:
    shared: _TarPass
    number: int

    def __call__(self) -> bytes:
        return self.shared.read(self.number)


@contextmanager
def _damage(archive: Path, name: str = "") -> Iterator[None]:
    """What a damaged archive raises, as one line that names the archive and the member."""
    where = f"{archive}: {name}" if name else str(archive)
    try:
        yield
    except (*DAMAGED, OSError) as fault:
        raise UserError(f"{where}: cannot be read as an archive: {' '.join(str(fault).split())}") from None
