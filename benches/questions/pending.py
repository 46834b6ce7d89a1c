"""How much memory does the parent need for each job that waits?"""

from __future__ import annotations

import gc
import os
import time

from harness.proc import resident_bytes
from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import ORIGINAL, OURS, STDLIB, Subject

NOISE_BYTES = 1_000_000


def noop() -> None:
    """Carry no payload, so that all the memory is the pool's own."""


def settled_bytes() -> int:
    """Read the resident size once it has stopped growing: threads may still be passing the jobs on."""
    last, size = -1, resident_bytes(os.getpid())
    while size - last > NOISE_BYTES or last < 0:
        time.sleep(0.5)
        last, size = size, resident_bytes(os.getpid())
    return size


def measure(subject: Subject, parameters: Parameters) -> Answer:
    jobs = parameters["jobs"]
    with subject.pool(1) as pool:
        pool.apply(noop)
        # The only worker is busy for as long as this lasts: everything behind it stays pending.
        pool.apply_async(time.sleep, (600,))
        results: list[object] = [None] * jobs
        gc.collect()
        before = settled_bytes()
        for number in range(jobs):
            results[number] = pool.apply_async(noop)
        grown = settled_bytes() - before
        pool.terminate()
    return {"bytes": grown / jobs}


QUESTION = Question(
    name="pending",
    title="a million pending jobs",
    metrics=(
        Metric(
            "bytes",
            "a million pending jobs: memory of the parent",
            "B/job",
            "lower",
            (Bar(most=400),),
            headline=True,
        ),
    ),
    measure=measure,
    cases={"": {"jobs": 1_000_000}},
    rounds={OURS: 3, ORIGINAL: 1, STDLIB: 1},
    overrides={ORIGINAL: {"jobs": 200_000}, STDLIB: {"jobs": 200_000}},
    limit=300,
)

if __name__ == "__main__":
    main(QUESTION)
