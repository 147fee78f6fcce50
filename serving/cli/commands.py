"""The commands that answer: classify, recognize, extract, search."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ml.config import UserError, load_paths
from serving.adding import COMMANDS
from serving.answering import extraction_answer, picture_answer, recognition_answer
from serving.cli.files import (
    Watched,
    champions_predictor,
    open_recording,
    place_for,
    read_picture,
    recordings_in,
    require_file,
    spool_beside,
    write_sound,
)
from serving.cli.group import BAD_INPUT, FOUND, NOTHING_FOUND, OneLine, complain, examples, heed, one_line
from serving.packaging import read_champion
from serving.rolling_back import rollback

if TYPE_CHECKING:
    import numpy as np

    from ml.predictor import Finding, Picture, Predictor, Word

WORDS_PER_LINE = 8  # of more words each gets a line of its own
SPANS_SHOWN = 12
PLOTTED_ROWS = 40
PLOTS = (".png", ".svg")


class Presence(click.FloatRange):
    """Click's range, which takes nan to lie in it."""

    def convert(self, value, param, ctx) -> float:
        number = super().convert(value, param, ctx)
        return self.fail(f"{number} is no number from 0 to 1.", param, ctx) if math.isnan(number) else number


an_object = click.option(
    "--object",
    "number",
    type=click.IntRange(min=0),
    metavar="N",
    help="Which of several things in the picture is asked for, as `seehear classify` counts them.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object per line instead of text.")


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    try:
        champion = read_champion(load_paths()).digest
    except UserError as fault:
        champion = f"none: {fault}"
    click.echo(f"seehear {version('seehear')}\nchampion {champion}")
    ctx.exit()


@click.group(
    cls=OneLine,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "seehear classify seven.png",
        "seehear extract seven.png talk.wav -o seven.wav",
        "seehear search seven.png recordings/ --plot timeline.png",
    )
    + "\n\nExit codes: 0 done, 1 nothing found, 2 bad input.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and the champion's digest, and exit.",
)
def main() -> None:
    """Recognise what is pictured and said, and take the pictured word out of a recording."""


@main.command(epilog=examples("seehear classify seven.png", "seehear classify --json *.png | jq -r .label"))
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path())
@as_json
def classify(images: tuple[str, ...], as_json: bool) -> None:
    """Say what is pictured; of several things each, the largest first, and where: x0, y0 to x1, y1 in pixels."""

    def one(predictor: Predictor, file: str) -> tuple[bool, dict, str]:
        picture = predictor.classify_image(read_picture(file))
        text = _labelled(picture.label, picture.probabilities, "nothing known") + _placed(picture)
        return picture.label is not None, {"file": file, **picture_answer(picture)}, text

    _each(images, one, as_json)


@main.command(
    epilog=examples(
        "seehear recognize word.wav",
        "seehear recognize meeting.flac                # hours are fine, in constant memory",
        "seehear recognize --json *.wav | jq -c '.words[]'",
    )
)
@click.argument("recordings", nargs=-1, required=True, metavar="AUDIO...", type=click.Path())
@as_json
def recognize(recordings: tuple[str, ...], as_json: bool) -> None:
    """Say which word a recording says, and which words it holds and when.

    A recording of more than a minute is named by its surest word.
    """

    def one(predictor: Predictor, file: str) -> tuple[bool, dict, str]:
        recording = Watched(open_recording(file))
        spoken = predictor.recognize_stream(recording, recording.rate_hz)
        text = f"{_labelled(spoken.label, spoken.probabilities, 'silence')}{_listed(spoken.words)}"
        return spoken.label is not None, {"file": file, **recognition_answer(spoken)}, text

    _each(recordings, one, as_json)


