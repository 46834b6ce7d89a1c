"""Pools of threads that grow and shrink, and what others find on them."""

from __future__ import annotations

import threading

import pytest
from threadwork import double, is_waiting

from billiard.pool import ThreadPool


def test_growing(make_pool, gate):
    grown = []

    class Hooked(ThreadPool):
        def on_grow(self, n):
            grown.append(n)

        def on_shrink(self, n):
            grown.append(-n)

    pool = make_pool(1, kind=Hooked)
    pool.grow(2)
    pool.grow()
    pool.grow(0)
    assert (pool._processes, len(pool._pool), pool._putlock._initial_value) == (4, 4, 4)
    results = [pool.apply_async(gate, (i,)) for i in range(4)]
    gate.wait_for(4)
    gate.go.set()
    assert [result.get() for result in results] == [0, 1, 2, 3]
    assert len({thread.name for thread in pool._pool}) == 4
    pool.shrink(2)
    assert grown == [2, 1, 0, -1, -1]


def test_shrinking(make_pool, until):
    pool = make_pool(4)
    threads = pool._pool
    pool.map(double, range(4), 1)
    until(lambda: not pool._engine.load()[0])
    pool.shrink(2)
    assert (pool._processes, pool._putlock._initial_value) == (2, 2)
    until(lambda: len(pool._pool) == 2)
    until(lambda: sum(thread.is_alive() for thread in threads) == 2)
    pool.shrink(0)
    assert pool.map(double, range(20)) == [2 * i for i in range(20)]
    assert set(pool._pool) < set(threads)


def test_a_new_pool_can_be_shrunk_at_once(make_pool):
    pool = make_pool(3)
    pool.shrink(2)
    assert pool._processes == 1
    with pytest.raises(ValueError, match="Can't shrink"):
        pool.shrink(2)


def test_threads_that_are_on_their_way_out_are_not_sent_again(make_pool, monkeypatch, until):
    pool, go = make_pool(3), threading.Event()
    note_left = pool._engine.note_left

    def linger(worker):
        assert go.wait(60)
        note_left(worker)

    monkeypatch.setattr(pool._engine, "note_left", linger)
    pool.shrink(2)
    until(pool._taskqueue.empty)
    assert len(pool._pool) == 3
    with pytest.raises(ValueError, match="Can't shrink"):
        pool.shrink(2)
    pool.shrink()
    with pytest.raises(ValueError, match="Can't shrink"):
        pool.shrink()
    go.set()
    until(lambda: pool._pool == [])


@pytest.mark.parametrize("busy", [1, 2])
def test_shrinking_a_busy_pool_does_nothing_and_says_so(pool, gate, busy):
    results = [pool.apply_async(gate, (i,)) for i in range(busy)]
    gate.wait_for(busy)
    with pytest.raises(ValueError, match=r"Can't shrink pool\. All processes busy!"):
        pool.shrink(3 - busy)
    assert (pool._processes, len(pool._pool), pool._putlock._initial_value) == (2, 2, 2)
    gate.go.set()
    assert [result.get() for result in results] == list(range(busy))


def test_threads_that_are_being_prepared_are_busy(make_pool, gate):
    pool = make_pool(2, gate)
    gate.wait_for(2)
    with pytest.raises(ValueError, match="busy"):
        pool.shrink()
    gate.go.set()


def test_tasks_that_wait_count_as_work(make_pool, gate):
    pool = make_pool(2)
    for _ in range(3):
        pool.apply_async(gate)
    gate.wait_for(2)
    with pytest.raises(ValueError, match="busy"):
        pool.shrink()
    gate.go.set()


@pytest.mark.parametrize("kind", ["apply_async", "map_async", "imap"])
@pytest.mark.parametrize("then", ["grow", "close"])
def test_a_pool_without_threads_keeps_its_jobs(make_pool, until, kind, then):
    pool = make_pool(2)
    pool.shrink(2)
    until(lambda: pool._pool == [])
    if kind == "apply_async":
        result = pool.apply_async(double, (1,))
    elif kind == "map_async":
        result = pool.map_async(double, range(10))
        assert result._chunksize == 3
    else:
        result = pool.imap(double, range(10))
    if then == "grow":
        pool.grow()
    else:
        pool.close()
        pool.join()
    if kind == "imap":
        assert list(result) == [2 * x for x in range(10)]
    else:
        assert result.get(30) == (2 if kind == "apply_async" else [2 * x for x in range(10)])


def test_a_pool_that_is_losing_its_last_thread_finishes_its_jobs(make_pool):
    pool = make_pool(1)
    pool.shrink()
    results = [pool.apply_async(double, (i,)) for i in range(100)]
    pool.close()
    pool.join()
    assert [result.get(0) for result in results] == [2 * i for i in range(100)]


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_a_pool_without_threads_can_be_ended(make_pool, until, end):
    pool = make_pool(1)
    pool.shrink()
    until(lambda: pool._pool == [])
    getattr(pool, end)()
    pool.join()


@pytest.mark.parametrize("method", ["grow", "shrink"])
def test_sizes_are_checked(pool, method):
    for wrong, error in ((-1, ValueError), (True, TypeError), (1.0, TypeError), ("1", TypeError)):
        with pytest.raises(error, match="n must be"):
            getattr(pool, method)(wrong)
    assert pool._processes == 2


def test_a_pool_that_cannot_grow_is_as_large_as_it_says(make_pool, monkeypatch):
    pool, start, starts = make_pool(1), threading.Thread.start, []

    def refuse(thread):
        starts.append(thread)
        if len(starts) == 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            pool.grow(3)
    assert (pool._processes, len(pool._pool), pool._putlock._initial_value) == (2, 2, 2)
    assert pool.map(double, range(10)) == [2 * x for x in range(10)]


def test_a_subclass_may_choose_the_threads(make_pool):
    class Named(threading.Thread):
        pass

    class Pool(ThreadPool):
        Process = Named

    pool = make_pool(2, kind=Pool)
    assert {type(thread) for thread in pool._pool} == {Named}
    assert pool.apply(threading.current_thread) in pool._pool


def test_single_threads_cannot_be_ended_or_replaced(pool):
    with pytest.raises(NotImplementedError, match="share the state"):
        pool.restart()
    for pid in (1, None):
        with pytest.raises(NotImplementedError, match="nothing can stop a thread"):
            pool.terminate_job(pid)
    assert pool.apply(double, (1,)) == 2


def test_what_others_find_on_a_pool(make_pool, gate, until):
    pool = make_pool(2)
    assert (pool.timeout, pool.soft_timeout, pool.threads, pool.synack) == (None, None, True, False)
    assert (pool.readers, pool.lost_worker_timeout, pool.putlocks) == ({}, 10.0, False)
    assert (pool._inqueue, pool._outqueue, pool.process_sentinels) == (None, None, [])
    assert pool.cpu_count() >= 1
    assert pool.did_start_ok()
    assert pool.maintain_pool() is None
    with pytest.raises(NotImplementedError):
        pool.__reduce__()
    results = [pool.apply_async(gate) for _ in range(3)]
    gate.wait_for(2)
    assert list(pool._cache) == [result._job for result in results]
    assert pool._engine.load() == (3, 1)
    assert pool._taskqueue.qsize() == 1
    gate.go.set()
    pool.map(double, range(4))
    until(lambda: all(is_waiting(thread) for thread in pool._pool))
    assert pool._engine.load() == (0, 0)
