"""Time limits: soft ones are felt by the task, hard ones end it."""

from __future__ import annotations

import pytest
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from workers import SIDE_BY_SIDE, Worker


def test_soft_limit_is_felt_by_the_task(worker: Worker, key: str) -> None:
    sent = worker.send("hold", key, 60, soft_time_limit=1)
    worker.heard(key)
    assert sent.get(timeout=30) == "interrupted"


def test_soft_limit_that_is_not_caught_fails_the_task(worker: Worker) -> None:
    with pytest.raises(SoftTimeLimitExceeded):
        worker.run("slumber", 60, soft_time_limit=1)
    assert worker.run("add", 1, 1) == 2


def test_hard_limit_fails_the_task_and_replaces_the_process(worker: Worker, key: str) -> None:
    sent = worker.send("hold", key, 60, time_limit=1)
    pid = worker.heard(key)
    with pytest.raises(TimeLimitExceeded):
        sent.get(timeout=30)
    worker.await_gone(pid)
    worker.await_size(2)
    assert worker.run("add", 1, 1) == 2


def test_soft_limit_then_hard_limit(worker: Worker, key: str) -> None:
    sent = worker.send("obstinate", key, 60, soft_time_limit=1, time_limit=2)
    pid = worker.heard(key)
    assert worker.heard(key) == "soft"
    with pytest.raises(TimeLimitExceeded):
        sent.get(timeout=30)
    worker.await_gone(pid)


def test_limit_that_is_not_reached_does_nothing(worker: Worker, key: str) -> None:
    sent = worker.send("hold", key, 0.2, soft_time_limit=30, time_limit=40)
    pid = worker.heard(key)
    assert sent.get(timeout=30) == "slept"
    assert pid in worker.children()


@SIDE_BY_SIDE
def test_neighbour_of_an_ended_task_is_not_disturbed(worker: Worker, key: str) -> None:
    neighbour = worker.send("hold", f"{key}:neighbour", 3)
    worker.heard(f"{key}:neighbour")
    ended = worker.send("hold", key, 60, time_limit=1)
    with pytest.raises(TimeLimitExceeded):
        ended.get(timeout=30)
    assert neighbour.get(timeout=30) == "slept"
