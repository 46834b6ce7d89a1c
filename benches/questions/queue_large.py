"""How many bytes a second go through a queue in large objects, once it is in its stride?

Whoever gets an array looks at all of it, so that one which is there but was not read does not count as
received.
"""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

import numpy as np

from harness.flow import WarmUp, flow
from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import OURS, STDLIB, Subject

MEGABYTE = 1 << 20


def produce(queue: Any, start: Any, obj: Any, count: int) -> None:
    start.wait()
    for _ in range(count):
        queue.put(obj)


def produce_and_close(queue: Any, start: Any, obj: Any, count: int) -> None:
    produce(queue, start, obj, count)
    queue.close()
    queue.join_thread()


def consume(queue: Any, start: Any, done: Any) -> None:
    got = 0
    start.wait()
    while (obj := queue.get()) is not None:
        got += 8 * int(obj.sum()) if isinstance(obj, np.ndarray) else len(obj)
    done.put(got)


def measure(subject: Subject, parameters: Parameters) -> Answer:
    package = importlib.import_module(subject.package)
    # As many as there may be on their way are the same for everybody.
    queue = package.get_context("fork").Queue(8)
    ends, size = parameters["ends"], parameters["megabytes"] * MEGABYTE
    count, warm = (parameters[phase] * MEGABYTE // size // ends for phase in ("total", "warm"))
    obj = np.ones(size // 8) if parameters["array"] else bytes(size)
    warm_up = WarmUp(partial(produce, obj=obj, count=warm), warm * ends)
    put = partial(produce_and_close, obj=obj, count=count)
    seconds, got = flow(queue, put, consume, (ends, ends), warm_up)
    assert got == count * ends * size, f"{got} of {count * ends * size} bytes have arrived"
    return {"rate": got / seconds / 1e6}


QUESTION = Question(
    name="queue_large",
    title="large objects through a Queue",
    metrics=(Metric("rate", "bytes through a Queue", "MB/s", "higher", (Bar(8, against=STDLIB),)),),
    measure=measure,
    cases={
        f"{megabytes} MB {'array' if array else 'bytes'}, {ends} → {ends}": {
            "megabytes": megabytes,
            "array": array,
            "ends": ends,
            "total": 4000,
            "warm": 800,
        }
        for megabytes, array in ((1, False), (8, True))
        for ends in (1, 4)
    },
    rounds={OURS: 5, STDLIB: 5},
    overrides={STDLIB: {"total": 400, "warm": 160}},
)

if __name__ == "__main__":
    main(QUESTION)
