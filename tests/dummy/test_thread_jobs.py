"""Submitting work to threads and getting it back."""

from __future__ import annotations

import operator
import os
import signal
import threading
import time
import weakref

import pytest
from threadwork import add, double, echo, fail, is_waiting

import billiard
from billiard import dummy
from billiard.pool import Pool, ThreadPool

# --- calls ---


def test_it_is_a_pool_and_can_be_had_in_two_places(make_pool):
    pool = dummy.Pool(2)
    try:
        assert type(pool) is ThreadPool
        assert isinstance(pool, Pool)
        assert (ThreadPool.__module__, ThreadPool.__name__) == ("billiard.pool", "ThreadPool")
        assert len(pool._pool) == pool._processes == 2
        assert all(isinstance(thread, dummy.DummyProcess) for thread in pool._pool)
        assert ThreadPool.Process is ThreadPool.DummyProcess is dummy.DummyProcess
    finally:
        pool.terminate()
    assert make_pool()._processes == billiard.usable_cpu_count()


def test_apply_returns_what_the_function_returns(pool):
    assert pool.apply(double, (21,)) == 42
    assert pool.apply(add, (1, 2), {"c": 3}) == 6
    assert pool.apply(add, [1], {"b": 1}) == 2
    assert pool.apply(echo) == ((), {})
    assert pool.apply(lambda: 1) == 1


def test_the_work_is_done_in_another_thread_of_this_process(pool):
    thread, pid = pool.apply(lambda: (threading.current_thread(), os.getpid()))
    assert thread in pool._pool
    assert thread.daemon
    assert thread.name.startswith("ThreadPoolWorker-")
    assert pid == os.getpid()


def test_everything_is_handed_over_as_it_is(pool):
    thing = threading.Lock()
    (args, kwargs) = pool.apply(echo, (thing,), {"key": thing})
    assert args[0] is kwargs["key"] is thing
    assert pool.map(lambda x: x, [thing, thing]) == [thing, thing]
    assert next(pool.imap(lambda x: x, [thing])) is thing


def test_the_callers_arguments_may_change_after_submitting(pool, gate):
    for _ in pool._pool:
        pool.apply_async(gate)
    gate.wait_for(2)
    args, kwargs, items = [1], {"a": 2}, [3, 4]
    results = [pool.apply_async(echo, args, kwargs), pool.map_async(double, items)]
    args.clear()
    kwargs.clear()
    items.clear()
    gate.go.set()
    assert [result.get() for result in results] == [((1,), {"a": 2}), [6, 8]]


@pytest.mark.parametrize(("args", "kwds"), [(3, {}), ((), 3), (None, {}), ((), None)])
def test_arguments_that_are_none_are_refused_at_once(pool, args, kwds):
    with pytest.raises(TypeError):
        pool.apply_async(echo, args, kwds, waitforslot=True)
    assert pool._putlock._value == 2
    assert pool.apply(double, (1,)) == 2


def test_what_cannot_be_called_fails_its_own_job(pool):
    with pytest.raises(TypeError, match="not callable"):
        pool.apply(3)
    assert pool.apply(double, (1,)) == 2


def test_a_handle_before_its_result(pool, gate):
    result = pool.apply_async(gate, ("through",), correlation_id=1)
    gate.wait_for()
    assert not result.ready()
    with pytest.raises(AssertionError, match="has not ended"):
        result.successful()
    for timeout in (0, -1, 0.01, float("-inf")):
        with pytest.raises(billiard.TimeoutError):
            result.get(timeout=timeout)
        assert result.wait(timeout) is None
    assert result.accepted()
    assert result.worker_pids() == [os.getpid()]
    assert (result._success, result._value) == (None, None)
    assert repr(result) == f"<ThreadResult: {result._job} ack:True ready:False>"
    assert pool._cache[result._job] is result
    gate.go.set()
    assert result.get(float("inf")) == "through"


def test_a_handle_after_its_result(pool):
    before = time.monotonic()
    result = pool.apply_async(double, (4,), correlation_id="mine", callbacks_propagate=(KeyError,))
    assert result.get(timeout=30) == result.get() == 8
    assert result.ready()
    assert result.successful()
    assert result.accepted()
    assert result._accepted
    assert result.wait() is None
    assert result.worker_pids() == [result._worker_pid] == [os.getpid()]
    assert before <= result._time_accepted <= time.monotonic()
    assert (result.correlation_id, result._callbacks_propagate) == ("mine", (KeyError,))
    assert (result._success, result._value) == (True, 8)
    assert repr(result) == f"<ThreadResult: {result._job} ack:True ready:True>"
    assert dict(pool._cache) == {}


