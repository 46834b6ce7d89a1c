"""How much longer does an interpreter take that imports the package?"""

from __future__ import annotations

import statistics
import time

from harness.fresh import run
from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import Subject


def seconds(program: str) -> float:
    begin = time.perf_counter()
    run("-c", program)
    return time.perf_counter() - begin


def measure(subject: Subject, parameters: Parameters) -> Answer:
    bare, full = "pass", f"import {subject.package}"
    # Compiles and caches; what remains is what every later start of the program has to wait for.
    run("-c", full)
    # In pairs, so that a slow moment of this machine is in both.
    extra = [seconds(full) - seconds(bare) for _ in range(parameters["starts"])]
    return {"import": statistics.median(extra) * 1e3}


QUESTION = Question(
    name="importing",
    title="import, over a bare start",
    metrics=(
        Metric(
            "import", "import the package, over a bare start", "ms", "lower", (Bar(most=30),), headline=True
        ),
    ),
    measure=measure,
    cases={"": {"starts": 40}},
)

if __name__ == "__main__":
    main(QUESTION)
