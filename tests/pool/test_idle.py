"""A pool that has nothing to do does nothing."""

from __future__ import annotations

import os
import signal
import threading
import time

import chaosworks as works
import poolwork
import pytest

from billiard import forkserver

#: How long a pool is watched while it is idle.
WATCHED = 2.0
#: How long nothing may move before we believe that the work is over.
REST = 0.2


def census(pids):
    """What every thread of some processes has done, but for the one that asks."""
    me = str(threading.get_native_id())
    return {who: did for pid in pids for who, did in works.switches(pid).items() if who[1] != me}


def assert_nobody_moves(pids, until):
    def at_rest():
        before = census(pids)
        time.sleep(REST)
        return census(pids) == before

    until(at_rest, "the pool comes to rest")
    before = census(pids)
    time.sleep(WATCHED)
    after = census(pids)
    moved = {who: (before.get(who), did) for who, did in after.items() if before.get(who) != did}
    assert not moved, f"woke up, or used the processor: {moved}"


@pytest.mark.parametrize(
    ("method", "processes"), [("fork", 1), ("fork", 3), ("forkserver", 2), ("spawn", 2)], indirect=["method"]
)
def test_nobody_wakes_up(start, until, processes):
    """The fork server, which is there for all of them, included."""
    pool = start(processes)
    assert pool.map(poolwork.double, range(1000)) == [2 * x for x in range(1000)]
    assert pool.apply(works.echo_bytes, (1 << 20,)) == b"x" * (1 << 20)
    assert list(pool.imap(poolwork.double, range(100))) == [2 * x for x in range(100)]
    server = forkserver._forkserver._child.pid
    assert_nobody_moves([os.getpid(), server, *works.worker_pids(pool)], until)


def test_nobody_wakes_up_while_threads_wait_for_a_long_task(make_pool, until, tmp_path):
    pool = make_pool(2)
    pool.map(poolwork.double, range(100))
    path = tmp_path / "gate"
    gated = pool.apply_async(poolwork.gate, (str(path),))
    until(lambda: poolwork.began(path).exists() and poolwork.began(path).read_text())
    busy = int(poolwork.began(path).read_text())
    waiters = [threading.Thread(target=gated.wait) for _ in range(2)]
    for waiter in waiters:
        waiter.start()
    try:
        assert_nobody_moves([os.getpid(), *(pid for pid in works.worker_pids(pool) if pid != busy)], until)
    finally:
        path.touch()
        for waiter in waiters:
            waiter.join()


def test_a_stopped_worker_costs_nothing(make_pool, until):
    """Neither is it waited for busily, nor does its silence make anybody look again and again."""
    pool = make_pool(2)
    pool.map(poolwork.double, range(100))
    stopped = works.worker_pids(pool)[0]
    os.kill(stopped, signal.SIGSTOP)
    try:
        until(lambda: works.is_stopped(stopped))
        assert pool.map(poolwork.double, range(100)) == [2 * x for x in range(100)]
        assert_nobody_moves([os.getpid()], until)
    finally:
        os.kill(stopped, signal.SIGCONT)
