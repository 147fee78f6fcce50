"""What every asset shares: plain failures, and the provenance it shows."""

import functools
from collections.abc import Callable

import dagster as dg

from ml.config import UserError, load_settings
from orchestration.resources import Project

SETTINGS = load_settings()


def plainly(function: Callable) -> Callable:
    """A UserError becomes the step's failure in its own words, without a traceback."""

    @functools.wraps(function)
    def asset(*arguments, **named):
        try:
            return function(*arguments, **named)
        except UserError as fault:
            raise dg.Failure(description=str(fault), allow_retries=False) from None

    return asset


def provenance(project: Project) -> dict[str, str]:
    """Which source, budget and commit an artefact was made with."""
    settings = project.settings
    return {"source": settings.data.source, "budget": settings.training.budget, "git": project.git_revision}
