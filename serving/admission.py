"""Who may come in: a bounded queue in front of the cores, and a deadline for everybody in it.

More work than the cores can do is refused at once and before its body is read, so that what is taken is answered soon.
What nobody waits for any more is dropped before it is computed.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread

from serving.refusals import Refused

if TYPE_CHECKING:
    from serving.http import Exchange

Answer = TypeVar("Answer")
ARRIVING = 64  # requests beyond the queue whose bodies may be on their way; what bounds the memory of slow senders
SETTLING = 0.1  # weight of the latest answer in the usual time of one


class Admission:
    """At most `at_once` requests are computed and `max_waiting` more wait, in the order of their arrival.

    deadline_s: from a request's arrival to the start of its computing. idle: set while nobody is inside.
    """

    def __init__(self, at_once: int, max_waiting: int, deadline_s: float):
        self.at_once, self.max_waiting, self.deadline_s = at_once, max_waiting, deadline_s
        self.inside = self.waiting = 0
        self.idle = threading.Event()
        self.idle.set()
        self._free = asyncio.Semaphore(at_once)
        self._threads: anyio.CapacityLimiter | None = None
        self._usual_s = 0.0

    def enter(self) -> Callable[[], None]:
        """Take a request in before its body is read; returns what lets it out, once. Raises Refused (429)."""
        if self._is_full() or self.inside >= self.at_once + self.max_waiting + ARRIVING:
            raise self._busy()
        self.inside += 1
        self.idle.clear()
        left = False

        def leave() -> None:
            nonlocal left
            self.inside -= not left
            left = True
            if not self.inside:
                self.idle.set()

        return leave

    async def compute(self, exchange: Exchange, work: Callable[..., Answer], *arguments) -> Answer:
        """Run work(*arguments) in a thread as soon as a core is free.

        Raises Refused instead of starting it: 429 where the queue is full by now, 504 where the deadline passes, 499
        where the client has gone.
        """
        try:
            waited = await self._wait(exchange)
            try:
                if waited and await exchange.is_gone():
                    raise Refused("disconnected", "the client has gone", 499)
                return await self._run(work, *arguments)
            finally:
                self._free.release()
        finally:
            exchange.leave()

    async def _wait(self, exchange: Exchange) -> bool:
        """Take a core; whether there was a wait for it."""
        if not self._free.locked():
            await self._free.acquire()
            return False
        if self._is_full():
            raise self._busy()
        self.waiting += 1
        try:
            async with asyncio.timeout(exchange.left_s):
                await self._free.acquire()
        except TimeoutError:
            message = f"not begun within {self.deadline_s:g} s; try again later"
            raise Refused("deadline", message, 504, self._retry_after_s()) from None
        finally:
            self.waiting -= 1
        return True

    async def _run(self, work: Callable[..., Answer], *arguments) -> Answer:
        started = time.perf_counter()
        self._threads = self._threads or anyio.CapacityLimiter(self.at_once)
        answer = await anyio.to_thread.run_sync(work, *arguments, limiter=self._threads)
        self._usual_s += SETTLING * (time.perf_counter() - started - self._usual_s)
        return answer

    def _is_full(self) -> bool:
        return self._free.locked() and self.waiting >= self.max_waiting

    def _busy(self) -> Refused:
        message = f"{self.waiting} requests are waiting already; try again in a moment"
        return Refused("too_many_requests", message, 429, self._retry_after_s())

    def _retry_after_s(self) -> int:
        ahead_s = (self.waiting + 1) * self._usual_s / self.at_once
        return max(1, math.ceil(ahead_s))
