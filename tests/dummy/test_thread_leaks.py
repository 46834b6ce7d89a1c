"""What pools of threads keep, and what they leave to the process."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
import warnings
import weakref

import pytest
from threadwork import Gate, double, fail, identity, submissions, switches

from billiard import dummy
from billiard.pool import ThreadPool

# --- what nobody holds ---


@pytest.mark.usefixtures("leak_census")
@pytest.mark.parametrize("make", [ThreadPool, dummy.Pool])
def test_a_forgotten_pool_is_ended_with_one_warning(make, until):
    pool = make(2)
    line = test_a_forgotten_pool_is_ended_with_one_warning.__code__.co_firstlineno
    assert pool.map(double, range(10)) == [2 * x for x in range(10)]
    threads = pool._pool
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        watch = weakref.ref(pool)
        del pool
        until(lambda: (gc.collect(), watch() is None)[1])
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


def test_what_a_forked_copy_drops_waits_for_nobody(make_pool):
    """A thread that had the lock is not there to give it back."""
    pool = make_pool(1)
    iterator, feeder = pool._engine.submit_stream(pool, double, iter([]), 1, 1, True, None, None, None)
    held, go = threading.Event(), threading.Event()

    def hold():
        with pool._engine.lock:
            held.set()
            assert go.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            del iterator, feeder
            pool.terminate()
            with contextlib.suppress(RuntimeError):
                pool.close()
            del pool
            gc.collect()
            os._exit(0)
        finally:
            os._exit(1)
    go.set()
    holder.join()
    assert os.waitpid(pid, 0)[1] == 0
    feeder.run()


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