@main.command(
    epilog=examples(
        "seehear extract seven.png talk.wav -o seven.wav",
        "seehear extract seven.png talk.wav --json | jq .intervals",
        "seehear extract seven.png talk.wav > /dev/null && echo 'it is said'",
    )
)
@click.argument("image", type=click.Path())
@click.argument("audio", type=click.Path())
@click.option(
    "-o",
    "--out",
    metavar="OUT.wav",
    type=click.Path(),
    help="Write the word's own sound there, as long as the recording (silence where it is absent).",
)
@an_object
@as_json
def extract(image: str, audio: str, out: str | None, number: int | None, as_json: bool) -> None:
    """Say whether and when the pictured word is said, and take it out of the recording.

    Of several things in the picture the largest is asked for, unless --object names another. Recordings of hours are
    gone through in constant memory.
    """
    with one_line():
        target = place_for(out, (".wav",), picture=image, recording=audio)
        pixels, recording = read_picture(image), Watched(open_recording(audio))
        predictor = champions_predictor()
        found = _extracted(predictor, _asked(predictor, pixels, number), recording, target)
    record = {"image": image, "audio": audio, **extraction_answer(found), "out": out}
    click.echo(json.dumps(record) if as_json else _said(found, audio))
    sys.exit(FOUND if found.present else NOTHING_FOUND)


@main.command(
    epilog=examples(
        "seehear search seven.png recordings/",
        "seehear search seven.png recordings/ --top 10 --plot timeline.png",
        "seehear search seven.png recordings/ --json --min-presence 0.9 | jq -r .file",
    )
)
@click.argument("image", type=click.Path())
@click.argument("folder", type=click.Path())
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="Only the N surest recordings.")
@click.option(
    "--min-presence",
    type=Presence(0, 1),
    default=0.0,
    metavar="P",
    help="Only recordings whose presence is at least P.",
)
@click.option("--plot", metavar="OUT.png", type=click.Path(), help="Draw a timeline there: OUT.png or OUT.svg.")
@an_object
@as_json
def search(
    image: str, folder: str, top: int | None, min_presence: float, plot: str | None, number: int | None, as_json: bool
) -> None:
    """Rank the recordings in a folder that say what is pictured, and say when.

    A recording that cannot be read is named on the standard error, and the search goes on.
    """
    with one_line():
        target = place_for(plot, PLOTS, picture=image)
        files, pixels = recordings_in(folder), read_picture(image)
        predictor = champions_predictor()
        pictured = _asked(predictor, pixels, number)
    if pictured.label is None:
        complain(f"{image}: shows nothing that the model knows, so nothing was looked for")
        sys.exit(NOTHING_FOUND)
    answers = _searched(predictor, pictured, files)
    said = [(file, found) for file, found in answers if found.present]
    hits = [(file, found) for file, found in said if found.presence >= min_presence]
    for file, found in hits[:top]:
        record = {"file": str(file), "duration_s": found.duration_s, **extraction_answer(found)}
        click.echo(json.dumps(record) if as_json else f"{found.presence:6.1%}  {file}  {_when(found)}")
    if target:
        from serving.cli.timeline import draw_timeline

        with one_line():
            rows = _named(answers[: top or PLOTTED_ROWS], folder)
            draw_timeline(target, pixels, pictured.label, rows, len(said), len(answers))
    if bad := len(files) - len(answers):
        complain(f"{bad} of {len(files)} recordings could not be read")
    if not hits and not as_json:
        narrowed = f", in none with presence from {min_presence:g}" if said else ""
        click.echo(f"{pictured.label}: said in {len(said) or 'none'} of {len(answers)} recordings{narrowed}", err=True)
    sys.exit(FOUND if hits else NOTHING_FOUND if answers else BAD_INPUT)


for _command in (*COMMANDS, rollback):
    main.add_command(_command)


def _each(files: Iterable[str], one: Callable, as_json: bool) -> None:
    """Answer every file, complain about those that cannot be read, and exit with the code that fits the whole."""
    with one_line():
        for file in files:
            require_file(file)
        predictor = champions_predictor()
    any_found = any_bad = False
    for file in files:
        try:
            found, record, text = one(predictor, file)
        except UserError as fault:
            heed()  # a signal may be what broke it off
            complain(_naming(file, fault))
            any_bad = True
            continue
        any_found |= found
        click.echo(json.dumps(record) if as_json else f"{file}: {text}")
    sys.exit(BAD_INPUT if any_bad else FOUND if any_found else NOTHING_FOUND)


