"""The end of a pool of threads, in every order, and what it leaves."""

from __future__ import annotations

import itertools
import threading

import pytest
from threadwork import double, echo, identity, is_waiting, submissions

from billiard.exceptions import Terminated
from billiard.pool import CLOSE, RUN, TERMINATE, ThreadPool


@pytest.mark.parametrize("steps", list(itertools.product(["close", "terminate", "join"], repeat=3)))
@pytest.mark.usefixtures("leak_census")
def test_steps_of_an_end_may_come_in_any_order(steps):
    pool = ThreadPool(2)
    result = pool.apply_async(double, (3,))
    assert result.get() == 6
    ended = False
    for step in steps:
        if step == "join" and not ended:
            with pytest.raises(AssertionError, match="closed or terminated"):
                pool.join()
        else:
            getattr(pool, step)()
            ended = True
    pool.terminate()
    pool.join()
    assert pool._pool == []
    assert result.get() == 6


def test_the_state_follows_the_steps(make_pool):
    pool = make_pool(1)
    assert pool._state == RUN
    pool.close()
    assert pool._state == CLOSE
    pool.terminate()
    assert pool._state == TERMINATE


def test_a_closed_pool_finishes_what_it_accepted(make_pool):
    pool = make_pool(2)
    results = [pool.apply_async(double, (i,)) for i in range(500)]
    mapped = pool.map_async(double, range(500))
    pool.close()
    pool.join()
    assert [result.get(0) for result in results] == mapped.get(0) == [2 * i for i in range(500)]


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_a_pool_that_has_ended_says_so(make_pool, end):
    pool = make_pool(1)
    getattr(pool, end)()
    wanted = "pool is closed" if end == "close" else "pool is terminated"
    for submit in [*submissions(pool), pool.grow, pool.shrink]:
        with pytest.raises(ValueError, match=wanted):
            submit()
    assert pool._putlock._value == 1


def test_no_thread_is_left_when_join_returns(make_pool):
    for _ in range(50):
        pool = make_pool(3)
        results = pool.imap(double, range(10))
        pool.close()
        pool.join()
        assert threading.enumerate() == [threading.main_thread()]
        assert list(results) == [2 * x for x in range(10)]


# --- terminate ---


def test_terminating_ends_every_job_before_it_returns(make_pool, gate):
    pool = make_pool(2)
    running = [pool.apply_async(gate) for _ in range(2)]
    gate.wait_for(2)
    queued = [pool.apply_async(double, (i,)) for i in range(10_000)]
    mapped = pool.map_async(double, range(1000), chunksize=1)
    pool.terminate()
    for result in [*running, *queued, mapped]:
        assert result.ready()
        with pytest.raises(Terminated):
            result.get(0)
    assert [result.accepted() for result in (*running, queued[0], mapped)] == [True, True, False, False]
    assert dict(pool._cache) == {}
    assert pool._taskqueue.empty() or pool._taskqueue.qsize() == 2  # what sends the two home


def test_terminating_does_not_wait_for_a_task_and_joining_does(make_pool, gate):
    pool = make_pool(2)
    result = pool.apply_async(gate, ("nobody hears of it",))
    gate.wait_for()
    pool.terminate()
    (busy,) = pool._pool
    with pytest.raises(Terminated) as caught:
        result.get(0)
    assert caught.value.job == result._job
    joiner = threading.Thread(target=pool.join)
    joiner.start()
    assert joiner.is_alive()
    gate.go.set()
    joiner.join()
    assert not busy.is_alive()
    with pytest.raises(Terminated):
        result.get(0)


def test_terminating_waits_for_the_threads_that_run_no_task(make_pool, monkeypatch, gate, until):
    pool, go = make_pool(3), threading.Event()
    note_left = pool._engine.note_left

    def linger(worker):
        assert go.wait(60)
        note_left(worker)

    monkeypatch.setattr(pool._engine, "note_left", linger)
    pool.apply_async(gate)
    gate.wait_for()
    terminator = threading.Thread(target=pool.terminate)
    terminator.start()
    until(lambda: pool._engine.phase() == "terminating" and is_waiting(terminator))
    assert terminator.is_alive()
    go.set()
    terminator.join(60)
    assert not terminator.is_alive()
    assert len(pool._pool) == 1


def test_nothing_that_was_not_begun_is_run_after_terminate(make_pool, gate):
    pool, ran = make_pool(1), []
    pool.apply_async(gate)
    gate.wait_for()
    pool.map_async(ran.append, range(100), chunksize=1)
    for i in range(100):
        pool.apply_async(ran.append, (i,))
    pool.terminate()
    gate.go.set()
    pool.join()
    assert ran == []


class Observed:
    """A queue that calls what it has been told to with everything that is taken from it."""

    def __init__(self, queue, tell):
        self._queue, self._tell = queue, tell

    def __getattr__(self, name):
        return getattr(self._queue, name)

    def get(self):
        item = self._queue.get()
        self._tell(item)
        return item


