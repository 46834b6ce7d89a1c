"""Is all memory given back that arrays have lain in: of a million, and of a hundred killed readers?"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import time
from typing import Any

from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import OURS, Subject

MEBIBYTE = 1 << 20


def memory(queue: Any) -> float:
    """MiB behind a queue."""
    return os.fstat(queue._descriptors()[0]).st_blocks * 512 / MEBIBYTE


def settle(queue: Any) -> float:
    """Come by, as another process would, until nothing changes any more."""
    for _ in range(3):
        time.sleep(1.1)
        queue.put(0)
        queue.get()
    return memory(queue)


def hold(queue: Any, told: Any) -> None:
    views = []
    while True:
        views.append(queue.get())
        told.put(float(views[-1][-1]))
        del views[:-4]


def measure(subject: Subject, parameters: Parameters) -> Answer:
    import numpy  # noqa: PLC0415 - only this question needs it

    context = importlib.import_module(subject.package).get_context("fork")
    queue = context.Queue()
    base = settle(queue)
    small = numpy.ones(70_000 // 8)
    for _ in range(parameters["arrays"]):
        queue.put(small)
        queue.get()
    after_many = settle(queue)
    processes, told = multiprocessing.get_context("fork"), context.Queue()
    for _ in range(parameters["kills"]):
        reader = processes.Process(target=hold, args=(queue, told))
        reader.start()
        for number in range(6):
            queue.put(numpy.full(MEBIBYTE, number))
        for _ in range(3):
            told.get()
        os.kill(reader.pid or 0, signal.SIGKILL)
        reader.join()
        while not queue.empty():
            queue.get()
    after_kills = settle(queue)
    return {"many": after_many - base, "kills": after_kills - base}


QUESTION = Question(
    name="views_memory",
    title="memory of arrays that were used in place",
    metrics=(
        # What a queue keeps as long as there is one.
        Metric("many", "left after a million arrays", "MiB", "lower", (Bar(most=5),), "worst"),
        Metric("kills", "left after 100 killed readers", "MiB", "lower", (Bar(most=5),), "worst"),
    ),
    measure=measure,
    cases={"": {"arrays": 1_000_000, "kills": 100}},
    rounds={OURS: 1},
    limit=300,
)

if __name__ == "__main__":
    main(QUESTION)
