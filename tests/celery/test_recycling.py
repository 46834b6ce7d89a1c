"""Processes that have done enough, or hold too much, make room for new ones."""

from __future__ import annotations

import os

import pytest
from workers import Starter


def test_max_tasks_per_child(start_worker: Starter) -> None:
    worker = start_worker("--max-tasks-per-child", "5")
    sent = [worker.send("who") for _ in range(60)]
    done = [one.get(timeout=30) for one in sent]
    assert len(set(done)) >= 12
    assert max(done.count(pid) for pid in done) <= 5
    assert worker.stop() == os.EX_OK
    assert worker.statuses().count(155) >= 11


@pytest.mark.long
@pytest.mark.better("a process that leaves is given tasks all the same, one after the other", modes=["fast"])
def test_one_task_per_child(start_worker: Starter) -> None:
    worker = start_worker("--max-tasks-per-child", "1")
    sent = [worker.send("who") for _ in range(20)]
    assert len({one.get(timeout=30) for one in sent}) == 20
    assert worker.stop() == os.EX_OK


@pytest.mark.long
def test_max_memory_per_child(start_worker: Starter) -> None:
    worker = start_worker("--max-memory-per-child", str(200 << 10))
    before = worker.run("who")
    assert worker.run("add", 1, 1) == 2
    worker.await_size(2)
    assert before in worker.children(), "no process was over the limit"
    heavy = worker.run("allocate", 300)
    worker.await_gone(heavy)
    worker.await_size(2)
    assert worker.run("add", 1, 1) == 2
    assert worker.stop() == os.EX_OK
    assert worker.statuses().count(155) == 1
