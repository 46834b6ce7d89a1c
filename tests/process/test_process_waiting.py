"""Waiting for processes, ending them, and what their objects know afterwards, under each start method."""

from __future__ import annotations

import math
import multiprocessing.connection
import os
import select
import signal
import threading
import time

import kinwork
import processwork
import pytest

import billiard
from billiard import process

#: How long what must happen may take on a machine that is busy, in seconds.
PATIENCE = 30.0


@pytest.mark.parametrize("method", ["fork", "forkserver"], indirect=True)
@pytest.mark.parametrize("timeout", [0, -1, -0.5, -math.inf, 0.0009, 0.05])
def test_join_waits_as_long_as_it_is_told(staying, timeout):
    child = staying()
    began = time.monotonic()
    assert child.join(timeout) is None
    assert time.monotonic() - began >= timeout
    assert child.is_alive()
    assert child.exitcode is None
    assert child._popen.wait(timeout=0) is None


@pytest.mark.parametrize("method", ["fork", "forkserver"], indirect=True)
@pytest.mark.parametrize("timeout", [None, math.inf, 1e300, 10**15, 2**63 / 1000, PATIENCE])
def test_a_long_join_ends_with_the_process(staying, timeout):
    child = staying()
    killer = threading.Timer(0.02, child.kill)
    killer.start()
    assert child.join(timeout) is None
    assert child.exitcode == -signal.SIGKILL
    killer.join()


@pytest.mark.parametrize("method", ["fork", "forkserver"], indirect=True)
def test_nan_is_no_time(staying):
    child = staying()
    with pytest.raises(ValueError, match="not nan"):
        child.join(math.nan)
    assert child.is_alive()


def test_join_may_be_repeated(start):
    child = start(processwork.leave, 3)
    for timeout in (None, 0, None):
        child.join(timeout)
        assert child.exitcode == 3


def test_many_threads_may_join_one_process(staying):
    child = staying()
    codes = []

    def wait():
        child.join()
        codes.append(child.exitcode)

    waiters = [threading.Thread(target=wait) for _ in range(5)]
    for waiter in waiters:
        waiter.start()
    child.terminate()
    for waiter in waiters:
        waiter.join()
    assert codes == [-signal.SIGTERM] * 5


def _by_poll(sentinel, seconds):
    poll = select.poll()
    poll.register(sentinel, select.POLLIN)
    return [number for number, _ in poll.poll(seconds * 1000)]


WAITS = {
    "select": lambda sentinel, seconds: select.select([sentinel], [], [], seconds)[0],
    "poll": _by_poll,
    "connection": lambda sentinel, seconds: multiprocessing.connection.wait([sentinel], seconds),
}


@pytest.mark.parametrize("wait", WAITS)
def test_the_sentinel_shows_the_end(staying, wait):
    child = staying()
    sentinel = child.sentinel
    assert sentinel == child._sentinel == child._popen.sentinel
    assert WAITS[wait](sentinel, 0.01) == []
    child.kill()
    assert WAITS[wait](sentinel, PATIENCE) == [sentinel]
    # It goes on showing it, until somebody has joined the process.
    assert WAITS[wait](sentinel, 0) == [sentinel]
    child.join()
    for use in (lambda: child.sentinel, lambda: os.fstat(sentinel)):
        with pytest.raises((ValueError, OSError)):
            use()


def test_one_wait_for_several_of_them(staying):
    children = [staying() for _ in range(3)]
    children[1].kill()
    ended = multiprocessing.connection.wait([child.sentinel for child in children], PATIENCE)
    assert ended == [children[1].sentinel]


def test_neither_the_sentinel_nor_join_waits_for_grandchildren(start, pipe, method, exits_are_told):  # noqa: ARG001
    # They inherit whatever descriptors the child had.
    (reader, writer), (released, release) = pipe(), pipe()
    child = start(kinwork.leave_a_grandchild, method, writer, processwork.Descriptor(released))
    assert select.select([child.sentinel], [], [], PATIENCE)[0]
    child.join()
    assert child.exitcode == 3
    os.write(release.fd, b"r")
    assert os.read(reader, 1) == b"e"


def test_active_children_are_those_that_run(staying, start):
    assert billiard.active_children() == []
    running, ended = staying(), start(processwork.leave, 0)
    assert {running, ended} == process._children
    assert ended._popen.wait() == 0
    assert billiard.active_children() == [running]
    assert running._children == {running}
    running.kill()
    running.join()
    assert process._children == set()
    assert billiard.active_children() == []


