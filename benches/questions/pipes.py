"""How long does a message take through a pipe to another process, and back?"""

from __future__ import annotations

import statistics

from harness.fresh import answer
from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import STDLIB, Subject


def measure(subject: Subject, parameters: Parameters) -> Answer:
    arguments = (str(parameters["bytes"]), str(parameters["trips"]))
    return {
        kind: statistics.median(answer("pingpong.py", subject.package, kind, *arguments))
        for kind in ("bytes", "objects")
    }


def metric(kind: str) -> Metric:
    title = f"a message there and back, {kind}"
    return Metric(kind, title, "µs", "lower", (Bar(1, against=STDLIB),), headline=True)


QUESTION = Question(
    name="pipes",
    title="there and back through a pipe",
    metrics=(metric("bytes"), metric("objects")),
    measure=measure,
    cases={
        "small": {"bytes": 0, "trips": 20_000},
        "1 MB": {"bytes": 1_000_000, "trips": 200},
        "64 MB": {"bytes": 64_000_000, "trips": 6},
    },
)

if __name__ == "__main__":
    main(QUESTION)
