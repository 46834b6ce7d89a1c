"""Does the pool heal when all its idle workers are killed, again and again, and does it still end?"""

from __future__ import annotations

import os
import signal
import threading
import time

from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import ORIGINAL, OURS, STDLIB, Subject

PATIENCE_SECONDS = 15.0


def measure(subject: Subject, parameters: Parameters) -> Answer:
    pool = subject.pool(4)
    pool.map(abs, range(100))
    worst = 0.0
    healed = 0
    for _ in range(parameters["massacres"]):
        time.sleep(0.02)  # idle means: asleep in the wait for a task
        for worker in list(pool._pool):
            if worker.pid is not None:
                os.kill(worker.pid, signal.SIGKILL)
        start = time.perf_counter()
        try:
            if pool.apply_async(abs, (-healed,)).get(PATIENCE_SECONDS) != healed:
                break
        except Exception:
            break
        worst = max(worst, time.perf_counter() - start)
        healed += 1
    start = time.perf_counter()
    end = threading.Thread(target=pool.terminate, daemon=True)
    end.start()
    end.join(PATIENCE_SECONDS)
    ended = None if end.is_alive() else (time.perf_counter() - start) * 1e3
    return {
        "healed": float(healed),
        "worst": worst * 1e3 if healed == parameters["massacres"] else None,
        "terminate": ended,
    }


QUESTION = Question(
    name="survivors",
    title="all idle workers killed, 50 times in a row",
    metrics=(
        Metric(
            "healed",
            "SIGKILL to all idle workers: healed",
            "times",
            "higher",
            (Bar(50),),
            summary="worst",
            headline=True,
        ),
        Metric("worst", "the next task ends within", "ms", "lower", (Bar(most=1000),), summary="worst"),
        Metric("terminate", "terminate() after that", "ms", "lower", (Bar(most=1000),), summary="worst"),
    ),
    measure=measure,
    cases={"": {"massacres": 50}},
    rounds={OURS: 3, ORIGINAL: 1, STDLIB: 1},
)

if __name__ == "__main__":
    main(QUESTION)
