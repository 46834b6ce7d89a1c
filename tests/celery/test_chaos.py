"""Processes are killed at random while they work; every task has its effect in the end."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

import pytest
from workers import Starter, wait_until

KILLS = 200
TASKS = 800
PATIENCE = 90.0


@pytest.mark.long
@pytest.mark.modes("fair", "native")
def test_nothing_is_lost_to_random_kills(start_worker: Starter, key: str) -> None:
    worker = start_worker("-c", "4")
    choice = random.Random(20261128)
    sent = [worker.send("leave_trace", key, number, 0.05) for number in range(TASKS)]
    for _ in range(KILLS):
        time.sleep(choice.uniform(0.01, 0.09))
        if children := worker.children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(choice.choice(children), signal.SIGKILL)
    everything = set(range(TASKS))
    wait_until(lambda: worker.traces(key) == everything, "every task has had its effect", PATIENCE)
    # Not by `get`: before Celery 5.7 it spends a second on each result that has been there before.
    wait_until(lambda: all(one.successful() for one in sent), "every task has its result", PATIENCE)
    assert worker.stop() == os.EX_OK
