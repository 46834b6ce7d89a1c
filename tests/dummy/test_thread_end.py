"""The end of a pool of threads, in every order, and what it leaves."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import signal
import threading
import time
import warnings
import weakref

import pytest
from threadwork import Gate, add, double, echo, fail, identity, is_waiting, switches

from billiard import dummy
from billiard.exceptions import RestartFreqExceeded, Terminated
from billiard.pool import CLOSE, RUN, TERMINATE, ThreadPool


def submissions(pool):
    return [
        lambda: pool.apply(double, (1,)),
        lambda: pool.apply_async(double, (1,), waitforslot=True),
        lambda: pool.apply_async(double, 3),
        lambda: pool.map(double, [1]),
        lambda: pool.map(double, []),
        lambda: pool.map_async(double, [1]),
        lambda: pool.starmap(add, [(1, 2)]),
        lambda: pool.imap(double, [1]),
        lambda: pool.imap_unordered(double, [1]),
    ]


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
    before = set(os.listdir("/proc/self/task"))
    for _ in range(50):
        pool = make_pool(3)
        results = pool.imap(double, range(10))
        pool.close()
        pool.join()
        assert not {thread for thread in threading.enumerate() if thread is not threading.main_thread()}
        assert list(results) == [2 * x for x in range(10)]
    assert len(os.listdir("/proc/self/task")) <= len(before) + 4  # the kernel may be a little late


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


class Slow:
    """A queue from which it is a long way back."""

    def __init__(self, queue):
        self._queue = queue
        self.taken, self.go = threading.Event(), threading.Event()

    def __getattr__(self, name):
        return getattr(self._queue, name)

    def get(self):
        item = self._queue.get()
        if item is not None:
            self.taken.set()
            assert self.go.wait(30)
        return item


def test_a_task_that_was_taken_and_not_begun_is_not_run_after_terminate(make_pool, gate, until):
    pool, ran = make_pool(1, gate), []
    gate.wait_for()
    pool._engine.tasks = tasks = Slow(pool._engine.tasks)
    gate.go.set()
    pool.apply_async(ran.append, (1,))
    assert tasks.taken.wait(30)
    terminator = threading.Thread(target=pool.terminate)
    terminator.start()
    until(lambda: pool._engine.phase() == "terminating")
    tasks.go.set()
    terminator.join()
    assert pool._pool == ran == []


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


# --- initializers ---


def test_an_initializer_runs_in_each_thread_before_its_jobs(make_pool):
    local, seen = threading.local(), []

    def prepare(*args):
        local.args = args
        seen.append(threading.current_thread())

    pool = make_pool(3, prepare, [1, 2])
    assert pool.map(lambda _: local.args, range(20), 1) == [(1, 2)] * 20
    assert set(seen) == set(pool._pool)
    assert len(seen) == 3
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


# --- what nobody holds ---


@pytest.mark.usefixtures("leak_census")
@pytest.mark.parametrize("make", [ThreadPool, dummy.Pool])
def test_a_forgotten_pool_is_ended_with_one_warning(make):
    pool = make(2)
    line = test_a_forgotten_pool_is_ended_with_one_warning.__code__.co_firstlineno
    assert pool.map(double, range(10)) == [2 * x for x in range(10)]
    threads = pool._pool
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del pool
        gc.collect()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    (warning,) = [w for w in caught if w.category is ResourceWarning]
    text = str(warning.message)
    assert text.startswith(f"unclosed pool, made at {__file__}:")
    assert int(text.rsplit(":", 1)[1]) - line in range(1, 6)


@pytest.mark.usefixtures("leak_census")
@pytest.mark.parametrize("end", ["close", "terminate"])
def test_a_pool_that_was_ended_is_dropped_without_a_warning(end):
    pool = ThreadPool(2)
    result = pool.apply_async(double, (1,))
    getattr(pool, end)()
    del pool
    gc.collect()
    result.wait(30)
    assert result.ready()


@pytest.mark.usefixtures("leak_census")
@pytest.mark.filterwarnings("ignore:unclosed pool:ResourceWarning")
def test_a_pool_is_kept_for_as_long_as_it_has_work(until):
    pool, gate, called = ThreadPool(1), Gate(), []
    pool.apply_async(gate, ("through",), callback=called.append)
    watch = weakref.ref(pool)
    del pool
    gc.collect()
    gate.wait_for()
    assert watch() is not None
    gate.go.set()
    until(lambda: called)
    until(lambda: watch() is None)


@pytest.mark.usefixtures("leak_census")
@pytest.mark.filterwarnings("ignore:unclosed pool:ResourceWarning")
def test_a_result_does_not_keep_its_pool(until):
    pool = ThreadPool(2)
    kept = [
        pool.apply_async(double, (1,)),
        pool.apply_async(double, (1,), callback=lambda _: None),
        pool.map_async(double, range(100)),
        pool.map_async(double, []),
        pool.imap(double, range(10)),
        pool.imap_unordered(double, range(10)),
    ]
    failed = pool.apply_async(fail)
    with contextlib.suppress(ValueError):
        failed.get()
    watch = weakref.ref(pool)
    del pool
    until(lambda: (gc.collect(), watch() is None)[1])
    assert kept[0].get() == 2
    assert kept[2].get() == [2 * x for x in range(100)]
    assert sorted(kept[5]) == list(kept[4]) == [2 * x for x in range(10)]
    with pytest.raises(ValueError, match="no"):
        failed.get()


def test_a_thread_that_waits_keeps_nothing(make_pool, until):
    class Thing:
        pass

    pool = make_pool(1)
    thing = Thing()
    watch = weakref.ref(thing)
    results = [
        pool.apply_async(identity, (thing,), callback=lambda _: None),
        pool.map_async(identity, [thing], callback=lambda _: None),
    ]
    for result in results:
        assert thing in (result.get(), *(result.get() if isinstance(result.get(), list) else ()))
    assert list(pool.imap(identity, [thing])) == [thing]
    del thing, result, results
    until(lambda: (gc.collect(), watch() is None)[1])


@pytest.mark.usefixtures("leak_census")
def test_pools_that_come_and_go_leave_nothing():
    for n in range(100):
        pool = ThreadPool(3)
        assert pool.map(double, range(4)) == [0, 2, 4, 6]
        if n % 2:
            pool.close()
            pool.join()
        else:
            pool.terminate()


# --- the process ---


def test_a_pool_that_has_nothing_to_do_does_nothing(make_pool, until):
    pool = make_pool(3)
    pool.map(double, range(1000), 1)
    list(pool.imap(double, range(100)))
    pool.apply_async(double, (1,), callback=lambda _: None).get()
    threads = [*pool._pool, pool._worker_handler]

    def at_rest():
        before = [switches(thread) for thread in threads]
        time.sleep(0.2)
        return [switches(thread) for thread in threads] == before

    until(at_rest)
    before = [switches(thread) for thread in threads]
    time.sleep(1)
    assert [switches(thread) for thread in threads] == before


def test_a_program_may_fall_off_its_end(program):
    done = program(
        """
        import threading
        from billiard.pool import ThreadPool

        began = threading.Event()
        def stay():
            began.set()
            threading.Event().wait()

        pool = ThreadPool(2)
        print(pool.map(abs, range(-3, 0)))
        pool.apply_async(stay)
        for _ in range(100):
            pool.apply_async(abs, (1,))
        results = pool.imap(abs, iter(int, 1))
        began.wait()
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[3, 2, 1]\n", "")


