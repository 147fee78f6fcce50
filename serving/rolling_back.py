"""`seehear rollback`: take up a former champion, by running the Dagster job that does it."""

from __future__ import annotations

import os
import subprocess
import sys

import click

from ml.config import project_root


@click.command()
@click.option("--to", metavar="VERSION", help="A former champion's version, or the beginning of its digest.")
@click.option("--reason", required=True, help="Why; the history keeps it.")
def rollback(to: str | None, reason: str) -> None:
    """Take up the former champion, or the one named: verified first, and a running service follows by itself."""
    words = [reason, to] if to else [reason]
    environment = os.environ | {"SEEHEAR_ROOT": str(project_root())}
    sys.exit(subprocess.call([sys.executable, "-m", "orchestration.rolling_back", *words], env=environment))
