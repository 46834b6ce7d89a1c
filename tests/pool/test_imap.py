"""Results one by one, inputs as they are needed."""

import gc
import os
import threading
import time

import pytest
from poolwork import double, fail_if_three, gate, identity, pid

import billiard
from billiard.exceptions import Terminated
from billiard.pool import IMapIterator, IMapUnorderedIterator


class Counting:
    """An endless iterable that counts how far it was taken."""

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


def slow_first(x):
    if x == 0:
        time.sleep(0.2)
    return x


def numbers_then(error, count=3):
    yield from range(count)
    raise error


def exit_if_three(x):
    if x == 3:
        raise SystemExit(x)
    return x


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_ordered_results_come_in_the_order_of_the_inputs(pool, chunksize):
    results = pool.imap(slow_first, range(50), chunksize)
    assert isinstance(results, IMapIterator)
    assert iter(results) is results
    assert list(results) == list(range(50))
    assert list(results) == []
    assert results.ready()


def test_unordered_results_come_as_they_are_ready(pool, tmp_path):
    gates = [str(tmp_path / name) for name in "ab"]
    results = pool.imap_unordered(gate, gates)
    assert isinstance(results, IMapUnorderedIterator)
    pids = []
    for path in reversed(gates):
        open(path, "w").close()
        pids.append(next(results))
    assert len(set(pids)) == 2
    assert [(tmp_path / f"{name}.began").read_text() for name in "ba"] == [str(p) for p in pids]
    with pytest.raises(StopIteration):
        next(results)


def test_next_takes_a_timeout(pool, tmp_path):
    results = pool.imap(gate, [str(tmp_path / "go")])
    for timeout in (0, -1, 0.01):
        with pytest.raises(billiard.TimeoutError):
            results.next(timeout)
        with pytest.raises(billiard.TimeoutError):
            results.next(timeout=timeout)
    (tmp_path / "go").touch()
    assert results.next(timeout=30) in {w.pid for w in pool._pool}
    with pytest.raises(StopIteration):
        results.next(timeout=0)


def test_the_inputs_are_taken_by_another_thread(pool):
    seen = []

    def inputs():
        seen.append(threading.current_thread())
        yield 1

    assert list(pool.imap(double, inputs())) == [2]
    assert seen != [threading.current_thread()]


