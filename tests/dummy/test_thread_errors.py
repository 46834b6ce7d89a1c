"""What tasks on threads raise, and what is refused."""

from __future__ import annotations

import gc
import traceback
import weakref

import pytest
from threadwork import add, double, fail, fail_if_three

from billiard.einfo import ExceptionInfo


class Unshowable(SyntaxError):
    """`traceback` cannot format it."""

    def __init__(self):
        super().__init__("x", ("file", 1, "no column", "text"))


# --- errors ---


def test_the_task_s_own_exception_is_raised(pool):
    error = ValueError("mine")

    def work():
        raise error

    result = pool.apply_async(work)
    for _ in range(3):
        with pytest.raises(ValueError, match="mine") as caught:
            result.get()
        assert caught.value is error
        assert error.__cause__ is None
        # Here, in `get`, where it was raised: as often as one likes.
        assert [frame.name for frame in traceback.extract_tb(caught.tb)] == [
            "test_the_task_s_own_exception_is_raised",
            "get",
            "work",
        ]
    assert result.ready()
    assert not result.successful()


def test_the_value_of_a_failed_job_describes_the_exception(pool):
    result = pool.apply_async(fail, ("why",))
    result.wait()
    info = result._value
    assert isinstance(info, ExceptionInfo)
    assert info.type is ValueError
    assert info.exception.args == ("why",)
    assert "in fail" in info.traceback
    assert "ThreadPool" not in info.traceback
    assert result._success is False


def test_a_cause_stays(pool):
    def work():
        try:
            fail("inner")
        except ValueError as error:
            raise KeyError("outer") from error

    with pytest.raises(KeyError) as caught:
        pool.apply(work)
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, MemoryError])
def test_whatever_a_task_raises_is_delivered_and_the_thread_lives_on(pool, kind):
    threads = set(pool._pool)

    def work(x):
        if x == 1:
            raise kind(x)
        return x

    with pytest.raises(kind) as caught:
        pool.apply_async(work, (1,)).get()
    assert caught.value.args == (1,)
    for chunksize in (1, 3):
        with pytest.raises(kind):
            pool.map(work, range(3), chunksize)
    assert pool.map(double, range(10)) == [2 * x for x in range(10)]
    assert set(pool._pool) == threads


def test_an_exception_that_cannot_be_shown_is_delivered(pool):
    def work():
        raise Unshowable

    result = pool.apply_async(work)
    with pytest.raises(Unshowable):
        result.get(30)
    assert result._value.type is Unshowable
    assert "Unshowable: <cannot be shown: " in result._value.traceback
    assert pool.apply(double, (1,)) == 2


def test_an_exception_that_was_dropped_is_gone_without_a_collection(pool, until):
    class Marked(Exception):
        pass

    def work():
        raise Marked

    class Inputs:
        def __iter__(self):
            return self

        def __next__(self):
            raise Marked

    def use(call):
        try:
            call()
        except Marked as error:
            return weakref.ref(error)

    gc.collect()
    gc.disable()
    try:
        for call in (
            lambda: pool.apply(work),
            lambda: pool.map(lambda _: work(), [1, 2], 1),
            lambda: next(pool.imap(lambda _: work(), [1])),
            lambda: next(pool.imap(double, Inputs())),
        ):
            error = use(call)
            # The thread may still be on its way back from the task.
            until(lambda error=error: error() is None)
    finally:
        gc.enable()


def test_all_chunk_errors_are_errors_of_the_whole(pool):
    with pytest.raises(KeyError):
        pool.map(fail_if_three, range(10), chunksize=2)
    with pytest.raises(TypeError):
        pool.starmap(add, [(1, 2), 3])


# --- limits ---


@pytest.mark.parametrize("limit", [{"timeout": 5}, {"soft_timeout": 0.1}, {"timeout": 1, "soft_timeout": 1}])
def test_a_time_limit_cannot_be_had(pool, limit):
    with pytest.raises(ValueError, match="cannot be enforced on threads"):
        pool.apply_async(double, (1,), waitforslot=True, **limit)
    assert pool._putlock._value == 2
    for name, value in limit.items():
        setattr(pool, name, value)
    for call in (
        lambda: pool.apply(double, (1,)),
        lambda: pool.map(double, [1]),
        lambda: pool.imap(double, [1]),
    ):
        with pytest.raises(ValueError, match=r"(soft_)?timeout=.*cannot be enforced"):
            call()


@pytest.mark.parametrize("none", [None, 0, 0.0])
def test_no_limit_is_none(pool, none):
    result = pool.apply_async(double, (1,), timeout=none, soft_timeout=none, lost_worker_timeout=3)
    assert result.get() == 2
