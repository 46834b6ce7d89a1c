"""How many bytes a second go through a queue in large objects?"""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

import numpy as np

from harness.flow import flow
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
    package = importlib.import_module(subject.package)
    # As many as there may be on their way are the same for everybody.
    queue = package.get_context("fork").Queue(8)
    ends, size = parameters["ends"], parameters["megabytes"] * MEGABYTE
    count = parameters["total"] * MEGABYTE // size // ends
    seconds, got = flow(
        queue, partial(produce, count=count, array=parameters["array"], size=size), consume, ends, ends
    )
    assert got == count * ends * size, f"{got} of {count * ends * size} bytes have arrived"
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
