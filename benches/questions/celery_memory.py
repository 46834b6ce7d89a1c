"""Celery over Redis: how much memory do the worker's processes have for themselves, once they have worked?"""

from __future__ import annotations

import statistics
from pathlib import Path

from harness.celeryworker import CeleryWorker
from harness.proc import children
from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import ORIGINAL, OURS, Subject


def own_mib(pid: int) -> float:
    """Tell how much memory a process has in common with no other one."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def measure(subject: Subject, parameters: Parameters) -> Answer:
    with CeleryWorker(subject, "-c", "4", native=bool(parameters.get("native"))) as worker:
        for _ in range(parameters["jobs"]):
            worker.app.send_task("celeryapp.stamp")
        worker.hear(parameters["jobs"])
        parent = worker.worker.pid
        return {
            "parent": own_mib(parent),
            "child": statistics.mean(own_mib(child) for child in children(parent)),
        }


BARS = (Bar(1.0, against=ORIGINAL),)
QUESTION = Question(
    name="celery_memory",
    title="Celery over Redis, memory",
    metrics=(
        Metric("parent", "Celery: memory of the main process alone", "MiB", "lower", BARS),
        Metric("child", "Celery: memory of a pool process alone", "MiB", "lower", BARS),
    ),
    measure=measure,
    cases={"prefork": {"jobs": 2_000}, "native": {"jobs": 2_000, "native": 1}},
    rounds={OURS: 5, ORIGINAL: 5},
)

if __name__ == "__main__":
    main(QUESTION)
