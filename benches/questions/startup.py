"""How long does the whole life of a small pool take?"""

from __future__ import annotations

import statistics
import time

from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import ORIGINAL, OURS, STDLIB, Subject


def measure(subject: Subject, parameters: Parameters) -> Answer:
    lives = []
    for _ in range(parameters["lives"]):
        start = time.perf_counter()
        pool = subject.pool(parameters["workers"])
        pool.apply(abs, (-1,))
        pool.close()
        pool.join()
        lives.append((time.perf_counter() - start) * 1e3)
    return {"life": statistics.median(lives)}


QUESTION = Question(
    name="startup",
    title="create, one task, close, join",
    metrics=(
        Metric(
            "life", "Pool(4): create, one task, close, join", "ms", "lower", (Bar(most=50),), headline=True
        ),
    ),
    measure=measure,
    cases={"": {"workers": 4, "lives": 20}},
    rounds={OURS: 5, ORIGINAL: 5, STDLIB: 5},
    overrides={ORIGINAL: {"lives": 3}},
)

if __name__ == "__main__":
    main(QUESTION)
