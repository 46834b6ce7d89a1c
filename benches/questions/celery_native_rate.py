"""The same as ``celery_rate``, with our own pool against the original's prefork."""

from __future__ import annotations

from harness.question import Bar, Metric, Question, main
from harness.subject import ORIGINAL, OURS
from questions.celery_rate import measure

QUESTION = Question(
    name="celery_native_rate",
    title="Celery over Redis, small tasks, native pool",
    metrics=(
        Metric("rate", "Celery over Redis", "tasks/s", "higher", (Bar(0.95, against=ORIGINAL),)),
        # At least 8 % less.
        Metric("cpu", "CPU of Celery's main process", "µs/task", "lower", (Bar(1 / 0.92, against=ORIGINAL),)),
    ),
    measure=measure,
    cases={
        "native -c 2": {"jobs": 2_500, "processes": 2, "native": 1},
        "native -c 8": {"jobs": 2_500, "processes": 8, "native": 1},
    },
    rounds={OURS: 9, ORIGINAL: 9},
)

if __name__ == "__main__":
    main(QUESTION)
