"""How long does one ``apply()`` take, submit to value, when nothing else is going on?"""

from __future__ import annotations

import statistics
import time

from harness.question import Answer, Bar, Metric, Parameters, Question, counted, main, percentile
from harness.subject import ORIGINAL, Subject


def noop() -> None:
    """Cost nothing, so that only the way there and back is measured."""


def measure(subject: Subject, parameters: Parameters) -> Answer:
    micros = []
    with subject.pool(parameters["workers"]) as pool:
        for _ in range(200):
            pool.apply(noop)
        for _ in range(parameters["trips"]):
            start = time.perf_counter_ns()
            pool.apply(noop)
            micros.append((time.perf_counter_ns() - start) / 1e3)
    return {"p50": statistics.median(micros), "p99": percentile(micros, 0.99)}


QUESTION = Question(
    name="roundtrip",
    title="sequential apply()",
    metrics=(
        Metric(
            "p50",
            "apply() round trip, median",
            "µs",
            "lower",
            (Bar(20, against=ORIGINAL, cpus=2),),
            headline=True,
        ),
        Metric("p99", "apply() round trip, p99", "µs", "lower"),
    ),
    measure=measure,
    cases={counted(workers, "worker"): {"workers": workers, "trips": 5_000} for workers in (1, 4)},
)

if __name__ == "__main__":
    main(QUESTION)
