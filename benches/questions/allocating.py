"""What does a block of shared memory cost: to allocate, and to give back?"""

from __future__ import annotations

import importlib
import random
import time
from collections.abc import Callable
from itertools import repeat
from typing import Any

from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import ORIGINAL, Subject


def per_call(times: int, make: Callable[[], Any]) -> float:
    rounds = repeat(None, times)
    start = time.perf_counter_ns()
    for _ in rounds:
        make()
    return (time.perf_counter_ns() - start) / times


def measure(subject: Subject, parameters: Parameters) -> Answer:
    heap = importlib.import_module(f"{subject.package}.heap")
    wrapper, size, times = heap.BufferWrapper, parameters["size"], parameters["times"]
    if size:
        return {"pair": min(per_call(times, lambda: wrapper(size)) for _ in range(5))}
    # Some are always out, of all sizes, and leave in another order than they came in.
    dice = random.Random(parameters["turn"])
    plan = [(dice.randrange(64), 64 << dice.randrange(15)) for _ in range(times)]
    out: list[Any] = [None] * 64
    start = time.perf_counter_ns()
    for place, many in plan:
        out[place] = wrapper(many)
    return {"pair": (time.perf_counter_ns() - start) / times}


QUESTION = Question(
    name="allocating",
    title="blocks of shared memory",
    metrics=(
        Metric("pair", "allocate and give back", "ns", "lower", (Bar(5, against=ORIGINAL),), headline=True),
    ),
    measure=measure,
    cases={
        "64 B": {"size": 64, "times": 20_000},
        "16 KiB": {"size": 16 << 10, "times": 20_000},
        "1 MiB": {"size": 1 << 20, "times": 20_000},
        "64 B to 1 MiB, 64 out": {"size": 0, "times": 50_000},
    },
)

if __name__ == "__main__":
    main(QUESTION)
