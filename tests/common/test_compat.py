"""Descriptors and memory."""

from __future__ import annotations

import errno
import os
import resource
import socket
import sys
from unittest.mock import patch

import pytest

from billiard import _billiard, compat

pytestmark = pytest.mark.usefixtures("leak_census")


def test_writing_from_an_offset(pipe):
    reader, writer = pipe
    for buffer in (b"012345", bytearray(b"012345"), memoryview(b"012345")):
        assert compat.send_offset(writer, buffer, 2) == 4
        assert os.read(reader, 100) == b"2345"
    assert compat.send_offset(writer, b"012", 3) == 0
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        compat.send_offset(-1, b"x", 0)
    assert caught.value.errno == errno.EBADF


def test_the_descriptor_of_anything(pipe):
    class Odd:
        def fileno(self):
            return "three"

    with open(os.devnull) as file:
        assert compat.maybe_fileno(file) == file.fileno()
    for thing, number in [(pipe[0], pipe[0]), (None, None), ("x", None), (file, None), (Odd(), None)]:
        assert compat.maybe_fileno(thing) == number


def test_items_are_given_once_in_order():
    assert list(compat.uniq(iter("abracadabra"))) == list("abrcd")
    assert next(compat.uniq(iter(int, 1))) == 0


def test_the_number_of_an_error():
    assert compat.get_errno(OSError(5, "x")) == 5
    assert compat.get_errno(ValueError()) == 0


def test_blocking_can_be_switched(pipe):
    left, right = socket.socketpair()
    for handle in (pipe[0], left):
        assert compat.isblocking(handle) is True
        compat.setblocking(handle, False)
        assert compat.isblocking(handle) is False
        compat.setblocking(handle, 1)
        assert compat.isblocking(handle) is True
    left.close()
    right.close()


def test_the_limit_of_descriptors(monkeypatch):
    assert compat.get_fdmax() == os.sysconf("SC_OPEN_MAX")
    monkeypatch.setattr(os, "sysconf", lambda _: -1)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert compat.get_fdmax(7) == (7 if hard == resource.RLIM_INFINITY else hard)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1, resource.RLIM_INFINITY))
    assert compat.get_fdmax(7) == 7
    assert compat.get_fdmax() is None


CLOSING = """
import os, sys
from billiard import compat
if "without" in sys.argv:
    compat._FD_DIR = "/nowhere"
pipes = [os.pipe() for _ in range(5)]
kept, file = pipes[2], open(os.devnull)
compat.close_open_fds([0, 1, sys.stderr, None, "x", kept[0], file])
left = []
for number in range(100):
    try:
        os.fstat(number)
        left.append(number)
    except OSError:
        pass
print(left == sorted({0, 1, 2, kept[0], file.fileno()}))
"""


@pytest.mark.parametrize("listing", ["with", "without"])
def test_all_descriptors_but_those_kept_are_closed(program, listing):
    done = program(CLOSING, listing)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_descriptors_are_closed_downwards_and_errors_ignored():
    with patch("os.close", side_effect=OSError) as close:
        compat.close_open_fds()
    numbers = [args[0] for args, _ in close.call_args_list]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[-3:] == [2, 1, 0]


def test_a_started_program_inherits_what_was_given_and_nothing_else(pipe):
    reader, writer = pipe
    os.set_inheritable(reader, True)
    source = (
        f"import os; os.write({writer}, repr(sorted(int(n) for n in os.listdir('/proc/self/fd'))).encode())"
    )
    pid = compat.spawnv_passfds(sys.executable, [sys.executable, "-c", source], [writer])
    assert os.waitpid(pid, 0)[1] == 0
    numbers = set(eval(os.read(reader, 1000)))
    assert {0, 1, 2, writer} <= numbers
    assert reader not in numbers


def test_a_program_that_cannot_be_started_is_an_error():
    with pytest.raises(FileNotFoundError):
        compat.spawnv_passfds(b"/no/such/program", [b"x"], [])


MEMORY = """
import os

from billiard import _billiard, compat

before = compat.mem_rss()
block = bytearray(b"x") * (64 << 20)
during = compat.mem_rss()
del block
after = compat.mem_rss()
assert during - before > 32 << 10, (before, during)
assert after < during - (32 << 10), (during, after)
assert abs(_billiard.mem_rss(os.getpid()) - after) < after / 5
assert _billiard.mem_rss_peak(os.getpid()) >= during - 1024
"""


def test_memory_is_the_current_size_in_kib(program):
    # By itself: what other tests have left to be given back changes it too.
    program(MEMORY)


def test_without_proc_the_largest_size_is_told(monkeypatch):
    def missing():
        raise FileNotFoundError(errno.ENOENT, "no /proc")

    monkeypatch.setattr(_billiard, "mem_rss", missing)
    assert compat.mem_rss() == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    monkeypatch.setattr(compat, "resource", None)
    with pytest.raises(ImportError):
        compat.mem_rss()


@pytest.mark.parametrize(("platform", "kib"), [("linux", 2048), ("darwin", 2.0)])
def test_the_largest_size_is_told_in_kib_where_the_kernel_counts_bytes_too(monkeypatch, platform, kib):
    monkeypatch.setattr(sys, "platform", platform)
    assert compat.maxrss_to_kb(2048) == kib


def test_what_the_system_tells_about_memory():
    assert _billiard.mem_available() > 0
    for number in (_billiard.mem_limit(), _billiard.oom_kills()):
        assert number is None or number >= 0
    with pytest.raises(FileNotFoundError):
        _billiard.mem_rss(2**31 - 1)
