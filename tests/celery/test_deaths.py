"""A process of the pool dies: its task is told of, or run again; nobody else notices."""

from __future__ import annotations

import os
import signal

import pytest
from celery.exceptions import WorkerLostError
from workers import SIDE_BY_SIDE, Worker


def test_killed_in_its_task(worker: Worker, key: str) -> None:
    sent = worker.send("hold", key, 60)
    os.kill(worker.heard(key), signal.SIGKILL)
    with pytest.raises(WorkerLostError, match="SIGKILL"):
        sent.get(timeout=30)
    worker.await_size(2)
    assert worker.run("add", 1, 1) == 2


def test_task_that_ends_its_process(worker: Worker) -> None:
    with pytest.raises(WorkerLostError, match="exitcode 3"):
        worker.run("leave", 3)


@SIDE_BY_SIDE
def test_neighbour_of_a_killed_process_is_not_disturbed(worker: Worker, key: str) -> None:
    neighbour = worker.send("hold", f"{key}:neighbour", 2)
    worker.heard(f"{key}:neighbour")
    with pytest.raises(WorkerLostError):
        worker.run("kill_oneself")
    assert neighbour.get(timeout=30) == "slept"


def test_rejected_task_is_delivered_again_and_done(worker: Worker, key: str) -> None:
    sent = worker.send("retried", key, 60)
    os.kill(worker.heard(key), signal.SIGKILL)
    assert sent.get(timeout=30) == 2


@pytest.mark.better("a process that waits holds the lock that all need", modes=["blocking"])
def test_killed_while_idle(worker: Worker) -> None:
    """Nothing is lost with it: what it had not begun is begun by another."""
    worker.await_size(2)
    before = worker.children()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    sent = [worker.send("add", number, 1) for number in range(10)]
    assert [one.get(timeout=30) for one in sent] == list(range(1, 11))
    worker.await_size(2)
    assert not set(before).intersection(worker.children())


@pytest.mark.better("a bare SystemExit leaves its task pending for ever, before Celery 5.7")
def test_task_that_exits_politely_is_settled(worker: Worker) -> None:
    with pytest.raises((SystemExit, WorkerLostError)):
        worker.run("exit_politely", 7)
    assert worker.run("add", 1, 1) == 2
