"""Work on many files in several processes, in order, with bounded memory and progress."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, TypeVar

import semgan

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int, int, str], Any]
"""Called as progress(done, total, what) while work goes on."""

CHUNK = 16  # items handed to a process at once
FEW = 64  # fewer items than this are not worth a second process


def available_workers(workers: int | None = None) -> int:
    """Processes to use: as given, else one per CPU that this process may use."""
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be 1 or more; got {workers}.")
    return workers or len(semgan.CORES)


def thread_pool(workers: int | None = None) -> ThreadPoolExecutor:
    """Threads for decoding and encoding, which release Python's lock; as many as `available_workers` says."""
    return ThreadPoolExecutor(available_workers(workers), initializer=use_all_cores)


def each(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    what: str = "files",
    chunk: int = CHUNK,
) -> Iterator[Result]:
    """``function(item)`` for every item, in order. At most a few chunks of results wait in memory.

    The first error of the function is raised here, and what was not yet started is dropped. ``chunk``: items handed to
    a process at once.
    """
    for done, result in enumerate(_results(function, items, available_workers(workers), chunk), start=1):
        if progress is not None:
            progress(done, len(items), what)
        yield result


def _results(function: Callable[[Item], Result], items: Sequence[Item], workers: int, chunk: int) -> Iterator[Result]:
    if workers == 1 or len(items) < FEW * chunk // CHUNK:
        yield from map(function, items)
        return
    # fork: a script without a __main__ guard works too; the workers use numpy and Pillow only, never torch's threads.
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork"), initializer=_start_worker)
    waiting: deque[Future[list[Result]]] = deque()
    try:
        for start in range(0, len(items), chunk):
            waiting.append(pool.submit(_chunk, function, items[start : start + chunk]))
            if len(waiting) >= 4 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenExecutor:
        raise ValueError(
            "A worker process was killed, most likely for want of memory; use fewer workers (1 if need be)."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is answered once, by the parent
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_all_cores()


def _end_with_parent() -> None:
    """A killed parent does not end its workers, which hold what they inherited: locks of folders, for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in workers only"
    parent.join()
    os._exit(1)


def use_all_cores() -> None:
    """Torch binds its first thread to one core (see `semgan`), and whatever that thread starts inherits this."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, semgan.CORES)


def _chunk(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [function(item) for item in items]
