"""What a terminal shows of a run: one line when a step starts, and one when it ends."""

import logging
import sys
import time

import dagster as dg


@dg.logger({}, description="One line when a step starts, what it has to say, and one line when it ends.")
def progress_logger(_) -> logging.Logger:
    logger = logging.Logger("seehear.progress", logging.DEBUG)
    logger.addHandler(_Progress())
    return logger


class _Progress(logging.Handler):
    def __init__(self):
        super().__init__()
        self.started: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        told = getattr(record, "dagster_meta", None) or {}
        event = told.get("dagster_event")
        if event is None and record.levelno >= logging.INFO and "orig_message" in told:
            print(f"  {told['orig_message']}", file=sys.stderr, flush=True)  # what a step itself has to say
        if event is None or not event.step_key:
            return
        name = event.step_key.replace("__", "/")
        if event.event_type == dg.DagsterEventType.STEP_START:
            self.started[name] = time.monotonic()
            print(f"▶ {name}", file=sys.stderr, flush=True)
        elif event.event_type in (dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE):
            mark = "✔" if event.event_type == dg.DagsterEventType.STEP_SUCCESS else "✘"
            took_s = time.monotonic() - self.started.get(name, time.monotonic())
            print(f"{mark} {name} {took_s:.1f} s", file=sys.stderr, flush=True)
