"""Signals that come at any moment of a wait, also between the last look for them and the sleep."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest

import billiard

#: Nothing is late by milliseconds; the rest is for a busy machine. What only the next look finds is later.
SOON = 1.0
ROUNDS = 400


class Came(Exception):
    """The handler has run."""


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    def handle(*_: object) -> None:
        raise Came

    before = signal.signal(signal.SIGALRM, handle)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def waits() -> dict[str, Callable[[], object]]:
    ctx = billiard.get_context("fork")
    lock, semaphore, event, queue = ctx.Lock(), ctx.Semaphore(0), ctx.Event(), ctx.Queue()
    condition, barrier = ctx.Condition(ctx.Lock()), ctx.Barrier(2)
    lock.acquire()

    def in_condition() -> None:
        with condition:
            condition.wait(30)

    def at_barrier() -> None:
        try:
            barrier.wait(30)
        finally:
            barrier.reset()

    return {
        "lock": lambda: lock.acquire(timeout=30),
        "semaphore": lambda: semaphore.acquire(timeout=30),
        "event": lambda: event.wait(30),
        "condition": in_condition,
        "barrier": at_barrier,
        "queue": lambda: queue.get(timeout=30),
    }


WAITS = waits()


def lateness(wait: Callable[[], object], delay: float) -> float:
    """How long after a signal that comes after ``delay`` a wait ends."""
    begin = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, delay)
        wait()
    except Came:
        pass
    return time.monotonic() - begin - delay


@pytest.mark.parametrize("name", WAITS)
def test_no_signal_is_late_whenever_it_comes(name: str) -> None:
    # Before the first sleep and as it begins; and as the second one does, which is prepared for signals.
    delays = [random.uniform(1e-6, 150e-6) for _ in range(ROUNDS)]
    delays += [random.uniform(1.9e-3, 2.3e-3) for _ in range(ROUNDS)]
    late = [lateness(WAITS[name], delay) for delay in delays]
    assert max(late) < SOON


def test_the_programs_own_descriptor_is_told_of_signals_that_came_meanwhile() -> None:
    mine, theirs = socket.socketpair()
    mine.setblocking(False)
    theirs.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno())
    try:
        assert lateness(WAITS["event"], 0.05) < SOON
        assert mine.recv(10) == bytes([signal.SIGALRM])
        # And directly, once nothing waits any more.
        with pytest.raises(Came):
            os.kill(os.getpid(), signal.SIGALRM)
        assert mine.recv(10) == bytes([signal.SIGALRM])
    finally:
        assert signal.set_wakeup_fd(before) == theirs.fileno()
        mine.close()
        theirs.close()


def test_a_handler_that_waits_itself_is_interrupted_and_so_is_what_it_interrupts() -> None:
    depth = []

    def handle(*_: object) -> None:
        depth.append(None)
        if len(depth) < 4:
            WAITS["semaphore"]()
        raise Came

    signal.signal(signal.SIGALRM, handle)
    begin = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    with pytest.raises(Came):
        WAITS["event"]()
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert len(depth) >= 4
    assert time.monotonic() - begin < 30
