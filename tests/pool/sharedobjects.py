"""What the tests of shared objects give to workers."""

from __future__ import annotations

import os
import pickle
import time

import numpy as np

from billiard.pool import Pool, shared

#: The name of the memory in the list of a process's mappings.
MEMORY = "/memfd:billiard-shared"
seen = []


def get(name=None):
    """The shared object, or one of several, as a task sends it back."""
    return shared() if name is None else shared()[name]


def identity(_=None):
    return os.getpid(), id(shared())


def item(name, index):
    return shared()[name][index]


def look_at(name):
    """What an array, or a view, looks like in the worker."""
    given = shared()[name]
    return type(given).__name__, bytes(given[:3]), memoryview(given).readonly


def overwrite(name):
    shared()[name][0] = 1


def make_writeable(name):
    shared()[name].flags.writeable = True


def note_shared(*_):
    seen.append(shared())


def what_was_noted():
    return seen


def total(name):
    """Touches every page; slow enough for other workers to take part."""
    found = int(np.asarray(shared()[name]).sum())
    time.sleep(0.01)
    return os.getpid(), found


def holds_memory():
    """Which descriptors and mappings of shared objects this process has."""
    names = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if is_open(fd)]
    with open("/proc/self/maps") as maps:
        return sum(name.startswith(MEMORY) for name in [*names, *maps.read().split()])


def is_open(fd):
    return os.path.lexists(f"/proc/self/fd/{fd}")


def in_nested_pool():
    """What a worker of a worker has that is given nothing, and one that is given something."""
    with Pool(1, shared="inner") as pool:
        inner = pool.apply(get)
    with Pool(1) as pool:
        error = pool.apply_async(get)
        error.wait(30)
        return inner, error.successful(), shared()


class Unwilling:
    """Can be pickled, but not unpickled."""

    def __reduce__(self):
        return refuse, ()


def refuse():
    raise LookupError("not here")


def dumps(value):
    return b"ours" + pickle.dumps(value)


def loads(data):
    assert bytes(data[:4]) == b"ours"
    return pickle.loads(data[4:])
