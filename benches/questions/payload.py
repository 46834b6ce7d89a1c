"""How fast does a large numpy array travel, to the worker and back?"""

from __future__ import annotations

import statistics
import time
from functools import cache
from typing import Any

from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import Subject


def ends(array: Any) -> tuple[int, int]:
    """Look at both ends, and write: what did not arrive whole, or cannot be used freely, does not count."""
    array[1] = 0
    return int(array[0]), int(array[-1])


@cache
def ready_made(count: int) -> Any:
    import numpy  # noqa: PLC0415 - only this question needs it

    return numpy.arange(count, dtype="int64")


def give(count: int) -> Any:
    return ready_made(count)


def measure(subject: Subject, parameters: Parameters) -> Answer:
    count = parameters["bytes"] // 8
    array = ready_made(count)
    there, back = [], []
    with subject.pool(1) as pool:
        for _ in range(5):
            pool.apply(ends, (array,))
            pool.apply(give, (count,))
        for _ in range(parameters["trips"]):
            start = time.perf_counter()
            seen = pool.apply(ends, (array,))
            there.append(array.nbytes / (time.perf_counter() - start) / 1e9)
            start = time.perf_counter()
            result = pool.apply(give, (count,))
            back.append(array.nbytes / (time.perf_counter() - start) / 1e9)
            if seen != (0, count - 1) or ends(result) != (0, count - 1):
                raise AssertionError("the array did not arrive as it was sent")
    return {"argument": statistics.median(there), "result": statistics.median(back)}


QUESTION = Question(
    name="payload",
    title="8 MB numpy array",
    metrics=(
        Metric("argument", "8 MB array as argument", "GB/s", "higher", (Bar(3),), headline=True),
        Metric("result", "8 MB array as result", "GB/s", "higher", (Bar(3),), headline=True),
    ),
    measure=measure,
    cases={"": {"bytes": 8_000_000, "trips": 40}},
)

if __name__ == "__main__":
    main(QUESTION)
