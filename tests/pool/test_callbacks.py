"""Callbacks: what they get, when, and what their errors do."""

import io
import logging
import os
import threading
import time

import pytest
from poolwork import double, fail, gate, identity, sleep, spin

import billiard.util
from billiard.einfo import ExceptionInfo
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError


class Abrupt(BaseException):
    pass


@pytest.fixture
def log(caplog):
    """What the package logs, as text: the records would keep the frames, and with them the pool."""
    caplog.set_level(logging.CRITICAL + 1)
    logger, stream = billiard.util.get_logger(), io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    old, logger.level = logger.level, logging.ERROR
    propagate, logger.propagate = logger.propagate, False
    yield stream.getvalue
    logger.removeHandler(handler)
    logger.level, logger.propagate = old, propagate


def test_a_callback_gets_the_value(pool, until):
    got = []
    assert pool.apply_async(double, (4,), callback=got.append, error_callback=got.append).get() == 8
    until(lambda: got)
    assert got == [8]


def test_a_callback_gets_none_too(pool, until):
    got = []
    pool.apply_async(identity, (None,), callback=got.append)
    until(lambda: got)
    assert got == [None]


def test_an_error_callback_gets_an_exception_info(pool, until):
    got = []
    result = pool.apply_async(fail, ("why",), callback=got.append, error_callback=got.append)
    with pytest.raises(ValueError, match="why"):
        result.get()
    until(lambda: got)
    (info,) = got
    assert isinstance(info, ExceptionInfo)
    assert info.type is ValueError
    assert info.exception.args == ("why",)
    assert "in fail" in info.traceback
    assert info.exc_info[0] is ValueError
    assert result._value is info


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ((os._exit, (3,), {}), WorkerLostError),
        ((spin, (), {"timeout": 0.1}), TimeLimitExceeded),
        ((spin, (), {"soft_timeout": 0.1}), SoftTimeLimitExceeded),
    ],
    ids=["lost", "hard", "soft"],
)
def test_an_error_callback_hears_of_every_kind_of_failure(pool, until, call, error):
    (function, args, options), got = call, []
    result = pool.apply_async(function, args, error_callback=got.append, **options)
    with pytest.raises(error):
        result.get()
    until(lambda: got)
    (info,) = got
    assert info.type is error
    assert isinstance(getattr(info.exception, "exc", info.exception), error)


def test_an_accept_callback_gets_process_and_time(pool, until, tmp_path):
    accepted = []
    before = time.monotonic()
    result = pool.apply_async(
        gate, (str(tmp_path / "go"),), accept_callback=lambda *args: accepted.append(args)
    )
    until(lambda: accepted)
    assert result.accepted()
    assert not result.ready()
    ((pid, at),) = accepted
    assert pid in {worker.pid for worker in pool._pool}
    assert before <= at <= time.monotonic()
    assert (result._worker_pid, result.worker_pids()) == (pid, [pid])
    assert result._time_accepted == at
    (tmp_path / "go").touch()
    assert result.get() == pid


def test_the_order_is_accept_then_result(pool):
    order = []
    for i in range(200):
        pool.apply_async(
            identity,
            (i,),
            accept_callback=lambda *_, i=i: order.append(("accept", i)),
            callback=lambda i: order.append(("done", i)),
        )
    pool.close()
    pool.join()
    assert len(order) == 400
    for i in range(200):
        assert order.index(("accept", i)) < order.index(("done", i))


def test_callbacks_run_one_at_a_time_in_one_thread_that_is_not_the_callers(pool):
    threads, inside, most = set(), [], []

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
    assert max(most) == 1
    assert len(most) == 301
    assert len(threads) == 1
    assert threading.current_thread() not in threads


@pytest.mark.parametrize("soft", [True, False])
def test_a_timeout_callback_gets_keywords(pool, soft, until):
    got = []

    def passed(*args, **kwargs):
        got.append((args, kwargs))

    limit = {"soft_timeout" if soft else "timeout": 0.1}
    result = pool.apply_async(spin, timeout_callback=passed, **limit)
    with pytest.raises(SoftTimeLimitExceeded if soft else TimeLimitExceeded):
        result.get()
    until(lambda: got)
    assert got == [((), {"soft": soft, "timeout": 0.1})]


