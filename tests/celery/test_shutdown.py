"""A worker ends: warm, soft or cold, with and without its standard streams; what it ran is not lost."""

from __future__ import annotations

import os
import signal

import pytest
from workers import SIDE_BY_SIDE, Starter, processes_of, wait_until


@SIDE_BY_SIDE
def test_warm_shutdown_lets_running_tasks_finish(start_worker: Starter, key: str) -> None:
    worker = start_worker()
    sent = [worker.send("hold", key, 2) for _ in range(2)]
    for _ in sent:
        worker.heard(key)
    worker.await_active(2)
    assert worker.stop(signal.SIGTERM) == os.EX_OK
    assert [one.get(timeout=30) for one in sent] == ["slept"] * 2
    assert worker.statuses() == [0, 0]


@pytest.mark.better("waits 30 s for a task whose beginning it has not read yet when it is told to end")
@SIDE_BY_SIDE
def test_warm_shutdown_in_the_moment_a_task_begins(start_worker: Starter, key: str) -> None:
    worker = start_worker()
    sent = [worker.send("hold", key, 1) for _ in range(2)]
    for _ in sent:
        worker.heard(key)
    assert worker.stop(signal.SIGTERM) == os.EX_OK
    assert [one.get(timeout=30) for one in sent] == ["slept"] * 2


@pytest.mark.long
def test_warm_shutdown_delivers_large_results(start_worker: Starter) -> None:
    worker = start_worker()
    sent = [worker.send("inflate", 4 << 20) for _ in range(4)]
    done = sent[0].get(timeout=30)
    assert worker.stop(signal.SIGTERM) == os.EX_OK
    assert len(done) == 4 << 20


@pytest.mark.long
def test_warm_shutdown_leaves_late_tasks_to_the_next_worker(start_worker: Starter, key: str) -> None:
    # Without an event loop a worker acknowledges what was done every two seconds.
    worker = start_worker(settings={"worker_prefetch_multiplier": 25})
    sent = [worker.send("leave_trace", key, number, 0.02) for number in range(100)]
    sent[5].get(timeout=30)
    assert worker.stop(signal.SIGTERM) == os.EX_OK
    again = start_worker(after=worker)
    for one in sent:
        one.get(timeout=30)
    assert worker.traces(key) == set(range(100))
    assert again.stop() == os.EX_OK


def test_cold_shutdown_gives_late_tasks_back(start_worker: Starter, key: str) -> None:
    worker = start_worker()
    sent = worker.send("retried", key, 60)
    worker.heard(key)
    worker.await_active(1)
    worker.stop(signal.SIGQUIT)
    again = start_worker(after=worker)
    assert sent.get(timeout=30) == 2
    assert again.stop() == os.EX_OK


@pytest.mark.long
def test_soft_shutdown_lets_short_tasks_finish(start_worker: Starter, key: str) -> None:
    worker = start_worker(settings={"worker_soft_shutdown_timeout": 4})
    sent = worker.send("hold", key, 2)
    worker.heard(key)
    worker.await_active(1)
    worker.stop(signal.SIGQUIT)
    assert sent.get(timeout=30) == "slept"


@pytest.mark.long
def test_processes_end_with_a_killed_worker(start_worker: Starter, key: str) -> None:
    worker = start_worker()
    worker.send("hold", key, 60)
    worker.heard(key)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()


@pytest.mark.long
def test_without_standard_streams(start_worker: Starter, key: str) -> None:
    """As a process manager may start it: descriptors 0 to 2 are free for whatever comes first."""
    worker = start_worker("-f", "worker.log", streams=False)
    assert [worker.run("add", number, 1) for number in range(10)] == list(range(1, 11))
    sent = worker.send("hold", key, 60)
    os.kill(worker.heard(key), signal.SIGKILL)
    with pytest.raises(Exception, match="SIGKILL"):
        sent.get(timeout=30)
    assert worker.run("add", 1, 1) == 2
    assert worker.stop() == os.EX_OK


@pytest.mark.long
@pytest.mark.modes("fair", "native")
def test_detached(start_worker: Starter) -> None:
    worker = start_worker("--detach", "--logfile", "worker.log", "--pidfile", "worker.pid")
    pid = int((worker.log.parent / "worker.pid").read_text())
    session = os.getsid(pid)
    try:
        assert worker.run("add", 1, 1) == 2
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not processes_of(session), "it has ended, and left no process behind")
    finally:
        for left in processes_of(session):
            os.kill(left, signal.SIGKILL)
