"""Sends small tuples through one queue, ours or faster-fifo's, and prints how many a second.

    queue_rows.py ours|faster-fifo PRODUCERS CONSUMERS OBJECTS one|many

"many": those who get take up to 100 at once.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from queue import Empty, Full
from typing import Any

CAPACITY_BYTES = 1_000_000
"""What either queue holds: the default of faster-fifo's."""


def put(queue: Any, obj: object) -> None:
    while True:
        try:
            queue.put(obj)
        except Full:  # faster-fifo gives up after ten seconds
            continue
        return


def produce(queue: Any, start: Any, count: int) -> None:
    start.wait()
    for number in range(count):
        put(queue, (number, number, "m"))


def take(queue: Any, many: str) -> list[object]:
    while True:
        try:
            return queue.get_many(**{many: 100}) if many else [queue.get()]
        except Empty:
            continue


def consume(queue: Any, start: Any, done: Any, many: str) -> None:
    got = ends = 0
    start.wait()
    while not ends:
        objects = take(queue, many)
        ends = objects.count(None)
        got += len(objects) - ends
    for _ in range(ends - 1):
        put(queue, None)
    done.put(got)


def main() -> None:
    subject, producers, consumers, objects, how = sys.argv[1:]
    if subject == "ours":
        import billiard  # noqa: PLC0415 - each in an interpreter that has only one

        queue, many = billiard.get_context("fork").Queue(maxbytes=CAPACITY_BYTES), "most"
    else:
        import faster_fifo  # noqa: PLC0415

        queue, many = faster_fifo.Queue(max_size_bytes=CAPACITY_BYTES), "max_messages_to_get"
    context = multiprocessing.get_context("fork")
    start, done = context.Event(), context.SimpleQueue()
    many = many if how == "many" else ""
    count = int(objects) // int(producers)
    getting = [
        context.Process(target=consume, args=(queue, start, done, many)) for _ in range(int(consumers))
    ]
    putting = [context.Process(target=produce, args=(queue, start, count)) for _ in range(int(producers))]
    for process in getting + putting:
        process.start()
    time.sleep(0.3)
    begin = time.perf_counter()
    start.set()
    for process in putting:
        process.join()
    for _ in getting:
        put(queue, None)
    got = sum(done.get() for _ in getting)
    seconds = time.perf_counter() - begin
    if got != count * int(producers):
        sys.exit(f"{got} of {count * int(producers)} have arrived")
    print(got / seconds, flush=True)
    for process in getting:
        process.join()


if __name__ == "__main__":
    main()
