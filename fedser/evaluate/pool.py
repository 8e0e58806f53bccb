"""Jobs in processes of one thread each, results as they end."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

from fedser.compute import one_thread

J = TypeVar("J")
R = TypeVar("R")
D = TypeVar("D")


def results(
    work: Callable[[J], R],
    todo: Sequence[J],
    start: Callable[[D], None],
    data: D,
    processes: int,
    *,
    ordered: bool = False,
) -> Iterator[R]:
    """Results of ``work`` for each job, in the order in which they end.

    Args:
        work: a function of a module, which every process imports for itself.
        todo: its arguments.
        start: called once in each process with ``data``, before any work.
        data: what all jobs share.
        processes: at most; 1 works in this process.
        ordered: in the order of ``todo`` instead.
    """
    if processes <= 1:
        _start(start, data)
        yield from map(work, todo)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker, initargs=(start, data)) as pool:
        try:
            waiting = [pool.submit(work, job) for job in todo]
            yield from (future.result() for future in (waiting if ordered else as_completed(waiting)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            _end_workers()  # leaving the block would wait for their jobs
            raise


def _end_workers() -> None:
    """End all workers and see them gone: where the pool's own thread reaps one, the end is known a little later."""
    for worker in multiprocessing.active_children():
        worker.terminate()
        worker.join()
    for _ in range(500):
        if not multiprocessing.active_children():
            return
        time.sleep(0.01)


def _start_worker(start: Callable[[D], None], data: D) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    _start(start, data)


def _start(start: Callable[[D], None], data: D) -> None:
    one_thread()
    start(data)
