"""How many bytes a second go through a queue in large objects?"""

from __future__ import annotations

import importlib
import multiprocessing
import time
from typing import Any

import numpy as np

from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import OURS, STDLIB, Subject

MEGABYTE = 1 << 20


def produce(queue: Any, start: Any, count: int, array: bool, size: int) -> None:
    obj = np.ones(size // 8) if array else bytes(size)
    start.wait()
    for _ in range(count):
        queue.put(obj)
    queue.close()
    queue.join_thread()


def consume(queue: Any, start: Any, done: Any) -> None:
    got = 0
    start.wait()
    while (obj := queue.get()) is not None:
        got += obj.nbytes if isinstance(obj, np.ndarray) else len(obj)
    done.put(got)


def measure(subject: Subject, parameters: Parameters) -> Answer:
    # The processes, and what they are counted with, are the standard library's for everybody.
    context = multiprocessing.get_context("fork")
    package = importlib.import_module(subject.package)
    # As many as there may be on their way are the same for everybody.
    queue = package.get_context("fork").Queue(8)
    start, done = context.Event(), context.SimpleQueue()
    ends, size = parameters["ends"], parameters["megabytes"] * MEGABYTE
    count = parameters["total"] * MEGABYTE // size // ends
    processes = [context.Process(target=consume, args=(queue, start, done)) for _ in range(ends)]
    processes += [
        context.Process(target=produce, args=(queue, start, count, parameters["array"], size))
        for _ in range(ends)
    ]
    for process in processes:
        process.start()
    time.sleep(0.3)
    begin = time.perf_counter()
    start.set()
    for process in processes[ends:]:
        process.join()
    for _ in range(ends):
        queue.put(None)
    got = sum(done.get() for _ in range(ends))
    seconds = time.perf_counter() - begin
    assert got == count * ends * size, f"{got} of {count * ends * size} bytes have arrived"
    for process in processes:
        process.join()
    return {"rate": got / seconds / 1e6}


QUESTION = Question(
    name="queue_large",
    title="large objects through a Queue",
    metrics=(Metric("rate", "bytes through a Queue", "MB/s", "higher", (Bar(2, against=STDLIB),)),),
    measure=measure,
    cases={
        f"{megabytes} MB {'array' if array else 'bytes'}, {ends} → {ends}": {
            "megabytes": megabytes,
            "array": array,
            "ends": ends,
            "total": 800,
        }
        for megabytes, array in ((1, False), (8, True))
        for ends in (1, 4)
    },
    rounds={OURS: 5, STDLIB: 5},
    overrides={STDLIB: {"total": 400}},
)

if __name__ == "__main__":
    main(QUESTION)
