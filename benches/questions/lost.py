"""How long after a worker's death does ``get()`` say that the job is lost?"""

from __future__ import annotations

import os
import signal
import statistics
import struct
import time
from typing import Any

from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import ORIGINAL, OURS, STDLIB, Subject, kind

PATIENCE_SECONDS = 20.0
STAMP = struct.Struct("q")


def announce(pipe: int) -> None:
    """Tell the parent who runs this job, then wait to be killed."""
    os.write(pipe, STAMP.pack(os.getpid()))
    time.sleep(PATIENCE_SECONDS * 2)


def vanish(pipe: int) -> None:
    os.write(pipe, STAMP.pack(time.monotonic_ns()))
    os._exit(7)


def delay_ms(result: Any, died_ns: int) -> float | None:
    """Wait for the verdict; None when there is none after a long time."""
    try:
        result.get(PATIENCE_SECONDS)
    except Exception as error:
        if kind(error) == "WorkerLostError":
            return (time.monotonic_ns() - died_ns) / 1e6
    return None


def measure(subject: Subject, parameters: Parameters) -> Answer:
    read_end, write_end = os.pipe()

    def said() -> int:
        return int(STAMP.unpack(os.read(read_end, STAMP.size))[0])

    delays: dict[str, list[float | None]] = {"sigkill": [], "exit": []}
    with subject.pool(2) as pool:
        pool.apply(abs, (1,))
        for _ in range(parameters["deaths"]):
            result = pool.apply_async(announce, (write_end,))
            worker = said()
            # Kill a worker that waits in its task, not one that is still on its way into the sleep.
            time.sleep(0.005)
            died_ns = time.monotonic_ns()
            os.kill(worker, signal.SIGKILL)
            delays["sigkill"].append(delay_ms(result, died_ns))

            result = pool.apply_async(vanish, (write_end,))
            delays["exit"].append(delay_ms(result, said()))
    return {
        key: None if None in seen else statistics.median(one for one in seen if one is not None)
        for key, seen in delays.items()
    }


QUESTION = Question(
    name="lost",
    title="a worker dies inside a job",
    metrics=(
        Metric(
            "sigkill",
            "worker killed by SIGKILL: get() raises after",
            "ms",
            "lower",
            (Bar(most=20),),
            headline=True,
        ),
        Metric(
            "exit",
            "worker ends by os._exit: get() raises after",
            "ms",
            "lower",
            (Bar(most=20),),
            headline=True,
        ),
    ),
    measure=measure,
    cases={"": {"deaths": 20}},
    rounds={OURS: 5, ORIGINAL: 1, STDLIB: 1},
    overrides={ORIGINAL: {"deaths": 1}, STDLIB: {"deaths": 1}},
)

if __name__ == "__main__":
    main(QUESTION)