def test_starting_forgets_those_that_have_ended(start):
    first = start(processwork.leave, 0)
    first._popen.wait()
    second = start(processwork.leave, 0)
    assert process._children == {second}
    second.join()


def test_only_the_parent_can_reap_what_a_fork_server_has_started(start):
    child = start(processwork.leave, 3)
    if child._popen.method == "forkserver":
        with pytest.raises(ChildProcessError):
            os.waitpid(child.pid, 0)
        code = 3
    else:
        # The status is gone for good: ended is all that can be said.
        assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) == 3
        code = 255
    child.join()
    assert child.exitcode == code
    assert not child.is_alive()
    assert child not in billiard.active_children()


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("terminate", -signal.SIGTERM),
        ("kill", -signal.SIGKILL),
        ("terminate_controlled", -signal.SIGTERM),
        ("interrupt", 1),
    ],
)
def test_a_process_can_be_ended(staying, end, code):
    child = staying()
    getattr(child, end)()
    child.join()
    assert child.exitcode == code
    assert child._controlled_termination is (end == "terminate_controlled")
    for again in (child.terminate, child.kill, child.interrupt):
        again()
    assert child.exitcode == code


def test_a_process_that_has_ended_unseen_can_be_ended(start):
    child = start(processwork.leave, 3)
    assert select.select([child.sentinel], [], [], PATIENCE)[0]
    child.terminate()
    child.join()
    assert child.exitcode == 3


def test_the_terminate_signal_can_be_another_one(script, method):
    done = script(
        """
        import billiard, sys, time
        if __name__ == "__main__":
            child = billiard.get_context(sys.argv[1]).Process(target=time.sleep, args=(1000,))
            child.start()
            child.terminate()
            child.join()
            print(child.exitcode)
        """,
        method,
        REMAP_SIGTERM="SIGUSR2",
    )
    assert (done.stdout, done.stderr) == (f"{-signal.SIGUSR2}\n", "")


def test_what_the_handle_of_a_child_offers(staying, method):
    popen = staying()._popen
    assert (popen.method, popen.returncode, popen.poll(), popen.wait(0)) == (method, None, None, None)
    assert popen.pid > 0
    popen.close()  # which does nothing while it runs
    assert popen.sentinel is not None
    popen.terminate()
    assert popen.poll(0) == popen.wait() == popen.returncode == -signal.SIGTERM
    assert popen.poll() == -signal.SIGTERM
    for _ in range(2):
        popen.close()
        assert (popen.sentinel, popen.poll(), popen.returncode) == (None, -signal.SIGTERM, -signal.SIGTERM)
    popen.terminate()


def test_close_ends_the_use_of_the_object(staying):
    child = staying()
    with pytest.raises(ValueError, match="still running"):
        child.close()
    sentinel = child.sentinel
    child.kill()
    child.join()
    for _ in range(2):
        child.close()
        assert child._closed
    for use in (
        child.start,
        child.join,
        child.terminate,
        child.kill,
        child.interrupt,
        child.is_alive,
        lambda: child.exitcode,
        lambda: child.pid,
        lambda: child.ident,
        lambda: child.sentinel,
    ):
        with pytest.raises(ValueError, match="process object is closed"):
            use()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(sentinel)


def test_an_unjoined_process_can_be_closed_once_it_has_ended(start):
    child = start(processwork.leave, 0)
    assert select.select([child.sentinel], [], [], PATIENCE)[0]
    child.close()
    assert child not in process._children


def test_an_object_that_was_never_started_can_be_closed(ctx):
    child = ctx.Process()
    child.close()
    with pytest.raises(ValueError, match="closed"):
        child.start()


def test_a_child_that_closes_its_descriptors_lives_on(staying):
    child = staying(kinwork.close_all_and_stay)
    child.join(0.05)
    assert child.is_alive()
    assert select.select([child.sentinel], [], [], 0)[0] == []
    child.terminate()
    child.join()
    assert child.exitcode == -signal.SIGTERM


def test_dropping_the_object_of_a_running_process_keeps_it(ctx, pipe):
    (reader, writer), (released, release) = pipe(), pipe()
    ctx.Process(target=kinwork.wait_for_release, args=(writer, processwork.Descriptor(released))).start()
    os.write(release.fd, b"r")
    assert os.read(reader, 1) == b"e"
    for child in billiard.active_children():
        child.join()
