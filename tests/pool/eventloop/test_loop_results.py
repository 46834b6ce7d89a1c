"""Results that their owner settles."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

import loopworks
import pytest

import billiard.pool
from billiard.einfo import ExceptionInfo
from billiard.exceptions import Terminated, TimeoutError, WorkerLostError
from billiard.pool import ACK, NACK, ApplyResult, IMapIterator, IMapUnorderedIterator, MapResult, Pool


def failure(error: BaseException) -> tuple[bool, ExceptionInfo]:
    return False, ExceptionInfo((type(error), error, None))


def test_a_result_enters_itself_and_leaves_by_its_outcome() -> None:
    cache: dict[int, object] = {}
    told: list[object] = []
    result = ApplyResult(cache, told.append)
    assert cache == {result._job: result}
    assert (result.ready(), result.accepted(), result.worker_pids()) == (False, False, [])
    assert repr(result) == f"<ApplyResult: {result._job} ack:False ready:False>"
    with pytest.raises(AssertionError, match="ended"):
        result.successful()
    with pytest.raises(TimeoutError):
        result.get(0)
    with pytest.raises(ValueError, match="nan"):
        result.wait(float("nan"))
    result._ack(None, 1.5, 17, None)
    assert (result._time_accepted, result.worker_pids(), result.accepted()) == (1.5, [17], True)
    result._set(None, (True, "value"))
    assert (cache, told, result.get(), result.successful()) == ({}, ["value"], "value", True)
    assert (result._success, result._value) == (True, "value")
    assert repr(result) == f"<ApplyResult: {result._job} ack:True ready:True>"


def test_jobs_are_numbered_upwards() -> None:
    first, second = ApplyResult({}, None), MapResult({}, 1, 1, None, None)
    assert second._job == first._job + 1
    assert next(billiard.pool.job_counter) == second._job + 1


def test_an_outcome_that_comes_before_the_word_that_it_was_begun_stays_until_then() -> None:
    cache: dict[int, object] = {}
    result = ApplyResult(cache, None)
    result._set(None, (True, 1))
    assert cache
    result._ack(None, 1.5, 17, None)
    assert not cache


def test_only_the_first_outcome_counts() -> None:
    told: list[object] = []
    result = ApplyResult({}, told.append, error_callback=told.append)
    result._set(None, (True, 1))
    result._set(None, (True, 2))
    result._set_terminated(-9)
    assert (result.get(), told) == (1, [1])


def test_an_outcome_inside_of_an_outcome_does_not_count() -> None:
    told: list[object] = []
    told_of: list[object] = []

    def on_timeout_cancel(result: ApplyResult) -> None:
        # As a signal handler does that ends the job.
        if told_of.append(result) or len(told_of) == 1:
            result._set(None, (True, "inner"))

    result = ApplyResult({}, told.append, on_timeout_cancel=on_timeout_cancel)
    result._set(None, (True, "outer"))
    assert (result.get(), told) == ("inner", ["inner"])


def test_owners_write_on_results() -> None:
    result = ApplyResult({}, None)
    assert (result._write_to, result._scheduled_for, result._worker_lost) == (None, None, None)
    assert not hasattr(result, "_writer")
    assert not hasattr(result, "_payload")
    result._writer = weakref.ref(result)
    result._payload = (memoryview(b"1234"), memoryview(b"body"), 4)
    result._write_to = result._scheduled_for = object()
    assert weakref.ref(result)() is result
    assert {result: 1}[result] == 1
    result.terminate(15)
    assert result._terminated == 15
    result._cancel()
    assert result._cancelled


def test_a_terminated_job_names_the_signal() -> None:
    told: list[ExceptionInfo] = []
    result = ApplyResult({}, None, error_callback=told.append)
    result._ack(None, 1.0, 17, None)
    result._set_terminated(-15)
    with pytest.raises(Terminated) as caught:
        result.get()
    assert (caught.value.args, caught.value.pid, caught.value.job) == ((15,), 17, result._job)
    assert told[0].type is Terminated


def test_limits_are_told_as_they_were_given() -> None:
    told: list[tuple[bool, object]] = []
    result = ApplyResult(
        {},
        None,
        timeout_callback=lambda soft, timeout: told.append((soft, timeout)),
        soft_timeout=1,
        timeout=2.5,
    )
    result.handle_timeout(soft=True)
    result.handle_timeout()
    assert told == [(True, 1), (False, 2.5)]


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("refused", [False, True])
def test_a_worker_that_waits_is_given_an_answer(cancelled: bool, refused: bool) -> None:
    cache: dict[int, object] = {}
    answers: list[tuple[object, ...]] = []

    def accept(pid: int, at: float) -> None:  # noqa: ARG001
        if refused:
            raise KeyError("refused")

    result = ApplyResult(cache, None, accept_callback=accept, send_ack=lambda *answer: answers.append(answer))
    if cancelled:
        result._cancel()
    result._ack(None, 1.0, 17, 5)
    assert answers == [(NACK if cancelled or refused else ACK, 17, result._job, 5)]
    if cancelled or refused:
        with pytest.raises(Terminated if cancelled else KeyError):
            result.get()
        assert not cache


def test_a_thread_that_waits_is_told() -> None:
    result = ApplyResult({}, None)
    got: list[object] = []
    waiting = threading.Thread(target=lambda: got.append(result.get(30)))
    waiting.start()
    assert result._event.wait(0) is False
    result._set(None, (True, "value"))
    waiting.join(30)
    assert got == ["value"]
    assert result._event.is_set()


def test_a_map_is_put_together() -> None:
    cache: dict[int, object] = {}
    told: list[object] = []
    result = MapResult(cache, 2, 5, told.append, told.append)
    assert (result._number_left, result._length, result._chunksize) == (3, 5, 2)
    for i in range(3):
        result._ack(i, 1.0, 10 + i, None)
    assert result.accepted()
    assert result.worker_pids() == [10, 11, 12]
    assert result._accepted == [True] * 5
    result._set(2, (True, [4]))
    result._set(2, (True, ["again"]))
    result._set(0, (True, [0, 1]))
    assert (result.worker_pids(), result.ready()) == ([11], False)
    result._set(1, (True, [2, 3]))
    assert (result.get(), told, cache) == ([0, 1, 2, 3, 4], [[0, 1, 2, 3, 4]], {})
    assert MapResult(cache, 1, 0, None, None).get() == []


def test_the_first_failure_of_a_map_ends_it() -> None:
    told: list[object] = []
    result = MapResult({}, 1, 2, told.append, told.append)
    result._set(1, failure(KeyError("one")))
    result._set(0, failure(KeyError("zero")))
    with pytest.raises(KeyError, match="one"):
        result.get()
    assert len(told) == 1


@pytest.mark.parametrize("kind", [IMapIterator, IMapUnorderedIterator])
def test_results_one_by_one(kind: Callable[..., IMapIterator]) -> None:
    cache: dict[int, object] = {}
    result = kind(cache)
    result._ack(1, 1.0, 17, None)
    assert result.worker_pids() == [17]
    result._set(1, (True, "one"))
    if kind is IMapIterator:
        with pytest.raises(TimeoutError):
            result.next(0)
    result._set(0, failure(KeyError("zero")))
    result._set_length(3)
    result._set(2, (True, "two"))
    got: list[object] = []
    while not result.ready():
        try:
            got.append(next(result))
        except KeyError:
            got.append(None)
        except StopIteration:
            break
    assert got == ([None, "one", "two"] if kind is IMapIterator else ["one", None, "two"])
    assert (result.ready(), cache, list(result)) == (True, {}, [])


def test_an_error_without_a_place_comes_next() -> None:
    result = IMapIterator({})
    result._set(None, failure(WorkerLostError("gone")))
    with pytest.raises(WorkerLostError, match="gone"):
        result.next(0)


def test_results_of_an_engine_are_results_too(leak_census: None) -> None:  # noqa: ARG001
    with Pool(1) as pool:
        result = pool.apply_async(loopworks.double, (1,))
        mapped = pool.map_async(loopworks.double, [1])
        stream = pool.imap(loopworks.double, [1])
        assert isinstance(result, ApplyResult)
        assert not isinstance(result, MapResult)
        assert isinstance(mapped, MapResult)
        assert isinstance(mapped, ApplyResult)
        assert isinstance(stream, IMapIterator)
        assert issubclass(type(mapped), ApplyResult)
        assert issubclass(MapResult, ApplyResult)
        assert not issubclass(int, ApplyResult)
        assert list(stream) == [2]
        del result, mapped, stream
