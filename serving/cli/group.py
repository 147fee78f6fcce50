"""How every command ends: exit codes, one line per fault, quiet when nobody reads on."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import click

from ml.config import UserError
from ml.files import FULL

FOUND, NOTHING_FOUND, BAD_INPUT = 0, 1, 2
OUR_FAULT, INTERRUPTED, NOBODY_READS = 70, 130, 141  # as in sysexits.h; by the shells 128 + signal


class OneLine(click.Group):
    """Click's group; a wrong call gets one line and exit code 2, and a fault of ours is told from "nothing found"."""

    def main(self, *args, **kwargs):
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="surrogateescape")  # names of files need not be text: they go out as they are
        try:
            with ended_in_order():
                return super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as fault:
            fault.show()
            sys.exit(BAD_INPUT)
        except click.ClickException as fault:
            complain(fault.format_message())
            sys.exit(BAD_INPUT)
        except click.Abort:
            sys.exit(INTERRUPTED)
        except Exception as fault:
            if isinstance(fault, OSError) and fault.errno in FULL:
                complain(FULL[fault.errno] + (f" while writing {fault.filename}" if fault.filename else ""))
                _print_no_more()
                sys.exit(BAD_INPUT)
            traceback.print_exc()
            sys.exit(OUR_FAULT)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Every command with its whole first sentence, which click would cut to one line."""
        rows = [(name, command.get_short_help_str(1000)) for name, command in sorted(self.commands.items())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context):
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `seehear … | head`
            _print_no_more()
            sys.exit(NOBODY_READS)


def _print_no_more() -> None:
    """What is still buffered must not complain at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def end_with(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """End the process as `main` of its arguments says, by the same exit codes; what a command runs apart ends so."""
    try:
        with ended_in_order():
            sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception:
        traceback.print_exc()
        sys.exit(OUR_FAULT)


@contextmanager
def ended_in_order() -> Iterator[None]:
    """SIGTERM and a closed terminal end the command inside as Ctrl+C does: what is half-written goes first."""
    _told.clear()
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in former:
        if former[number] != signal.SIG_IGN:
            signal.signal(number, _leave)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _leave(number: int, frame: object) -> None:
    _told.append(number)
    if (
        len(_told) == 1 or number == signal.SIGINT
    ):  # what is cleaned up meanwhile is left in peace, but by an impatient ^C
        heed()


def heed() -> None:
    """End here if a signal said so; what it raised is lost where it came inside a callback."""
    if _told:
        raise KeyboardInterrupt if _told[0] == signal.SIGINT else SystemExit(128 + _told[0])


_told: list[int] = []  # signals that have come, in this process


@contextmanager
def one_line() -> Iterator[None]:
    """A UserError inside ends the command with its one line and exit code 2."""
    try:
        yield
    except UserError as fault:
        complain(str(fault))
        sys.exit(BAD_INPUT)


def complain(message: str) -> None:
    click.echo(f"seehear: {' '.join(message.split())}", err=True)


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
