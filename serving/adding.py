"""`seehear add | remove | relabel | review`: change what is stored, by running the Dagster job that does it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NoReturn

import click

from ml.config import load_settings, project_root

modality = click.argument("modality", type=click.Choice(["images", "audio"]))


@click.command()
@click.argument("folder", type=click.Path(exists=True))
def add(folder: str) -> None:
    """Add the pictures and recordings of a folder or archive (images/LABEL/*, audio/LABEL/*) to the stored data."""
    run_apart("orchestration.adding", "add", os.path.abspath(folder))


@click.command()
@modality
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
def remove(modality: str, ids: tuple[str, ...]) -> None:
    """Take items out of the stored data; earlier versions keep them."""
    run_apart("orchestration.adding", "remove", modality, *ids)


@click.command()
@modality
@click.argument("name", metavar="ID")
@click.argument("label")
def relabel(modality: str, name: str, label: str) -> None:
    """Give a stored item another label."""
    run_apart("orchestration.adding", "relabel", modality, name, label)


@click.command()
@click.option("--accept", metavar="ID", multiple=True, help="Add what was sent under its corrected label; or `all`.")
@click.option("--reject", metavar="ID", multiple=True, help="Never ask about this correction again; or `all`.")
@click.option("--new-label", metavar="LABEL", multiple=True, help="A label that no data have yet, meant as it is.")
def review(accept: tuple[str, ...], reject: tuple[str, ...], new_label: tuple[str, ...]) -> None:
    """Show the corrections that wait, or turn them into data to train on.

    Only what was corrected with consent and is still kept (serving.keep_media_days) can be accepted.
    """
    if accept and reject:
        raise click.UsageError("--accept and --reject: one at a time")
    verb = ["accept", *accept] if accept else ["reject", *reject] if reject else ["list"]
    labels = [word for label in new_label for word in ("--new-label", label)]
    run_apart("orchestration.reviewing", *verb, *labels)


def run_apart(module: str, *words: str) -> NoReturn:
    """Run the `main` of a job's module in a process of its own; end as it ends.

    The service and its commands know nothing of Dagster.

    A signal ends the job in order first: SIGTERM is passed on, Ctrl+C and the terminal's end come to both.
    """
    from serving.cli.group import one_line  # the group is made of these commands

    with one_line():
        load_settings()
    environment = os.environ | {"SEEHEAR_ROOT": str(project_root())}
    job = subprocess.Popen([sys.executable, "-m", "serving.cli.apart", module, *words], env=environment)
    try:
        code = job.wait()
    except BaseException as signalled:
        if not isinstance(signalled, KeyboardInterrupt):
            job.terminate()
        job.wait()
        raise
    sys.exit(code if code >= 0 else 128 - code)  # negative: the signal that killed it


COMMANDS = (add, remove, relabel, review)
