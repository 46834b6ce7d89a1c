"""Histories and interleavings that nobody would think of."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import sys
import threading
import time
import warnings

import pytest
from threadwork import Gate, double, fail_if_three

import billiard
from billiard import _threadengine, _threadpool, _threadresults, _threadstream, _threadworker
from billiard.exceptions import RestartFreqExceeded, Terminated
from billiard.pool import ThreadPool

pytestmark = pytest.mark.usefixtures("leak_census")

#: Multiplies the work of these tests.
CHAOS = max(1, int(os.environ.get("BILLIARD_CHAOS", "1")))
SEEDS = pytest.mark.parametrize("seed", range(15 * CHAOS))
WATCHED = {
    module.__file__ for module in (_threadengine, _threadpool, _threadresults, _threadstream, _threadworker)
}


@contextlib.contextmanager
def jitter(random, rate=0.05):
    """Let another thread go on, now and then, between any two lines of the pool."""

    def trace(frame, event, _):
        if frame.f_code.co_filename not in WATCHED:
            return None
        if event == "line" and random.random() < rate:
            time.sleep(0)
        return trace

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threading.settrace(trace)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
        threading.settrace(None)
        sys.setswitchinterval(interval)


class Ledger:
    """What was submitted, and what has to become of it."""

    def __init__(self):
        self.jobs = []
        self.called = []
        self.expected_calls = 0
        self.lock = threading.Lock()

    def note(self, take, expected, calls):
        with self.lock:
            self.jobs.append((take, expected))
            self.expected_calls += calls

    def submit(self, pool, random):
        """Submit something. Raises what the pool raises."""
        n = random.randrange(10)
        what = random.choice(
            ["call", "call", "failing call", "map", "failing map", "stream", "failing stream"]
        )
        calls = random.random() < 0.5
        told = {"callback": self.called.append, "error_callback": self.called.append} if calls else {}
        chunk, items = random.choice([1, 3]), range(n)
        fails = 3 in items
        if what == "call":
            result = pool.apply_async(double, (n,), waitforslot=random.random() < 0.2, **told)
            self.note(result.get, 2 * n, calls)
        elif what == "failing call":
            result = pool.apply_async(fail_if_three, (3,), **told)
            self.note(result.get, KeyError, calls)
        elif what == "map":
            result = pool.map_async(double, items, chunk, **told)
            self.note(result.get, [2 * x for x in items], calls and n > 0)
        elif what == "failing map":
            result = pool.map_async(fail_if_three, items, chunk, **told)
            self.note(result.get, KeyError if fails else list(items), calls and n > 0)
        elif what == "stream":
            results = pool.imap(double, iter(items), chunk, buffersize=random.choice([1, 2, None]))
            self.note(lambda _: list(results), [2 * x for x in items], 0)
        else:
            results = pool.imap_unordered(double, _raise_after(items), chunk)
            self.note(lambda _: list(results), LookupError, 0)

    def check(self, may_be_ended=False, joined=True):
        """Everything has become what it had to, or was ended."""
        ended = (Terminated, RestartFreqExceeded)
        for take, expected in self.jobs:
            try:
                outcome = take(60)
            except ended:
                assert may_be_ended
                continue
            except (KeyError, LookupError) as error:
                outcome = type(error)
            assert outcome == expected
        assert len(self.called) == self.expected_calls or not joined


def _raise_after(items):
    yield from items
    raise LookupError


@SEEDS
def test_any_history(seed):
    choose, ledger, gate = random.Random(seed), Ledger(), Gate()
    pool = ThreadPool(choose.randrange(1, 4))
    size, busy = pool._processes, 0
    for _ in range(60):
        step = choose.choice(["submit", "submit", "grow", "shrink", "gate", "open", "drop", "look"])
        if step == "submit":
            if busy < size:
                ledger.submit(pool, choose)
        elif step == "grow":
            pool.grow()
            size += 1
        elif step == "shrink" and size > 1:
            with contextlib.suppress(ValueError):
                pool.shrink()
                size -= 1
        elif step == "gate" and busy < size:
            ledger.note(pool.apply_async(gate, (busy,)).get, busy, 0)
            busy += 1
        elif step == "open":
            gate.go.set()
            busy = 0
        elif step == "drop":
            pool.imap(double, itertools.count(), buffersize=3)
            pool.apply_async(double, (1,)).discard()
        assert pool._processes == size
        assert pool._taskqueue.qsize() <= pool._engine.load()[0]
    terminated = choose.random() < 0.5
    if not terminated:
        gate.go.set()
    getattr(pool, "terminate" if terminated else "close")()
    gate.go.set()
    pool.join()
    ledger.check(may_be_ended=terminated)
    assert not pool._pool


@SEEDS
@pytest.mark.parametrize("end", ["close", "terminate"])
def test_many_threads_submit_while_the_pool_is_ended(seed, end):
    choose, ledger, accepted = random.Random(seed), Ledger(), threading.Semaphore(0)
    with jitter(choose):
        pool = ThreadPool(choose.randrange(1, 4))

        def submit(own):
            with pytest.raises(ValueError, match="pool is"):  # noqa: PT012 - sooner or later
                while True:
                    ledger.submit(pool, own)
                    accepted.release()

        threads = [threading.Thread(target=submit, args=(random.Random(f"{seed} {n}"),)) for n in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(choose.randrange(30)):
            assert accepted.acquire(timeout=60)
        getattr(pool, end)()
        pool.join()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    ledger.check(may_be_ended=end == "terminate")


@SEEDS
def test_many_threads_do_everything(seed):
    choose, ledger = random.Random(seed), Ledger()
    with jitter(choose):
        pool = ThreadPool(2)

        def work(own):
            for _ in range(30):
                step = own.choice(["submit", "submit", "submit", "grow", "shrink", "look"])
                if step == "submit":
                    ledger.submit(pool, own)
                elif step == "look":
                    assert all(number > 0 for number in pool._cache)
                else:
                    with contextlib.suppress(ValueError):
                        getattr(pool, step)()

        threads = [threading.Thread(target=work, args=(random.Random(f"{seed} {n}"),)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        pool.close()
        pool.join()
    ledger.check()


@SEEDS
def test_an_initializer_fails_at_any_moment(seed, caplog):
    caplog.set_level("CRITICAL")
    choose, ledger = random.Random(seed), Ledger()
    turns = itertools.count()

    def prepare():
        if next(turns) >= turn:
            raise LookupError

    turn = choose.randrange(4)
    with jitter(choose):
        pool = ThreadPool(2, prepare)
        with contextlib.suppress(RestartFreqExceeded, ValueError):
            for _ in range(20):
                ledger.submit(pool, choose)
            pool.grow(3)
        pool.close()
        pool.join()
    ledger.check(may_be_ended=True)


@SEEDS
@pytest.mark.parametrize("end", ["close", "terminate"])
def test_a_signal_handler_ends_the_pool_at_any_moment(seed, end):
    choose, ledger = random.Random(seed), Ledger()
    rang = threading.Event()

    def ring(*_):
        rang.set()
        getattr(pool, end)()

    def ring_once():
        time.sleep(choose.random() * 0.005)
        os.kill(os.getpid(), signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, ring)
    try:
        with jitter(choose):
            pool = ThreadPool(2)
            ringer = threading.Thread(target=ring_once)
            ringer.start()
            with pytest.raises(ValueError, match="pool is"):  # noqa: PT012 - sooner or later
                while True:
                    ledger.submit(pool, choose)
            assert rang.is_set()
            ringer.join()
            # What was interrupted is over; now the pool can be waited for.
            getattr(pool, end)()
            pool.join()
    finally:
        signal.signal(signal.SIGUSR2, before)
    for take, _ in ledger.jobs:
        with contextlib.suppress(KeyError, LookupError, Terminated):
            take(60)


@SEEDS
def test_pools_are_dropped_at_any_moment(seed, until):
    choose = random.Random(seed)
    # They are dropped wherever the last reference is, so the warnings may come anywhere.
    with jitter(choose), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(10):
            pool, ledger = ThreadPool(2), Ledger()
            for _ in range(choose.randrange(5)):
                ledger.submit(pool, choose)
            del pool
            ledger.check(joined=False)
            until(lambda ledger=ledger: len(ledger.called) == ledger.expected_calls)
        until(lambda: len(threading.enumerate()) == 1)


def test_time_limits_of_waits_are_kept_among_many():
    """Whoever waits in vain hears of it; the others get their results."""
    with ThreadPool(2) as pool:
        gate, told = Gate(), []

        def wait(result):
            try:
                told.append(result.get(0.05))
            except billiard.TimeoutError:
                told.append(TimeoutError)

        results = [pool.apply_async(gate) for _ in range(4)]
        threads = [threading.Thread(target=wait, args=(result,)) for result in results for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert told == [TimeoutError] * 20
        gate.go.set()
        assert [result.get() for result in results] == [None] * 4
