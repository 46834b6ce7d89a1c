"""Callbacks of a pool of threads."""

from __future__ import annotations

import os
import threading
import time

import pytest
from threadwork import double, fail, identity

from billiard.einfo import ExceptionInfo
from billiard.exceptions import Terminated
from billiard.pool import ThreadPool


class Abrupt(BaseException):
    pass


def test_a_callback_gets_the_value(pool, until):
    got = []
    for value in (4, None):
        pool.apply_async(identity, (value,), callback=got.append, error_callback=got.append).get()
    until(lambda: len(got) == 2)
    assert got == [4, None]


def test_an_error_callback_gets_an_exception_info(pool, until):
    got = []
    result = pool.apply_async(fail, ("why",), callback=got.append, error_callback=got.append)
    with pytest.raises(ValueError, match="why") as caught:
        result.get()
    until(lambda: got)
    (info,) = got
    assert isinstance(info, ExceptionInfo)
    assert info.type is ValueError
    # It did not have to be wrapped for a journey.
    assert info.exception is caught.value
    assert "in fail" in info.traceback
    assert info is result._value


def test_an_accept_callback_gets_process_and_time(pool, until, gate):
    accepted = []
    before = time.monotonic()
    result = pool.apply_async(gate, accept_callback=lambda *args: accepted.append(args))
    until(lambda: accepted)
    assert not result.ready()
    ((pid, at),) = accepted
    assert pid == os.getpid()
    assert before <= at <= time.monotonic()
    assert at == result._time_accepted


def test_the_order_is_accept_then_result(pool):
    order = []
    for i in range(500):
        pool.apply_async(
            identity,
            (i,),
            accept_callback=lambda *_, i=i: order.append(("accept", i)),
            callback=lambda i: order.append(("done", i)),
        )
    pool.close()
    pool.join()
    assert len(order) == 1000
    for i in range(500):
        assert order.index(("accept", i)) < order.index(("done", i))


def test_callbacks_of_one_thread_come_in_the_order_of_its_jobs(make_pool):
    pool, got = make_pool(1), []
    for i in range(1000):
        pool.apply_async(identity, (i,), callback=got.append)
    pool.close()
    pool.join()
    assert got == list(range(1000))


def test_callbacks_run_one_at_a_time_in_one_thread_that_is_nobody_elses(pool):
    threads, inside, most = set(), [], []
    workers = set(pool._pool)

    def callback(_):
        inside.append(1)
        most.append(len(inside))
        threads.add(threading.current_thread())
        inside.pop()

    for i in range(300):
        pool.apply_async(identity, (i,), callback=callback)
    pool.map_async(identity, range(10), callback=callback)
    pool.close()
    pool.join()
    assert most == [1] * 301
    (thread,) = threads
    assert thread not in {threading.current_thread(), *workers}


def test_map_callbacks_get_the_whole(pool):
    got, errors = [], []
    pool.map_async(double, range(5), callback=got.append, error_callback=errors.append)
    pool.starmap_async(pow, [(2, 3)], callback=got.append, error_callback=errors.append)
    pool.map_async(fail, ["a", "b"], 1, callback=got.append, error_callback=errors.append)
    pool.close()
    pool.join()
    assert sorted(got) == [[0, 2, 4, 6, 8], [8]]
    (info,) = errors
    assert info.type is ValueError


def test_the_result_is_there_before_the_callback(pool, until):
    go, done = threading.Event(), []

    def callback(_):
        assert go.wait(30)
        done.append(1)

    result = pool.apply_async(double, (1,), callback=callback)
    assert result.get(30) == 2
    assert not done
    go.set()
    until(lambda: done)


def test_all_callbacks_have_run_once_when_join_returns(make_pool):
    pool, got = make_pool(2), []
    for i in range(10_000):
        pool.apply_async(identity, (i,), callback=got.append)
    pool.close()
    pool.join()
    assert sorted(got) == list(range(10_000))


