"""How many workers a pool has, how they are renewed, and what others find on a pool."""

import os
import select
import signal

import pytest
from poolwork import double, gate, pid


def test_growing(pool, until):
    assert len(pool._pool) == 2
    pool.grow(2)
    assert pool._processes == 4
    until(lambda: len(pool._pool) == 4)
    assert sorted(worker.index for worker in pool._pool) == [0, 1, 2, 3]
    pool.grow()
    until(lambda: len(pool._pool) == 5)
    pool.grow(0)
    assert pool.map(double, range(20)) == [2 * i for i in range(20)]


def test_shrinking(make_pool, until):
    pool = make_pool(4)
    pool.map(double, range(4), 1)
    pool.shrink(2)
    assert pool._processes == 2
    until(lambda: len(pool._pool) == 2)
    pool.shrink(0)
    assert pool._processes == 2
    assert pool.map(double, range(20)) == [2 * i for i in range(20)]


def test_shrinking_a_busy_pool_does_nothing_and_says_so(make_pool, tmp_path, until):
    pool = make_pool(2)
    results = [pool.apply_async(gate, (str(tmp_path / f"go{i}"), i)) for i in range(2)]
    until(lambda: all((tmp_path / f"go{i}.began").exists() for i in range(2)))
    with pytest.raises(ValueError, match=r"Can't shrink pool\. All processes busy!"):
        pool.shrink()
    assert pool._processes == 2
    for i in range(2):
        (tmp_path / f"go{i}").touch()
    assert [r.get() for r in results] == [0, 1]


def test_restart_replaces_everybody(make_pool, until):
    for allow in (False, True):
        pool = make_pool(2, allow_restart=allow)
        pool.map(double, range(4), 1)
        before = {worker.pid for worker in pool._pool}
        pool.restart()
        until(
            lambda pool=pool, before=before: (
                {w.pid for w in pool._pool}.isdisjoint(before) and len(pool._pool) == 2
            )
        )
        assert pool.map(double, range(20)) == [2 * i for i in range(20)]


def test_restart_lets_running_jobs_finish(make_pool, tmp_path, until):
    pool, go = make_pool(1), tmp_path / "go"
    result = pool.apply_async(gate, (str(go),))
    until((tmp_path / "go.began").exists)
    pool.restart()
    go.touch()
    old = result.get()
    assert pool.apply(pid) != old


def test_did_start_ok_tells_of_exits_once(make_pool, until, caplog):
    caplog.set_level("CRITICAL")
    pool = make_pool(1)
    assert pool.did_start_ok()
    old = pool._pool[0]
    os.kill(old.pid, signal.SIGKILL)
    until(lambda: old not in pool._pool)
    assert not pool.did_start_ok()
    assert pool.did_start_ok()


def test_sentinels_show_the_end(make_pool):
    pool = make_pool(2)
    sentinels = pool.process_sentinels
    assert len(sentinels) == 2
    assert select.select(sentinels, [], [], 0)[0] == []
    pool.close()
    pool.join()


def test_what_others_find_on_a_pool(make_pool):
    pool = make_pool(2, timeout=5)
    assert pool._processes == len(pool._pool) == 2
    assert (pool.timeout, pool.soft_timeout, pool.threads, pool.synack) == (5, None, True, False)
    assert (pool.readers, pool.lost_worker_timeout, pool.max_restarts) == ({}, 10.0, 200)
    assert pool._state == 0
    assert set(pool._poolctrl) == {worker.pid for worker in pool._pool}
    assert pool.cpu_count() >= 1
    assert dict(pool._cache) == {}
    assert pool._taskqueue.empty()
    with pytest.raises(NotImplementedError):
        pool.__reduce__()


def test_the_cache_holds_what_has_not_ended(make_pool, tmp_path, until):
    pool = make_pool(1)
    result = pool.apply_async(gate, (str(tmp_path / "go"),))
    assert pool._cache[result._job] is result
    assert list(pool._cache) == [result._job]
    (tmp_path / "go").touch()
    result.get()
    until(lambda: not pool._cache)


def test_a_pool_without_workers_keeps_its_jobs(make_pool, until):
    pool = make_pool(1)
    pool.apply(double, (1,))
    pool.shrink()
    until(lambda: pool._pool == [])
    mapped, results = pool.map_async(double, range(10)), pool.imap(double, range(10))
    pool.grow()
    assert mapped.get(30) == [2 * i for i in range(10)]
    assert [results.next(30) for _ in range(10)] == [2 * i for i in range(10)]
