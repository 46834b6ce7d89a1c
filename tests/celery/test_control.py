"""Remote control: what is asked of a worker from afar happens, and is told."""

from __future__ import annotations

import os

import pytest
from celery.exceptions import TaskRevokedError
from workers import SIDE_BY_SIDE, Starter, Worker, wait_until


def test_stats_describe_the_pool(worker: Worker) -> None:
    worker.await_size(2)
    worker.await_listed(2)
    pool = worker.control("stats")["pool"]
    assert pool["max-concurrency"] == 2
    assert sorted(pool["processes"]) == sorted(worker.children())
    assert {"max-tasks-per-child", "put-guarded-by-semaphore", "timeouts"} <= set(pool)


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_revoke_ends_the_running_task(worker: Worker, key: str, how: str) -> None:
    sent = worker.send("hold", key, 60)
    pid = worker.heard(key)
    worker.app.control.revoke(sent.id, terminate=True, signal=how, destination=[worker.hostname])
    with pytest.raises(TaskRevokedError):
        sent.get(timeout=30)
    worker.await_gone(pid)
    worker.await_size(2)
    assert worker.run("add", 1, 1) == 2


# Without an event loop a worker that has no process free waits for one, and does not listen.
@pytest.mark.modes("fair", "native")
def test_revoked_before_it_runs(worker: Worker, key: str) -> None:
    blockers = [worker.send("hold", key, 60) for _ in range(2)]
    running = [worker.heard(key) for _ in range(2)]
    waiting = worker.send("hold", f"{key}:never", 0)
    worker.control("revoke", task_id=waiting.id)
    for blocker in blockers:
        worker.app.control.revoke(blocker.id, terminate=True, destination=[worker.hostname])
    with pytest.raises(TaskRevokedError):
        waiting.get(timeout=30)
    for pid in running:
        worker.await_gone(pid)
    worker.await_size(2)


def test_grow_and_shrink(worker: Worker) -> None:
    worker.await_size(2)
    assert "ok" in worker.control("pool_grow", n=2)
    worker.await_size(4)
    worker.await_listed(4)
    assert worker.run("add", 1, 1) == 2
    assert "ok" in worker.control("pool_shrink", n=2)
    worker.await_size(2)
    worker.await_listed(2)
    assert worker.run("add", 1, 1) == 2


def test_active_tells_who_runs_what(worker: Worker, key: str) -> None:
    sent = worker.send("hold", key, 60)
    pid = worker.heard(key)
    active = wait_until(lambda: worker.control("active"), "the task is active")
    assert [(one["id"], one["worker_pid"]) for one in active] == [(sent.id, pid)]
    worker.app.control.revoke(sent.id, terminate=True, destination=[worker.hostname])
    worker.await_gone(pid)
    worker.await_size(2)


def test_pool_restart_replaces_the_processes(worker: Worker) -> None:
    worker.await_size(2)
    before = set(worker.children())
    assert "ok" in worker.control("pool_restart")

    def replaced() -> bool:
        # A process looks at the order to leave before it waits for its next task: tasks make it look.
        worker.run("add", 1, 1)
        return not before.intersection(worker.children())

    wait_until(replaced, "all processes are new")
    worker.await_size(2)


@pytest.mark.long
@SIDE_BY_SIDE
@pytest.mark.better("a process that is told to leave may take the lock with it", modes=["blocking"])
def test_autoscale(start_worker: Starter, key: str) -> None:
    worker = start_worker("--autoscale", "4,1", settings={"worker_prefetch_multiplier": 4})
    worker.await_size(1)
    sent = [worker.send("hold", key, 4) for _ in range(4)]
    running = {worker.heard(key) for _ in range(4)}
    assert len(running) == 4, "all at the same time: each in a process of its own"
    assert [one.get(timeout=30) for one in sent] == ["slept"] * 4
    worker.await_size(1, patience=60)
    assert worker.stop() == os.EX_OK
