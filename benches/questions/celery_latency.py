"""Celery over Redis: how long after it was sent does a task run, in an idle worker?"""

from __future__ import annotations

import time

from harness.celeryworker import CeleryWorker
from harness.question import Answer, Bar, Metric, Parameters, Question, main, percentile
from harness.subject import ORIGINAL, OURS, Subject


def measure(subject: Subject, parameters: Parameters) -> Answer:
    delays: list[float] = []
    with CeleryWorker(subject, "-c", "2", native=bool(parameters.get("native"))) as worker:
        for _ in range(parameters["jobs"]):
            worker.app.send_task("celeryapp.late", (time.monotonic_ns(),))
            delays += (delay_ns / 1e6 for delay_ns in worker.hear(1))
    return {"median": percentile(delays, 0.5), "p99": percentile(delays, 0.99)}


BARS = (Bar(1.0, against=ORIGINAL),)
QUESTION = Question(
    name="celery_latency",
    title="Celery over Redis, from sending to running",
    metrics=(
        Metric("median", "Celery: a task runs after, median", "ms", "lower", BARS),
        Metric("p99", "Celery: a task runs after, 99 of 100", "ms", "lower", BARS),
    ),
    measure=measure,
    cases={"prefork": {"jobs": 300}, "native": {"jobs": 300, "native": 1}},
    rounds={OURS: 15, ORIGINAL: 15},
)

if __name__ == "__main__":
    main(QUESTION)
