"""One server, several worker processes: how they share the cores, stand in for each other, and end in order."""

from __future__ import annotations

import asyncio
import atexit
import fcntl
import functools
import math
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

FOLDER = "SEEHEAR_SERVER_FOLDER"  # names what the workers of one server share; set by the process that starts them
LOOK_S = 1.0  # how often the supervisor looks for dead workers
DRAIN_S = 1.0  # from the signal to the closing of the door; long enough for whoever probes /readyz to see it


def cores() -> int:
    """The processor cores that this process may use, the limit of its container included."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = Path("/sys/fs/cgroup/cpu.max")
    quota, _, period = limit.read_text().partition(" ") if limit.is_file() else ("max", "", "")
    return allowed if quota == "max" else max(1, min(allowed, math.ceil(int(quota) / int(period))))


def computed_at_once(cores: int, workers: int) -> int:
    """Requests that one worker computes at once: its share of the cores, and one more.

    Connections do not spread evenly over workers, and a worker's share alone would leave the other's cores idle.
    """
    return math.ceil(cores / workers) + 1


def prepare_server() -> None:
    """What the supervising process does before it starts the workers.

    BentoML's supervisor looks for dead workers every ten seconds, and in a container never, which no setting of it can
    change; and all servers of one model store share, and empty, one folder of metrics.
    """
    folder = tempfile.mkdtemp(prefix="seehear-server-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ[FOLDER] = folder
    from circus.controller import Controller

    start = Controller.start

    def start_attentive(self: Controller) -> None:
        self.check_delay = min(self.check_delay, 1000 * LOOK_S)
        for watcher in self.arbiter.watchers:
            watcher.respawn = True
        start(self)

    Controller.start = start_attentive


def prepare_worker() -> None:
    """Give this process's metrics to the folder of its server, and take those of dead workers out of the gauges."""
    if folder := os.environ.get(FOLDER):
        metrics = Path(folder) / "metrics"
        metrics.mkdir(exist_ok=True)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
        for file in metrics.glob("gauge_live*_*.db"):
            if not _lives(int(file.stem.rsplit("_", 1)[1])):
                file.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Siblings:
    """Lets a worker know whether another of the same server answers already.

    Each that does holds a shared lock on the server's folder, which the system takes back however the process ends.
    """

    def __init__(self) -> None:
        folder = os.environ.get(FOLDER)
        self._lock = os.open(folder, os.O_RDONLY) if folder else None

    def answer(self) -> bool:
        if self._lock is None:
            return False
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        return False

    def join(self) -> None:
        """From now on this worker answers."""
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_SH)


class Drain:
    """The time between the signal to end and the closing of the door.

    The server itself closes its door at once, so whoever probes it learns nothing; here it goes on answering for
    `seconds`, says on /readyz that it is leaving, and then does what it would have done at once.
    """

    def __init__(self, seconds: float = DRAIN_S):
        self.seconds, self.begun = seconds, False

    def listen(self) -> None:
        """Stand in front of the server's own handlers of SIGTERM and SIGINT; to be called in its running loop."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            end = signal.getsignal(number)
            if callable(end):
                begin = functools.partial(self._begin, asyncio.get_running_loop(), end)
                signal.signal(number, begin)

    def _begin(self, loop: asyncio.AbstractEventLoop, end: Callable, number: int, frame: FrameType | None) -> None:
        if not self.begun:
            self.begun = True
            loop.call_soon_threadsafe(loop.call_later, self.seconds, end, number, frame)
        elif number == signal.SIGINT:  # somebody presses Ctrl+C again
            end(number, frame)
