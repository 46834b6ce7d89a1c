"""The put lock: how many jobs may be on their way."""

import threading

import pytest
from poolwork import double, fail, gate

from billiard.pool import LaxBoundedSemaphore


def taken(semaphore):
    """How often it can be had without waiting."""
    count = 0
    while semaphore.acquire(blocking=False):
        count += 1
    for _ in range(count):
        semaphore.release()
    return count


def test_it_is_a_semaphore_that_ignores_too_many_releases():
    semaphore = LaxBoundedSemaphore(2)
    assert isinstance(semaphore, threading.Semaphore)
    for _ in range(5):
        semaphore.release()
    assert (semaphore._value, semaphore._initial_value) == (2, 2)
    assert taken(semaphore) == 2
    assert taken(LaxBoundedSemaphore()) == 1
    assert LaxBoundedSemaphore(3, None)._value == 3


def test_it_grows_and_shrinks():
    semaphore = LaxBoundedSemaphore(1)
    semaphore.grow()
    assert taken(semaphore) == 2
    semaphore.shrink()
    assert taken(semaphore) == 1


def test_it_shrinks_while_all_are_held_without_waiting():
    semaphore = LaxBoundedSemaphore(2)
    assert semaphore.acquire(blocking=False)
    assert semaphore.acquire(blocking=False)
    semaphore.shrink()
    assert semaphore._initial_value == 1
    semaphore.release()
    semaphore.release()
    assert taken(semaphore) == 1


def test_clear_gives_everything_back():
    semaphore = LaxBoundedSemaphore(3)
    for _ in range(3):
        semaphore.acquire()
    semaphore.clear()
    assert taken(semaphore) == 3


IN_THE_MIDDLE = """
import signal

from billiard.pool import LaxBoundedSemaphore

semaphore, rang = LaxBoundedSemaphore(2), 0

def ring(*_):
    global rang
    rang += 1
    semaphore.acquire(blocking=False)
    semaphore.release()
    semaphore.clear()

signal.signal(signal.SIGALRM, ring)
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
while rang < 500:
    semaphore.acquire(blocking=False)
    semaphore.release()
signal.setitimer(signal.ITIMER_REAL, 0)
# Where a handler is most often: the lock was taken, and is not given back yet.
with semaphore._cond:
    semaphore.clear()
assert semaphore.acquire(blocking=False)
"""


def test_a_signal_handler_may_end_a_pool_in_the_middle_of_it(program):
    program(IN_THE_MIDDLE)


@pytest.mark.parametrize(
    "give", [LaxBoundedSemaphore.release, LaxBoundedSemaphore.grow, LaxBoundedSemaphore.clear]
)
def test_whoever_waits_is_woken(give):
    semaphore, got = LaxBoundedSemaphore(1), threading.Event()
    semaphore.acquire()

    def wait():
        semaphore.acquire()
        got.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not got.is_set()
    give(semaphore)
    assert got.wait(30)
    thread.join()


def test_changing_it_from_many_threads_keeps_the_count():
    semaphore = LaxBoundedSemaphore(4)

    def work():
        for _ in range(2000):
            semaphore.acquire()
            semaphore.grow()
            semaphore.shrink()
            semaphore.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (semaphore._value, semaphore._initial_value) == (4, 4)


def test_jobs_wait_for_a_slot(make_pool, tmp_path):
    pool, submitted = make_pool(1, putlocks=True), threading.Event()
    first = pool.apply_async(gate, (str(tmp_path / "go"),))
    assert pool._putlock._value == 0
    results = []

    def submit():
        results.append(pool.apply_async(double, (2,)))
        submitted.set()

    thread = threading.Thread(target=submit)
    thread.start()
    assert not submitted.wait(0.05)
    (tmp_path / "go").touch()
    assert submitted.wait(30)
    thread.join()
    assert first.get()
    assert results[0].get() == 4


def test_a_job_may_choose(make_pool, tmp_path, until):
    pool = make_pool(1)
    first = pool.apply_async(gate, (str(tmp_path / "go"),), waitforslot=True)
    assert pool._putlock._value == 0
    second = pool.apply_async(double, (2,))
    (tmp_path / "go").touch()
    assert (second.get(), bool(first.get())) == (4, True)
    until(lambda: pool._putlock._value == 1)
    locked = make_pool(1, putlocks=True)
    locked.apply_async(double, (1,), waitforslot=False)
    assert locked._putlock._value == 1


def test_every_end_of_a_job_gives_its_slot_back(make_pool, until, caplog):
    caplog.set_level("CRITICAL")
    pool = make_pool(1, putlocks=True)
    for _ in range(2):
        for function, args, options in (
            (double, (1,), {}),
            (fail, (), {}),
            (__import__("os")._exit, (1,), {}),
            (gate, ("/nonexistent/never",), {}),
            (__import__("time").sleep, (60,), {"timeout": 0.05}),
            (double, (lambda: 0,), {}),
        ):
            pool.apply_async(function, args, **options).wait()
    until(lambda: pool._putlock._value == 1)


def test_a_refused_job_gives_its_slot_back(make_pool):
    pool = make_pool(1, putlocks=True)
    pool.close()
    for _ in range(3):
        with pytest.raises(ValueError, match="pool is closed"):
            pool.apply_async(double, (1,))
    pool.join()


def test_closing_lets_waiting_submitters_go(make_pool, tmp_path, until):
    pool, refused = make_pool(1, putlocks=True), []
    pool.apply_async(gate, (str(tmp_path / "go"),))

    def submit():
        try:
            pool.apply_async(double, (2,))
        except ValueError as error:
            refused.append(str(error))

    thread = threading.Thread(target=submit)
    thread.start()
    until(lambda: pool._putlock._cond._waiters)
    pool.close()
    thread.join(30)
    assert not thread.is_alive()
    assert "closed" in refused[0]
    (tmp_path / "go").touch()
    pool.join()


def test_another_semaphore_may_be_given(make_pool):
    class Counting(LaxBoundedSemaphore):
        acquired = 0

        def acquire(self, *args, **kwargs):
            self.acquired += 1
            return super().acquire(*args, **kwargs)

    semaphore = Counting(1)
    pool = make_pool(1, semaphore=semaphore, putlocks=True)
    assert [pool.apply(double, (i,)) for i in range(3)] == [0, 2, 4]
    assert semaphore.acquired == 3
    assert pool._putlock is semaphore


def test_growing_and_shrinking_a_pool_changes_its_slots(make_pool, until):
    pool = make_pool(2, putlocks=True)
    pool.grow(2)
    assert pool._putlock._initial_value == 4
    until(lambda: len(pool._pool) == 4)
    pool.map(double, range(8), 1)
    until(lambda: _shrinks(pool))
    assert pool._putlock._initial_value == 3


def _shrinks(pool):
    try:
        pool.shrink()
    except ValueError:
        return False
    return True
