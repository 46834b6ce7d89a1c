"""How many small tuples a second go through a queue, with how many processes at either end?"""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

from harness.flow import flow
from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import ORIGINAL, OURS, STDLIB, Subject

ROWS = ((1, 1), (10, 1), (1, 10), (3, 20), (20, 3), (20, 20))


def produce(queue: Any, start: Any, count: int) -> None:
    start.wait()
    for number in range(count):
        queue.put((number, number, "m"))


def consume(queue: Any, start: Any, done: Any) -> None:
    got = 0
    start.wait()
    while queue.get() is not None:
        got += 1
    done.put(got)


def measure(subject: Subject, parameters: Parameters) -> Answer:
    package = importlib.import_module(subject.package)
    queue = package.get_context("fork").Queue()
    producers, consumers = parameters["producers"], parameters["consumers"]
    count = parameters["objects"] // producers
    seconds, got = flow(queue, partial(produce, count=count), consume, (producers, consumers))
    assert got == count * producers, f"{got} of {count * producers} have arrived"
    return {"rate": got / seconds}


QUESTION = Question(
    name="queue_throughput",
    title="small tuples through a Queue",
    metrics=(
        Metric("rate", "objects through a Queue", "/s", "higher", (Bar(5, against=STDLIB),), headline=True),
    ),
    measure=measure,
    cases={f"{p} → {c}": {"producers": p, "consumers": c, "objects": 200_000} for p, c in ROWS},
    rounds={OURS: 5, ORIGINAL: 3, STDLIB: 5},
    overrides={ORIGINAL: {"objects": 20_000}, STDLIB: {"objects": 20_000}},
)

if __name__ == "__main__":
    main(QUESTION)
