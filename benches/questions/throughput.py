"""How many no-op jobs a second go through ``apply_async`` and come back through ``get``?"""

from __future__ import annotations

import statistics
import time

from harness.question import Answer, Bar, Metric, Parameters, Question, counted, main
from harness.subject import ORIGINAL, STDLIB, Subject

REPEATS = 3


def noop() -> None:
    """Cost nothing, so that only the pool is measured."""


def measure(subject: Subject, parameters: Parameters) -> Answer:
    jobs = parameters["jobs"]
    rates = []
    with subject.pool(parameters["workers"]) as pool:
        for result in [pool.apply_async(noop) for _ in range(200)]:
            result.get()
        for _ in range(REPEATS):
            start = time.perf_counter()
            for result in [pool.apply_async(noop) for _ in range(jobs)]:
                result.get()
            rates.append(jobs / (time.perf_counter() - start))
    return {"rate": statistics.median(rates)}


QUESTION = Question(
    name="throughput",
    title="20,000 no-op apply_async, then all get()",
    metrics=(
        Metric(
            "rate",
            "no-op jobs",
            "/s",
            "higher",
            (Bar(15, against=ORIGINAL), Bar(10, against=STDLIB)),
            headline=True,
        ),
    ),
    measure=measure,
    cases={counted(workers, "worker"): {"workers": workers, "jobs": 20_000} for workers in (1, 2, 4)},
)

if __name__ == "__main__":
    main(QUESTION)
