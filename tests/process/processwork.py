"""What the tests of processes run in children, and how it reaches them."""

from __future__ import annotations

import os
import pickle
import sys
import time

from billiard import context


class Descriptor:
    """A descriptor that goes along with a child, as what owns descriptors sends them."""

    def __init__(self, fd):
        self.fd = fd

    def __reduce__(self):
        popen = context.get_spawning_popen()
        return _arrived, (popen.DupFd(popen.duplicate_for_child(self.fd)),)


def _arrived(sent):
    return Descriptor(sent.detach())


def tell(end, function, *args):
    """Compute something and write it, pickled, to a descriptor."""
    with open(end.fd, "wb") as file:
        pickle.dump(function(*args), file)


def speak_into(out, err, target, *args):
    """Run a target whose output goes elsewhere, until the very end of the process."""
    for end, number in ((out, 1), (err, 2)):
        os.dup2(end.fd, number)
        os.close(end.fd)
    # Tests may have their own objects there.
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    target(*args)


def say(end, text=b"r"):
    os.write(end.fd, text)


def stay(end):
    """Say that the process runs, and run."""
    say(end)
    idle()


def idle():
    """Run on. Python sees a signal that arrives as it is about to fall asleep only after the nap."""
    while True:
        time.sleep(0.1)


def fail(error, stderr=True):
    """End with an exception, and with what is said about it if wanted."""
    if not stderr:
        sys.stderr = None
    raise error


def kill_self(number):
    os.kill(os.getpid(), number)
    idle()


def leave(code, stderr=True):
    """End with what is given to `sys.exit`, and with the text that it may print if wanted."""
    if not stderr:
        sys.stderr = None
    sys.exit(code)


class _Own:
    """Runs code of its own."""

    def run(self):
        sys.exit(self.extra)


class OwnForkProcess(_Own, context.ForkProcess): ...


class OwnSpawnProcess(_Own, context.SpawnProcess): ...


class OwnForkServerProcess(_Own, context.ForkServerProcess): ...


class OwnProcess(_Own, context.Process): ...


OWN = {"fork": OwnForkProcess, "spawn": OwnSpawnProcess, "forkserver": OwnForkServerProcess}
