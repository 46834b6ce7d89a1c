"""How often do processes get through a lock that all of them want, and how long does the unluckiest wait?"""

from __future__ import annotations

import importlib
import mmap
import struct
import time
from typing import Any

from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import STDLIB, Subject

ENTRY = struct.Struct("qd")


def compete(lock: Any, go: Any, seconds: float, board: mmap.mmap, place: int) -> None:
    """Go through the lock for a while; note how often, and the longest wait."""
    clock = time.perf_counter
    go.wait()
    end, rounds, longest = clock() + seconds, 0, 0.0
    while True:
        before = clock()
        if before > end:
            break
        lock.acquire()
        wait = clock() - before
        lock.release()
        rounds += 1
        longest = max(longest, wait)
    ENTRY.pack_into(board, place * ENTRY.size, rounds, longest)


def measure(subject: Subject, parameters: Parameters) -> Answer:
    package = importlib.import_module(subject.package)
    ctx = package.get_context("fork")
    lock, go = ctx.Lock(), ctx.Event()
    board = mmap.mmap(-1, mmap.PAGESIZE)
    seconds, processes = parameters["seconds"], range(parameters["processes"])
    children = [ctx.Process(target=compete, args=(lock, go, seconds, board, place)) for place in processes]
    for child in children:
        child.start()
    time.sleep(0.2)
    go.set()
    for child in children:
        child.join()
    noted = [ENTRY.unpack_from(board, place * ENTRY.size) for place in processes]
    rates = [rounds / seconds for rounds, _ in noted]
    return {
        "rate": sum(rates),
        "share": min(rates) / max(rates),
        "wait": max(wait for _, wait in noted) * 1e3,
    }


QUESTION = Question(
    name="contending",
    title="processes that all want one lock",
    metrics=(
        Metric("rate", "one Lock, rounds", "/s", "higher", (Bar(1, against=STDLIB, cpus=2),), headline=True),
        Metric("share", "one Lock, least by most rounds", "", "higher"),
        Metric("wait", "one Lock, longest wait", "ms", "lower"),
    ),
    measure=measure,
    cases={f"{number} processes": {"processes": number, "seconds": 2} for number in (2, 4)},
)

if __name__ == "__main__":
    main(QUESTION)
