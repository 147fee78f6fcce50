"""What every asset shares: plain failures, and the provenance it shows."""

import functools
import os
from collections.abc import Callable
from contextlib import ExitStack

import dagster as dg
import psutil
from dagster._utils.schedules import is_valid_cron_schedule

from ml.config import UserError, load_settings
from ml.files import turn_at
from orchestration.resources import Project

SETTINGS = load_settings()
CRONS = {"monitoring.drift_cron": SETTINGS.monitoring.drift_cron, "retraining.cron": SETTINGS.retraining.cron}
for name, cron in CRONS.items():
    if not is_valid_cron_schedule(cron):
        raise UserError(f"params.yaml: {name}: expected a cron schedule such as '0 3 * * 0', got {cron!r}")


def plainly(function: Callable) -> Callable:
    """A UserError becomes the step's failure in its own words, without a traceback."""

    @functools.wraps(function)
    def asset(*arguments, **named):
        try:
            return function(*arguments, **named)
        except UserError as fault:
            raise dg.Failure(description=str(fault), allow_retries=False) from None

    return asset


def in_turn(function: Callable) -> Callable:
    """One run at a time writes models and reports in this folder, whether `make run` or Dagster started it."""

    @functools.wraps(function)
    def asset(*arguments, **named):
        (project,) = (one for one in (*arguments, *named.values()) if isinstance(one, Project))
        lock = project.paths.var / "models.lock"
        with ExitStack() as held:
            try:
                held.enter_context(turn_at(lock, wait=False))
            except BlockingIOError:
                dg.get_dagster_logger().info("another run is writing models here; this one waits until it is done")
                held.enter_context(turn_at(lock))
            use_free_cores()
            return function(*arguments, **named)

    return asset


def use_free_cores(look_s: float = 0.5) -> None:
    """Torch computes with as many threads as other work leaves cores, at least one; OMP_NUM_THREADS says otherwise.

    Threads of one training wait for each other many times a step: where other processes had both of two cores, 450
    steps of the CNN took 204 to 347 s instead of 49.
    """
    if os.environ.get("OMP_NUM_THREADS"):
        return
    import torch

    cores = len(os.sched_getaffinity(0))
    busy = psutil.cpu_percent(look_s) / 100 * (os.cpu_count() or cores)
    threads = max(1, round(cores - busy))
    if threads < cores:
        dg.get_dagster_logger().info(f"other work keeps {busy:.1f} of {cores} cores busy: on {threads} of them")
    torch.set_num_threads(threads)


def provenance(project: Project) -> dict[str, str]:
    """Which source, budget and commit an artefact was made with."""
    settings = project.settings
    return {"source": settings.data.source, "budget": settings.training.budget, "git": project.git_revision}
