"""Programs that run out of something, or lack something from the beginning.

The first argument names one. Each says "over" when everything was as it should be.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import faulthandler
import os
import resource
import sys
from collections.abc import Iterator

import hostilework as works

import billiard
from billiard.forkserver import _forkserver

#: No program has that many descriptors, and more are cheaply opened.
_LIMIT = 512


# --- descriptors ------------------------------------------------------------------------------


@contextlib.contextmanager
def _descriptors_left(count: int) -> Iterator[None]:
    """Have so many descriptors left, and no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (_LIMIT, hard))
        with contextlib.suppress(OSError):
            while True:
                fillers.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(count):
            os.close(fillers.pop())
        yield
    finally:
        for filler in fillers:
            os.close(filler)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def start_without_descriptors(method, server):
    """Start children with 0, 1, 2, ... descriptors left: refused at first, then done; never half of it."""
    context = billiard.get_context(method)
    outcomes = []
    for left in range(16):
        _prepare(context, server)
        before, children = _held(), works.children_of(os.getpid())
        child = context.Process(target=works.sleep, daemon=True)
        with _descriptors_left(left):
            outcomes.append(_outcome(child))
        if outcomes[-1] == "started":
            child.kill()
            child.join()
        elif server != "new":
            # A server that was started may stay.
            assert works.children_of(os.getpid()) == children
            assert _held() == before
        del child
        _works_again(context)
    assert outcomes[0] == errno.EMFILE
    assert set(outcomes) == {errno.EMFILE, "started"}
    assert outcomes == sorted(outcomes, key=lambda outcome: outcome == "started")
    _forkserver._stop()
    assert works.children_of(os.getpid()) == set()


def _prepare(context, server):
    if server == "new":
        _forkserver._stop()
    elif server == "running":
        _forkserver.ensure_running()
    elif not works.children_of(os.getpid()):
        # What is made once for all children.
        _works_again(context)


def _outcome(child):
    try:
        child.start()
        return "started"
    except OSError as error:
        return error.errno


def _works_again(context):
    child = context.Process(target=works.nothing)
    child.start()
    child.join()
    assert child.exitcode == 0


def _held():
    return len(os.listdir("/proc/self/fd"))


def pool_without_descriptors(method, left):
    """A pool loses its workers while there are no descriptors for others; it heals when there are."""
    pool = billiard.get_context(method).Pool(2)
    pool.map(works.double, range(10))
    workers = [worker.pid for worker in pool._pool]
    with _descriptors_left(int(left)):
        for worker in workers:
            works.kill(worker)
        results = [pool.apply_async(works.double, (n,)) for n in range(20)]
        works.until(lambda: not any(map(works.is_alive, workers)))
        # Some may be started even so; nobody waits for that.
        results[0].wait(0.5)
    assert [result.get(works.PATIENCE) for result in results] == [2 * n for n in range(20)]
    pool.terminate()
    pool.join()


# --- processes --------------------------------------------------------------------------------


def start_without_processes(method):
    """Start children with 0, 1, 2, ... processes left."""
    _give_up_privileges()
    context = billiard.get_context(method)
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    resource.setrlimit(resource.RLIMIT_NPROC, (_threads_of_this_user() + 20, hard))
    servers = ["new", "running"] if method == "forkserver" else ["none"]
    for server in servers:
        outcomes = []
        for left in range(6):
            _prepare(context, server)
            child = context.Process(target=works.nothing, daemon=True)
            with _processes_left(left):
                outcomes.append(_outcome(child))
                if outcomes[-1] == "started":
                    child.join()
                    # The thread that looks after the parent needs room as well.
                    assert child.exitcode == 0 or left <= 3, child.exitcode
            _works_again(context)
        assert outcomes[0] == errno.EAGAIN
        assert outcomes[-1] == "started"
        # A new server that has no room for the thread which watches its owner ends at once.
        assert set(outcomes) - ({errno.EPIPE} if server == "new" else set()) == {errno.EAGAIN, "started"}
    _forkserver._stop()
    assert works.children_of(os.getpid()) == set()


@contextlib.contextmanager
def _processes_left(count: int) -> Iterator[None]:
    """Have room for so many processes, and no more."""
    end, others = os.pipe()
    fillers = []
    try:
        with contextlib.suppress(BlockingIOError):
            while True:
                fillers.append(_filler(end, others))
        for _ in range(count):
            _end(fillers.pop())
        yield
    finally:
        os.close(others)
        os.close(end)
        for filler in fillers:
            _end(filler)


def _filler(end, others):
    pid = os.fork()
    if pid == 0:
        # Until the program closes its end, or is gone.
        os.close(others)
        os.read(end, 1)
        os._exit(0)
    return pid


def _end(filler):
    works.kill(filler)
    os.waitpid(filler, 0)


def _threads_of_this_user():
    count = 0
    for number in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{number}/status") as status:
                told = dict(line.split(":", 1) for line in status if ":" in line)
            if int(told["Uid"].split()[0]) == os.getuid():
                count += int(told["Threads"])
    return count


class _Head(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def _give_up_privileges():
    """The kernel does not limit the processes of root: be somebody else, who may still read every file."""
    if os.getuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    admin, resources, drop_from_bounds, version = 21, 24, 24, 0x2008_0522
    for capability in (admin, resources):
        # Programs that are executed later must not get them back.
        assert libc.prctl(drop_from_bounds, capability, 0, 0, 0) == 0
    # Nobody else's processes count: others may run this program too.
    os.setresuid(100_000 + os.getpid(), 0, 0)
    head, data = _Head(version, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(ctypes.byref(head), data) == 0
    for place in range(2):
        data[place] &= ~(1 << admin | 1 << resources)
    assert libc.capset(ctypes.byref(head), data) == 0


# --- things that are not there ----------------------------------------------------------------


def without_standard_streams(method, closed):
    for number in closed:
        os.close(int(number))
    _everything_works(method, [int(number) for number in closed])


def without_shared_memory():
    try:
        os.open("/dev/shm/attempt", os.O_CREAT | os.O_WRONLY)
    except OSError:
        pass
    else:
        raise AssertionError("there is a /dev/shm after all")
    for method in works.METHODS:
        _everything_works(method)


def _assert_closed(numbers):
    """Nothing of ours has taken the number of a stream: who still prints to it would write into that."""
    for number in numbers:
        with contextlib.suppress(FileNotFoundError):
            raise AssertionError(f"{number} is now {os.readlink(f'/proc/self/fd/{number}')}")


def _everything_works(method, closed=()):
    context = billiard.get_context(method)
    for payload in (b"", b"x" * (3 << 20)):
        child = context.Process(target=works.leave_with_length, args=(payload,))
        child.start()
        child.join()
        assert child.exitcode == len(payload) >> 20
    with context.Pool(2, maxtasksperchild=5) as pool:
        assert pool.map(works.double, range(40)) == [2 * n for n in range(40)]
        assert pool.apply(works.length, (bytearray(20 << 20),)) == 20 << 20
        _assert_closed(closed)
        works.kill(pool.apply(works.pid))
        assert pool.map(works.double, range(40)) == [2 * n for n in range(40)]
    _forkserver._stop()


if __name__ == "__main__":
    # Nothing else ends a start that hangs. It needs a thread, so it comes first.
    faulthandler.dump_traceback_later(2 * works.PATIENCE, exit=True)
    told = os.dup(1)
    globals()[sys.argv[1]](*sys.argv[2:])
    os.write(told, b"over\n")
