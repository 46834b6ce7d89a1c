"""What the tests of locks and their like run in children."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time


def leave_with(target, *args):
    """Exit with what a function returns."""
    sys.exit(int(target(*args)))


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def acquires(lock, timeout=0.0):
    """Whether a lock can be acquired here."""
    return lock.acquire(True, timeout)


def takes(lock, times=1):
    """Acquire a lock and keep it."""
    return all(lock.acquire() for _ in range(times))


def gives(lock, times=1):
    """Release what another process has acquired."""
    for _ in range(times):
        lock.release()
    return 0


def error_of(function, *args):
    """Exit with a number that stands for the exception."""
    errors = {AssertionError: 21, ValueError: 22, RuntimeError: 23, threading.BrokenBarrierError: 24}
    try:
        function(*args)
    except tuple(errors) as error:
        return errors[type(error)]
    return 0


def release(lock):
    lock.release()


def take_and_die(lock, ready=None):
    """Acquire a lock, and be killed with it."""
    lock.acquire()
    if ready is not None:
        ready.set()
    die()


def take_and_stay(lock, ready):
    lock.acquire()
    ready.set()
    time.sleep(1000)


def wait_for(thing, ready):
    """Wait for an event or a barrier, for ever."""
    ready.release()
    thing.wait()


def wait_and_tell(thing, ready, told):
    """Wait, and tell that the wait is over."""
    ready.release()
    thing.wait()
    told.release()


def wait_in(condition, ready, told, timeout=None):
    """Wait for a condition, and tell how the wait has ended."""
    with condition:
        ready.release()
        if condition.wait(timeout):
            told.release()


def count_up(lock, path, times):
    """Increase a number in a file, under a lock."""
    for _ in range(times):
        with lock, open(path, "r+b", buffering=0) as file:
            number = int(file.read() or b"0")
            file.seek(0)
            file.write(b"%d" % (number + 1))


def pass_barrier(barrier, times, passed):
    """Pass a barrier a number of times."""
    for _ in range(times):
        barrier.wait()
        passed.release()


def bounce(mine, theirs, times):
    """Answer events."""
    for _ in range(times):
        mine.wait()
        mine.clear()
        theirs.set()
