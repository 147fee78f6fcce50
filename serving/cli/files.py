"""What the commands read and write: the champion, pictures, recordings of any length, sounds written whole."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ml.config import UserError, load_paths, load_settings
from ml.files import whole_file
from serving.answering import load_predictor
from serving.cli.group import complain, heed
from serving.packaging import read_champion, stored_bundle

if TYPE_CHECKING:
    import numpy as np

    from ml.media import RecordingFile
    from ml.predictor import Predictor

SOUNDS = (
    *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64"),
)
UNREAD = (
    ".m4a",
    ".aac",
    ".mp4",
    ".wma",
    ".amr",
    ".webm",
    ".mka",
    ".ape",
    ".wv",
)  # sounds that libsndfile does not know
LONG_S = 120.0  # a recording from here on gets a progress bar
SPOOL_BYTES = 1 << 20


def champions_predictor() -> Predictor:
    """The champion's predictor, from the model store."""
    settings = load_settings()
    paths = load_paths(settings)
    bundle = stored_bundle(read_champion(paths).tag, paths)
    return load_predictor(bundle, settings.training.device)


def require_file(name: str) -> None:
    if not name:
        raise UserError("'': expected the name of a file")
    try:
        mode = os.stat(name).st_mode
    except FileNotFoundError:
        raise UserError(f"{name}: no such file") from None
    except (OSError, ValueError) as fault:  # ValueError: a name no file can have
        raise UserError(f"{name}: cannot be read: {getattr(fault, 'strerror', None) or fault}") from None
    if not stat.S_ISREG(mode):
        raise UserError(f"{name}: not a file")


def read_picture(name: str) -> np.ndarray:
    from ml import media

    require_file(name)
    return media.decode_picture(Path(name), load_settings().serving.max_megapixels, name)


def open_recording(name: str) -> RecordingFile:
    from ml import media

    require_file(name)
    return media.RecordingFile(Path(name), name)


def recordings_in(folder: str) -> list[Path]:
    if not os.path.isdir(folder):
        raise UserError(f"{folder or repr(folder)}: not a folder; expected one that holds recordings")
    found = sorted(_files_below(folder))
    files = [path for path in found if path.suffix.lower() in SOUNDS]
    unread = [path for path in found if path.suffix.lower() in UNREAD]
    if unread:
        kinds = ", ".join(sorted({path.suffix.lower() for path in unread}))
        complain(f"{unread[0]}{f' and {len(unread) - 1} more' if unread[1:] else ''}: {kinds} cannot be read; left out")
    if not files:
        raise UserError(f"{folder}: holds no recordings ({', '.join(SOUNDS)})")
    return files


def _files_below(folder: str) -> Iterator[Path]:
    """Every file in a folder and those inside it, links followed, each folder once; complains about what is closed."""
    seen = set()
    for place, inside, names in os.walk(folder, followlinks=True, onerror=_complain_of):
        try:
            about = os.stat(place)
        except OSError as fault:  # gone meanwhile
            _complain_of(fault)
            inside.clear()
            continue
        if (about.st_dev, about.st_ino) in seen:
            inside.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        yield from (Path(place, name) for name in names)


def _complain_of(fault: OSError) -> None:
    complain(f"{fault.filename}: cannot be read: {fault.strerror}")


class Watched:
    """A recording that shows on the terminal how far it has been gone through, if it is long.

    A long one is gone through twice.
    """

    def __init__(self, recording: RecordingFile):
        self._recording, self.rate_hz = recording, recording.rate_hz
        self._length_s = recording.samples / recording.rate_hz
        self._read_s = 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        from tqdm import tqdm

        short = self._length_s < LONG_S
        form = "{desc}: {percentage:3.0f} % |{bar}| {elapsed}<{remaining}"
        name, total = Path(self._recording.name).name, 2 * self._length_s
        with tqdm(
            total=total, initial=self._read_s, desc=name, bar_format=form, leave=False, disable=short or None
        ) as bar:
            for block in self._recording:
                heed()
                step_s = min(len(block) / self.rate_hz, total - self._read_s)
                self._read_s += step_s
                bar.update(step_s)
                yield block


def place_for(name: str | None, endings: tuple[str, ...], **read: str) -> Path | None:
    """Where to write, checked before any work is done; read: the files that are read, none of which it may be."""
    if name is None:
        return None
    target = Path(name)
    if target.suffix.lower() not in endings:
        raise UserError(f"{name or repr(name)}: expected a name that ends in {' or '.join(endings)}")
    try:
        if not target.parent.is_dir() or target.is_dir():
            raise UserError(f"{name}: cannot be written there; expected a file name in an existing folder")
        exists = target.exists()
    except OSError as fault:  # a folder that may not be entered, too long a name
        raise UserError(f"{name}: cannot be written: {fault.strerror}") from None
    for kind, file in read.items():
        if exists and os.path.exists(file) and target.samefile(file):
            raise UserError(f"{name}: is the {kind} itself; expected another file to write to")
    return target


class Spool:
    """Samples on their way through a file, so that they need not lie in memory."""

    def __init__(self, file: BinaryIO):
        self._file = file

    def write(self, block: np.ndarray) -> None:
        heed()
        self._file.write(block.astype("<f4").data)

    def __iter__(self) -> Iterator[np.ndarray]:
        import numpy as np

        self._file.seek(0)
        while content := self._file.read(SPOOL_BYTES):
            yield np.frombuffer(content, "<f4")


@contextmanager
def spool_beside(target: Path | None) -> Iterator[Spool | None]:
    """A spool for what is to be written to `target`, if anything is; UserError where the disk refuses.

    Its file has no name, so that it goes with the process however that ends.
    """
    if target is None:
        yield None
        return
    try:
        with tempfile.TemporaryFile(dir=target.parent) as file:
            yield Spool(file)
    except OSError as fault:
        raise UserError(f"{target}: cannot be written: {fault.strerror}") from None


def write_sound(target: Path, blocks: Callable[[], Iterable[np.ndarray]], samples: int, rate_hz: int) -> None:
    """Write a mono WAV block by block: 16-bit samples, which everything reads, or 32-bit floats where 16 would clip.

    blocks: float (samples,) in blocks, the same at both of two calls.
    """
    from ml import media

    loudest = max((float(abs(block).max(initial=0)) for block in blocks()), default=0.0)
    subtype = "PCM_16" if loudest < 1 else "FLOAT"
    with whole_file(target) as new, new.open("wb") as file:
        file.write(media.wav_header(samples, rate_hz, subtype))
        for block in blocks():
            file.write(media.wav_samples(block, subtype))
        heed()
