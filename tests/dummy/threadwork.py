"""What the tests of threads give to them, and how they look at them."""

from __future__ import annotations

import threading
from pathlib import Path

#: How long what must happen may take on a machine that is busy.
PATIENCE = 30.0


def double(x):
    return 2 * x


def add(a, b=0, *, c=0):
    return a + b + c


def echo(*args, **kwargs):
    return args, kwargs


def identity(x):
    return x


def fail(message="no"):
    raise ValueError(message)


def fail_if_three(x):
    if x == 3:
        raise KeyError(x)
    return x


def is_waiting(thread):
    """Whether the thread sleeps in the kernel."""
    stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "S"


def switches(thread):
    """How often the thread was given the processor."""
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    return [line for line in status.splitlines() if "ctxt_switches" in line]


class Gate:
    """A task that says that it runs, waits until it is let through, and returns its argument."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.go = threading.Event()

    def __call__(self, value: object = None) -> object:
        self.began.release()
        assert self.go.wait(2 * PATIENCE)
        return value

    def wait_for(self, tasks: int = 1) -> None:
        """Wait until so many tasks are in it."""
        for _ in range(tasks):
            assert self.began.acquire(timeout=PATIENCE)


def submissions(pool):
    """Every way to submit something."""
    return [
        lambda: pool.apply(double, (1,)),
        lambda: pool.apply_async(double, (1,), waitforslot=True),
        lambda: pool.apply_async(double, 3),
        lambda: pool.map(double, [1]),
        lambda: pool.map(double, []),
        lambda: pool.map_async(double, [1]),
        lambda: pool.starmap(add, [(1, 2)]),
        lambda: pool.imap(double, [1]),
        lambda: pool.imap_unordered(double, [1]),
    ]
