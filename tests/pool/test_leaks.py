"""What a pool has used is given back."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import chaosworks as works
import poolwork
import pytest
from chaosworks import CHAOS, kill, worker_pids

import billiard
from billiard.exceptions import WorkerLostError
from billiard.pool import Pool

PATIENCE = 30.0
METHODS = ("fork", "forkserver", "spawn")
#: What an area may keep warm for the next message.
WARM = 64 << 20


@pytest.fixture(autouse=True)
def quiet(caplog):
    """The pool logs every worker that it loses."""
    caplog.set_level("CRITICAL")


def shared_bytes():
    """The memory behind the shared segments of this process."""
    total, seen = 0, set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if "memfd:billiard" in os.readlink(f"/proc/self/fd/{number}"):
                status = os.stat(f"/proc/self/fd/{number}")
                if status.st_ino not in seen:
                    seen.add(status.st_ino)
                    total += status.st_blocks * 512
    return total


def descriptors():
    return len(os.listdir("/proc/self/fd"))


#: How often something is done by each start method, so that each takes about as long.
TIMES = {"fork": 40 * CHAOS, "forkserver": 15 * CHAOS, "spawn": 6 * CHAOS}


@pytest.mark.usefixtures("leak_census")
def test_pools_that_come_and_go_leave_nothing(method):
    for n in range(TIMES[method]):
        pool = Pool(2, context=billiard.get_context(method))
        assert pool.map(poolwork.double, range(4)) == [0, 2, 4, 6]
        if n % 2:
            pool.close()
            pool.join()
        else:
            pool.terminate()


@pytest.mark.usefixtures("leak_census")
def test_pools_that_are_killed_leave_nothing():
    for n in range(10 * CHAOS):
        pool = Pool(2)
        results = [pool.apply_async(poolwork.sleep, (0.01,)) for _ in range(n)]
        for pid in worker_pids(pool):
            kill(pid)
        pool.terminate()
        assert all(result.ready() for result in results)


@pytest.mark.usefixtures("leak_census")
def test_a_pool_that_failed_half_way_leaves_nothing(monkeypatch):
    starts = []
    create = Pool._create_worker_process

    def refuse(self, index):
        starts.append(index)
        if len(starts) == 3:
            raise OSError("no room for another process")
        return create(self, index)

    monkeypatch.setattr(Pool, "_create_worker_process", refuse)
    with pytest.raises(OSError, match="no room"):
        Pool(4)


def test_replaced_workers_leave_no_descriptors(start, method, until):
    before = descriptors()
    pool = start(2, maxtasksperchild=1)
    for _ in range(TIMES[method]):
        pool.apply_async(poolwork.double, (1,)).get(PATIENCE)
    until(lambda: len(worker_pids(pool)) == 2)
    # Memory, two doorbells, epoll and timer of the pool; segment, doorbell, notebook and pidfd of a worker.
    most = before + 5 + 2 * 4
    until(lambda: descriptors() <= most, "the descriptors of old workers are closed")


def test_a_worker_has_only_its_own_descriptors(make_pool):
    """Those of a replacement too: it is forked while the pool is at work."""
    others = works.pool_descriptors(None)  # of the fork server, if there is one
    pool = make_pool(4, maxtasksperchild=20)
    counts = set()
    for _ in range(20 * CHAOS):
        results = pool.map(works.pool_descriptors, range(100), chunksize=1)
        counts.update(results)
    # Segment, doorbell and notebook; segment and two doorbells of the pool.
    assert max(counts) <= others + 6


def test_a_pool_in_a_worker_closes_no_files_of_the_worker(make_pool):
    """Numbers that the worker has closed as not its own are files of its own by then."""
    other = make_pool(2)
    pool = make_pool(1)
    assert pool.apply_async(works.pool_in_a_pool, (20,)).get(PATIENCE) == list(range(20))
    assert other.map(poolwork.double, range(4)) == [0, 2, 4, 6]


@pytest.mark.usefixtures("leak_census")
def test_failed_tasks_leave_nothing():
    pool = Pool(2)
    for _ in range(100):
        with pytest.raises(ValueError, match="no"):
            pool.apply_async(poolwork.fail).get(PATIENCE)
    for _ in range(10):
        with pytest.raises(WorkerLostError):
            pool.apply_async(poolwork.exit_hard).get(PATIENCE)
    pool.terminate()
    pool.join()
    del pool


@pytest.mark.usefixtures("leak_census")
def test_an_error_that_is_kept_does_not_keep_the_pool():
    """An exception knows the frame of its catcher, and so the result, the pool and all that it owns."""

    def use():
        pool = Pool(1)
        result = pool.apply_async(poolwork.fail)
        with contextlib.suppress(ValueError):
            result.get(PATIENCE)
        circle = pool.apply_async(poolwork.double, (1,), callback=lambda _: circle)
        circle.get(PATIENCE)
        pool.terminate()
        pool.join()

    use()
    gc.collect()


@pytest.mark.parametrize("size", [20_000, 1 << 20, 100 << 20])
def test_the_memory_of_large_messages_comes_back(make_pool, until, size):
    pool = make_pool(1)
    pool.apply(poolwork.double, (1,))
    before = shared_bytes()
    for _ in range(3):
        assert len(pool.apply_async(poolwork.identity, (bytearray(size),)).get(PATIENCE)) == size
    gc.collect()
    # The next message takes back what the last one has left; what is above the reserve returns to the system.
    pool.apply_async(poolwork.identity, (bytearray(20_000),)).get(PATIENCE)
    pool.apply_async(poolwork.identity, (bytearray(20_000),)).get(PATIENCE)
    most = before + 2 * min(WARM, 4 * size) + (1 << 20)
    until(lambda: shared_bytes() <= most, f"{shared_bytes()} bytes are still used, at most {most} should be")


def test_the_memory_of_jobs_that_were_dropped_comes_back(make_pool, until):
    pool = make_pool(1)
    before = shared_bytes()
    for _ in range(20):
        # Nobody keeps the result.
        pool.apply_async(poolwork.identity, (bytearray(20 << 20),))
    pool.apply_async(poolwork.double, (1,)).get(PATIENCE)
    for _ in range(2):
        gc.collect()
        pool.apply_async(poolwork.identity, (bytearray(1 << 20),)).get(PATIENCE)
    most = before + 2 * WARM + (8 << 20)
    until(lambda: shared_bytes() <= most, "the memory of dropped results returns")


def test_the_memory_held_by_a_killed_worker_comes_back(start, until):
    pool = start(1)
    pid = pool.apply_async(works.hold_views, (bytearray(50 << 20), bytearray(50 << 20))).get(PATIENCE)
    held = shared_bytes()
    assert held >= 100 << 20
    kill(pid)
    until(lambda: worker_pids(pool) not in ([], [pid]))
    until(lambda: shared_bytes() <= WARM + (4 << 20), "what the dead worker held returns")
    assert pool.apply_async(works.length, (bytearray(90 << 20),)).get(PATIENCE) == 90 << 20


def test_the_memory_of_tasks_that_were_never_begun_comes_back(make_pool):
    pool = make_pool(1)
    pid = pool.apply(poolwork.pid)
    os.kill(pid, signal.SIGSTOP)
    results = [pool.apply_async(works.length, (bytearray(20 << 20),)) for _ in range(10)]
    assert shared_bytes() >= 200 << 20
    pool.terminate()
    pool.join()
    assert all(result.ready() for result in results)
    # The pool is over: what it used goes with the last reference to it.
    del results, pool


def test_results_outlive_the_worker_and_the_pool(make_pool):
    pool = make_pool(1)
    results = [pool.apply_async(works.buffer_of, (n, 1 << 20)) for n in range(5)]
    values = [result.get(PATIENCE) for result in results]
    pool.terminate()
    pool.join()
    assert [bytes(value) == bytes([n]) * (1 << 20) for n, value in enumerate(values)] == [True] * 5


def test_more_results_are_kept_than_there_are_extents(make_pool):
    """Whoever maps a function over a long list keeps every result until the last one is there."""
    pool = make_pool(2)
    results = pool.map_async(works.echo_bytes, [9_000] * 40_000, chunksize=1).get(4 * PATIENCE)
    assert len(results) == 40_000
    assert set(map(len, results)) == {9_000}


def test_more_arguments_wait_than_there_are_extents(make_pool, tmp_path):
    pool = make_pool(1)
    path = tmp_path / "gate"
    gated = pool.apply_async(poolwork.gate, (str(path),))
    plain = [pool.apply_async(works.length, (b"x" * 9_000,)) for _ in range(10_000)]
    beside = [pool.apply_async(works.length, (bytearray(9_000 + n % 7),)) for n in range(10_000)]
    path.touch()
    gated.get(PATIENCE)
    assert all(result.get(PATIENCE) == 9_000 for result in plain)
    assert all(result.get(PATIENCE) == 9_000 + n % 7 for n, result in enumerate(beside))


STARVED = """
import os, sys, resource, time
sys.path.insert(0, {folder!r})
import billiard, chaosworks, poolwork

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
pool = billiard.get_context({method!r}).Pool({processes})
victim = pool.apply(poolwork.pid)
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, hard))
results = [pool.apply_async(poolwork.double, (n,)) for n in range(100)]
os.kill(victim, 9)
while chaosworks.is_alive(victim):
    time.sleep(0.001)
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
for result in results:
    try:
        result.get(30)
    except Exception as error:
        assert type(error).__name__ == "WorkerLostError", error
