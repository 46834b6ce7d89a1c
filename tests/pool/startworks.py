"""What the tests of start methods give to workers that have to import it: little, and quickly loaded."""

from __future__ import annotations

import ctypes
import importlib
import inspect
import json
import os
import pickle
import signal
import sys
import threading
import time
from pathlib import Path

from poolwork import double, family_of

import billiard
from billiard.pool import Pool, Worker
from billiard.process import current_process, parent_process

STATE: dict[str, object] = {}


def remember(*args):
    STATE["initargs"] = args


def recall(name="initargs"):
    return STATE.get(name)


def refuse(text):
    raise LookupError(text)


def refuse_once(path):
    if not os.path.exists(path):
        open(path, "w").close()
        raise LookupError("not yet")


def raise_local(text):
    """Raise an exception that cannot be pickled."""

    class Local(Exception):
        pass

    raise Local(text)


def leave(code):
    sys.exit(code)


def note(path):
    """An initializer that notes which process it runs in."""
    with open(path, "a") as file:
        file.write(f"init {os.getpid()}\n")


def is_loaded(*names):
    """Whether modules are there already, and which process says so."""
    return all(name in sys.modules for name in names), os.getpid()


def thread_lives(name):
    return sys.modules[name].thread.is_alive()


def who():
    process, parent = current_process(), parent_process()
    return process.name, process.index, process.daemon, process.pid, parent.pid


def ready_counter():
    return inspect.stack()[1].frame.f_locals["self"].on_ready_counter.value


def dispositions():
    names = {name: signal.getsignal(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGUSR1")}
    return {name: getattr(handler, "__name__", str(handler)) for name, handler in names.items()}


def standard_input():
    return sys.stdin.read(), os.read(0, 1)


def grow_by(mib):
    STATE["ballast"] = bytearray(os.urandom(1)) * (mib << 20)
    return os.getpid()


def crash():
    crash_here()


def crash_here():
    ctypes.string_at(0)


def spin_deep():
    while True:
        time.sleep(0)


def clean_up(path):
    try:
        spin_deep()
    except billiard.SoftTimeLimitExceeded:
        Path(path).write_text("cleaned")
        return "cleaned"


def owner_of(array):
    """The class of what the memory of an array belongs to."""
    while getattr(array, "base", None) is not None:
        array = array.base
    return type(array.obj if isinstance(array, memoryview) else array).__name__


def see(array):
    """What a worker finds in an array: its owner, its sum, and that the caller does not hear of a change."""
    owner, total = owner_of(array), float(array.sum())
    array[:] = 0
    return owner, total


def lock():
    return threading.Lock()


class Unreadable:
    """Can be sent, and cannot be read."""

    def __reduce__(self):
        return int, ("no number",)


def unreadable():
    return Unreadable()


class Told(Exception):
    """An exception with an attribute, and a constructor of its own."""

    def __init__(self, first, second):
        super().__init__(first, second)
        self.first, self.second = first, second


def tell(first, second):
    raise Told(first, second)


class Shouting(Worker):
    """Says when its loop starts, and puts something behind each result."""

    def on_loop_start(self, pid):
        STATE["loop"] = os.getpid(), pid

    def prepare_result(self, result):
        return result, "!"


class ShoutingPool(Pool):
    Worker = Shouting


class Refusing(Worker):
    """Cannot begin."""

    def on_loop_start(self, pid):
        raise ArithmeticError(f"{pid} is no good")


class RefusingPool(Pool):
    Worker = Refusing


class Exits:
    """A callable for `on_process_exit` that knows its file."""

    def __init__(self, path):
        self.path = path

    def __call__(self, number, code):
        with open(self.path, "a") as file:
            file.write(f"{number} {code}\n")

    def codes(self):
        with open(self.path) as file:
            return dict(map(int, line.split()) for line in file)


# --- serializers ---


def dumps(obj):
    """One half of a serializer: pickle, and a mark that shows who has packed it."""
    return b"ours" + pickle.dumps(obj)


def loads(data):
    """The other half; it notes what passes."""
    if data[:4] != b"ours":
        raise ValueError("somebody else has packed it")
    obj = pickle.loads(data[4:])
    SEEN.append(obj)
    return obj


SEEN: list[object] = []


def seen():
    return [repr(obj) for obj in SEEN]


def dumps_json(obj):
    return json.dumps(obj, default=lambda what: {"import": [what.__module__, what.__qualname__]}).encode()


def loads_json(data):
    return json.loads(data, object_hook=_imported)


def _imported(found):
    if list(found) == ["import"]:
        module, name = found["import"]
        return getattr(sys.modules.get(module) or importlib.import_module(module), name)
    return found


def pool_in_here(method, count):
    """Use a pool in this process, and end it."""
    with billiard.get_context(method).Pool(2) as pool:
        return pool.map(double, range(count), chunksize=1)


def keep_pool(method):
    """Use a pool in this process, and keep it. Answers the ids of all that belongs to it."""
    STATE["pool"] = pool = billiard.get_context(method).Pool(2)
    pool.map(double, range(4), chunksize=1)
    return family_of(os.getpid())


def pool_in_pools(method, depth):
    """Use a pool in a worker of a pool in a worker, and so on."""
    if depth == 0:
        return [double(0), double(1)]
    with billiard.get_context(method).Pool(1) as pool:
        return [pool.apply(pool_in_pools, (method, depth - 1))]


def tell_of_pool(path, method, seconds=0):
    """Use a pool in this process and leave it. The file has the ids of all that belongs to it, and ends with
    a new line.
    """
    family = keep_pool(method)
    Path(path).write_text(" ".join(map(str, family)) + "\n")
    time.sleep(seconds)
