"""A worker that is told to end by a signal."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import poolwork
import pytest

from billiard.exceptions import Terminated, WorkerLostError
from billiard.pool import Pool


def test_a_task_that_catches_its_end_keeps_its_worker_and_blames_nobody(
    make_pool: Callable[..., Pool], tmp_path: Path, until: Callable[..., None]
) -> None:
    pool = make_pool(1)
    result = pool.apply_async(poolwork.swallow_exit, (tmp_path / "one",))
    until(poolwork.began(tmp_path / "one").exists)
    pid = pool._pool[0].pid
    os.kill(pid, signal.SIGTERM)
    assert result.get() == "stayed"
    with pytest.raises(ValueError, match="no"):
        pool.apply(poolwork.fail)
    assert pool.apply(poolwork.pid) == pid
    # It can still be ended.
    result = pool.apply_async(poolwork.gate, (tmp_path / "two",))
    until(poolwork.began(tmp_path / "two").exists)
    os.kill(pid, signal.SIGTERM)
    with pytest.raises(WorkerLostError) as lost:
        result.get()
    assert lost.value.signal == signal.SIGTERM


def test_a_second_signal_lets_the_cleanup_finish(
    make_pool: Callable[..., Pool], tmp_path: Path, until: Callable[..., None]
) -> None:
    exits = tmp_path / "exits"
    pool = make_pool(1, on_process_exit=lambda *args: exits.write_text(exits.read_text() + f"{args[1]} "))
    exits.write_text("")
    path = tmp_path / "cleanup"
    result = pool.apply_async(poolwork.clean_up_slowly, (path,))
    until(poolwork.began(path).exists)
    pool.terminate_job(pool._pool[0].pid)
    with pytest.raises(Terminated):
        result.get()
    assert path.read_text() == "clean"
    assert exits.read_text().split() == [str(signal.SIGTERM - 256)]


def test_an_idle_worker_that_is_told_to_end_is_replaced(pool: Pool, until: Callable[..., None]) -> None:
    pid = pool.apply(poolwork.pid)
    os.kill(pid, signal.SIGTERM)
    # A task that it claims while the signal is on its way would be lost with it.
    until(lambda: pid not in [worker.pid for worker in pool._pool])
    assert {pool.apply(poolwork.pid) for _ in range(50)} - {pid}
    assert pool.map(poolwork.double, range(20), chunksize=1) == [2 * i for i in range(20)]
