"""The `seehear` command: pictures and recordings on disk, answered by the champion without a service.

Exit codes: 0 done, 1 nothing found, 2 bad input, with one line per bad file that names it and says why.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ml.config import UserError, load_paths, load_settings
from serving.answering import (
    extraction_answer,
    load_predictor,
    picture_answer,
    recognition_answer,
    wav_at_true_level,
)
from serving.packaging import read_champion, stored_bundle

if TYPE_CHECKING:
    import numpy as np

    from ml.predictor import Extraction, Predictor

FOUND, NOTHING_FOUND, BAD_INPUT = 0, 1, 2
OUR_FAULT, INTERRUPTED = 70, 130  # as in sysexits.h and by the shells
SOUNDS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64")

as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object per line instead of text.")


class OneLine(click.Group):
    """Click's group; a wrong call gets one line and exit code 2, and a fault of ours is told from "nothing found"."""

    def main(self, *args, **kwargs):
        try:
            return super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as fault:
            fault.show()
            sys.exit(BAD_INPUT)
        except click.ClickException as fault:
            _complain(fault.format_message())
            sys.exit(BAD_INPUT)
        except click.Abort:
            sys.exit(INTERRUPTED)
        except Exception:
            traceback.print_exc()
            sys.exit(OUR_FAULT)


@click.group(cls=OneLine, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Recognise what is pictured and said, and take the pictured word out of a recording."""


@main.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@as_json
def classify(images: tuple[str, ...], as_json: bool) -> None:
    """Say what is pictured."""

    def one(predictor: Predictor, file: str) -> tuple[bool, dict, str]:
        picture = predictor.classify_image(_picture(file))
        text = _labelled(picture.label, picture.probabilities, "nothing known")
        return picture.label is not None, {"file": file, **picture_answer(picture)}, text

    _each(images, one, as_json)


@main.command()
@click.argument("recordings", nargs=-1, required=True, metavar="AUDIO...")
@as_json
def recognize(recordings: tuple[str, ...], as_json: bool) -> None:
    """Say which word a recording says, and which words it holds and when."""

    def one(predictor: Predictor, file: str) -> tuple[bool, dict, str]:
        spoken = predictor.recognize_speech(*_recording(file))
        words = ", ".join(f"{word.label} {_span(word.start_s, word.end_s)}" for word in spoken.words)
        text = f"{_labelled(spoken.label, spoken.probabilities, 'silence')}  {words}".rstrip()
        return spoken.label is not None, {"file": file, **recognition_answer(spoken)}, text

    _each(recordings, one, as_json)


@main.command()
@click.argument("image")
@click.argument("audio")
@click.option("-o", "--out", metavar="OUT.wav", help="Write the word's own sound there (silence where it is absent).")
@as_json
def extract(image: str, audio: str, out: str | None, as_json: bool) -> None:
    """Say whether and when the pictured word is said, and take it out of the recording."""
    with _one_line():
        target = _sound_to_write(out)
        pixels, (waveform, rate_hz) = _picture(image), _recording(audio)
        found = _predictor().extract(pixels, waveform, rate_hz)
        if target:
            _write(target, found)
    record = {"image": image, "audio": audio, **extraction_answer(found), "out": out}
    click.echo(json.dumps(record) if as_json else _said(found, audio))
    sys.exit(FOUND if found.present else NOTHING_FOUND)


@main.command()
@click.argument("image")
@click.argument("folder")
@as_json
def search(image: str, folder: str, as_json: bool) -> None:
    """Rank the recordings in a folder that say what is pictured, and say when."""
    with _one_line():
        files = _recordings_in(folder)
        pixels = _picture(image)
        predictor = _predictor()
        pictured = predictor.classify_image(pixels)
        if pictured.label is None:
            raise UserError(f"{image}: shows nothing that the model knows")
    hits, bad = _search(predictor, pixels, files)
    for file, found in sorted(hits, key=lambda hit: -hit[1].presence):
        record = {"file": str(file), **extraction_answer(found)}
        click.echo(json.dumps(record) if as_json else f"{found.presence:6.1%}  {file}  {_when(found)}")
    if not hits and not as_json:
        click.echo(f"{pictured.label}: said in none of {len(files) - bad} recordings", err=True)
    sys.exit(FOUND if hits else BAD_INPUT if bad == len(files) else NOTHING_FOUND)


def _each(files: Iterable[str], one: Callable, as_json: bool) -> None:
    """Answer every file, complain about those that cannot be read, and exit with the code that fits the whole."""
    with _one_line():
        for file in files:
            _require_file(file)
        predictor = _predictor()
    any_found = any_bad = False
    for file in files:
        try:
            found, record, text = one(predictor, file)
        except UserError as fault:
            _complain(str(fault))
            any_bad = True
            continue
        any_found |= found
        click.echo(json.dumps(record) if as_json else f"{file}: {text}")
    sys.exit(BAD_INPUT if any_bad else FOUND if any_found else NOTHING_FOUND)


def _search(predictor: Predictor, pixels: np.ndarray, files: list[Path]) -> tuple[list[tuple[Path, Extraction]], int]:
    """The recordings that say what is pictured, and how many could not be read."""
    from tqdm import tqdm

    hits, bad = [], 0
    for file in tqdm(files, unit="recording", leave=False, disable=not sys.stderr.isatty()):
        try:
            found = predictor.extract(pixels, *_recording(str(file)))
        except UserError as fault:
            _complain(str(fault))
            bad += 1
            continue
        if found.present:
            hits.append((file, found))
    return hits, bad


@contextmanager
def _one_line():
    """A UserError inside ends the command with its one line and exit code 2."""
    try:
        yield
    except UserError as fault:
        _complain(str(fault))
        sys.exit(BAD_INPUT)


def _complain(message: str) -> None:
    click.echo(f"seehear: {' '.join(message.split())}", err=True)


def _predictor() -> Predictor:
    """The champion's predictor, from the model store."""
    settings = load_settings()
    paths = load_paths(settings)
    bundle = stored_bundle(read_champion(paths).tag, paths)
    return load_predictor(bundle, settings.training.device)


def _require_file(name: str) -> None:
    if not os.path.exists(name):
        raise UserError(f"{name}: no such file")
    if not os.path.isfile(name):
        raise UserError(f"{name}: not a file")


def _picture(name: str) -> np.ndarray:
    from ml import media

    _require_file(name)
    return media.decode_picture(Path(name), load_settings().serving.max_megapixels, name)


def _recording(name: str) -> tuple[np.ndarray, int]:
    from ml import media

    _require_file(name)
    return media.decode_recording(Path(name), name=name)


def _recordings_in(folder: str) -> list[Path]:
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: not a folder; expected one that holds recordings")
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SOUNDS and path.is_file())
    if not files:
        raise UserError(f"{folder}: holds no recordings ({', '.join(SOUNDS)})")
    return files


