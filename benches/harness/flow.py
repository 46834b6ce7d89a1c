"""Timing what goes through a queue, from some processes to others."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any


class Counted:
    """A queue that tells of each object that was got."""

    def __init__(self, queue: Any, tell: Callable[[], object]) -> None:
        self._queue, self._tell = queue, tell

    def get(self) -> Any:
        obj = self._queue.get()
        if obj is not None:
            self._tell()
        return obj


def flow(
    queue: Any,
    produce: Callable[[Any, Any], None],
    consume: Callable[[Any, Any, Any], None],
    producers: int,
    consumers: int,
    warm_up: Callable[[Any, Any], None] | None = None,
    warm: int = 0,
) -> tuple[float, int]:
    """Have processes put into a queue, and others get until there is a `None`.

    Args:
        queue: The queue.
        produce: Is called with the queue, and what starts everybody.
        consume: Is called with the queue, what starts everybody, and a queue to tell how much it has got.
        producers: How many processes put.
        consumers: How many get.
        warm_up: Is called like ``produce``, by the same processes, before anything is timed, and ``consume`` with it.
        warm: How many objects that puts in all processes together.

    Returns:
        The seconds it took, and how much was got in all.
    """
    # The processes, and what they are counted with, are the standard library's for everybody.
    context = multiprocessing.get_context("fork")
    start, warm_start, done = context.Event(), context.Event(), context.SimpleQueue()
    arrived = context.Semaphore(0)

    def put() -> None:
        if warm_up:
            warm_up(queue, warm_start)
        produce(queue, start)

    def get() -> None:
        if warm_up:
            consume(Counted(queue, arrived.release), warm_start, done)
        consume(queue, start, done)

    processes = [context.Process(target=get) for _ in range(consumers)]
    processes += [context.Process(target=put) for _ in range(producers)]
    for process in processes:
        process.start()
    if warm_up:
        warm_start.set()
        # Not before all has arrived: a queue may deliver what one process puts before what another has put earlier.
        for _ in range(warm):
            arrived.acquire()
        for _ in range(consumers):
            queue.put(None)
        for _ in range(consumers):
            done.get()
    time.sleep(0.3)
    begin = time.perf_counter()
    start.set()
    for process in processes[consumers:]:
        process.join()
    for _ in range(consumers):
        queue.put(None)
    got = sum(done.get() for _ in range(consumers))
    seconds = time.perf_counter() - begin
    for process in processes:
        process.join()
    return seconds, got
