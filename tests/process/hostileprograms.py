"""Programs that the tests of hostile conditions start, interrupt and kill.

The first argument names one. Each says when it is ready to be harmed.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import signal
import sys
import termios
import time

import hostilework as works
from hammer import Hammer

import billiard
import billiard.pool  # now: the interpreter itself may swallow an interrupt that comes while it imports

#: What the server loads, or a child imports, for ever.
ENDLESS = "endless_module"


def _say(text):
    os.write(1, text.encode() + b"\n")


def _ready():
    _say("ready")
    while True:
        signal.pause()


def _context(method):
    return billiard.get_context(method)


# --- beside busy threads ----------------------------------------------------------------------


def hammer(method, starts):
    """Start children one after the other, while threads keep everything busy that could be half-done."""
    context = _context(method)
    with Hammer():
        for _ in range(int(starts)):
            # Nothing else ends a start that hangs.
            faulthandler.dump_traceback_later(works.PATIENCE, exit=True)
            child = context.Process(target=works.use_everything)
            child.start()
            child.join()
            assert child.exitcode == 0, child.exitcode
            child.close()
        faulthandler.cancel_dump_traceback_later()
    _say("over")


def starting(method):
    """Start much, one after the other."""
    _say("ready")
    context = _context(method)
    pools = []
    while True:
        pools.append(context.Pool(2))
        for daemon in (True, False):
            context.Process(target=works.sleep, daemon=daemon).start()


def pool(method, task):
    """A pool whose workers run a task for ever; or do nothing, for the task "idle"."""
    with _context(method).Pool(3) as pool:
        pool.map(works.double, range(10))
        if task != "idle":
            for _ in range(3):
                pool.apply_async(getattr(works, task))
        _ready()


def initializing(method):
    """A pool whose workers do not get to their first task."""
    pool = _context(method).Pool(3, works.sleep)
    pool.apply_async(works.nothing)
    _ready()


def processes(method, target):
    """A daemon and one that is none."""
    for daemon in (True, False):
        _context(method).Process(target=getattr(works, target), daemon=daemon).start()
    _ready()


def family(method):
    """A daemon and one that is none, each with two such children."""
    for daemon in (True, False):
        _context(method).Process(target=_parent, args=(method,), daemon=daemon).start()
    _ready()


def _parent(method):
    for daemon in (True, False):
        _context(method).Process(target=works.sleep, daemon=daemon).start()
    time.sleep(600)


def importing(method, daemon):
    """A child that imports something for ever before it can be what it is."""
    _context("forkserver").set_forkserver_preload([])
    _context(method).Process(target=_Endless(), daemon=daemon == "daemon").start()
    _ready()


class _Endless:
    """Takes for ever to be unpickled."""

    def __reduce__(self):
        return __import__, (ENDLESS,)

    def __call__(self):
        pass


def preloading():
    """A fork server that loads something for ever."""
    context = _context("forkserver")
    context.set_forkserver_preload([ENDLESS])
    _say("ready")
    context.Process(target=works.nothing).start()


# --- to be interrupted ------------------------------------------------------------------------


def join(method, daemon):
    child = _context(method).Process(target=works.sleep, daemon=daemon == "daemon")
    child.start()
    _say("ready")
    child.join()


def map_(method):
    pool = _context(method).Pool(3)
    pool.map(works.double, range(10))
    _say("ready")
    pool.map(works.sleep, [600] * 6, chunksize=1)


def with_map(method):
    with _context(method).Pool(3) as pool:
        pool.map(works.double, range(10))
        _say("ready")
        pool.map(works.sleep, [600] * 6, chunksize=1)


def get(method):
    pool = _context(method).Pool(3)
    pool.map(works.double, range(10))
    result = pool.apply_async(works.sleep)
    _say("ready")
    result.get()


def start_many(method):
    _say("ready")
    for number in range(1_000_000):
        child = _context(method).Process(target=works.nothing, daemon=number % 2 == 0)
        child.start()
        child.join()


def start_pool(method):
    _say("ready")
    _context(method).Pool(3).map(works.sleep, [600] * 6, chunksize=1)


def initialize(method):
    pool = _context(method).Pool(3, works.sleep)
    _say("ready")
    pool.apply(works.nothing)


def catch_in_join(method):
    child = _context(method).Process(target=works.sleep)
    child.start()
    _say("ready")
    try:
        child.join()
    except KeyboardInterrupt:
        _say("caught")
    child.join()
    _say(f"over {child.exitcode}")


def catch_in_map(method):
    pool = _context(method).Pool(3)
    pool.map(works.double, range(10))
    _say("ready")
    try:
        pool.map(works.sleep, [600] * 6, chunksize=1)
    except KeyboardInterrupt:
        _say("caught")
    # Workers do not mind Ctrl-C, but they have tasks to finish.
    pool.terminate()
    pool.join()
    _say("over")


def leave(method):
    """Exit, which waits for a child that does not mind Ctrl-C."""
    _context(method).Process(target=works.stubborn).start()
    _context(method).Process(target=works.stubborn, daemon=True).start()
    _say("ready")


def terminate(method, handler):
    """Wait for a pool, with daemons beside it; with a handler that exits, or none."""
    if handler == "exits":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    for _ in range(2):
        _context(method).Process(target=works.sleep, daemon=True).start()
    map_(method)


if __name__ == "__main__":
    if os.isatty(0):
        # From now on Ctrl-C is for this program and its children.
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    globals()[sys.argv[1]](*sys.argv[2:])
