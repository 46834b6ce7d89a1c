"""What the original's locks and barriers have under their hood, and subclasses may use."""

from __future__ import annotations

import threading

import pytest

import billiard
from billiard import synchronize

ctx = billiard.get_context()


def test_a_lock_has_the_members_of_the_originals():
    lock = ctx.Lock()
    lock._make_methods()
    assert lock.acquire(False)
    lock.release()
    assert len(next(lock._rand)) == 8
    assert next(iter(lock._rand)) != next(lock._rand)
    with pytest.raises(FileNotFoundError):
        lock._cleanup("/mp-name")
    with pytest.raises(FileNotFoundError):
        lock._semlock._rebuild(1, synchronize.SEMAPHORE, 1, "/mp-name")
    with pytest.raises(ValueError, match="send the lock itself"):
        lock._rebuild(lock.handle, lock.kind, lock.maxvalue, None)
    assert synchronize.ensure_SemLock() is None


def test_the_state_of_a_barrier_can_be_set_to_what_its_methods_lead_to():
    barrier = ctx.Barrier(2)
    barrier._state = -2
    assert barrier.broken
    barrier._state = 0
    assert not barrier.broken
    with pytest.raises(ValueError, match="reset"):
        barrier._state = 1
    with pytest.raises(ValueError, match="wait"):
        barrier._count = 1
    thread = threading.Thread(target=_is_sent_away, args=(barrier,))
    thread.start()
    while barrier.n_waiting == 0 and thread.is_alive():
        pass
    barrier._count = barrier._count
    barrier._count = 0
    thread.join(30)
    assert not thread.is_alive()
    assert barrier._count == 0


def _is_sent_away(barrier):
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait(30)


def test_more_processes_than_twelve_are_accounted_for():
    """Each takes one of many and dies with it; all of that is known."""
    semaphore = ctx.Semaphore(20)
    children = [billiard.get_context("fork").Process(target=semaphore.acquire) for _ in range(20)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        child.close()
    assert (semaphore.get_value(), semaphore.abandoned) == (0, 20)
