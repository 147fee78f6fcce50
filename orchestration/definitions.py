"""Entry point of Dagster: merges what the other files define."""

import dagster as dg

from orchestration import assets, automation, checks
from orchestration.progress import progress_logger
from orchestration.resources import Project

defs = dg.Definitions(
    assets=assets.ASSETS,
    asset_checks=checks.CHECKS,
    jobs=automation.JOBS,
    schedules=automation.SCHEDULES,
    sensors=automation.SENSORS,
    resources={"project": Project()},
    loggers={"console": dg.colored_console_logger, "progress": progress_logger},
    executor=dg.in_process_executor,
)
