"""The fork server is killed and stopped at bad moments.

The randomness is seeded; the seed is in the name of the test. ``BILLIARD_CHAOS=4`` makes it a hundred
moments.
"""

from __future__ import annotations

import collections
import contextlib
import os
import platform
import random
import signal
import threading
import time

import pytest
from hostilework import CHAOS, PATIENCE, children_of, double, is_alive, kill, leave_with_length, sleep, until

import billiard
from billiard.forkserver import _forkserver

pytestmark = pytest.mark.usefixtures("server")

CONTEXT = billiard.get_context("forkserver")
#: Since then the kernel tells everybody how a process has ended; before, only the server knows.
TELLS_ALL = tuple(map(int, platform.release().split(".")[:2])) >= (6, 15)


@pytest.fixture
def server(leak_census):  # noqa: ARG001
    """Have a server; it is gone before what is left is counted."""
    _forkserver.ensure_running()
    yield
    _forkserver._stop()


def started(target, *args):
    child = CONTEXT.Process(target=target, args=args, daemon=True)
    child.start()
    return child


def ended(child):
    """Wait for a child; answer its exit code."""
    child.join(PATIENCE)
    return child.exitcode


@pytest.mark.parametrize("seed", range(25 * CHAOS))
def test_a_start_succeeds_or_fails_whenever_the_server_is_killed(seed):
    chance = random.Random(seed)
    # While it starts a child, or is started itself, or loads something.
    moment = chance.uniform(0, chance.choice([0.005, 0.1]))
    if moment > 0.005:
        _forkserver._stop()
    killer = threading.Thread(target=_kill_the_server, args=(moment,))
    killer.start()
    children = []
    for _ in range(4):
        with contextlib.suppress(BrokenPipeError, ChildProcessError):
            children.append(started(leave_with_length, bytes(3 << 20)))
    killer.join()
    assert {ended(child) for child in children} <= ({3} if TELLS_ALL else {3, 255})
    assert ended(started(leave_with_length, bytes(1 << 20))) == 1


def _kill_the_server(moment):
    time.sleep(moment)
    until(lambda: _forkserver._child is not None)
    kill(_forkserver._child.pid)


def test_children_outlive_their_server_and_tell_how_they_end():
    children = [started(sleep) for _ in range(3)]
    children += [started(leave_with_length, bytes(n << 20)) for n in range(3)]
    kill(_forkserver._child.pid)
    until(lambda: not is_alive(_forkserver._child.pid))
    assert all(child.is_alive() for child in children[:3])
    children[0].terminate()
    children[1].kill()
    children[2].interrupt()
    codes = [ended(child) for child in children]
    exact = [-signal.SIGTERM, -signal.SIGKILL, 1, 0, 1, 2]
    assert all(
        code in ([want] if TELLS_ALL else [want, 255]) for code, want in zip(codes, exact, strict=True)
    )
    assert ended(started(leave_with_length, bytes(1 << 20))) == 1


def test_children_that_are_killed_are_told_apart_from_those_that_exit():
    signals = [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGUSR2] * 5
    children = [started(sleep) for _ in signals]
    for child, number in zip(children, signals, strict=True):
        kill(child.pid, number)
    assert [ended(child) for child in children] == [-number for number in signals]


def test_children_that_are_killed_as_soon_as_they_are_there():
    """Some cannot even say that they run."""
    over = threading.Event()
    server = _forkserver._child.pid

    def hunt():
        while not over.is_set():
            for child in children_of(server):
                kill(child)

    hunter = threading.Thread(target=hunt)
    hunter.start()
    outcomes = collections.Counter()
    try:
        for _ in range(100 * CHAOS):
            try:
                outcomes[ended(started(sleep))] += 1
            except ChildProcessError:
                outcomes["stillborn"] += 1
    finally:
        over.set()
        hunter.join()
    assert set(outcomes) <= {-signal.SIGKILL, "stillborn"}
    assert _forkserver._child.pid == server
    assert ended(started(leave_with_length, bytes(1 << 20))) == 1


def test_a_start_can_be_interrupted_while_the_server_is_stopped():
    server = _forkserver._child.pid
    os.kill(server, signal.SIGSTOP)
    interrupt = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        started(sleep)
    interrupt.join()
    os.kill(server, signal.SIGCONT)
    # By then it has dealt with what came before, and with what became of that.
    assert ended(started(leave_with_length, bytes(1 << 20))) == 1
    until(lambda: children_of(server) == set(), "the end of the child that nobody waited for")


def test_a_start_that_was_interrupted_leaves_no_child_even_if_nothing_else_is_started():
    server = _forkserver._child.pid
    os.kill(server, signal.SIGSTOP)
    interrupt = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        started(sleep)
    interrupt.join()
    before = _cpu(server)
    os.kill(server, signal.SIGCONT)
    until(lambda: _cpu(server) > before and _is_waiting(server), "the server does what it was asked")
    until(lambda: children_of(server) == set(), "the end of the child that nobody waited for")


def _is_waiting(number):
    with open(f"/proc/{number}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] == "S"


def _cpu(number):
    with open(f"/proc/{number}/schedstat") as stat:
        return int(stat.read().split()[0])


def test_a_lost_worker_is_known_while_the_server_is_stopped():
    """How a child has ended is the server's to tell, but that it has ended is not."""
    pool = CONTEXT.Pool(1)
    server = _forkserver._child.pid
    try:
        result = pool.apply_async(sleep)
        until(result.accepted)
        os.kill(server, signal.SIGSTOP)
        kill(pool._pool[0].pid)
        with pytest.raises(billiard.exceptions.WorkerLostError):
            result.get(PATIENCE)
    finally:
        os.kill(server, signal.SIGCONT)
        pool.terminate()
        pool.join()


def test_a_pool_whose_server_is_killed_again_and_again_ends_every_job_once(caplog):
    """The pool logs the workers that it loses, and those that it cannot start."""
    caplog.set_level("CRITICAL")
    chance = random.Random(3)
    calls = collections.Counter()
    pool = CONTEXT.Pool(3, maxtasksperchild=5)
    try:
        results = []
        for _ in range(20):
            for _ in range(30):
                number = len(results)
                told = lambda _, number=number: calls.update([number])  # noqa: E731
                results.append(pool.apply_async(double, (number,), callback=told, error_callback=told))
            time.sleep(chance.uniform(0, 0.05))
            if _forkserver._child is not None:
                kill(_forkserver._child.pid)
        assert [result.get(PATIENCE) for result in results] == [2 * n for n in range(len(results))]
        assert pool.map(double, range(100)) == [2 * n for n in range(100)]
        pool.close()
        pool.join()
        assert calls == collections.Counter(range(len(results)))
    finally:
        pool.terminate()
        pool.join()