def test_a_handle_in_the_queue_is_not_accepted(make_pool, gate):
    pool = make_pool(1)
    pool.apply_async(gate)
    gate.wait_for()
    result = pool.apply_async(double, (1,))
    assert not result.accepted()
    assert (result.worker_pids(), result._worker_pid, result._time_accepted) == ([], None, None)
    assert pool._taskqueue.qsize() == 1
    assert not pool._taskqueue.empty()
    gate.go.set()
    assert result.get() == 2
    assert pool._taskqueue.empty()


@pytest.mark.parametrize("timeout", [None, 60, 1e300, float("inf")])
def test_waits_may_be_as_long_as_one_likes(pool, timeout):
    assert pool.apply_async(double, (1,)).get(timeout) == 2
    result = pool.apply_async(time.sleep, (0.01,))
    result.wait(timeout)
    assert result.ready()
    assert pool.imap(double, [1]).next(timeout) == 2


def test_nan_is_no_time(pool):
    for call in (pool.apply_async(double, (1,)).get, pool.imap(double, [1]).next):
        with pytest.raises(ValueError, match="not nan"):
            call(float("nan"))


def test_a_timeout_is_a_number(pool, gate):
    result = pool.apply_async(gate)
    for wait in (result.get, result.wait, pool.imap(gate, [1]).next):
        with pytest.raises(TypeError):
            wait("soon")


def test_a_handle_takes_attributes_and_weak_references(pool):
    result = pool.apply_async(double, (4,))
    result._writer = "anything"
    assert weakref.ref(result)() is result
    assert result._worker_lost is result._write_to is result._scheduled_for is None
    assert result._timeout is result._soft_timeout is result._lost_worker_timeout is None
    assert result._terminated is None
    result.terminate(15)
    assert result._terminated == 15
    assert result.get() == 8


def test_a_discarded_job_runs_and_is_not_known_any_more(make_pool, gate):
    pool = make_pool(1)
    result = pool.apply_async(gate, (3,))
    gate.wait_for()
    result.discard()
    result.discard()
    assert dict(pool._cache) == {}
    gate.go.set()
    pool.close()
    pool.join()
    assert result.get(0) == 3


def test_job_numbers_rise_over_all_pools(make_pool):
    numbers = [make_pool(1).apply_async(double, (1,))._job for _ in range(3)]
    assert numbers == sorted(set(numbers))


def test_all_kinds_of_functions(pool):
    assert pool.apply(operator.itemgetter(1), ("ab",)) == "b"
    assert pool.apply("abc".upper) == "ABC"
    assert pool.apply(int, ("12",)) == 12
    assert pool.map([1, 2].index, [2, 1]) == [1, 0]


# --- maps ---


def test_map_keeps_the_order(pool):
    assert pool.map(double, range(1000)) == [2 * x for x in range(1000)]
    assert pool.map(double, iter(range(10))) == [2 * x for x in range(10)]
    assert pool.starmap(add, [(1, 2), [3, 4], (5,)]) == [3, 7, 5]
    assert pool.starmap(pow, ((x, 2) for x in range(5))) == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("chunksize", [1, 2, 3, 7, 50, 100, 101, 5000])
def test_chunks_change_nothing_in_the_result(pool, chunksize):
    assert pool.map(double, list(range(100)), chunksize) == [2 * x for x in range(100)]
    assert pool.starmap(add, [(x, x) for x in range(100)], chunksize=chunksize) == [2 * x for x in range(100)]
    assert list(pool.imap(double, range(100), chunksize)) == [2 * x for x in range(100)]
    assert sorted(pool.imap_unordered(double, range(100), chunksize)) == [2 * x for x in range(100)]


def test_a_map_gives_a_handle(pool):
    result = pool.map_async(double, range(10), chunksize=3)
    assert result.get(30) == [2 * x for x in range(10)]
    assert (result._chunksize, result._length, result._number_left) == (3, 10, 0)
    assert result.accepted()
    assert result.worker_pids() == [os.getpid()]
    assert repr(result) == f"<ThreadMapResult: {result._job} ack:True ready:True>"


