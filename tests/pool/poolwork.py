"""What the tests of the pool give to its workers."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path


def double(x):
    return 2 * x


def add(a, b=0, *, c=0):
    return a + b + c


def echo(*args, **kwargs):
    return args, kwargs


def identity(x):
    return x


def pid(*_):
    return os.getpid()


def with_pid(x):
    return x, os.getpid()


def fail(message="no"):
    raise ValueError(message)


def fail_if_three(x):
    if x == 3:
        raise KeyError(x)
    return x


def exit_hard(code=1):
    os._exit(code)


def kill_self(number=signal.SIGKILL):
    os.kill(os.getpid(), number)
    time.sleep(60)


def die_if_three(x):
    if x == 3:
        os._exit(7)
    return x


def began(path):
    """The file by which a gated task says that it runs."""
    return Path(f"{path}.began")


def gate(path, value=None):
    """Say that the task runs, wait until the file is there, return the process id or the value."""
    began(path).write_text(str(os.getpid()))
    while not Path(path).exists():
        time.sleep(0.002)
    return os.getpid() if value is None else value


def spin(seconds=60.0):
    """Run Python code for so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        sum(range(100))


def sleep(seconds=60.0):
    time.sleep(seconds)
    return "slept"


def swallow_exit(path):
    """Catch the exit that a terminate signal raises."""
    try:
        # Within: whoever sees the file may signal before anything else is done here.
        began(path).write_text(str(os.getpid()))
        time.sleep(60)
    except SystemExit:
        return "stayed"
    return "was not told"


def clean_up_slowly(path):
    """Finish the cleanup although it is told to end once more meanwhile."""
    try:
        began(path).write_text(str(os.getpid()))
        time.sleep(60)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        Path(path).write_text("clean")


def family_of(pid):
    """A process, its children, whichever of its threads has started them, and theirs."""
    family = [pid]
    with contextlib.suppress(OSError):  # some of it has ended meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                family += family_of(int(child))
    return family
