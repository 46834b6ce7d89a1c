"""Workers in other surroundings: a broker that knows no event loop, and processes that are started afresh."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import celery
import pytest
from celery.exceptions import TimeLimitExceeded, WorkerLostError
from servers import PATIENCE
from workers import Starter, Worker, wait_until


def assert_ends_are_told(worker: Worker, key: str) -> None:
    """A task whose process is killed fails with that, and one that passes its limit with that."""
    lost = worker.send("hold", key, 60)
    os.kill(worker.heard(key), signal.SIGKILL)
    with pytest.raises(WorkerLostError):
        lost.get(timeout=PATIENCE)
    limited = worker.send("hold", key, 60, time_limit=1)
    pid = worker.heard(key)
    with pytest.raises(TimeLimitExceeded):
        limited.get(timeout=PATIENCE)
    # It is told before the process is ended.
    worker.await_gone(pid)


@pytest.mark.modes("fair", "native")
@pytest.mark.better("a process that is killed while it waits keeps the lock that all others need")
def test_broker_without_event_loop(start_worker: Starter, tmp_path: Path, key: str) -> None:
    """What ``filesystem://`` users have: Celery takes its blocking mode by itself."""
    messages, control = tmp_path / "messages", tmp_path / "control"
    messages.mkdir()
    control.mkdir()
    options = {
        "data_folder_in": str(messages),
        "data_folder_out": str(messages),
        "control_folder": str(control),
        "processed_folder": None,
    }
    worker = start_worker(settings={"broker_url": "filesystem://", "broker_transport_options": options})
    sent = [worker.send("add", number, number) for number in range(10)]
    assert [one.get(timeout=PATIENCE) for one in sent] == [2 * number for number in range(10)]

    assert_ends_are_told(worker, key)
    worker.await_size(2)
    idle = worker.children()[0]
    os.kill(idle, signal.SIGKILL)
    worker.await_gone(idle)
    worker.await_size(2)
    assert worker.run("add", 1, 1) == 2
    assert worker.stop() == os.EX_OK


@pytest.mark.modes("fair", "native")
@pytest.mark.skipif(celery.VERSION < (5, 7), reason="Celery starts processes afresh from 5.7 on")
def test_processes_that_are_started_afresh(start_worker: Starter, key: str) -> None:
    worker = start_worker("--max-tasks-per-child", "4", settings={"worker_pool_start_method": "spawn"})
    sent = [worker.send("who") for _ in range(10)]
    assert len({one.get(timeout=PATIENCE) for one in sent}) >= 3

    def afresh(pid: int) -> bool:
        with contextlib.suppress(OSError):
            return b"spawn" in Path(f"/proc/{pid}/cmdline").read_bytes()
        return False  # it has ended meanwhile

    wait_until(lambda: sum(map(afresh, worker.children())) == 2, "both processes were started afresh")

    assert_ends_are_told(worker, key)
    assert worker.run("add", 1, 1) == 2
    assert worker.stop() == os.EX_OK
