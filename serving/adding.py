"""`seehear add | remove | relabel`: change what is stored, by running the Dagster job that does it."""

from __future__ import annotations

import os
import subprocess
import sys

import click

from ml.config import project_root

modality = click.argument("modality", type=click.Choice(["images", "audio"]))


@click.command()
@click.argument("folder", type=click.Path(exists=True))
def add(folder: str) -> None:
    """Add the pictures and recordings of a folder or archive (images/LABEL/*, audio/LABEL/*) to the stored data."""
    _run("add", os.path.abspath(folder))


@click.command()
@modality
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
def remove(modality: str, ids: tuple[str, ...]) -> None:
    """Take items out of the stored data; earlier versions keep them."""
    _run("remove", modality, *ids)


@click.command()
@modality
@click.argument("name", metavar="ID")
@click.argument("label")
def relabel(modality: str, name: str, label: str) -> None:
    """Give a stored item another label."""
    _run("relabel", modality, name, label)


def _run(*words: str) -> None:
    """Run the job `adding` in a process of its own, for the service and its commands know nothing of Dagster."""
    environment = os.environ | {"SEEHEAR_ROOT": str(project_root())}
    sys.exit(subprocess.call([sys.executable, "-m", "orchestration.adding", *words], env=environment))


COMMANDS = (add, remove, relabel)
