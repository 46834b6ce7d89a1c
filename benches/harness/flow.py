"""Timing what goes through a queue, from some processes to others."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Produce = Callable[[Any, Any], None]
Consume = Callable[[Any, Any, Any], None]


class Counted:
    """A queue that tells of each object that was got."""

    def __init__(self, queue: Any, tell: Callable[[], object]) -> None:
        self._queue, self._tell = queue, tell

    def get(self) -> Any:
        obj = self._queue.get()
        if obj is not None:
            self._tell()
        return obj


@dataclass(frozen=True)
class WarmUp:
    """What is put, and got, by the same processes before anything is timed.

    Attributes:
        produce: Is called as the one that is timed.
        count: How many objects that puts, in all processes together.
    """

    produce: Produce
    count: int


def finish(queue: Any, done: Any, consumers: int) -> int:
    """Have those who get come to an end; answers how much they have got."""
    for _ in range(consumers):
        queue.put(None)
    return sum(done.get() for _ in range(consumers))


def flow(
    queue: Any, produce: Produce, consume: Consume, ends: tuple[int, int], warm_up: WarmUp | None = None
) -> tuple[float, int]:
    """Have processes put into a queue, and others get until there is a `None`.

    Args:
        queue: The queue.
        produce: Is called with the queue, and what starts everybody.
        consume: Is called with the queue, what starts everybody, and a queue to tell how much it has got.
        ends: How many processes put, and how many get.
        warm_up: What comes before; ``consume`` is called for it too.

    Returns:
        The seconds it took, and how much was got in all.
    """
    # The processes, and what they are counted with, are the standard library's for everybody.
    context = multiprocessing.get_context("fork")
    start, warm_start, done = context.Event(), context.Event(), context.SimpleQueue()
    arrived = context.Semaphore(0)

    def put() -> None:
        if warm_up:
            warm_up.produce(queue, warm_start)
        produce(queue, start)

    def get() -> None:
        if warm_up:
            consume(Counted(queue, arrived.release), warm_start, done)
        consume(queue, start, done)

    getting = [context.Process(target=get) for _ in range(ends[1])]
    putting = [context.Process(target=put) for _ in range(ends[0])]
    for process in getting + putting:
        process.start()
    if warm_up:
        warm_start.set()
        # The end may overtake what others have put before it, so all of that has to arrive first.
        for _ in range(warm_up.count):
            arrived.acquire()
        finish(queue, done, ends[1])
    time.sleep(0.3)
    begin = time.perf_counter()
    start.set()
    for process in putting:
        process.join()
    got = finish(queue, done, ends[1])
    seconds = time.perf_counter() - begin
    for process in getting:
        process.join()
    return seconds, got
