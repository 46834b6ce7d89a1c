"""The native part, under the names that the original has for it."""

from __future__ import annotations

import errno
import os
import signal
import threading

import pytest

import _billiard
from billiard import _ext
from billiard.synchronize import SemLock


def test_the_extension_is_found_and_children_can_be_started_afresh():
    assert _ext._billiard is _billiard
    assert _billiard.SemLock is SemLock
    assert _ext.supports_exec is True
    assert _ext.win32 is None
    assert _ext.ensure_multiprocessing() is None
    assert _ext.ensure_SemLock() is None


@pytest.mark.parametrize(("size", "expected"), [(2, b"he"), (0, b"hello"), (7, b"hello")])
def test_what_there_is_is_read_into_the_buffer(pipe, size, expected):
    reader, writer = pipe
    os.write(writer, b"hello")
    buffer = bytearray(b".........")
    with memoryview(buffer) as whole, whole[1:] as part:
        assert _billiard.read(reader, part, size) == len(expected)
    assert bytes(buffer) == (b"." + expected).ljust(9, b".")


def test_nothing_now_is_not_the_end(pipe):
    reader, writer = pipe
    os.set_blocking(reader, False)
    with pytest.raises(BlockingIOError) as caught:
        _billiard.read(reader, bytearray(4), 4)
    assert caught.value.errno == errno.EAGAIN
    os.write(writer, b"x")
    assert _billiard.read(reader, bytearray(4), 4) == 1


def test_the_end_is_nothing():
    reader, writer = os.pipe()
    os.close(writer)
    assert _billiard.read(reader, bytearray(4)) == 0
    os.close(reader)


@pytest.mark.parametrize(
    ("buffer", "size", "error", "text"),
    [
        (bytearray(4), -1, ValueError, "negative: -1"),
        (bytearray(4), 5, ValueError, "4 bytes has no room for 5"),
        (bytearray(), 0, OSError, "Invalid argument"),
        (b"1234", 4, TypeError, "read-only"),
        (memoryview(bytearray(8))[::2], 2, TypeError, "one piece"),
        ("1234", 4, TypeError, "buffer|bytes-like"),
    ],
)
def test_a_buffer_that_will_not_do_is_refused(pipe, buffer, size, error, text):
    os.write(pipe[1], b"data")
    with pytest.raises(error, match=text):
        _billiard.read(pipe[0], buffer, size)
    assert os.read(pipe[0], 4) == b"data"


@pytest.mark.parametrize("fd", [-1, 1_000_000])
def test_a_descriptor_that_is_not_open_is_told(fd):
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        _billiard.read(fd, bytearray(4))
    assert caught.value.errno == errno.EBADF


def test_waiting_is_interrupted_by_handlers_and_goes_on_without_an_exception(pipe):
    class Enough(Exception):
        pass

    calls = []

    def handle(number, _frame):
        calls.append(number)
        if len(calls) == 2:
            raise Enough

    before = signal.signal(signal.SIGUSR2, handle)
    ended = threading.Event()

    def send():
        while not ended.wait(0.05):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR2)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        with pytest.raises(Enough):
            _billiard.read(pipe[0], bytearray(4))
    finally:
        ended.set()
        sender.join()
        signal.signal(signal.SIGUSR2, before)
