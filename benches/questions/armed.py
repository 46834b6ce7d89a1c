"""What do 10,000 jobs with limits cost while nothing happens?"""

from __future__ import annotations

import os
import time

from harness.proc import activity
from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import ORIGINAL, OURS, Subject

FAR_SECONDS = 3600.0
WATCH_SECONDS = 5.0


def measure(subject: Subject, parameters: Parameters) -> Answer:
    if subject.limited_pool is None:
        raise AssertionError(f"{subject.name} has no time limits")
    with subject.limited_pool(4) as pool:
        results = [
            pool.apply_async(time.sleep, (FAR_SECONDS,), soft_timeout=FAR_SECONDS, timeout=FAR_SECONDS + 1)
            for _ in range(parameters["jobs"])
        ]
        time.sleep(2.0)  # the submission itself is not the question
        before = activity(os.getpid(), skip=os.getpid())
        time.sleep(WATCH_SECONDS)
        spent = activity(os.getpid(), skip=os.getpid()) - before
        if any(result.ready() for result in results):
            raise AssertionError("a job ended that should sleep")
        pool.terminate()
    return {"cpu": 100 * spent.busy_ns / (WATCH_SECONDS * 1e9)}


QUESTION = Question(
    name="armed",
    title="10,000 jobs with limits, waiting",
    metrics=(Metric("cpu", "10,000 armed limits: CPU of the whole tree", "%", "lower", (Bar(most=1),)),),
    measure=measure,
    cases={"": {"jobs": 10_000}},
    rounds={OURS: 3, ORIGINAL: 1},
)

if __name__ == "__main__":
    main(QUESTION)
