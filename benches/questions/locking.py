"""What does a lock cost that nobody else wants?"""

from __future__ import annotations

import importlib
import time
from typing import Any

from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import STDLIB, Subject

LOCKS = ("Lock", "RLock", "Semaphore")


def pairs(lock: Any, times: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(times):
        lock.acquire()
        lock.release()
    return (time.perf_counter_ns() - start) / times


def blocks(lock: Any, times: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(times):
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
    lock = getattr(package, LOCKS[parameters["kind"]])()
    times, turns = parameters["times"], range(parameters["turns"])
    # The least of many turns: what the neighbours of this machine do only ever adds.
    return {
        "pair": min(pairs(lock, times) for _ in turns),
        "with": min(blocks(lock, times) for _ in turns),
        "make": min(makings(package, 1000) for _ in range(3)),
    }


QUESTION = Question(
    name="locking",
    title="a lock that nobody else wants",
    metrics=(
        Metric("pair", "acquire() and release()", "ns", "lower", (Bar(1.25, against=STDLIB),), headline=True),
        Metric("with", "with lock", "ns", "lower", (Bar(1.25, against=STDLIB),)),
        Metric("make", "make a Lock and drop it", "ns", "lower"),
    ),
    measure=measure,
    cases={name: {"kind": kind, "times": 100_000, "turns": 15} for kind, name in enumerate(LOCKS)},
)

if __name__ == "__main__":
    main(QUESTION)
