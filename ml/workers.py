"""Work on batches in order and on every core, a few of them under way: memory does not grow with their number."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_all_start_methods, get_context
from typing import TypeVar

from tqdm import tqdm

WORKERS = min(os.cpu_count() or 1, 8)
PROCESSES_FROM_S = 4.0  # of work for one core; below it the start of processes costs more than they save

Batch = TypeVar("Batch")
Done = TypeVar("Done")


def in_order(
    work: Callable[[Batch], Done],
    batches: Iterable[Batch],
    rows: int,
    about: str,
    rows_of: Callable[[Batch], int] = len,  # type: ignore[assignment]
) -> Iterator[Done]:
    """The results of `work` in the order of the batches, with a progress bar of `rows` rows named `about`.

    The first batch is done here and timed. Where the rest is long it goes to processes, so `work` and its batches must
    be fit for pickling; else to threads, which decoders let run side by side. Either way the results are the same.
    """
    coming = iter(batches)
    with tqdm(total=rows, desc=about, unit="", disable=None) as bar:
        for first in coming:
            start = time.process_time()
            done = work(first)
            alone_s = (time.process_time() - start) * (rows / max(rows_of(first), 1) - 1)
            yield done
            bar.update(rows_of(first))
            with _pool(alone_s, work) as pool:
                yield from _under_way(pool, work, coming, bar, rows_of)


def _under_way(
    pool: Executor,
    work: Callable[[Batch], Done],
    batches: Iterable[Batch],
    bar: tqdm,
    rows_of: Callable[[Batch], int],
) -> Iterator[Done]:
    waiting: deque[tuple[int, Future[Done]]] = deque()
    for batch in batches:
        waiting.append((rows_of(batch), pool.submit(work, batch)))
        if len(waiting) > 2 * WORKERS:
            yield _next(waiting, bar)
    while waiting:
        yield _next(waiting, bar)


def _next(waiting: deque[tuple[int, Future[Done]]], bar: tqdm) -> Done:
    rows, future = waiting.popleft()
    done = future.result()
    bar.update(rows)
    return done


def _pool(alone_s: float, work: Callable) -> Executor:
    if alone_s < PROCESSES_FROM_S or WORKERS == 1:
        return ThreadPoolExecutor(WORKERS)
    if "forkserver" not in get_all_start_methods():
        return ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn"))
    # what the work needs is imported once, in a process without threads, and its forks share the memory
    context = get_context("forkserver")
    context.set_forkserver_preload([getattr(work, "func", work).__module__])
    return ProcessPoolExecutor(WORKERS, mp_context=context)
