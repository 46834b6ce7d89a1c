"""What does a lock cost that nobody else wants?"""

from __future__ import annotations

import importlib
import time
from itertools import repeat
from typing import Any

from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import STDLIB, Subject


def pairs(lock: Any, times: int) -> float:
    # What `timeit` does: the loop itself is to cost as little as it can.
    rounds = repeat(None, times)
    start = time.perf_counter_ns()
    for _ in rounds:
        lock.acquire()
        lock.release()
    return (time.perf_counter_ns() - start) / times


def blocks(lock: Any, times: int) -> float:
    rounds = repeat(None, times)
    start = time.perf_counter_ns()
    for _ in rounds:
        with lock:
            pass
    return (time.perf_counter_ns() - start) / times


def makings(package: Any, times: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(times):
        package.Lock()
    return (time.perf_counter_ns() - start) / times


def measure(subject: Subject, parameters: Parameters) -> Answer:
    package = importlib.import_module(subject.package)
    lock = getattr(package, KINDS[parameters["kind"]])()
    times, turns = parameters["times"], range(parameters["turns"])
    # The least of many turns: what the neighbours of this machine do only ever adds.
    return {
        "pair": min(pairs(lock, times) for _ in turns),
        "with": min(blocks(lock, times) for _ in turns),
        "make": min(makings(package, 1000) for _ in range(3)),
    }


def question(name: str, kinds: tuple[str, ...], bars: tuple[Bar, ...]) -> Question:
    return Question(
        name=name,
        title="a lock that nobody else wants",
        metrics=(
            Metric("pair", "acquire() and release()", "ns", "lower", bars, headline=bool(bars)),
            Metric("with", "with lock", "ns", "lower", bars),
            Metric("make", "make a Lock and drop it", "ns", "lower"),
        ),
        measure=measure,
        cases={kind: {"kind": KINDS.index(kind), "times": 100_000, "turns": 15} for kind in kinds},
    )


#: The one that there is a bar for, and the others, for which there is none.
KINDS = ("Lock", "RLock", "Semaphore")
QUESTION = question("locking", KINDS[:1], (Bar(1.25, against=STDLIB),))

if __name__ == "__main__":
    main(QUESTION)