def _asked(predictor: Predictor, pixels: np.ndarray, number: int | None) -> Picture:
    """What is pictured; of several things the one of that number."""
    pictured = predictor.classify_image(pixels)
    return pictured if number is None else pictured.of_object(number)


def _extracted(predictor: Predictor, pictured: Picture, recording: Watched, target: Path | None) -> Finding:
    """The finding; the word's own sound goes to `target`, if there is one."""
    with spool_beside(target) as spool:
        found = predictor.extract_stream(pictured, recording, recording.rate_hz, spool.write if spool else None)
        if target and spool:
            samples = round(found.duration_s * recording.rate_hz)

            def sound():
                return predictor.restored(spool if found.present else (), recording.rate_hz, samples)

            write_sound(target, sound, samples, recording.rate_hz)
    return found


def _searched(predictor: Predictor, pictured: Picture, files: list[Path]) -> list[tuple[Path, Finding]]:
    """The recordings that could be read, the surest first."""
    from tqdm import tqdm

    answers = []
    for file in tqdm(files, unit="recording", leave=False, disable=None):
        try:
            recording = Watched(open_recording(str(file)))
            answers.append((file, predictor.extract_stream(pictured, recording, recording.rate_hz)))
        except UserError as fault:
            heed()
            with tqdm.external_write_mode(file=sys.stderr):
                complain(_naming(str(file), fault))
    return sorted(answers, key=lambda answer: (not answer[1].present, -answer[1].presence))


def _naming(file: str, fault: UserError) -> str:
    return str(fault) if file in str(fault) else f"{file}: {fault}"


def _named(answers: list[tuple[Path, Finding]], folder: str) -> list[tuple[str, Finding]]:
    return [(file.relative_to(folder).as_posix(), found) for file, found in answers]


def _said(found: Finding, audio: str) -> str:
    pictured = _labelled(found.pictured.label, found.pictured.probabilities, "nothing known")
    if found.pictured.label is None:
        return f"pictured: {pictured}\nso nothing was looked for in {audio}"
    if not found.present:
        return f"pictured: {pictured}\nnot said in {audio} (presence {found.presence:.1%})"
    heard = f"\nheard: {found.heard.label} ({found.heard.probability:.1%})" if found.heard else ""
    return f"pictured: {pictured}\nsaid at {_when(found)} (presence {found.presence:.1%}){heard}"


def _labelled(label: str | None, probabilities: dict[str, float], nothing: str) -> str:
    return nothing if label is None else f"{label} ({probabilities[label]:.1%})"


def _placed(picture: Picture) -> str:
    """Several objects, a line each."""
    if len(picture.objects) < 2:
        return ""
    lines = []
    for number, one in enumerate(picture.objects):
        x0, y0, x1, y1 = one.box
        lines.append(f"\n  {number}: {one.label} ({one.probability:.1%}) at {x0},{y0} to {x1},{y1}")
    return "".join(lines)


def _listed(words: list[Word]) -> str:
    said = [f"{word.label} {_span(word.start_s, word.end_s)}" for word in words]
    if len(said) > WORDS_PER_LINE:
        return "".join(f"\n  {one}" for one in said)
    return f"  {', '.join(said)}" if said else ""


def _when(found: Finding) -> str:
    said = [_span(interval.start_s, interval.end_s) for interval in found.intervals]
    rest = f" and {len(said) - SPANS_SHOWN} more times (--json lists all)" if len(said) > SPANS_SHOWN else ""
    return ", ".join(said[:SPANS_SHOWN]) + rest


def _span(start_s: float, end_s: float) -> str:
    if end_s < 60:
        return f"{start_s:.2f}-{end_s:.2f} s"
    return f"{clock(start_s)}-{clock(end_s)}"


def clock(time_s: float) -> str:
    """m:ss.ss, or h:mm:ss.ss from an hour on."""
    minutes, seconds = divmod(round(100 * time_s) / 100, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{seconds:05.2f}" if hours else f"{minutes}:{seconds:05.2f}"
