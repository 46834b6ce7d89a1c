"""Celery over Redis with --max-tasks-per-child=1: how many tasks a second?"""

from __future__ import annotations

from harness.question import Bar, Metric, Question, main
from harness.subject import ORIGINAL, OURS
from questions.celery_rate import measure

QUESTION = Question(
    name="celery_recycling",
    title="Celery over Redis, a process for each task",
    metrics=(
        Metric("rate", "Celery, --max-tasks-per-child=1", "tasks/s", "higher", (Bar(1.5, against=ORIGINAL),)),
    ),
    measure=measure,
    cases={
        "prefork -c 4": {"jobs": 300, "processes": 4, "recycle": 1},
    },
    rounds={OURS: 3, ORIGINAL: 3},
)

if __name__ == "__main__":
    main(QUESTION)
