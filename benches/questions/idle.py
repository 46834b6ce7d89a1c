"""Does an idle pool wake up, and does it use the CPU?"""

from __future__ import annotations

import os
import time

from harness.proc import activity
from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import Subject

SETTLE_SECONDS = 2.0


def measure(subject: Subject, parameters: Parameters) -> Answer:
    with subject.pool(parameters["workers"]) as pool:
        pool.map(abs, range(1_000))
        time.sleep(SETTLE_SECONDS)
        # This thread is the one that measures; what it does in its sleep is not the pool's doing.
        before = activity(os.getpid(), skip=os.getpid())
        time.sleep(parameters["seconds"])
        during = activity(os.getpid(), skip=os.getpid()) - before
    return {"wakeups": float(during.sleeps), "cpu": during.busy_ns / 1e6}


QUESTION = Question(
    name="idle",
    title="idle Pool(16) for 10 s",
    metrics=(
        Metric(
            "wakeups",
            "idle Pool(16), 10 s: wake-ups",
            "",
            "lower",
            (Bar(most=0),),
            summary="worst",
            headline=True,
        ),
        Metric("cpu", "idle Pool(16), 10 s: CPU", "ms", "lower", (Bar(most=0),), summary="worst"),
    ),
    measure=measure,
    cases={"": {"workers": 16, "seconds": 10}},
    rounds={"ours": 3, "original": 1, "stdlib": 1},
)

if __name__ == "__main__":
    main(QUESTION)
