"""Waiting for several things at once."""

from __future__ import annotations

import os
import signal
import socket
import time
from types import SimpleNamespace

import pytest
from talk import PATIENCE

import billiard
from billiard.connection import wait


def test_what_is_ready_is_returned_once_and_in_order(ends):
    pairs = [ends() for _ in range(5)]
    readers = [other for _, other in pairs]
    assert wait(readers, 0) == []
    for index in (3, 1):
        pairs[index][0].send(index)
    assert wait(readers, 0) == [readers[1], readers[3]]
    assert wait([readers[3], readers[1], readers[3]]) == [readers[3], readers[1]]
    assert wait(iter(readers), 0) == [readers[1], readers[3]]


def test_everything_with_a_descriptor_can_be_waited_for(ends):
    one, other = ends()
    left, right = socket.socketpair()
    with left, right:
        queue = SimpleNamespace(_reader=other)
        things = [other, other.fileno(), right, queue]
        assert wait(things, 0) == []
        one.send(1)
        left.send(b"x")
        assert wait(things, PATIENCE) == things


def test_more_than_a_select_could_hold(ends):
    one, other = ends()
    copies = [os.dup(other.fileno()) for _ in range(300)]
    try:
        assert wait(copies, 0) == []
        one.send(1)
        assert wait(copies, PATIENCE) == copies
    finally:
        for copy in copies:
            os.close(copy)


def test_the_end_of_a_stream_counts(ends):
    one, other = ends()
    one.close()
    assert wait([other]) == [other]


def test_a_process_that_ends_is_ready(ctx):
    child = ctx.Process(target=time.sleep, args=(60,), daemon=True)
    child.start()
    assert wait([child.sentinel], 0.01) == []
    child.kill()
    assert wait([child.sentinel], PATIENCE) == [child.sentinel]
    child.join()
    child.close()


@pytest.mark.parametrize("seconds", [0.0001, 0.0009, 0.0015, 0.05])
@pytest.mark.parametrize("empty", [True, False])
def test_it_waits_as_long_as_it_says_and_no_less(ends, seconds, empty):
    _, other = ends()
    start = time.monotonic()
    assert wait([] if empty else [other], seconds) == []
    assert time.monotonic() - start >= seconds


@pytest.mark.parametrize("timeout", [0, -1, -0.5, float("-inf")])
def test_a_look_does_not_wait(ends, timeout):
    _, other = ends()
    assert wait([other], timeout) == []
    assert wait([], timeout) == []


@pytest.mark.parametrize("timeout", [None, float("inf"), 1e300, PATIENCE])
def test_it_ends_with_what_it_waits_for(ends, in_thread, timeout):
    one, other = ends()
    found = in_thread(wait, [other], timeout)
    one.send(1)
    assert found() == [other]


def test_what_cannot_be_waited_for_is_refused(ends):
    one, other = ends()
    number = os.dup(0)
    os.close(number)
    with pytest.raises(ValueError, match=f"invalid file descriptor {number}"):
        wait([other, number], PATIENCE)
    with pytest.raises(ValueError, match="negative integer"):
        wait([-1])
    for thing in (object(), "text", None):
        with pytest.raises(TypeError, match="fileno"):
            wait([thing])
    with pytest.raises(TypeError):
        wait(other)
    with pytest.raises(ValueError, match="seconds or None, not nan"):
        wait([other], float("nan"))
    one.close()
    with pytest.raises(OSError, match="handle is closed"):
        wait([one], 0)


def test_a_signal_handler_that_raises_ends_it(ends):
    _, other = ends()

    def handler(*_):
        raise ZeroDivisionError

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(ZeroDivisionError):
            wait([other])
    finally:
        signal.signal(signal.SIGALRM, before)


def test_the_package_and_its_contexts_share_it():
    assert billiard.connection.wait is wait
