"""How fast do processes count in one Value under its lock, and is every step there?"""

from __future__ import annotations

import importlib
import time
from typing import Any

from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import STDLIB, Subject


def count(value: Any, go: Any, times: int) -> None:
    go.wait()
    for _ in range(times):
        with value.get_lock():
            value.value += 1


def measure(subject: Subject, parameters: Parameters) -> Answer:
    package = importlib.import_module(subject.package)
    ctx = package.get_context("fork")
    value, go = ctx.Value("l", 0), ctx.Event()
    times, processes = parameters["times"], parameters["processes"]
    children = [ctx.Process(target=count, args=(value, go, times)) for _ in range(processes)]
    for child in children:
        child.start()
    time.sleep(0.2)
    start = time.perf_counter()
    go.set()
    for child in children:
        child.join()
    seconds = time.perf_counter() - start
    return {"rate": times * processes / seconds, "lost": float(times * processes - value.value)}


QUESTION = Question(
    name="counting",
    title="processes that count in one Value",
    metrics=(
        Metric(
            "rate", "steps under the Value's lock", "/s", "higher", (Bar(2, against=STDLIB),), headline=True
        ),
        Metric("lost", "steps that are lost", "", "lower", (Bar(most=0),), summary="worst"),
    ),
    measure=measure,
    cases={f"{number} processes": {"processes": number, "times": 1_000_000 // number} for number in (2, 4)},
)

if __name__ == "__main__":
    main(QUESTION)
