"""How a pool of threads begins, and what may go wrong in it."""

from __future__ import annotations

import itertools
import threading

import pytest
from threadwork import double, fail, submissions

from billiard.exceptions import RestartFreqExceeded, Terminated
from billiard.pool import ThreadPool

# --- initializers ---


def test_an_initializer_runs_in_each_thread_before_its_jobs(make_pool, until):
    local, seen = threading.local(), []

    def prepare(*args):
        local.args = args
        seen.append(threading.current_thread())

    pool = make_pool(3, prepare, [1, 2])
    assert pool.map(lambda _: local.args, range(20), 1) == [(1, 2)] * 20
    until(lambda: len(seen) == 3)
    assert set(seen) == set(pool._pool)
    pool.grow()
    pool.close()
    pool.join()
    assert len(seen) == 4


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_an_initializer_that_raises_breaks_the_pool(make_pool, caplog, kind):
    caplog.set_level("CRITICAL")
    go, errors = threading.Event(), []

    def prepare():
        assert go.wait(30)
        raise kind("not today")

    pool = make_pool(2, prepare)
    pending = [pool.apply_async(double, (1,), error_callback=errors.append) for _ in range(10)]
    pending.append(pool.map_async(double, range(10)))
    results = pool.imap(double, range(3))
    go.set()
    for call in [*[result.get for result in pending], lambda: next(results)]:
        with pytest.raises(RestartFreqExceeded) as caught:
            call()
        assert type(caught.value.__cause__) is kind
        assert caught.value.__cause__.args == ("not today",)
    assert list(results) == []
    for submit in [*submissions(pool), pool.maintain_pool]:
        with pytest.raises(RestartFreqExceeded) as caught:
            submit()
        assert caught.value.__cause__.args == ("not today",)
    assert pool._putlock._value == 2
    for change in (pool.grow, pool.shrink):
        with pytest.raises(ValueError, match="pool is broken"):
            change()
    with pytest.raises(AssertionError):
        pool.join()
    pool.close()
    pool.join()
    assert pool._pool == []
    assert [info.type for info in errors] == [RestartFreqExceeded] * 10
    assert "not today" in errors[0].traceback


def test_one_of_the_threads_is_enough_to_break_the_pool(make_pool, caplog, gate):
    caplog.set_level("CRITICAL")
    turns = itertools.count()

    def prepare():
        if next(turns):
            raise LookupError

    pool = make_pool(1, prepare)
    running = pool.apply_async(gate)
    gate.wait_for()
    pool.grow()
    with pytest.raises(RestartFreqExceeded):
        running.get(30)
    pool.terminate()
    with pytest.raises(RestartFreqExceeded):
        pool.apply(double, (1,))


def test_a_broken_pool_is_logged_once(make_pool, log):
    for _ in range(20):
        pool = make_pool(4, fail)
        assert pool._processes == 4
        pool.close()
        pool.join()
    wanted = "ERROR Pool thread could not be initialized: ValueError('no')\nTraceback"
    assert (log().count(wanted), log().count("ERROR")) == (20, 20)


def test_a_pool_that_was_ended_first_is_not_broken_any_more(make_pool, gate):
    def prepare():
        gate()
        raise ValueError

    pool = make_pool(1, prepare)
    result = pool.apply_async(double, (1,))
    gate.wait_for()
    pool.terminate()
    gate.go.set()
    pool.join()
    with pytest.raises(Terminated):
        result.get()
    with pytest.raises(ValueError, match="pool is terminated"):
        pool.apply(double, (1,))


# --- arguments ---


@pytest.mark.parametrize(
    ("args", "error", "text"),
    [
        ((0,), ValueError, "processes must be at least 1"),
        ((-1,), ValueError, "processes must be at least 1"),
        ((True,), TypeError, "processes must be an int"),
        (("2",), TypeError, "processes must be an int"),
        ((2.0,), TypeError, "processes must be an int"),
        ((1, 3), TypeError, "initializer must be a callable"),
        ((1, None, 3), TypeError, "not iterable"),
    ],
)
@pytest.mark.usefixtures("leak_census")
def test_arguments_are_checked(args, error, text):
    with pytest.raises(error, match=text):
        ThreadPool(*args)


@pytest.mark.usefixtures("leak_census")
@pytest.mark.parametrize("which", [1, 2, 4])
def test_a_pool_that_failed_half_way_leaves_nothing(monkeypatch, which):
    start, starts = threading.Thread.start, []

    def refuse(thread):
        starts.append(thread)
        if len(starts) == which:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        ThreadPool(4)
    assert len(starts) == which


@pytest.mark.usefixtures("leak_census")
def test_a_thread_whose_start_was_interrupted_leaves(monkeypatch):
    """A signal handler may raise when the thread runs already."""
    start, threads = threading.Thread.start, []

    def interrupted(thread):
        start(thread)
        threads.append(thread)
        if len(threads) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ThreadPool(4)
    monkeypatch.undo()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
