"""The same as ``recycling``, with workers that a server forks which has the program loaded already."""

from __future__ import annotations

from harness.fresh import answer
from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import ORIGINAL, OURS, STDLIB, Subject


def measure(subject: Subject, parameters: Parameters) -> Answer:
    found: Answer | None = answer("recycles.py", subject.package, str(parameters["jobs"]))
    return found or {}


QUESTION = Question(
    name="recycling_forkserver",
    title="maxtasksperchild=1, forkserver",
    metrics=(
        Metric(
            "rate",
            "maxtasksperchild=1, forkserver, 4 workers",
            "tasks/s",
            "higher",
            (Bar(150),),
            headline=True,
        ),
        Metric("lost", "of these, falsely lost, forkserver", "", "lower", (Bar(most=0),), summary="worst"),
    ),
    measure=measure,
    cases={"": {"jobs": 500}},
    rounds={OURS: 5, ORIGINAL: 1, STDLIB: 1},
    # They look for workers that have ended at intervals.
    overrides={ORIGINAL: {"jobs": 32}, STDLIB: {"jobs": 200}},
)

if __name__ == "__main__":
    main(QUESTION)
