"""How long does a process take that does nothing, under each start method?"""

from __future__ import annotations

import statistics

from harness.fresh import answer
from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import STDLIB, Subject

METHODS = {"fork": 200, "spawn": 25, "forkserver": 50}
"""How often each is tried; a median needs more of what varies more."""


def measure(subject: Subject, parameters: Parameters) -> Answer:
    found: Answer = {}
    for method in METHODS:
        lives = answer("starts.py", subject.package, method, str(parameters[method]))
        found[method] = None if lives is None else statistics.median(lives)
    return found


def metric(method: str, ratio: float) -> Metric:
    title = f"a process that does nothing, {method}: start and join"
    return Metric(method, title, "ms", "lower", (Bar(ratio, against=STDLIB),), headline=True)


QUESTION = Question(
    name="starting",
    title="start and join",
    # At most 0.8, 0.9 and 0.5 of what the standard library takes.
    metrics=(metric("fork", 1.25), metric("spawn", 1.11), metric("forkserver", 2)),
    measure=measure,
    cases={"": METHODS},
)

if __name__ == "__main__":
    main(QUESTION)
