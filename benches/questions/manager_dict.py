"""How many items of a manager's dictionary do one client and several read and write in a second?"""

from __future__ import annotations

import importlib
import time
from typing import Any

from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import STDLIB, Subject

#: Before it is measured, everybody does so many.
WARM = 200


def client(shared: Any, ready: Any, go: Any, me: int, times: int) -> None:
    key = f"key {me}"
    for number in range(WARM):
        shared[key] = number
    ready.release()
    go.acquire()
    for number in range(times):
        shared[key] = number
        assert shared[key] == number
    ready.release()


def measure(subject: Subject, parameters: Parameters) -> Answer:
    ctx = importlib.import_module(subject.package).get_context("fork")
    clients, times = parameters["clients"], parameters["times"]
    ready, go = ctx.Semaphore(0), ctx.Semaphore(0)
    manager = ctx.Manager()
    shared = manager.dict()
    children = [ctx.Process(target=client, args=(shared, ready, go, me, times)) for me in range(clients)]
    for child in children:
        child.start()
    for _ in children:
        ready.acquire()
    start = time.perf_counter()
    for _ in children:
        go.release()
    for _ in children:
        ready.acquire()
    seconds = time.perf_counter() - start
    for child in children:
        child.join()
    manager.shutdown()
    return {"rate": 2 * clients * times / seconds}


BARS = (Bar(3, against=STDLIB, cpus=2),)

QUESTION = Question(
    name="manager_dict",
    title="items of a manager's dictionary, read and written",
    metrics=(Metric("rate", "gets and sets of a manager's dict", "/s", "higher", BARS, headline=True),),
    measure=measure,
    cases={"one client": {"clients": 1, "times": 10_000}, "four clients": {"clients": 4, "times": 4_000}},
)

if __name__ == "__main__":
    main(QUESTION)
