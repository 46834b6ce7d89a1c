"""How many small tasks a second go through a pool with pipes that an event loop drives, as Celery's does?"""

from __future__ import annotations

import importlib
import statistics
import time

from harness.question import Answer, Bar, Metric, Parameters, Question, counted, main
from harness.subject import ORIGINAL, OURS, Subject

REPEATS = 3


def trace(*message: object) -> object:  # noqa: ARG001
    """Return what a task queue's worker returns: that it went well, what it was, and how long it took."""
    return 0, "None", 0.001


def task(number: int) -> tuple[object, ...]:
    """Make the arguments that a small task arrives with."""
    request = {
        "id": f"0a1b2c3d-{number:08}",
        "lang": "py",
        "task": "app.add",
        "retries": 0,
        "eta": None,
        "expires": None,
    }
    return (
        "app.add",
        request["id"],
        request,
        b'[[1, 2], {}, {"callbacks": null}]',
        "application/json",
        "utf-8",
    )


def measure(subject: Subject, parameters: Parameters) -> Answer:  # noqa: ARG001
    looppool = importlib.import_module("harness.looppool")
    jobs = parameters["jobs"]
    pool = looppool.LoopPool(parameters["workers"])
    tasks = [task(number) for number in range(jobs)]
    done: list[object] = []
    rates = []
    for _ in range(REPEATS + 1):
        done.clear()
        start = time.perf_counter()
        for args in tasks:
            pool.apply_async(trace, args, {}, callback=done.append, error_callback=done.append)
            if len(pool.outbound) > 50:
                pool.step(0)
        pool.run_until(lambda: len(done) == jobs)
        rates.append(jobs / (time.perf_counter() - start))
    pool.terminate()
    return {"rate": statistics.median(rates[1:])}


QUESTION = Question(
    name="celery_loop",
    title="small tasks through a pool with an event loop",
    metrics=(
        Metric(
            "rate",
            "tasks through an event loop, as Celery has them",
            "/s",
            "higher",
            (Bar(1.3, against=ORIGINAL),),
            headline=True,
        ),
    ),
    measure=measure,
    cases={counted(workers, "worker"): {"workers": workers, "jobs": 4_000} for workers in (1, 2)},
    rounds={OURS: 5, ORIGINAL: 5},
)

if __name__ == "__main__":
    main(QUESTION)
