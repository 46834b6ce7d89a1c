"""How many items a second does ``map(chunksize=1)`` do, and does the rate hold as the input grows?"""

from __future__ import annotations

import statistics
import time
from typing import Any

from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import ORIGINAL, OURS, STDLIB, Subject

SMALL = 10_000
BUDGET_SECONDS = 2.0


def noop(item: int) -> int:
    return item


def rate(pool: Any, items: int) -> float:
    """Map until the time is used up: one short map says little, and a long one needs no repeat."""
    rates = []
    stop = time.perf_counter() + BUDGET_SECONDS
    while not rates or time.perf_counter() < stop:
        start = time.perf_counter()
        values = pool.map(noop, range(items), chunksize=1)
        rates.append(items / (time.perf_counter() - start))
        if values != list(range(items)):
            raise AssertionError("map returned something else than its input")
    return statistics.median(rates)


def measure(subject: Subject, parameters: Parameters) -> Answer:
    with subject.pool(parameters["workers"]) as pool:
        rate(pool, 100)
        small = rate(pool, SMALL)
        large = rate(pool, parameters["items"])
    return {"small": small, "large": large, "constancy": 100 * large / small}


QUESTION = Question(
    name="mapping",
    title="map(chunksize=1) over no-ops",
    metrics=(
        Metric("small", "map, chunksize 1, 10⁴ items", "/s", "higher", (Bar(200_000),)),
        Metric("large", "map, chunksize 1, 10⁶ items", "/s", "higher", (Bar(200_000),), headline=True),
        Metric("constancy", "its rate at 10⁶ against 10⁴", "%", "higher", (Bar(90),)),
    ),
    measure=measure,
    cases={"2 workers": {"workers": 2, "items": 1_000_000}},
    rounds={OURS: 5, ORIGINAL: 2, STDLIB: 2},
    limit=300,
)

if __name__ == "__main__":
    main(QUESTION)
