"""What the tests of chaos give to their workers, and what they know about processes."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from pathlib import Path

from billiard.pool import Pool

#: Multiplies the work of the tests of chaos.
CHAOS = max(1, int(os.environ.get("BILLIARD_CHAOS", "1")))


def log_run(path, number):
    """Note that a task has run. Lines appended at once are never torn."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, b"%d\n" % number)
    finally:
        os.close(fd)
    return number


def runs(path):
    """The numbers of the tasks that have run."""
    return [int(line) for line in Path(path).read_text().split()]


def log_run_slowly(path, number, seconds):
    log_run(path, number)
    time.sleep(seconds)
    return number


def echo_bytes(size, _payload=b""):
    return b"x" * size


def length(payload):
    return len(payload)


def suicide(number=signal.SIGKILL):
    os.kill(os.getpid(), number)
    signal.pause()


def hold_views(*payloads):
    """Keep what was sent, for as long as the worker lives."""
    _held.append(payloads)
    return os.getpid()


_held: list[object] = []


def is_alive(pid):
    """Whether a process runs. A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def is_stopped(pid):
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


def kill(pid, number=signal.SIGKILL):
    """Signal a process that may have ended already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def worker_pids(pool):
    return [process.pid for process in list(pool._pool) if process.pid is not None]


def switches(pid):
    """How often each thread of a process has gone to sleep, and how much processor time it has used."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            lines = (task / "status").read_text().splitlines()
            stat = (task / "stat").read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # It has ended since it was listed.
        status = dict(line.split(":", 1) for line in lines if ":" in line)
        cpu = int(stat[11]) + int(stat[12])
        found[pid, task.name, status["Name"].strip()] = int(status["voluntary_ctxt_switches"]), cpu
    return found


def pool_descriptors(_):
    """How many descriptors of the pool's kind this process has, but for those that only name a process."""
    kinds = ("memfd:billiard", "[eventfd]", "[eventpoll]", "[timerfd]")
    count = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += any(kind in os.readlink(f"/proc/self/fd/{number}") for kind in kinds)
    return count


def buffer_of(number, size):
    return bytearray([number]) * size


def pool_in_a_pool(count):
    """Open files, then use a pool in this worker. Answers what its workers see of the files."""
    with contextlib.ExitStack() as stack:
        _files[:] = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(count)]
        for number, file in enumerate(_files):
            file.write(b"%d" % number)
            file.flush()
        pool = Pool(2)
        try:
            return pool.map(read_file, range(count), chunksize=1)
        finally:
            pool.terminate()


def read_file(number):
    return int(os.pread(_files[number].fileno(), 10, 0))


_files: list = []
