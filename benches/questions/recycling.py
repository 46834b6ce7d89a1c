"""How many tasks a second go through workers that live for one task each, and is one ever called lost?"""

from __future__ import annotations

import time

from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import ORIGINAL, OURS, STDLIB, Subject


def double(number: int) -> int:
    return 2 * number


def measure(subject: Subject, parameters: Parameters) -> Answer:
    jobs = parameters["jobs"]
    false_losses = 0
    with subject.pool(4, maxtasksperchild=1) as pool:
        start = time.perf_counter()
        results = [pool.apply_async(double, (number,)) for number in range(jobs)]
        for number, result in enumerate(results):
            try:
                false_losses += result.get(60) != 2 * number
            except Exception:
                # Nobody killed anything: whatever the error says, it is wrong.
                false_losses += 1
        rate = jobs / (time.perf_counter() - start)
    return {"rate": rate, "lost": float(false_losses)}


QUESTION = Question(
    name="recycling",
    title="maxtasksperchild=1",
    metrics=(
        Metric(
            "rate", "maxtasksperchild=1, fork, 4 workers", "tasks/s", "higher", (Bar(300),), headline=True
        ),
        Metric("lost", "of these, falsely lost", "", "lower", (Bar(most=0),), summary="worst"),
    ),
    measure=measure,
    cases={"": {"jobs": 1_000}},
    rounds={OURS: 5, ORIGINAL: 1, STDLIB: 1},
    # A second and more for each generation of workers.
    overrides={ORIGINAL: {"jobs": 32}, STDLIB: {"jobs": 200}},
)

if __name__ == "__main__":
    main(QUESTION)
