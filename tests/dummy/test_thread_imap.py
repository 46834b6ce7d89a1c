"""Results one by one, inputs as they are needed, on threads."""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref

import pytest
from threadwork import Gate, double, fail_if_three, identity, is_waiting

import billiard
from billiard.exceptions import Terminated
from billiard.pool import ThreadPool

KINDS = pytest.mark.parametrize("kind", ["imap", "imap_unordered"])


class Counting:
    """An iterable that counts how far it was taken; endless unless told."""

    def __init__(self, end=None):
        self.taken = 0
        self.end = end

    def __iter__(self):
        return self

    def __next__(self):
        if self.taken == self.end:
            raise StopIteration
        self.taken += 1
        return self.taken - 1


class Blocking:
    """An iterable that gives some numbers and then does not come back until it is let go."""

    def __init__(self, numbers):
        self.numbers = numbers
        self.waits = threading.Event()
        self.go = threading.Event()

    def __iter__(self):
        yield from range(self.numbers)
        self.waits.set()
        assert self.go.wait(60)


def numbers_then(error, count=3):
    yield from range(count)
    raise error


def feeders():
    return [thread for thread in threading.enumerate() if thread.name == "billiard-feeder"]


def everything(results):
    """The values and the errors of an iteration."""
    values, errors = [], []
    while True:
        try:
            values.append(results.next(60))
        except StopIteration:
            return values, errors
        except BaseException as error:
            errors.append((type(error), error.args))


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_ordered_results_come_in_the_order_of_the_inputs(make_pool, chunksize, gate):
    pool = make_pool(2)

    def slow_first(x):
        return gate(x) if x == 0 else x

    results = pool.imap(slow_first, range(50), chunksize)
    assert iter(results) is results
    gate.wait_for()
    gate.go.set()
    assert list(results) == list(range(50))
    assert list(results) == []
    assert results.ready()


def test_unordered_results_come_as_they_are_ready(pool):
    go = threading.Event()

    def wait(x):
        if x == "last":
            assert go.wait(60)
        return x

    results = pool.imap_unordered(wait, ["last", "first"])
    assert next(results) == "first"
    with pytest.raises(billiard.TimeoutError):
        results.next(0.01)
    go.set()
    assert next(results) == "last"
    with pytest.raises(StopIteration):
        next(results)


def test_next_takes_a_timeout(pool, gate):
    results = pool.imap(gate, ["through"])
    for timeout in (0, -1, 0.01):
        with pytest.raises(billiard.TimeoutError):
            results.next(timeout)
        with pytest.raises(billiard.TimeoutError):
            results.next(timeout=timeout)
    gate.go.set()
    assert results.next(timeout=30) == "through"
    with pytest.raises(StopIteration):
        results.next(timeout=0)


def test_what_an_iterator_knows(pool, gate):
    results = pool.imap(gate, [1], lost_worker_timeout=3)
    gate.wait_for()
    assert results.worker_pids() == [os.getpid()]
    assert not results.ready()
    assert not results._ready
    assert results._lost_worker_timeout == 3
    assert results._worker_lost is None
    assert isinstance(results._job, int)
    assert list(results._cache) == []
    gate.go.set()
    assert next(results) == 1
    assert results.ready()
    assert results._length == 1
    assert results.worker_pids() == []
    inputs = Blocking(2)
    results = pool.imap(identity, inputs)
    assert inputs.waits.wait(60)
    assert results._length is None
    inputs.go.set()
    assert list(results) == [0, 1]
    assert results._length == 2


def test_the_inputs_are_taken_by_a_thread_of_their_own(pool):
    seen = []

    def inputs():
        seen.append(threading.current_thread())
        yield 1

    assert list(pool.imap(double, inputs())) == [2]
    assert seen[0] not in {threading.current_thread(), *pool._pool}