def test_jobs_that_are_terminated_call_back_before_terminate_returns(make_pool, gate):
    pool, got = make_pool(1), []
    pool.apply_async(gate, callback=got.append, error_callback=got.append)
    gate.wait_for()
    for i in range(100):
        pool.apply_async(identity, (i,), callback=got.append, error_callback=got.append)
    pool.map_async(identity, range(5), error_callback=got.append)
    pool.terminate()
    assert [info.type for info in got] == [Terminated] * 102
    gate.go.set()
    pool.join()
    assert len(got) == 102


@pytest.mark.parametrize(
    "kind", [ValueError, SystemExit, KeyboardInterrupt, Abrupt, MemoryError], ids=lambda kind: kind.__name__
)
@pytest.mark.parametrize("which", ["callback", "error_callback", "accept_callback"])
def test_the_pool_survives_whatever_a_callback_raises(pool, log, until, which, kind):
    def raising(*_):
        raise kind("cb")

    function = fail if which == "error_callback" else double
    result = pool.apply_async(function, (4,), **{which: raising}, callbacks_propagate=(kind,))
    if function is double:
        assert result.get() == 8
    else:
        with pytest.raises(ValueError, match="4"):
            result.get()
    until(lambda: f"ERROR Pool callback raised exception: {kind('cb')!r}\nTraceback" in log())
    got = []
    assert pool.apply_async(double, (1,), callback=got.append).get() == 2
    until(lambda: got)


def test_a_map_callback_that_raises_is_logged(pool, log, until):
    assert pool.map_async(double, range(3), callback=fail).get() == [0, 2, 4]
    until(lambda: "Pool callback raised exception" in log())
    assert pool.map(double, range(3)) == [0, 2, 4]


def test_a_callback_may_use_the_pool(pool, until):
    got = []

    def callback(value):
        got.append(pool.apply(double, (value,)))
        pool.apply_async(double, (value + 1,), callback=got.append)

    pool.apply_async(identity, (5,), callback=callback)
    until(lambda: len(got) == 2)
    assert got == [10, 12]


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_a_callback_may_end_the_pool(make_pool, end):
    pool, done = make_pool(2), threading.Event()

    def callback(_):
        getattr(pool, end)()
        pool.join()
        done.set()

    pool.apply_async(identity, (5,), callback=callback)
    assert done.wait(30)
    with pytest.raises(ValueError, match="pool is"):
        pool.apply(double, (1,))


def test_hooks_hear_of_every_job(make_pool, until):
    told = []

    class Hooked(ThreadPool):
        def on_job_ready(self, job, i, obj, inqW_fd):
            told.append(("ready", job, i, obj, inqW_fd))

    pool = make_pool(1, kind=Hooked)
    result = pool.apply_async(double, (4,))
    until(lambda: told)
    assert told == [("ready", result._job, None, (True, 8), None)]
    del told[:]
    pool.on_timeout_set = lambda *args: told.append(("set", *args))
    pool.on_timeout_cancel = lambda *args: told.append(("cancel", *args))
    result = pool.map_async(double, range(2), 1)
    until(lambda: len(told) == 4)
    assert told[:3] == [("set", result, None, None)] * 2 + [("cancel", result)]
    assert told[3][3] == (True, [0, 2])
    result = pool.apply_async(fail)
    until(lambda: len(told) == 7)
    assert told[6][3] == (False, result._value)


def test_a_map_that_has_ended_is_not_heard_of_again(make_pool, log):
    pool, told = make_pool(1), []
    pool.on_timeout_set = lambda *args: told.append(args)
    result = pool.map_async(fail, range(10), 1)
    pool.close()
    pool.join()
    assert told == [(result, None, None)]
    assert (result._number_left, log()) == (0, "")


def test_methods_of_a_result_tell_its_callbacks(pool, log):
    told = []
    result = pool.apply_async(double, (1,), timeout_callback=lambda **kwargs: told.append(kwargs))
    result.handle_timeout(soft=True)
    assert told == [{"soft": True, "timeout": None}]
    result.safe_apply_callback(told.append, 3)
    result.safe_apply_callback(None)
    result.safe_apply_callback(fail, "logged")
    assert told[1:] == [3]
    assert "logged" in log()
    result = pool.apply_async(double, (1,), callbacks_propagate=(ValueError,))
    with pytest.raises(ValueError, match="let through"):
        result.safe_apply_callback(fail, "let through")
