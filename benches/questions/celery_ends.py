"""Celery over Redis: how late does the caller hear of a killed process, and of a hard limit?"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from harness.celeryworker import PATIENCE_SECONDS, CeleryWorker
from harness.question import Answer, Bar, Metric, Parameters, Question, main, percentile
from harness.subject import ORIGINAL, OURS, Subject

LIMIT_SECONDS = 1.0


def told_ms(result: Any, expected: str, since_ns: int) -> float | None:
    """Wait for the verdict; None when it is another one, or there is none."""
    try:
        result.get(timeout=PATIENCE_SECONDS)
    except Exception as error:
        if type(error).__name__ == expected:
            return (time.monotonic_ns() - since_ns) / 1e6
    return None


def measure(subject: Subject, parameters: Parameters) -> Answer:
    lost: list[float | None] = []
    limited: list[float | None] = []
    with CeleryWorker(subject, "-c", "2", native=bool(parameters.get("native"))) as worker:
        for _ in range(parameters["ends"]):
            result = worker.app.send_task("celeryapp.linger", (PATIENCE_SECONDS * 2,), ignore_result=False)
            pid, _began_ns = worker.hear(2)
            # That it runs is known to the worker by then, and what it runs is a sleep.
            time.sleep(0.05)
            killed_ns = time.monotonic_ns()
            os.kill(pid, signal.SIGKILL)
            lost.append(told_ms(result, "WorkerLostError", killed_ns))

            limits = {"time_limit": LIMIT_SECONDS, "ignore_result": False}
            result = worker.app.send_task("celeryapp.linger", (PATIENCE_SECONDS * 2,), **limits)
            _pid, began_ns = worker.hear(2)
            limited.append(told_ms(result, "TimeLimitExceeded", began_ns + int(LIMIT_SECONDS * 1e9)))
    answers = {"lost": lost, "limited": limited}
    return {
        f"{name}_{key}": None if None in seen else percentile([one for one in seen if one is not None], share)
        for name, seen in answers.items()
        for key, share in (("median", 0.5), ("worst", 1.0))
    }


QUESTION = Question(
    name="celery_ends",
    title="Celery over Redis, tasks that are ended",
    metrics=(
        Metric("lost_median", "Celery: killed, and told after, median", "ms", "lower", (Bar(most=100),)),
        Metric("lost_worst", "Celery: killed, and told after, worst", "ms", "lower", summary="worst"),
        Metric("limited_median", "Celery: hard limit, told late by, median", "ms", "lower", (Bar(most=50),)),
        Metric("limited_worst", "Celery: hard limit, told late by, worst", "ms", "lower", summary="worst"),
    ),
    measure=measure,
    cases={"prefork": {"ends": 10}, "native": {"ends": 10, "native": 1}},
    rounds={OURS: 3, ORIGINAL: 3},
)

if __name__ == "__main__":
    main(QUESTION)