def test_a_map_is_accepted_when_all_of_it_is(make_pool, gate):
    pool = make_pool(2)
    result = pool.map_async(gate, range(3), chunksize=1)
    gate.wait_for(2)
    assert not result.accepted()
    assert result.worker_pids() == [os.getpid()]
    assert result._number_left == 3
    gate.go.set()
    assert result.get() == [0, 1, 2]
    assert result.accepted()


def test_the_default_chunks_are_four_per_thread(pool):
    assert pool.map_async(double, range(80))._chunksize == 10
    assert pool.map_async(double, range(81))._chunksize == 11
    assert pool.map_async(double, range(3))._chunksize == 1


def test_nothing_to_do_is_done_at_once(pool):
    called = []
    result = pool.map_async(double, [], callback=called.append)
    assert result.ready()
    assert result.successful()
    assert not result.accepted()
    assert (result.get(), result._number_left) == ([], 0)
    assert pool.map(double, []) == pool.starmap(add, []) == []
    assert list(pool.imap(double, [])) == list(pool.imap_unordered(double, [])) == []
    assert pool.apply(double, (1,)) == 2
    assert called == []


def test_the_first_failing_chunk_ends_a_map_and_the_others_run_all_the_same(make_pool, gate):
    pool, ran = make_pool(1), []

    def work(x):
        if x == 1:
            raise KeyError(x)
        if x == 2:
            gate()
        ran.append(x)

    result = pool.map_async(work, range(5), chunksize=1)
    with pytest.raises(KeyError):
        result.get()
    assert not result.successful()
    assert result._number_left > 0
    gate.go.set()
    pool.close()
    pool.join()
    assert ran == [0, 2, 3, 4]
    assert result._number_left == 0
    with pytest.raises(KeyError):
        result.get()


@pytest.mark.parametrize("chunksize", [0, -1])
def test_chunks_are_not_too_small(pool, chunksize):
    for call in (pool.map, pool.map_async, pool.starmap, pool.imap, pool.imap_unordered):
        with pytest.raises(ValueError, match="chunksize must be at least 1"):
            call(double, [1], chunksize)
        with pytest.raises(TypeError, match="chunksize must be an int"):
            call(double, [1], True)
    with pytest.raises(TypeError):
        pool.map(double, 3)


# --- slots ---


def test_a_slot_is_held_until_the_job_has_ended(make_pool, gate, until):
    pool = make_pool(2)
    for _ in range(2):
        pool.apply_async(gate, waitforslot=True)
    gate.wait_for(2)
    assert pool._putlock._value == 0
    third = threading.Thread(target=lambda: pool.apply_async(double, (1,), waitforslot=True).get())
    third.start()
    until(lambda: is_waiting(third))
    assert pool._taskqueue.qsize() == 0
    gate.go.set()
    third.join()
    until(lambda: pool._putlock._value == 2)


def test_put_locks_are_the_default_for_slots(make_pool, gate, until):
    pool = make_pool(1)
    pool.putlocks = True
    pool.apply_async(gate)
    assert pool._putlock._value == 0
    gate.go.set()
    until(lambda: pool._putlock._value == 1)
    with pytest.raises(ValueError, match="no"):
        pool.apply(fail)
    until(lambda: pool._putlock._value == 1)


# --- signals ---


class Rang(Exception):
    pass


def ring(*_):
    raise Rang


@pytest.mark.parametrize("what", ["get", "wait", "next", "apply", "slot", "join"])
def test_every_wait_of_the_main_thread_can_be_interrupted(make_pool, gate, until, what):
    pool = make_pool(1)
    pool.apply_async(gate, ("first",), waitforslot=True)
    gate.wait_for()
    result, results = pool.apply_async(gate, ("last",)), pool.imap(gate, ["next"])
    if what == "join":
        pool.close()
    call = {
        "get": result.get,
        "wait": result.wait,
        "next": results.next,
        "apply": lambda: pool.apply(double, (1,)),
        "slot": lambda: pool.apply_async(double, (1,), waitforslot=True),
        "join": pool.join,
    }[what]
    may_ring = threading.Event()

    def ring_when_waiting():
        assert may_ring.wait(30)
        until(lambda: is_waiting(threading.main_thread()))
        os.kill(os.getpid(), signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, ring)
    try:
        ringer = threading.Thread(target=ring_when_waiting)
        ringer.start()
        with pytest.raises(Rang):  # noqa: PT012 - it may ring as soon as it may
            may_ring.set()
            call()
        ringer.join()
    finally:
        signal.signal(signal.SIGUSR2, before)
    gate.go.set()
    assert (result.get(), results.next()) == ("last", "next")


