"""How late do time limits fire?

Lateness counts from the submission, as the caller sees it: the way into the worker and, for a hard limit,
the way back are part of it.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from harness.question import Answer, Bar, Metric, Parameters, Question, main, percentile
from harness.subject import ORIGINAL, OURS, Subject, kind

SLEEP_SECONDS = 30.0


def notice_soft_limit() -> int:
    """Sleep until the soft limit interrupts, and tell when that was."""
    try:
        time.sleep(SLEEP_SECONDS)
    except Exception as error:
        if kind(error) == "SoftTimeLimitExceeded":
            return time.monotonic_ns()
        raise
    raise AssertionError("the soft limit never came")


def soft_lateness_ms(pool: Any, limit: float) -> float:
    start = time.monotonic_ns()
    stamp = pool.apply_async(notice_soft_limit, soft_timeout=limit).get(SLEEP_SECONDS)
    return float((stamp - start) / 1e6 - limit * 1e3)


def hard_lateness_ms(pool: Any, limit: float) -> float:
    start = time.monotonic_ns()
    result = pool.apply_async(time.sleep, (SLEEP_SECONDS,), timeout=limit)
    try:
        result.get(SLEEP_SECONDS)
    except Exception as error:
        if kind(error) == "TimeLimitExceeded":
            return (time.monotonic_ns() - start) / 1e6 - limit * 1e3
        raise
    raise AssertionError("the hard limit never came")


def measure(subject: Subject, parameters: Parameters) -> Answer:
    if subject.limited_pool is None:
        raise AssertionError(f"{subject.name} has no time limits")
    limit = parameters["limit_ms"] / 1e3
    answer: Answer = {}
    # Several workers: a job never waits for the replacement of one that was just killed.
    with subject.limited_pool(4) as pool:
        for _ in range(20):
            pool.apply(abs, (1,))
        for name, lateness in (("soft", soft_lateness_ms), ("hard", hard_lateness_ms)):
            late = [lateness(pool, limit) for _ in range(parameters["jobs"])]
            answer[f"{name} p50"] = statistics.median(late)
            answer[f"{name} p99"] = percentile(late, 0.99)
    return answer


QUESTION = Question(
    name="limits",
    title="time limits",
    metrics=tuple(
        Metric(f"{name} {share}", f"{name} limit late by, {share}", "ms", "lower", bars, headline=bool(bars))
        for name in ("soft", "hard")
        for share, bars in (("p50", ()), ("p99", (Bar(most=5),)))
    ),
    measure=measure,
    cases={
        "10 ms": {"limit_ms": 10, "jobs": 200},
        "50 ms": {"limit_ms": 50, "jobs": 100},
        "500 ms": {"limit_ms": 500, "jobs": 20},
    },
    rounds={OURS: 5, ORIGINAL: 1},
    overrides={ORIGINAL: {"jobs": 3}},
)

if __name__ == "__main__":
    main(QUESTION)