@pytest.mark.parametrize("kind", ["imap", "imap_unordered"])
@pytest.mark.parametrize("chunksize", [1, 10])
def test_inputs_do_not_run_far_ahead_of_the_consumer(pool, kind, chunksize, until):
    inputs = Counting()
    results = getattr(pool, kind)(identity, inputs, chunksize, buffersize=4)
    for taken in range(100):
        next(results)
        # Four parts on their way, and the part whose results are being handed out.
        assert inputs.taken <= (taken // chunksize + 1 + 4) * chunksize
    until(lambda: inputs.taken >= 100 + 3 * chunksize)
    results = None
    gc.collect()


def test_inputs_are_bounded_without_asking(pool):
    inputs = Counting()
    results = pool.imap(identity, inputs)
    for taken in range(1000):
        next(results)
        assert inputs.taken <= taken + 1 + 16 * 2
    del results


def test_an_abandoned_iterator_stops_taking_inputs(pool, until):
    inputs = Counting()
    results = pool.imap(identity, inputs, buffersize=4)
    assert next(results) == 0
    del results
    until(lambda: not any(t.name == "billiard-feeder" for t in threading.enumerate()), "the feeder ends")
    assert pool.apply(double, (2,)) == 4
    pool.close()
    pool.join()


@pytest.mark.parametrize("chunksize", [1, 2])
@pytest.mark.parametrize("kind", ["imap", "imap_unordered"])
def test_an_exception_of_a_task_is_raised_and_the_iteration_goes_on(pool, kind, chunksize):
    results = getattr(pool, kind)(fail_if_three, range(8), chunksize)
    got, errors = [], []
    while True:
        try:
            got.append(next(results))
        except KeyError as error:
            errors.append(error.args)
        except StopIteration:
            break
    assert errors == [(3,)]
    assert sorted(got) == [x for x in range(8) if x // chunksize != 3 // chunksize]


def test_an_exception_of_a_task_comes_at_its_position(pool):
    results = pool.imap(fail_if_three, range(5))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError) as caught:
        next(results)
    assert "fail_if_three" in str(caught.value.__cause__)
    assert list(results) == [4]


def stop_if_three(x):
    if x == 3:
        raise StopIteration("mine")
    return x


@pytest.mark.parametrize("kind", ["imap", "imap_unordered"])
def test_a_stop_iteration_of_a_task_is_not_the_end(pool, kind):
    results = getattr(pool, kind)(stop_if_three, [3])
    with pytest.raises(RuntimeError, match="the task raised StopIteration") as caught:
        next(results)
    assert caught.value.__cause__.args == ("mine",)
    with pytest.raises(StopIteration) as end:
        next(results)
    assert end.value.args == ()


def test_an_exit_in_a_task_comes_at_its_position(pool):
    results = pool.imap(exit_if_three, range(5))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(SystemExit):
        next(results)
    assert list(results) == [4]


@pytest.mark.parametrize("kind", ["imap", "imap_unordered"])
@pytest.mark.parametrize(
    "error", [ZeroDivisionError("by hand"), KeyboardInterrupt(), SystemExit(3)], ids=repr
)
def test_an_exception_of_the_inputs_comes_after_what_they_gave(pool, kind, error):
    results, got = getattr(pool, kind)(identity, numbers_then(error)), []
    with pytest.raises(type(error)) as caught:
        got.extend(results)
    assert caught.value.args == error.args
    if kind == "imap":
        assert got == [0, 1, 2]
    assert sorted([*got, *results]) == [0, 1, 2]
    assert pool.apply(double, (2,)) == 4


def test_an_exception_of_the_inputs_comes_after_an_incomplete_chunk(pool):
    results = pool.imap(identity, numbers_then(ZeroDivisionError(), 5), chunksize=3)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_what_is_not_iterable_is_refused_at_once(pool):
    for kind in (pool.imap, pool.imap_unordered, pool.map, pool.map_async, pool.starmap):
        with pytest.raises(TypeError):
            kind(double, 3)


def test_an_item_that_cannot_be_sent_fails_at_its_position(pool):
    results = pool.imap(identity, [0, lambda: 0, 2])
    assert next(results) == 0
    with pytest.raises(Exception, match=r"item 1.*lambda"):
        next(results)
    assert list(results) == [2]


def test_a_closed_pool_finishes_its_streams_before_they_are_consumed(make_pool):
    pool = make_pool(2)
    inputs = Counting(1000)
    ordered, unordered = pool.imap(identity, inputs, buffersize=2), pool.imap_unordered(double, range(500))
    pool.close()
    pool.join()
    assert inputs.taken == 1000
    assert list(ordered) == list(range(1000))
    assert sorted(unordered) == [2 * x for x in range(500)]


def test_terminating_ends_an_iteration(pool, tmp_path, until):
    results = pool.imap(gate, [str(tmp_path / "never")])
    until((tmp_path / "never.began").exists)
    pool.terminate()
    with pytest.raises(Terminated):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_terminating_ends_an_iteration_whose_inputs_do_not_come(make_pool):
    pool, inputs = make_pool(1), Blocking(2)
    results = pool.imap(identity, inputs)
    assert [next(results), next(results)] == [0, 1]
    assert inputs.waits.wait(30)
    pool.terminate()
    pool.join()
    with pytest.raises((StopIteration, Terminated)):
        results.next(timeout=60)
    inputs.go.set()


def test_two_streams_share_the_workers(pool):
    streams = [pool.imap(identity, Counting(300), buffersize=3) for _ in range(3)]
    assert [list(row) for row in zip(*streams, strict=True)] == [[i] * 3 for i in range(300)]


def test_iterating_from_several_threads(pool):
    results, got = pool.imap(identity, range(2000)), []

    def take():
        got.extend(results)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(2000))


def test_the_iterator_knows_its_workers(pool, tmp_path, until):
    results = pool.imap(gate, [str(tmp_path / "go")])
    until(results.worker_pids)
    assert set(results.worker_pids()) <= {w.pid for w in pool._pool}
    assert os.getpid() not in results.worker_pids()
    (tmp_path / "go").touch()
    assert next(results) in {w.pid for w in pool._pool}
    assert results._length == 1
    assert pool.apply(pid) != os.getpid()
