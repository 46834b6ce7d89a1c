"""How fast does a huge numpy array travel, to the worker and back?"""

from __future__ import annotations

import statistics
import time

from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import ORIGINAL, OURS, STDLIB, Subject
from questions.payload import ends, ready_made

MEGABYTE = 1 << 20


def measure(subject: Subject, parameters: Parameters) -> Answer:
    count = parameters["megabytes"] * MEGABYTE // 8
    array = ready_made(count)
    there, back = [], []
    with subject.pool(1) as pool:
        for trip in range(parameters["warm"] + parameters["trips"]):
            start = time.perf_counter()
            seen = pool.apply(ends, (array,))
            middle = time.perf_counter()
            result = pool.apply(ready_made, (count,))
            end = time.perf_counter()
            if seen != (0, count - 1) or ends(result) != (0, count - 1):
                raise AssertionError("the array did not arrive as it was sent")
            if trip >= parameters["warm"]:
                there.append(array.nbytes / (middle - start) / 1e9)
                back.append(array.nbytes / (end - middle) / 1e9)
            del result
    return {"argument": statistics.median(there), "result": statistics.median(back)}


QUESTION = Question(
    name="pool_large",
    title="256 MiB numpy array",
    metrics=(
        Metric("argument", "256 MiB array as argument", "GB/s", "higher", (Bar(5),)),
        Metric("result", "256 MiB array as result", "GB/s", "higher", (Bar(5),)),
    ),
    measure=measure,
    cases={"": {"megabytes": 256, "warm": 2, "trips": 9}},
    rounds={OURS: 5, ORIGINAL: 3, STDLIB: 3},
    overrides={ORIGINAL: {"warm": 0, "trips": 2}, STDLIB: {"warm": 0, "trips": 2}},
)

if __name__ == "__main__":
    main(QUESTION)
