"""Conditions: who is notified, and that nobody who is killed is in the way."""

from __future__ import annotations

import pickle
import threading
import time

import pytest
import syncwork

from billiard import synchronize


@pytest.fixture(params=["RLock", "Lock"])
def condition(request, ctx):
    return ctx.Condition(getattr(ctx, request.param)())


def _waits(condition, count):
    """Wait until so many wait."""
    deadline = time.monotonic() + 30
    while True:
        with condition:
            if condition._sleeping_count.get_value() == count:
                return
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _none_is_left(condition):
    assert condition._sleeping_count.get_value() == condition._woken_count.get_value() == 0
    assert condition._wait_semaphore.get_value() == 0


def _waiting(ctx, start, condition, count, timeout=None):
    """Children, and threads of this process, that wait; and what they tell when they are notified."""
    ready, told = ctx.Semaphore(0), ctx.Semaphore(0)
    arguments = (condition, ready, told, timeout)
    threads = [threading.Thread(target=syncwork.wait_in, args=arguments, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for _ in range(count):
        start(syncwork.wait_in, *arguments)
    for _ in range(2 * count):
        ready.acquire()
    _waits(condition, 2 * count)
    return told


def test_one_is_notified_at_a_time(ctx, start, condition):
    told = _waiting(ctx, start, condition, 2)
    for number in range(4):
        assert not told.acquire(timeout=0.02)
        with condition:
            condition.notify()
        assert told.acquire(timeout=30)
        _waits(condition, 3 - number)
    _none_is_left(condition)


def test_some_are_notified(ctx, start, condition):
    told = _waiting(ctx, start, condition, 2)
    with condition:
        condition.notify(3)
        condition.notify(0)
    for _ in range(3):
        assert told.acquire(timeout=30)
    assert not told.acquire(timeout=0.05)
    with condition:
        condition.notify(n=100)
    assert told.acquire(timeout=30)
    _none_is_left(condition)


def test_all_are_notified(ctx, start, condition):
    told = _waiting(ctx, start, condition, 3)
    with condition:
        condition.notify_all()
    for _ in range(6):
        assert told.acquire(timeout=30)
    _none_is_left(condition)


def test_time_runs_out(condition):
    with condition:
        for timeout in (-1, 0, 0.05):
            begin = time.monotonic()
            assert condition.wait(timeout) is False
            assert time.monotonic() - begin >= timeout
            assert condition._lock._is_mine()
    _none_is_left(condition)


def test_a_notification_is_for_those_who_wait(condition):
    with condition:
        condition.notify()
        condition.notify_all()
        assert condition.wait(0.02) is False


def test_a_recursive_lock_is_given_up_as_a_whole(ctx, start):
    condition = ctx.Condition()
    told = ctx.Semaphore(0)
    with condition, condition, condition:
        start(_notify, condition, told)
        assert condition.wait(30)
        assert condition._lock._count() == 3
    assert condition._lock._get_value() == 1


def _notify(condition, told):
    with condition:
        condition.notify()
        told.release()


def test_what_is_waited_for_is_told(ctx, start):
    condition, value = ctx.Condition(), []
    with condition:
        assert condition.wait_for(lambda: "yes") == "yes"
        begin = time.monotonic()
        assert condition.wait_for(lambda: value, timeout=0.05) == []
        assert time.monotonic() - begin >= 0.05
    told = ctx.Semaphore(0)
    with condition:
        start(_notify, condition, told)
        assert condition.wait_for(lambda: told.acquire(False), timeout=30)


def test_who_does_not_hold_the_lock_is_refused(ctx, condition):
    for call in (condition.wait, condition.notify, condition.notify_all):
        with pytest.raises(AssertionError, match=r"must acquire|not owned"):
            call()
    _none_is_left(condition)
    with pytest.raises(AssertionError, match="context"):
        synchronize.Condition()
    with pytest.raises(TypeError):
        synchronize.Condition(threading.Lock(), ctx=ctx)


def test_waiters_that_are_killed_block_nobody_and_take_nothing(ctx, start, condition):
    ready, told = ctx.Semaphore(0), ctx.Semaphore(0)
    victims = [start(syncwork.wait_in, condition, ready, told) for _ in range(2)]
    for _ in victims:
        ready.acquire()
    _waits(condition, 2)
    survivor = threading.Thread(target=syncwork.wait_in, args=(condition, ready, told), daemon=True)
    survivor.start()
    ready.acquire()
    _waits(condition, 3)
    for victim in victims:
        victim.kill()
        victim.join()
    with condition:
        condition.notify()
    assert told.acquire(timeout=30)
    survivor.join()
    with condition:
        condition.notify_all()
        assert condition.wait(0.05) is False
    _none_is_left(condition)


def test_a_notifier_that_is_killed_with_the_lock_leaves_it_to_others(ctx, start, condition):
    ready = ctx.Event()
    holder = start(syncwork.take_and_stay, condition._lock, ready)
    assert ready.wait(30)
    holder.kill()
    with condition:
        condition.notify_all()
        assert condition._lock.abandoned


def test_it_is_shown_and_is_sent_only_to_children(condition):
    assert repr(condition) == f"<Condition({condition._lock!r}, 0)>"
    with pytest.raises(RuntimeError, match="Condition objects should only be shared between processes"):
        pickle.dumps(condition)


def test_its_lock_is_the_one_it_was_given(ctx, done):
    lock = ctx.RLock()
    condition = ctx.Condition(lock)
    assert condition.acquire()
    assert not done(syncwork.acquires, lock)
    condition.release()
    assert done(_share_a_lock, condition, lock) == 1


def _share_a_lock(condition, lock):
    with lock:
        condition.notify()
        return condition._lock._is_mine()
