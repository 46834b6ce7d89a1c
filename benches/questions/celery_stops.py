"""Celery over Redis, SIGTERM at any moment of a task's life: how much longer than the task does that take?"""

from __future__ import annotations

import os
import signal
import time

from harness.celeryworker import PATIENCE_SECONDS, CeleryWorker
from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import ORIGINAL, OURS, Subject

TASK_SECONDS = 0.2


def measure(subject: Subject, parameters: Parameters) -> Answer:
    late = []
    stops = parameters["stops"]
    for number in range(stops):
        with CeleryWorker(subject, "-c", "2", native=bool(parameters.get("native"))) as worker:
            worker.app.send_task("celeryapp.linger", (TASK_SECONDS,))
            # From before it is fetched until after its end.
            time.sleep(2 * TASK_SECONDS * number / stops)
            told = time.monotonic()
            os.kill(worker.worker.pid, signal.SIGTERM)
            worker.worker.wait(PATIENCE_SECONDS)
            late.append(time.monotonic() - told - TASK_SECONDS)
    return {"worst": max(late)}


QUESTION = Question(
    name="celery_stops",
    title="Celery over Redis, warm shutdown",
    metrics=(
        Metric(
            "worst",
            "Celery: warm shutdown takes longer than the task, by at most",
            "s",
            "lower",
            (Bar(most=1.0),),
            summary="worst",
        ),
    ),
    measure=measure,
    cases={"prefork": {"stops": 10}, "native": {"stops": 10, "native": 1}},
    rounds={OURS: 3, ORIGINAL: 1},
)

if __name__ == "__main__":
    main(QUESTION)
