"""What the tests of hostile conditions share: programs with everything that descends from them, what is known
of processes, and what children run.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

METHODS = ("fork", "spawn", "forkserver")
#: Multiplies the work of the tests of chaos.
CHAOS = max(1, int(os.environ.get("BILLIARD_CHAOS", "1")))
#: How long what must happen may take on a machine that is busy.
PATIENCE = 30.0

#: By this variable of its environment a process is known to belong to a tree.
_MARK = "BILLIARD_TEST_TREE"
_PROGRAMS = Path(__file__).with_name("hostileprograms.py")


# --- what children run ------------------------------------------------------------------------


def nothing(*_):
    pass


def pid(*_):
    return os.getpid()


def double(x):
    return 2 * x


def length(payload):
    return len(payload)


def leave_with_length(payload):
    """Exit with how many mebibytes there are."""
    sys.exit(len(payload) >> 20)


def use_everything():
    """Use what threads of the parent were using, but for their files: those they may hold in the middle of
    a write, and nobody can take them back.
    """
    random.random()
    logging.getLogger("hammer.child")
    threading.Thread(target=nothing).start()
    queue.Queue().put(bytearray(1 << 20))
    gc.collect()


def sleep(seconds=600.0):
    """Blocked in C."""
    time.sleep(seconds)


def hold_the_interpreter():
    """Blocked in C for ever, without letting go of the interpreter."""
    while True:
        sum(range(10**12))


def deaf():
    """Blocked, with every signal blocked as well."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(600)


def stubborn():
    """Blocked, and Ctrl-C does not matter."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    time.sleep(600)


def busy():
    """Run Python code for ever."""
    while True:
        sum(range(1000))


# --- what is known of processes ---------------------------------------------------------------


def _stat(number):
    """What the kernel tells of a process, from its state on; empty once it is gone."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def state(number):
    """The letter for what a process is doing; "X" once it is gone."""
    return (_stat(number) or "X")[0]


def is_alive(number):
    """Whether a process runs. A zombie does not."""
    return state(number) not in "ZX"


def kill(number, sign=signal.SIGKILL):
    """Signal a process that may have ended already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(number, sign)


def children_of(number):
    """The children of a process, zombies included."""
    found = set()
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{number}/task").iterdir():
            found.update(map(int, (task / "children").read_text().split()))
    return found


def until(condition: Callable[[], object], what: object = "") -> None:
    """Wait until something is true; fail if it does not become so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"did not happen in {PATIENCE} s: {what or condition}"
        time.sleep(0.002)


# --- programs ---------------------------------------------------------------------------------


class Tree:
    """A program of `hostileprograms`, and every process that descends from it.

    Args:
        folder: Where its folder for temporary files is made.
        words: Which program, and its arguments.
        environment: What is added to its environment.
        **options: For `subprocess.Popen`.

    Attributes:
        program: The program itself.
    """

    def __init__(self, folder, *words, environment=(), **options):
        self._mark = uuid.uuid4().hex
        self._folder = folder / self._mark
        self._folder.mkdir()
        self._shared_memory = _shared_memory()
        options = {"stdout": subprocess.PIPE, "text": True, "start_new_session": True, **options}
        self.program = subprocess.Popen(
            [sys.executable, "-W", "error::DeprecationWarning", str(_PROGRAMS), *map(str, words)],
            env={**os.environ, **dict(environment), _MARK: self._mark, "TMPDIR": str(self._folder)},
            **options,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for number in self.processes():
            kill(number)
        self.program.kill()
        self.program.wait()
        for stream in (self.program.stdin, self.program.stdout, self.program.stderr):
            if stream is not None:
                stream.close()

    def processes(self):
        """The processes of the tree that run, with their command lines."""
        found = {}
        for number in filter(str.isdigit, os.listdir("/proc")):
            if self._has(number) and is_alive(number):
                with contextlib.suppress(OSError):
                    found[int(number)] = Path(f"/proc/{number}/cmdline").read_text().replace("\0", " ")
        return found

    def _has(self, number):
        # Either may be lost: the session by whoever starts one, the environment by whoever writes over it.
        with contextlib.suppress(OSError):
            if self._mark.encode() in Path(f"/proc/{number}/environ").read_bytes():
                return True
        return _stat(number)[3:4] == [str(self.program.pid)]

    def expect(self, *lines):
        """See that the program prints these lines next."""
        for line in lines:
            assert self.program.stdout.readline() == line + "\n"

    def ends(self):
        """Wait until nothing of it runs, and see that nothing is left."""
        until(lambda: not self.processes(), _Running(self))
        self.program.wait()
        assert os.listdir(self._folder) == []
        assert _shared_memory() <= self._shared_memory


def _shared_memory():
    try:
        return set(os.listdir("/dev/shm"))
    except OSError:
        return set()


class _Running:
    """Tells which processes of a tree run, at the moment when it is printed."""

    def __init__(self, tree):
        self._tree = tree

    def __str__(self):
        return f"the end of {self._tree.processes()}"
