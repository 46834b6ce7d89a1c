"""Celery over Redis, SIGTERM at any moment of a task's life: how much longer than the task does that take?"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

from harness.celeryworker import PATIENCE_SECONDS, STAMP, CeleryWorker
from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import ORIGINAL, OURS, Subject

TASK_SECONDS = 0.2


def measure(subject: Subject, parameters: Parameters) -> Answer:
    with CeleryWorker(subject, "-c", "2", native=bool(parameters.get("native"))) as worker:
        if not parameters.get("idle"):
            worker.app.send_task("celeryapp.linger", (TASK_SECONDS,))
        # From before it is fetched until after its end.
        time.sleep(random.Random(parameters["turn"]).uniform(0, 2 * TASK_SECONDS))
        due = time.monotonic()
        os.kill(worker.worker.pid, signal.SIGTERM)
        worker.worker.wait(PATIENCE_SECONDS)
        ended = time.monotonic()
        with contextlib.suppress(BlockingIOError):
            # It said who ran it and when it began; or it was given back, and said nothing.
            if said := os.read(worker.words, 2 * STAMP.size):
                due = max(due, STAMP.unpack_from(said, STAMP.size)[0] / 1e9 + TASK_SECONDS)
        return {"late": ended - due}


QUESTION = Question(
    name="celery_stops",
    title="Celery over Redis, warm shutdown",
    metrics=(
        Metric(
            "late",
            "Celery: warm shutdown takes longer than the task, by at most",
            "s",
            "lower",
            (Bar(most=1.0),),
            summary="worst",
        ),
    ),
    measure=measure,
    # An idle worker shows what is Celery's own: a thread that looks twice a second, and kombu's last request
    # to Redis, which is answered within a second.
    cases={"prefork": {}, "native": {"native": 1}, "prefork, idle": {"idle": 1}},
    rounds={OURS: 20, ORIGINAL: 8},
)

if __name__ == "__main__":
    main(QUESTION)
