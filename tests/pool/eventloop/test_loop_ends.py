"""The end of a pool that its owner drives."""

from __future__ import annotations

import gc
import os
import signal
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loopworks
import pytest

import billiard
from billiard.exceptions import Terminated
from billiard.pool import CLOSE, TERMINATE, Pool, WorkersJoined
from harness.looppool import LoopPool

HERE = Path(__file__).parent
BENCHES = HERE.parents[2] / "benches"


def test_what_was_begun_is_finished(make_loop: Callable[..., LoopPool]) -> None:
    pool = make_loop(2)
    told: list[bytes] = []
    results = [pool.apply_async(loopworks.filled, (1_000_000,), callback=told.append) for _ in range(2)]
    pool.run_until(lambda: all(result.accepted() for result in results))
    pool.close()
    pool.join()
    assert [len(value) for value in told] == [1_000_000] * 2
    assert [process.exitcode for process in pool._pool] == [0] * len(pool._pool)


def test_a_join_reads_what_nobody_waits_for(loop: LoopPool) -> None:
    # The owner has let go of the job; its worker cannot end before somebody has read what it returns.
    result = loop.apply_async(loopworks.filled, (5_000_000,))
    loop.run_until(result.accepted)
    result.discard()
    assert not loop._cache
    loop.close()
    loop.join()
    assert loop._pool[0].exitcode == 0


def test_a_join_does_not_wait_for_a_count_that_nobody_makes(make_loop: Callable[..., LoopPool]) -> None:
    # As when a broker connection is lost between the writing of a job and the reading of its answer.
    pool = make_loop(1, maxtasksperchild=1)
    pool.run_until(lambda: pool.idle)
    result = pool.apply_async(loopworks.double, (1,))
    result.discard()
    pool.close()
    began = time.monotonic()
    pool.join()
    assert time.monotonic() - began < 20


def test_it_cannot_be_joined_while_it_runs(loop: LoopPool) -> None:
    with pytest.raises(AssertionError, match="closed"):
        loop.join()


def test_ending_it_again_is_no_error(loop: LoopPool) -> None:
    loop.close()
    loop.close()
    assert loop._state == CLOSE
    loop.join()
    loop.join()
    loop.terminate()
    loop.terminate()
    loop.join()
    assert loop._state == TERMINATE
    assert loop._join_exited_workers(shutdown=True) in ([], [0])
    with pytest.raises(WorkersJoined):
        loop._join_exited_workers(shutdown=True)


def test_terminating_ends_jobs_without_their_callbacks(loop: LoopPool, tmp_path: Path) -> None:
    told: list[object] = []
    running = loop.apply_async(loopworks.hang, (str(tmp_path / "begun"),), error_callback=told.append)
    waiting = loop.apply_async(loopworks.double, (1,), callback=told.append, error_callback=told.append)
    loop.run_until((tmp_path / "begun").exists)
    loop.terminate()
    # What becomes of the jobs is the owner's affair: it may have them done elsewhere.
    assert told == []
    for result in (running, waiting):
        with pytest.raises(Terminated):
            result.get()
    assert loop._cache == {}
    assert loop._pool[0].exitcode == -signal.SIGTERM


def test_terminating_delivers_what_was_written(loop: LoopPool) -> None:
    told: list[object] = []
    result = loop.apply_async(loopworks.double, (1,), callback=told.append)
    (process,) = loop._pool
    process.inq._writer.setblocking(True)
    process.inq.put(None)
    process._popen.wait(30)
    loop.terminate()
    assert (told, result.get()) == ([2], 2)


