"""What becomes of the others when somebody is killed."""

from __future__ import annotations

import logging
import threading
import time

import pytest
import syncwork

import billiard
from billiard import util

#: How long the death of a holder may stay unnoticed: 100 ms are promised, the rest is for a busy machine.
SOON = 5.0


@pytest.fixture(params=["Lock", "RLock"])
def lock(request, ctx):
    return getattr(ctx, request.param)()


@pytest.fixture
def warnings():
    """What the package's logger says."""
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = util.get_logger()
    logger.addHandler(handler)
    yield said
    logger.removeHandler(handler)


def test_a_lock_whose_holder_is_dead_goes_to_who_asks(lock, start, warnings):
    child = start(syncwork.take_and_die, lock)
    child.join()
    assert not lock.abandoned
    assert lock.acquire(False)
    assert lock.abandoned is True
    assert warnings == [
        f"{type(lock).__name__} was taken over: process {child.pid} has died with it, "
        "and what it protects may be half done"
    ]
    assert lock._is_mine()
    lock.release()
    with lock:
        assert len(warnings) == 1
    lock.abandoned = False
    assert not lock.abandoned


def test_a_lock_whose_holder_dies_goes_to_who_waits(lock, start, ctx, warnings):
    ready = ctx.Event()
    child = start(syncwork.take_and_stay, lock, ready)
    assert ready.wait(30)
    threading.Timer(0.2, child.kill).start()
    assert lock.acquire(True, 30)
    assert lock.abandoned
    assert len(warnings) == 1


def test_the_death_is_noticed_in_another_process(lock, start, ctx):
    ready, told = ctx.Event(), ctx.Semaphore(0)
    holder = start(syncwork.take_and_stay, lock, ready)
    assert ready.wait(30)
    waiters = [start(_enter, lock, told) for _ in range(3)]
    time.sleep(0.3)
    holder.kill()
    for _ in waiters:
        assert told.acquire(timeout=30)
    assert lock.abandoned


def _enter(lock, told):
    with lock:
        told.release()


def test_a_holder_that_leaves_in_peace_without_releasing_is_gone_all_the_same(lock, done):
    assert done(syncwork.takes, lock) == 1
    assert lock.acquire(timeout=SOON)
    assert lock.abandoned


def test_the_end_of_a_thread_takes_nothing_from_anybody(ctx):
    lock = ctx.Lock()
    thread = threading.Thread(target=lock.acquire)
    thread.start()
    thread.join()
    assert not lock.acquire(timeout=0.2)
    assert not lock.abandoned
    lock.release()


def test_a_forked_child_has_nothing_of_its_parents():
    ctx = billiard.get_context("fork")
    lock = ctx.RLock()
    with lock:
        child = ctx.Process(target=syncwork.leave_with, args=(_what_is_held, lock))
        child.start()
        child.join()
        assert child.exitcode == 0
        assert lock._is_mine()
    child.close()


def _what_is_held(lock):
    return lock._count() + lock._is_mine() + lock.acquire(False)


def test_a_semaphore_keeps_what_the_dead_have_taken_and_tells(ctx, done, start):
    semaphore = ctx.Semaphore(5)
    start(syncwork.take_and_die, semaphore).join()
    assert done(syncwork.takes, semaphore, 2) == 1
    semaphore.acquire()
    assert semaphore.get_value() == 1
    assert semaphore.abandoned == 3
    # Its own one comes first, then those of the dead.
    for left in (3, 2, 1, 0):
        semaphore.release()
        assert semaphore.abandoned == left
    assert semaphore.get_value() == 5
    with pytest.raises(ValueError, match="give back"):
        semaphore.abandoned = False


def test_waiters_that_are_killed_swallow_no_release(ctx, start):
    """Of many who wait some are killed while others are released: as many get through as were let."""
    semaphore, ready, told = ctx.Semaphore(0), ctx.Semaphore(0), ctx.Semaphore(0)
    victims = [start(_get_through, semaphore, ready, ready) for _ in range(3)]
    others = [start(_get_through, semaphore, ready, told) for _ in range(3)]
    for _ in range(6):
        ready.acquire()
    for victim in victims:
        victim.kill()
        victim.join()
    for _ in others:
        semaphore.release()
    for _ in others:
        assert told.acquire(timeout=30)


def _get_through(semaphore, ready, told):
    ready.release()
    semaphore.acquire()
    told.release()
