"""1,500 short tasks while workers are killed at random: does each end exactly once?"""

from __future__ import annotations

import os
import random
import signal
import struct
import tempfile
import threading
import time
from collections import Counter
from typing import Any

from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import ORIGINAL, OURS, STDLIB, Subject

ENTRY = struct.Struct("q")
CHAOS_SECONDS = 4.0
NONE = (Bar(most=0),)


def note_and_work(log: int, number: int, seconds: float) -> int:
    """Write down that the task began, in one atomic append, and keep the worker busy for a moment."""
    os.write(log, ENTRY.pack(number))
    time.sleep(seconds)
    return number


class Killer(threading.Thread):
    """Kills a random worker every few milliseconds, and counts them."""

    def __init__(self, pool: Any, rng: random.Random) -> None:
        super().__init__(daemon=True)
        self._killed: set[int] = set()
        self._pool = pool
        self._rng = rng
        self._enough = threading.Event()

    def run(self) -> None:
        end = time.monotonic() + CHAOS_SECONDS
        while time.monotonic() < end and not self._enough.wait(self._rng.uniform(0.01, 0.1)):
            # A dead worker stays in the list until it is reaped; killing it again would be no kill.
            workers = [worker.pid for worker in list(self._pool._pool) if worker.pid not in self._killed]
            if not workers:
                continue
            victim = self._rng.choice(workers)
            try:
                os.kill(victim, signal.SIGKILL)
            except (ProcessLookupError, TypeError):  # already reaped, or not yet started
                continue
            self._killed.add(victim)

    @property
    def kills(self) -> int:
        return len(self._killed)

    def stop(self) -> None:
        self._enough.set()
        self.join()


def measure(subject: Subject, parameters: Parameters) -> Answer:
    rng = random.Random(parameters["turn"])
    with tempfile.TemporaryFile(buffering=0) as log:
        # Appended by many processes at once: the flag makes each write land behind the others.
        log_end = os.open(f"/proc/self/fd/{log.fileno()}", os.O_WRONLY | os.O_APPEND)
        pool = subject.pool(4)
        killer = Killer(pool, rng)
        killer.start()
        results = [
            pool.apply_async(note_and_work, (log_end, number, rng.uniform(0.001, 0.01)))
            for number in range(parameters["jobs"])
        ]
        deadline = time.monotonic() + parameters["patience"]
        outcomes: Counter[str] = Counter()
        for number, result in enumerate(results):
            result.wait(max(0.0, deadline - time.monotonic()))
            if not result.ready():
                outcomes["unresolved"] += 1
                continue
            try:
                outcomes["ok" if result.get() == number else "wrong"] += 1
            except Exception:
                outcomes["errors"] += 1
        killer.stop()
        end = threading.Thread(target=pool.terminate, daemon=True)
        end.start()
        end.join(15)
        log.seek(0)
        begun = Counter(number for (number,) in ENTRY.iter_unpack(log.read()))
    return {
        "unresolved": float(outcomes["unresolved"] + outcomes["wrong"]),
        "excess": float(max(0, outcomes["errors"] - killer.kills)),
        "twice": float(sum(count > 1 for count in begun.values())),
        "kills": float(killer.kills),
        "errors": float(outcomes["errors"]),
    }


QUESTION = Question(
    name="chaos",
    title="1,500 tasks under random SIGKILL",
    metrics=(
        Metric(
            "unresolved",
            "1,500 tasks under random SIGKILL: unresolved",
            "",
            "lower",
            NONE,
            "worst",
            headline=True,
        ),
        Metric("excess", "of these: errors beyond the kills", "", "lower", NONE, "worst"),
        Metric("twice", "of these: run twice", "", "lower", NONE, "worst"),
        Metric("kills", "of these: workers killed", "", "higher"),
        Metric("errors", "of these: reported as lost", "", "lower"),
    ),
    measure=measure,
    # Each round has a seed of its own.
    cases={"": {"jobs": 1_500, "patience": 60}},
    rounds={OURS: 5, ORIGINAL: 5, STDLIB: 5},
    overrides={ORIGINAL: {"patience": 30}, STDLIB: {"patience": 15}},
)

if __name__ == "__main__":
    main(QUESTION)