@KINDS
@pytest.mark.parametrize("chunksize", [1, 10])
def test_inputs_do_not_run_far_ahead_of_the_consumer(pool, kind, chunksize, until):
    inputs = Counting()
    results = getattr(pool, kind)(identity, inputs, chunksize, buffersize=4)
    for taken in range(100):
        next(results)
        # Four parts on their way, and the part whose results are being handed out.
        assert inputs.taken <= (taken // chunksize + 1 + 4) * chunksize
    until(lambda: inputs.taken >= 100 + 3 * chunksize)
    del results


def test_inputs_are_bounded_without_asking(pool):
    inputs = Counting()
    results = pool.imap(identity, inputs)
    for taken in range(1000):
        next(results)
        assert inputs.taken <= taken + 1 + 16 * 2
    del results


@KINDS
def test_an_abandoned_iterator_stops_taking_inputs(make_pool, kind, until):
    pool, inputs = make_pool(2), Counting()
    results = getattr(pool, kind)(identity, inputs, buffersize=4)
    assert next(results) in range(5)
    circle = [results]
    circle.append(circle)
    del results, circle
    gc.collect()
    until(lambda: not feeders(), "the feeder ends")
    assert pool.apply(double, (2,)) == 4
    pool.close()
    pool.join()


@KINDS
def test_an_abandoned_iterator_keeps_no_results(make_pool, kind, gate, until):
    class Thing:
        pass

    pool, other, watches = make_pool(1), Gate(), []

    def make(x):
        if x >= 2:
            (gate if x == 2 else other)()
        thing = Thing()
        watches.append(weakref.ref(thing))
        return thing

    results = getattr(pool, kind)(make, range(4))
    gate.wait_for()
    assert [watch() is None for watch in watches] == [False, False]
    del results
    until(lambda: all(watch() is None for watch in watches))
    gate.go.set()
    other.wait_for()
    until(lambda: len(watches) == 3 and watches[2]() is None)
    other.go.set()


@pytest.mark.parametrize("chunksize", [1, 2])
@KINDS
def test_an_exception_of_a_task_is_raised_and_the_iteration_goes_on(pool, kind, chunksize):
    values, errors = everything(getattr(pool, kind)(fail_if_three, range(8), chunksize))
    assert errors == [(KeyError, (3,))]
    assert sorted(values) == [x for x in range(8) if x // chunksize != 3 // chunksize]


def test_an_exception_of_a_task_comes_at_its_position(pool):
    results = pool.imap(fail_if_three, range(5))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError):
        next(results)
    assert list(results) == [4]


@KINDS
def test_a_stop_iteration_of_a_task_is_not_the_end(pool, kind):
    def stop(x):
        if x == 1:
            raise StopIteration
        return x

    values, errors = everything(getattr(pool, kind)(stop, range(3)))
    assert sorted(values) == [0, 2]
    assert errors == [(RuntimeError, ("the task raised StopIteration",))]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_whatever_a_task_raises_comes_at_its_position(pool, kind):
    def leave(x):
        if x == 1:
            raise kind(x)
        return x

    assert everything(pool.imap(leave, range(3))) == ([0, 2], [(kind, (1,))])


@KINDS
@pytest.mark.parametrize(
    "error", [ZeroDivisionError("by hand"), KeyboardInterrupt(), SystemExit(3)], ids=repr
)
def test_an_exception_of_the_inputs_comes_after_what_they_gave(pool, kind, error):
    results, got = getattr(pool, kind)(identity, numbers_then(error)), []
    with pytest.raises(type(error)) as caught:
        got.extend(results)
    assert caught.value is error
    if kind == "imap":
        assert got == [0, 1, 2]
    assert sorted([*got, *results]) == [0, 1, 2]
    assert results.ready()
    assert pool.apply(double, (2,)) == 4


def test_an_exception_of_the_inputs_comes_after_an_incomplete_chunk(pool):
    results = pool.imap(identity, numbers_then(ZeroDivisionError(), 5), chunksize=3)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_what_is_not_iterable_is_refused_at_once(pool):
    for kind in (pool.imap, pool.imap_unordered):
        with pytest.raises(TypeError):
            kind(double, 3)


@pytest.mark.parametrize("size", [0, -1])
def test_a_buffer_has_room_for_one(pool, size):
    with pytest.raises(ValueError, match="buffersize must be at least 1"):
        pool.imap(double, [1], buffersize=size)
    assert list(pool.imap(double, range(10), buffersize=1)) == [2 * x for x in range(10)]
    assert list(pool.imap(double, range(10), buffersize=sys.maxsize)) == [2 * x for x in range(10)]


def test_a_closed_pool_finishes_its_streams_before_they_are_consumed(make_pool):
    pool = make_pool(2)
    inputs = Counting(1000)
    ordered = pool.imap(identity, inputs, buffersize=2)
    unordered = pool.imap_unordered(double, range(500), 7)
    pool.close()
    pool.join()
    assert feeders() == []
    assert inputs.taken == 1000
    assert list(ordered) == list(range(1000))
    assert sorted(unordered) == [2 * x for x in range(500)]


@KINDS
def test_terminating_ends_an_iteration(pool, kind, gate):
    def wait(x):
        return gate(x) if x else x

    results = getattr(pool, kind)(wait, range(5))
    gate.wait_for(2)
    pool.terminate()
    assert everything(results) == ([0], [(Terminated, (0,))])
    assert results.ready()
    assert everything(results) == ([], [])


@KINDS
@pytest.mark.parametrize("taken", ["before", "after"])
def test_what_comes_after_the_end_is_not_heard_of(make_pool, kind, taken, gate):
    pool = make_pool(1)
    results = getattr(pool, kind)(gate, range(3))
    gate.wait_for()
    pool.terminate()
    if taken == "before":
        assert everything(results) == ([], [(Terminated, (0,))])
    gate.go.set()
    pool.join()
    assert everything(results) == ([], [] if taken == "before" else [(Terminated, (0,))])


def test_terminating_leaves_a_stream_that_is_complete_as_it_is(pool, until):
    results = pool.imap(identity, range(5))
    until(lambda: results._length == 5 and not pool._engine.has_work() and not pool._engine.load()[0])
    pool.terminate()
    pool.join()
    assert list(results) == list(range(5))


def test_an_ordered_iteration_ends_before_the_first_result_that_is_missing(make_pool, gate, until):
    pool, ran = make_pool(2), []

    def wait(x):
        if x == 1:
            gate(x)
        ran.append(x)
        return x

    results = pool.imap(wait, range(4))
    gate.wait_for()
    until(lambda: ran == [0, 2, 3])
    pool.terminate()
    assert everything(results) == ([0], [(Terminated, (0,))])


def test_terminating_ends_an_iteration_whose_inputs_do_not_come(make_pool):
    pool, inputs = make_pool(1), Blocking(2)
    results = pool.imap(identity, inputs)
    assert [next(results), next(results)] == [0, 1]
    assert inputs.waits.wait(60)
    pool.terminate()
    pool.join()
    assert everything(results) == ([], [(Terminated, (0,))])
    inputs.go.set()


@pytest.mark.usefixtures("leak_census")
def test_inputs_that_do_not_come_keep_no_pool_that_was_ended(until):
    pool, inputs = ThreadPool(1), Blocking(0)
    results = pool.imap(identity, inputs)
    assert inputs.waits.wait(60)
    pool.terminate()
    pool.join()
    watch = weakref.ref(pool)
    del pool
    until(lambda: (gc.collect(), watch() is None)[1])
    assert feeders()
    inputs.go.set()
    assert everything(results) == ([], [(Terminated, (0,))])


def test_joining_waits_for_the_thread_that_took_the_inputs(make_pool, monkeypatch, until):
    pool, fed, go = make_pool(1), threading.Event(), threading.Event()
    note_fed = pool._engine.note_fed

    def linger(*args):
        note_fed(*args)
        fed.set()
        assert go.wait(60)

    monkeypatch.setattr(pool._engine, "note_fed", linger)
    results = pool.imap(identity, range(3))
    assert fed.wait(60)
    pool.close()
    joiner = threading.Thread(target=pool.join)
    joiner.start()
    until(lambda: not pool._pool and is_waiting(joiner))
    assert joiner.is_alive()
    go.set()
    joiner.join()
    assert feeders() == []
    assert list(results) == [0, 1, 2]


def test_terminating_wakes_who_waits_for_a_result(make_pool, gate):
    pool, outcome = make_pool(1), []
    results = pool.imap(gate, [1])
    gate.wait_for()
    consumer = threading.Thread(target=lambda: outcome.append(everything(results)))
    consumer.start()
    pool.terminate()
    consumer.join(60)
    assert outcome == [([], [(Terminated, (0,))])]


def test_a_pool_that_is_closed_while_its_inputs_wait_takes_the_rest(make_pool):
    pool, inputs = make_pool(1), Blocking(3)
    results = pool.imap(identity, inputs, chunksize=2)
    assert inputs.waits.wait(60)
    pool.close()
    with pytest.raises(ValueError, match="pool is closed"):
        pool.imap(identity, [])
    inputs.go.set()
    pool.join()
    assert list(results) == [0, 1, 2]


def test_a_feeder_that_cannot_be_started_leaves_nothing(make_pool, monkeypatch):
    pool = make_pool(1)

    def refuse(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            pool.imap(identity, [1])
    pool.close()
    pool.join()


@KINDS
def test_several_streams_share_the_threads(pool, kind):
    streams = [getattr(pool, kind)(identity, Counting(300), buffersize=3) for _ in range(3)]
    rows = list(zip(*streams, strict=True))
    assert [sorted(column) for column in zip(*rows, strict=True)] == [list(range(300))] * 3


@KINDS
def test_iterating_from_several_threads(pool, kind):
    results, got = getattr(pool, kind)(identity, range(2000)), []
    threads = [threading.Thread(target=lambda: got.extend(results)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(2000))