def test_terminating_does_not_depend_on_the_workers(
    make_loop: Callable[..., LoopPool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billiard._loopcontrol._GRACE", 0.5)
    pool = make_loop(1)
    pool.apply_async(loopworks.stubborn, (str(tmp_path / "begun"),))
    pool.run_until((tmp_path / "begun").exists)
    pool.terminate()
    assert pool._pool[0].exitcode == -signal.SIGKILL


def test_a_worker_whose_words_nobody_reads_can_be_ended(loop: LoopPool, tmp_path: Path) -> None:
    # It waits for room in a full pipe.
    loop.apply_async(loopworks.large_after_exit, (str(tmp_path / "begun"),))
    deadline = time.monotonic() + 30
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline
    (process,) = loop._pool
    while not loop._pool[0].outq._reader.poll(0.1):
        assert time.monotonic() < deadline
    process.terminate()
    process._popen.wait(30)
    assert process._popen.returncode == -signal.SIGTERM


def test_a_handler_may_end_the_pool_on_top_of_anything(loop: LoopPool, tmp_path: Path) -> None:
    result = loop.apply_async(loopworks.hang, (str(tmp_path / "begun"),))
    loop.run_until((tmp_path / "begun").exists)

    def handler(*_: object) -> None:
        for process in loop._pool:
            loop.terminate_job(process.pid)
        loop.close()
        loop.join()
        raise SystemExit(1)

    def down(process: object) -> None:
        loop.hear_down(process)
        signal.raise_signal(signal.SIGHUP)

    loop.on_process_down = down
    before = signal.signal(signal.SIGHUP, handler)
    try:
        os.kill(loop._pool[0].pid, signal.SIGKILL)
        with pytest.raises(SystemExit):
            loop.run_until(lambda: False)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert result.ready()
    loop.terminate()
    assert loop._pool == []


def test_a_pool_that_nobody_holds_ends() -> None:
    pool = Pool(1, threads=False)
    (process,) = pool._pool
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    process._popen.wait(30)
    assert process._popen.returncode is not None


KILLED = f"""
import os, signal, sys
sys.path[:0] = [{str(BENCHES)!r}, {str(HERE)!r}]
import loopworks
from harness.looppool import LoopPool

pool = LoopPool(2)
pool.run_until(lambda: len(pool.idle) == 2)
busy = pool.apply_async(loopworks.hang, (sys.argv[1],))
pool.run_until(lambda: busy.accepted() and os.path.exists(sys.argv[1]))
print(*(process.pid for process in pool._pool), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_do_not_outlive_their_owner(program: Callable[..., Any], tmp_path: Path) -> None:
    done = program(KILLED, str(tmp_path / "begun"))
    assert done.returncode == -signal.SIGKILL, done.stderr
    pids = done.stdout.split()
    assert len(pids) == 2
    deadline = time.monotonic() + 30
    while any(_lives(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class OwnQueues(Pool):
    """Has threads, and pipes of its own: for all workers the same."""

    def _setup_queues(self) -> None:
        super()._setup_queues()
        self.asked = 0

    def get_process_queues(self) -> tuple[object, object, None]:
        self.asked += 1
        return self._inqueue, self._outqueue, None


def test_threads_serve_a_pool_with_queues_of_its_own(leak_census: None) -> None:  # noqa: ARG001
    pool = OwnQueues(2, context=billiard.get_context("fork"))
    assert pool.asked == 2
    told: list[object] = []
    assert pool.apply(loopworks.double, (1,)) == 2
    assert pool.map(loopworks.double, range(50)) == [2 * number for number in range(50)]
    with pytest.raises(ValueError, match="no"):
        pool.apply(loopworks.fail, ("no",), {})
    with pytest.raises(billiard.exceptions.TimeLimitExceeded):
        pool.apply_async(time.sleep, (60,), timeout=0.3).get(30)
    with pytest.raises(billiard.exceptions.WorkerLostError):
        pool.apply_async(loopworks.vanish, (3,)).get(30)
    pool.apply_async(loopworks.double, (21,), callback=told.append).wait(30)
    pool.close()
    pool.join()
    assert told == [42]
    pool = OwnQueues(2)
    pending = pool.apply_async(time.sleep, (60,), error_callback=told.append)
    pool.terminate()
    pool.join()
    with pytest.raises(Terminated):
        pending.get()
    assert len(told) == 2
    del pool, pending
    told.clear()


def test_jobs_of_a_pool_whose_workers_cannot_begin_fail(leak_census: None, logged: list[str]) -> None:  # noqa: ARG001
    pool = OwnQueues(
        1,
        loopworks.Initializers.fails,
        max_restarts=2,
        max_restart_freq=60,
        context=billiard.get_context("fork"),
    )
    pending = pool.apply_async(loopworks.double, (1,))
    with pytest.raises(billiard.exceptions.RestartFreqExceeded):
        pending.get(30)
    assert pool._cache == {}
    pool.terminate()
    pool.join()
    assert any("could not maintain" in line for line in logged)
    del pool, pending