def test_map_callbacks_get_the_whole(pool):
    got, errors = [], []
    pool.map_async(double, range(5), callback=got.append, error_callback=errors.append)
    pool.starmap_async(pow, [(2, 3)], callback=got.append, error_callback=errors.append)
    pool.map_async(fail, ["a"], callback=got.append, error_callback=errors.append)
    pool.close()
    pool.join()
    assert sorted(got) == [[0, 2, 4, 6, 8], [8]]
    (info,) = errors
    assert isinstance(info, ExceptionInfo)
    assert info.type is ValueError


def test_all_callbacks_have_run_once_when_join_returns(make_pool):
    pool, got = make_pool(2), []
    for i in range(10_000):
        pool.apply_async(identity, (i,), callback=got.append)
    pool.close()
    pool.join()
    assert sorted(got) == list(range(10_000))


def test_results_that_nobody_read_are_there_after_join(make_pool):
    pool = make_pool(2)
    results = [pool.apply_async(double, (i,)) for i in range(10_000)]
    pool.close()
    pool.join()
    assert [r.get(0) for r in results] == [2 * i for i in range(10_000)]


@pytest.mark.parametrize(
    "kind", [ValueError, SystemExit, KeyboardInterrupt, Abrupt, MemoryError], ids=lambda kind: kind.__name__
)
@pytest.mark.parametrize("which", ["callback", "error_callback", "accept_callback", "timeout_callback"])
def test_the_pool_survives_whatever_a_callback_raises(pool, log, until, which, kind):
    def raising(*_, **__):
        raise kind("cb")

    function, limits = {"error_callback": (fail, {}), "timeout_callback": (spin, {"timeout": 0.05})}.get(
        which, (double, {})
    )
    result = pool.apply_async(function, (4,) if function is double else (), **{which: raising}, **limits)
    if function is double:
        assert result.get() == 8
    else:
        with pytest.raises((ValueError, TimeLimitExceeded)):
            result.get()
    until(
        lambda: f"ERROR Pool callback raised exception: {kind('cb')!r}\nTraceback" in log(),
        "the error is logged",
    )
    got = []
    assert pool.apply_async(double, (1,), callback=got.append).get() == 2
    until(lambda: got)
    pool.close()
    pool.join()


@pytest.mark.parametrize("kind", [ValueError, SystemExit, Abrupt], ids=lambda kind: kind.__name__)
def test_the_pool_survives_whatever_a_map_callback_raises(pool, log, until, kind):
    def raising(_):
        raise kind("cb")

    assert pool.map_async(double, range(3), callback=raising).get() == [0, 2, 4]
    with pytest.raises(ValueError, match="x"):
        pool.map_async(fail, ["x"], error_callback=raising).get()
    until(lambda: log().count("Traceback") >= 2, "both errors are logged")
    assert pool.map(double, range(3)) == [0, 2, 4]
    assert log().count("ERROR Pool callback raised exception") == 2


def test_callbacks_propagate_is_kept_and_ends_no_process(pool, log, until):
    def raising(_):
        raise KeyError("let through")

    result = pool.apply_async(double, (4,), callback=raising, callbacks_propagate=(KeyError,))
    assert result.get() == 8
    assert result._callbacks_propagate == (KeyError,)
    until(lambda: "let through" in log())
    assert pool.apply(double, (1,)) == 2


def test_a_slow_callback_does_not_delay_the_limits_of_other_jobs(pool, until):
    go, got = threading.Event(), []
    pool.apply_async(identity, (1,), callback=lambda _: go.wait(60))
    result = pool.apply_async(sleep, (60,), timeout=0.1, error_callback=got.append)
    with pytest.raises(TimeLimitExceeded):
        result.get()
    assert pool.map(double, range(10)) == [2 * i for i in range(10)]
    assert not got
    go.set()
    until(lambda: got)


def test_a_callback_may_use_the_pool(pool, until):
    got = []

    def callback(value):
        got.append(pool.apply(double, (value,)))
        pool.apply_async(double, (value + 1,), callback=got.append)

    pool.apply_async(identity, (5,), callback=callback)
    until(lambda: len(got) == 2)
    assert got == [10, 12]


def test_a_callback_may_end_the_pool(make_pool, until):
    pool, done = make_pool(2), []

    def callback(_):
        pool.terminate()
        pool.join()
        done.append(1)

    pool.apply_async(identity, (5,), callback=callback)
    until(lambda: done)
    with pytest.raises(ValueError, match="pool is terminated"):
        pool.apply(double, (1,))