def test_a_task_that_was_taken_and_not_begun_is_not_run_after_terminate(make_pool, gate, until):
    pool, ran = make_pool(1, gate), []
    taken, go = threading.Event(), threading.Event()

    def pause(_):
        taken.set()
        assert go.wait(30)

    gate.wait_for()
    pool._engine.tasks = Observed(pool._engine.tasks, pause)
    gate.go.set()
    pool.apply_async(ran.append, (1,))
    assert taken.wait(30)
    terminator = threading.Thread(target=pool.terminate)
    terminator.start()
    until(lambda: pool._engine.phase() == "terminating")
    go.set()
    terminator.join()
    assert pool._pool == ran == []


def test_a_finalizer_may_end_the_pool_on_one_of_its_idle_threads(make_pool, gate):
    pool, ended = make_pool(2, gate), []

    def finalizer(task):
        if task is not None:
            pool.terminate()
            ended.append(threading.current_thread())

    gate.wait_for(2)
    threads = pool._pool
    pool._engine.tasks = Observed(pool._engine.tasks, finalizer)
    gate.go.set()
    result = pool.apply_async(double, (1,))
    with pytest.raises(Terminated):
        result.get(30)
    pool.join()
    assert len(ended) == 1
    assert ended[0] in threads


def test_what_was_finished_before_the_end_stays(make_pool):
    pool = make_pool(2)
    results = [pool.apply_async(double, (i,)) for i in range(100)]
    for result in results:
        result.wait()
    pool.terminate()
    assert [result.get() for result in results] == [2 * i for i in range(100)]


def test_terminating_wakes_who_waits(make_pool, gate, until):
    pool, outcome = make_pool(1), []
    result = pool.apply_async(gate)

    def wait():
        try:
            result.get()
        except Terminated:
            outcome.append("told")

    def submit():
        try:
            pool.apply_async(double, (1,), waitforslot=True)
        except ValueError as error:
            outcome.append(str(error))

    pool._putlock.acquire()
    threads = [threading.Thread(target=call) for call in (wait, submit)]
    for thread in threads:
        thread.start()
        until(lambda thread=thread: is_waiting(thread))
    pool.terminate()
    for thread in threads:
        thread.join(30)
    assert sorted(outcome) == ["pool is terminated", "told"]


@pytest.mark.usefixtures("leak_census")
def test_leaving_the_block_ends_the_pool():
    with pytest.raises(KeyError), ThreadPool(2) as pool:
        raise KeyError
    assert pool._state == TERMINATE
    assert pool._pool == []


def test_a_task_may_end_its_pool_and_may_not_wait_for_it(make_pool):
    pool, told = make_pool(2), []

    def end():
        pool.terminate()
        with pytest.raises(RuntimeError, match="cannot wait for the end of its own pool"):
            pool.join()
        told.append(1)

    with pytest.raises(Terminated):
        pool.apply(end)
    pool.join()
    assert told == [1]


def test_a_task_may_close_its_pool(make_pool):
    pool = make_pool(2)
    assert pool.apply(pool.close) is None
    pool.join()


# --- handlers that come in between ---


class Interposed:
    """A queue that does something just before, or just after, the next task is put."""

    def __init__(self, queue, when, do):
        self._queue, self._when, self._do = queue, when, do

    def __getattr__(self, name):
        return getattr(self._queue, name)

    def put(self, item):
        do, self._do = self._do, lambda: None
        if self._when == "before":
            do()
        self._queue.put(item)
        if self._when == "after":
            do()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("end", ["close", "terminate"])
@pytest.mark.parametrize("submit", ["apply_async", "map_async"])
def test_a_signal_handler_may_end_the_pool_while_a_job_is_being_submitted(make_pool, submit, end, when):
    pool = make_pool(1)
    pool._engine.tasks = Interposed(pool._engine.tasks, when, getattr(pool, end))
    with pytest.raises(ValueError, match="pool is"):
        getattr(pool, submit)(echo, (1, 2))
    assert dict(pool._cache) == {}
    pool.join()


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_a_signal_handler_may_end_the_pool_while_a_stream_is_being_opened(make_pool, monkeypatch, end):
    pool = make_pool(1)
    engine, seen = pool._engine, []

    class Noted(dict):
        def __setitem__(self, number, stream):
            super().__setitem__(number, stream)
            seen.append(number)
            getattr(pool, end)()

    monkeypatch.setattr(engine, "_streams", Noted())
    with pytest.raises(ValueError, match="pool is"):
        pool.imap(identity, [1])
    assert len(seen) == 1
    pool.join()


def test_a_signal_handler_that_interrupted_the_pool_may_not_wait_for_it(make_pool, gate):
    pool = make_pool(1)
    pending, results = pool.apply_async(gate), pool.imap(double, [1])
    finished = pool.map_async(double, [])
    pool.close()
    with pool._engine.lock:
        for wait in (pending.get, pending.wait, results.next, pool.join):
            with pytest.raises(RuntimeError, match="cannot wait for a pool in a signal handler"):
                wait()
        assert finished.get() == []
    gate.go.set()
    assert (pending.get(), list(results)) == (None, [2])


def test_an_interrupted_submission_leaves_nothing(make_pool):
    class Rang(Exception):
        pass

    def ring():
        raise Rang

    pool = make_pool(1)
    pool._engine.tasks = Interposed(pool._engine.tasks, "before", ring)
    with pytest.raises(Rang):
        pool.apply_async(double, (1,), waitforslot=True)
    assert dict(pool._cache) == {}
    assert pool._putlock._value == 1
    assert pool.apply(double, (1,)) == 2