assert pool.map(poolwork.double, range(100)) == [2 * x for x in range(100)]
pool.terminate()
print("over")
"""


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_a_worker_that_finds_no_descriptors_is_started_later(method, processes):
    source = STARVED.format(folder=str(Path(__file__).parent), method=method, processes=processes)
    ran = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=100, check=False
    )
    assert ran.stdout == "over\n", ran.stderr


CLOSED = """
import os, sys
sys.path.insert(0, {folder!r})
told = os.dup(1)
os.closerange(0, 3)
import billiard, poolwork

pool = billiard.get_context({method!r}).Pool(2)
assert pool.map(poolwork.double, range(100)) == [2 * x for x in range(100)]
assert len(pool.apply(poolwork.identity, (b"x" * 100_000,))) == 100_000
os.kill(pool.apply(poolwork.pid), 9)
assert pool.map(poolwork.double, range(100)) == [2 * x for x in range(100)]
pool.terminate()
os.write(told, b"over")
"""


@pytest.mark.parametrize("method", METHODS)
def test_a_program_without_standard_streams_has_pools(method):
    """The pool's own descriptors are numbered 0 to 2 then, which workers redirect."""
    source = CLOSED.format(folder=str(Path(__file__).parent), method=method)
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, timeout=100, check=False)
    assert ran.stdout == b"over"


def test_nothing_has_a_name(make_pool):
    """Whoever is killed leaves nothing behind, since nothing can be found without a descriptor."""
    before = set(os.listdir("/dev/shm"))
    pool = make_pool(2)
    result = pool.apply_async(poolwork.identity, (bytearray(10 << 20),))
    assert set(os.listdir("/dev/shm")) <= before
    result.get(PATIENCE)
