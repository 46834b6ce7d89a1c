"""Events."""

from __future__ import annotations

import pickle
import threading
import time

import pytest
import syncwork

from billiard import synchronize


def test_it_is_set_and_cleared(ctx):
    event = ctx.Event()
    assert event.is_set() is False
    for timeout in (-1, 0, 0.05):
        begin = time.monotonic()
        assert event.wait(timeout) is False
        assert time.monotonic() - begin >= timeout
    for _ in range(2):
        event.set()
        assert event.is_set()
        assert event.wait() is event.wait(0) is True
    assert repr(event).endswith(" set>")
    event.clear()
    assert not event.is_set()
    assert repr(event).endswith(" unset>")


def test_all_who_wait_go_on(ctx, start):
    event, ready, told = ctx.Event(), ctx.Semaphore(0), ctx.Semaphore(0)
    threads = [threading.Thread(target=syncwork.wait_and_tell, args=(event, ready, told)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        start(syncwork.wait_and_tell, event, ready, told)
    for _ in range(6):
        ready.acquire()
    assert not told.acquire(timeout=0.1)
    event.set()
    for _ in range(6):
        assert told.acquire(timeout=30)


def test_who_waits_has_seen_it_even_if_it_is_cleared_at_once(ctx, start):
    event, ready, told = ctx.Event(), ctx.Semaphore(0), ctx.Semaphore(0)
    start(syncwork.wait_and_tell, event, ready, told)
    ready.acquire()
    time.sleep(0.1)
    event.set()
    event.clear()
    assert told.acquire(timeout=30)
    assert not event.is_set()


def test_waiters_that_are_killed_are_in_nobodys_way(ctx, start):
    event, ready, told = ctx.Event(), ctx.Semaphore(0), ctx.Semaphore(0)
    victims = [start(syncwork.wait_for, event, ready) for _ in range(3)]
    start(syncwork.wait_and_tell, event, ready, told)
    for _ in range(4):
        ready.acquire()
    for victim in victims:
        victim.kill()
        victim.join()
    event.set()
    assert told.acquire(timeout=30)
    event.clear()
    assert event.wait(0.01) is False


def test_two_processes_play_ball(ctx, start):
    mine, theirs = ctx.Event(), ctx.Event()
    start(syncwork.bounce, theirs, mine, 1000)
    for _ in range(1000):
        theirs.set()
        assert mine.wait(30)
        mine.clear()


def test_it_belongs_to_a_context_and_goes_to_children_only(ctx):
    with pytest.raises(AssertionError, match="context"):
        synchronize.Event()
    with pytest.raises(RuntimeError, match="Event objects should only be shared between processes"):
        pickle.dumps(ctx.Event())