def test_ctrl_c_ends_a_program_that_waits(program):
    done = program(
        """
        import os, signal, threading, time
        from billiard.pool import ThreadPool

        def interrupt():
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait()

        with ThreadPool(1) as pool:
            try:
                pool.apply(interrupt)
            except KeyboardInterrupt:
                print("interrupted")
        print("ended")
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\nended\n", "")


def test_a_pool_belongs_to_the_process_that_made_it(make_pool, gate):
    pool = make_pool(1)
    pending, results = pool.apply_async(gate), pool.imap(double, range(3))
    finished = pool.map_async(double, [])
    gate.wait_for()
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Of threads beside a fork: that is what this is about.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        told = []
        try:
            for call in [
                *submissions(pool),
                pending.get,
                lambda: next(results),
                pool.grow,
                pool.shrink,
                pool.close,
            ]:
                try:
                    call()
                except RuntimeError as error:
                    told.append("belongs to the process that made it" in str(error))
            told.append(finished.get() == [])
            pool.terminate()
            try:
                pool.join()
            except RuntimeError:
                told.append("join")
            del pool, results, pending, call
            gc.collect()
        finally:
            os.write(writer, repr(told).encode())
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with open(reader, "rb") as answer:
        assert answer.read().decode() == repr([True] * (len(submissions(pool)) + 6) + ["join"])
    gate.go.set()
    assert list(results) == [0, 2, 4]
    pending.get(30)
