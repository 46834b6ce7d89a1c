"""Celery over Redis: how many small tasks a second, and what does each cost the worker's main process?"""

from __future__ import annotations

from harness.celeryworker import CeleryWorker
from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import ORIGINAL, OURS, Subject


def measure(subject: Subject, parameters: Parameters) -> Answer:
    jobs = parameters["jobs"]
    recycle = ("--max-tasks-per-child", "1") if parameters.get("recycle") else ()
    size = ("-c", str(parameters["processes"]), "--prefetch-multiplier", "16")
    with CeleryWorker(subject, *size, *recycle, native=bool(parameters.get("native"))) as worker:
        worker.hold_back()
        with worker.app.producer_pool.acquire(block=True) as producer:
            for _ in range(jobs):
                worker.app.send_task("celeryapp.stamp", producer=producer)
        busy_ns = worker.busy_ns()
        worker.let_go()
        # What the first one waits for is the order to begin.
        first_ns, *_, last_ns = sorted(worker.hear(jobs))
        return {
            "rate": (jobs - 1) / ((last_ns - first_ns) / 1e9),
            "cpu": (worker.busy_ns() - busy_ns) / jobs / 1e3,
        }


QUESTION = Question(
    name="celery_rate",
    title="Celery over Redis, small tasks",
    metrics=(
        Metric("rate", "Celery over Redis", "tasks/s", "higher", (Bar(0.95, against=ORIGINAL),)),
        Metric("cpu", "CPU of Celery's main process", "µs/task", "lower", (Bar(1.0, against=ORIGINAL),)),
    ),
    measure=measure,
    cases={
        "prefork -c 2": {"jobs": 2_500, "processes": 2},
        "prefork -c 8": {"jobs": 2_500, "processes": 8},
    },
    rounds={OURS: 9, ORIGINAL: 9},
)

if __name__ == "__main__":
    main(QUESTION)
