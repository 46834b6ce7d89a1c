"""How long does an object take through one queue to another process, and back through a second one?"""

from __future__ import annotations

import importlib
import multiprocessing
import statistics
import time
from typing import Any

from harness.question import Answer, Bar, Metric, Parameters, Question, main, percentile
from harness.subject import STDLIB, Subject

MEGABYTE = 1 << 20


def echo(questions: Any, answers: Any) -> None:
    while (obj := questions.get()) is not None:
        answers.put(len(obj) if isinstance(obj, bytes) else obj)


def measure(subject: Subject, parameters: Parameters) -> Answer:
    context = multiprocessing.get_context("fork")
    package = importlib.import_module(subject.package).get_context("fork")
    questions, answers = package.Queue(), package.Queue()
    other = context.Process(target=echo, args=(questions, answers))
    other.start()
    micros = []
    for number in range(200 + parameters["trips"]):
        begin = time.perf_counter_ns()
        questions.put((number, "x"))
        answers.get()
        micros.append((time.perf_counter_ns() - begin) / 1e3)
    warm = micros[200:]
    data = bytes(MEGABYTE)
    large = parameters["large"]
    begin = time.perf_counter()
    for _ in range(large):
        questions.put(data)
    for _ in range(large):
        answers.get()
    seconds = time.perf_counter() - begin
    questions.put(None)
    other.join()
    return {
        "p50": statistics.median(warm),
        "p99": percentile(warm, 0.99),
        "large": large * MEGABYTE / seconds / 1e6,
    }


QUESTION = Question(
    name="queue_roundtrip",
    title="there and back through two queues",
    metrics=(
        Metric("p50", "round trip of two Queues, median", "µs", "lower", (Bar(4, against=STDLIB, cpus=2),)),
        Metric("p99", "round trip of two Queues, p99", "µs", "lower"),
        Metric("large", "objects of 1 MB through a Queue", "MB/s", "higher", (Bar(2, against=STDLIB),)),
    ),
    measure=measure,
    cases={"": {"trips": 5_000, "large": 200}},
)

if __name__ == "__main__":
    main(QUESTION)
