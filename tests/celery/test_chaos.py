"""Processes are killed at random while they work; every task has its effect in the end."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from pathlib import Path

import pytest
from workers import Starter, wait_until

KILLS = 200
TASKS = 10_000
PROCESSES = 4
PATIENCE = 240.0


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.modes("fair", "native")
def test_nothing_is_lost_to_random_kills(start_worker: Starter, key: str) -> None:
    worker = start_worker("-c", str(PROCESSES))
    # To give a task back Celery has a connection to the broker, which stays.
    again = worker.send("retried", f"{key}:again", 60)
    os.kill(worker.heard(f"{key}:again"), signal.SIGKILL)
    assert again.get(timeout=30) == 2
    worker.await_size(PROCESSES)
    descriptors = Path(f"/proc/{worker.pid}/fd")
    before = len(os.listdir(descriptors))
    choice = random.Random(20261128)
    sent = []
    for number in range(TASKS):
        sent.append(worker.send("leave_trace", key, number, 0.002))
        if number % (TASKS // KILLS) == 0 and (children := worker.children()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(choice.choice(children), signal.SIGKILL)
    everything = set(range(TASKS))
    wait_until(lambda: worker.traces(key) == everything, "every task has had its effect", PATIENCE)
    # Not by `get`: before Celery 5.7 it spends a second on each result that has been there before.
    for one in sent:
        wait_until(one.successful, "every task has its result", PATIENCE)
    worker.await_size(PROCESSES)
    wait_until(lambda: len(os.listdir(descriptors)) <= before, "nothing is left of those that were killed")
    assert worker.stop() == os.EX_OK
