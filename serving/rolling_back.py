"""`seehear rollback`: take up a former champion, by running the Dagster job that does it."""

from __future__ import annotations

import click

from serving.adding import run_apart


@click.command()
@click.option("--to", metavar="VERSION", help="A former champion's version, or the beginning of its digest.")
@click.option("--reason", required=True, help="Why; the history keeps it.")
def rollback(to: str | None, reason: str) -> None:
    """Take up the former champion, or the one named: verified first, and a running service follows by itself."""
    if to is not None and not to.strip():
        raise click.UsageError("--to: empty; expected a former champion's version, or no --to for the one before")
    run_apart("orchestration.rolling_back", reason, *([] if to is None else [to]))
