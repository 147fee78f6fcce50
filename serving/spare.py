"""What may wait until an answer has gone out and nobody else waits for one: measuring what was asked."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

PATIENCE_S = 0.25  # a worker that is never free measures one answer in this time
MOST = 16  # answers that wait to be measured
MOST_BYTES = 64_000_000  # of pictures and recordings held for them

Job = Callable[[bool], object]


class SpareTime:
    """Runs jobs one after the other in a thread of its own, while `idle` is set.

    A job is called with whether there is time to do all of it; where too many wait behind it, there is not. So a worker
    under full load measures a sample of its answers and is not held up by it, and one with time to spare measures all.
    """

    def __init__(self, idle: threading.Event):
        self._idle = idle
        self._waiting: deque[tuple[Job, int]] = deque()
        self._bytes = 0
        self._change = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="spare-time", daemon=True)
        self._thread.start()

    def take(self, job: Job, held_bytes: int) -> None:
        """Returns at once. held_bytes: what the job keeps in memory until it is done. A job must not raise."""
        with self._change:
            self._waiting.append((job, held_bytes))
            self._bytes += held_bytes
            self._change.notify()

    def close(self) -> None:
        """Do what still waits as if there were no time, and stop."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._await_job():
            in_time = not self._closed and self._is_light()
            if in_time:
                self._idle.wait(PATIENCE_S)
            with self._change:
                job, held_bytes = self._waiting.popleft()
                self._bytes -= held_bytes
            job(in_time)
            del job  # and all that it holds

    def _is_light(self) -> bool:
        """Whether no more waits than may be held; one alone may be as large as it likes."""
        with self._change:
            return len(self._waiting) == 1 or (len(self._waiting) <= MOST and self._bytes <= MOST_BYTES)

    def _await_job(self) -> bool:
        """Whether there is another one; only at the end there is not."""
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._closed)
            return bool(self._waiting)
