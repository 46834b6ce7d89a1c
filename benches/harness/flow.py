"""Timing what goes through a queue, from some processes to others."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any


def flow(
    queue: Any,
    produce: Callable[[Any, Any], None],
    consume: Callable[[Any, Any, Any], None],
    producers: int,
    consumers: int,
) -> tuple[float, int]:
    """Have processes put into a queue, and others get until there is a `None`.

    Args:
        queue: The queue.
        produce: Is called with the queue, and what starts everybody.
        consume: Is called with the queue, what starts everybody, and a queue to tell how much it has got.
        producers: How many processes put.
        consumers: How many get.

    Returns:
        The seconds it took, and how much was got in all.
    """
    # The processes, and what they are counted with, are the standard library's for everybody.
    context = multiprocessing.get_context("fork")
    start, done = context.Event(), context.SimpleQueue()
    processes = [context.Process(target=consume, args=(queue, start, done)) for _ in range(consumers)]
    processes += [context.Process(target=produce, args=(queue, start)) for _ in range(producers)]
    for process in processes:
        process.start()
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
