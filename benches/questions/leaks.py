"""Is everything given back when pools come and go?"""

from __future__ import annotations

import time
from dataclasses import asdict

from harness.proc import possessions
from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import ORIGINAL, OURS, STDLIB, Subject


def live_and_die(subject: Subject) -> None:
    pool = subject.pool(2)
    pool.map(abs, range(10))
    pool.close()
    pool.join()


def settled(expected: dict[str, int] | None = None) -> dict[str, int]:
    """Look until nothing changes any more, or all is as expected: what ends is still seen for a moment."""
    deadline = time.monotonic() + 3
    last = asdict(possessions())
    while time.monotonic() < deadline and last != expected:
        time.sleep(0.1)
        now = asdict(possessions())
        if expected is None and now == last:
            break
        last = now
    return last


def measure(subject: Subject, parameters: Parameters) -> Answer:
    # The first pool may bring up what a process needs once; a leak is what grows after it.
    live_and_die(subject)
    before = settled()
    for _ in range(parameters["pools"]):
        live_and_die(subject)
    after = settled(before)
    return {name: float(after[name] - before[name]) for name in before}


QUESTION = Question(
    name="leaks",
    title="500 pools created and closed",
    metrics=tuple(
        Metric(
            name,
            f"500 pools: {title} left",
            "",
            "lower",
            (Bar(most=0),),
            "worst",
            headline=name == "descriptors",
        )
        for name, title in (
            ("descriptors", "descriptors"),
            ("threads", "threads"),
            ("processes", "processes"),
            ("segments", "/dev/shm entries"),
        )
    ),
    measure=measure,
    cases={"": {"pools": 500}},
    rounds={OURS: 1, ORIGINAL: 1, STDLIB: 1},
    # A second each; what 20 of them leave says enough.
    overrides={ORIGINAL: {"pools": 20}, STDLIB: {"pools": 50}},
    limit=180,
)

if __name__ == "__main__":
    main(QUESTION)