def _sound_to_write(out: str | None) -> Path | None:
    """Where to write, checked before any work is done."""
    if out is None:
        return None
    target = Path(out)
    if target.suffix.lower() != ".wav":
        raise UserError(f"{out}: expected a name that ends in .wav")
    if not target.parent.is_dir() or target.is_dir():
        raise UserError(f"{out}: cannot be written there; expected a file name in an existing folder")
    return target


def _write(target: Path, found: Extraction) -> None:
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(wav_at_true_level(found.estimate, found.rate_hz))
        os.replace(beside, target)
    except OSError as fault:
        raise UserError(f"{target}: cannot be written: {fault.strerror}") from None
    finally:
        beside.unlink(missing_ok=True)


def _said(found: Extraction, audio: str) -> str:
    pictured = _labelled(found.pictured.label, found.pictured.probabilities, "nothing known")
    if not found.present:
        return f"pictured: {pictured}\nnot said in {audio} (presence {found.presence:.1%})"
    heard = f"\nheard: {found.heard.label} ({found.heard.probability:.1%})" if found.heard else ""
    return f"pictured: {pictured}\nsaid at {_when(found)} (presence {found.presence:.1%}){heard}"


def _labelled(label: str | None, probabilities: dict[str, float], nothing: str) -> str:
    return nothing if label is None else f"{label} ({probabilities[label]:.1%})"


def _when(found: Extraction) -> str:
    return ", ".join(_span(interval.start_s, interval.end_s) for interval in found.intervals)


def _span(start_s: float, end_s: float) -> str:
    return f"{start_s:.2f}-{end_s:.2f} s"


if __name__ == "__main__":
    main()