# --- many ---


def test_thousands_of_jobs(make_pool):
    pool = make_pool(4)
    results = [pool.apply_async(double, (i,)) for i in range(10_000)]
    maps = [pool.map_async(double, range(1000), chunksize=1) for _ in range(5)]
    assert [result.get() for result in results] == [2 * i for i in range(10_000)]
    assert all(result.get() == [2 * i for i in range(1000)] for result in maps)
    assert dict(pool._cache) == {}


def test_threads_share_a_pool(pool):
    sums = []

    def submit(start):
        jobs = [pool.apply_async(double, (start + i,)) for i in range(300)]
        sums.append(sum(job.get() for job in jobs))

    threads = [threading.Thread(target=submit, args=(1000 * n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sums) == sorted(sum(2 * (1000 * n + i) for i in range(300)) for n in range(6))


def test_a_task_may_use_the_pool(pool):
    assert pool.apply(lambda: pool.apply(double, (3,))) == 6
    assert pool.apply(lambda: pool.map(double, range(5))) == [0, 2, 4, 6, 8]


def test_a_process_may_have_both_kinds_of_pools(pool, make_pool):
    processes = make_pool(1, kind=Pool)
    assert pool.map(lambda x: processes.apply(abs, (x,)), range(-5, 0)) == [5, 4, 3, 2, 1]


# --- the standard library's ---

SAME = """
import sys, threading
from {} import ThreadPool

def double(x): return 2 * x
def fail_if_three(x):
    if x == 3: raise KeyError(x)
    return x
def tried(call, *args):
    try: return call(*args)
    except BaseException as error: return type(error).__name__, error.args
def show(*values): print(*values, flush=True)

local, told = threading.local(), []
def prepare(*args): local.args = args
pool = ThreadPool(2, prepare, (1, 2))
show(pool.apply(double, (4,)), pool.apply(dict, (), dict(a=1)), pool.apply(lambda: local.args))
show(pool.map(double, range(20)), pool.map(double, range(7), 3), pool.map(double, []))
show(pool.starmap(pow, [(2, 3), (3, 2)]), pool.map_async(double, iter(range(4))).get())
show(list(pool.imap(double, range(9))), list(pool.imap(double, range(9), 4)))
show(sorted(pool.imap_unordered(double, range(9), 2)))
show(tried(pool.apply, fail_if_three, (3,)), tried(pool.map, fail_if_three, range(5)))
results, got = pool.imap(fail_if_three, range(5)), []
while True:
    try: got.append(next(results))
    except KeyError as error: got.append(error.args)
    except StopIteration: break
show(got)
thing, go = object(), threading.Event()
show(pool.apply(lambda x: x is thing, (thing,)))
result = pool.apply_async(go.wait)
show(result.ready(), tried(result.get, 0.01), tried(pool.imap(go.wait, [None]).next, 0.01))
go.set()
show(result.get(), result.ready(), result.successful(), result.wait())
pool.close()
show(tried(pool.apply, double, (1,))[0], tried(pool.map, double, [1])[0], tried(pool.imap, double, [1])[0])
pool.join()
pool = ThreadPool(1)
for number in range(5): pool.apply_async(double, (number,), callback=told.append)
pool.map_async(double, range(3), callback=told.append)
pool.close()
pool.join()
show(told)
with ThreadPool(1) as pool: show(pool.apply(double, (1,)))
show(tried(pool.apply, double, (1,))[0])
"""


def test_it_does_what_the_standard_library_s_does(program):
    ours, theirs = (
        program(SAME.replace("{}", module)) for module in ("billiard.pool", "multiprocessing.pool")
    )
    assert ours.stderr == theirs.stderr == ""
    assert ours.stdout == theirs.stdout
