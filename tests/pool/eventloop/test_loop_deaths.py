"""Workers that end, and what becomes of their jobs, in a pool that its owner drives."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import loopworks
import pytest

from billiard.context import BaseContext
from billiard.exceptions import RestartFreqExceeded, Terminated, WorkerLostError
from harness.looppool import LoopPool

Outcome = Callable[..., object]


def begun(pool: LoopPool, function: Callable[..., object], where: Path) -> object:
    """Submit a job, and drive the pool until the job says that it has begun."""
    result = pool.apply_async(function, (str(where),))
    pool.run_until(where.exists)
    return result


@pytest.mark.parametrize(
    ("function", "args", "exitcode", "words"),
    [
        (loopworks.vanish, (3,), 3, "exitcode 3"),
        (loopworks.vanish, (0,), 0, "exitcode 0"),
        (loopworks.die, (), -9, "signal 9 (SIGKILL)"),
    ],
)
def test_a_job_is_lost_with_its_worker_and_nothing_else_is(
    make_loop: Callable[..., LoopPool],
    function: Callable[..., object],
    args: tuple[object, ...],
    exitcode: int,
    words: str,
) -> None:
    pool = make_loop(2)
    pool.run_until(lambda: len(pool.idle) == 2)
    lost = pool.apply_async(function, args)
    others = [pool.apply_async(loopworks.double, (number,)) for number in range(50)]
    pool.run_until(lambda: lost.ready() and all(result.ready() for result in others))
    assert [result.get() for result in others] == [2 * number for number in range(50)]
    with pytest.raises(WorkerLostError) as caught:
        lost.get()
    assert str(caught.value) == f"Worker exited prematurely: {words} Job: {lost._job}."
    assert (caught.value.exitcode, caught.value.job) == (exitcode, lost._job)
    assert caught.value.pid == lost.worker_pids()[0]
    pool.run_until(lambda: len(pool.idle) == 2)
    assert sorted(process.index for process in pool._pool) == [0, 1]


def test_a_crash_tells_where_it_was(make_loop: Callable[..., LoopPool], ctx: BaseContext) -> None:
    told: list[str] = []
    loop = make_loop(1, context=ctx)
    loop.run_until(lambda: loop.idle)
    name = loop._pool[0].name
    result = loop.apply_async(loopworks.crash, error_callback=lambda info: told.append(info.traceback))
    loop.run_until(result.ready)
    with pytest.raises(WorkerLostError) as caught:
        result.get()
    error = caught.value
    assert str(error) == f"Worker exited prematurely: signal 11 (SIGSEGV) Job: {result._job}."
    assert "Segmentation fault" in error.last_stack
    assert "in crash" in error.last_stack
    assert (error.worker_name, error.signal_name) == (name, "SIGSEGV")
    assert "in crash" in told[0]


def test_hooks_are_called_in_order(loop: LoopPool) -> None:
    pid = loop._pool[0].pid
    lost = loop.apply_async(loopworks.die)
    loop.run_until(lambda: ("down", pid) in loop.told)
    assert loop.told == [
        ("flush", pid),
        ("job down", lost._job, pid),
        ("job lost", lost._job, pid, -9),
        ("down", pid),
    ]


def test_a_job_that_was_not_begun_is_run_by_another_worker(loop: LoopPool) -> None:
    (process,) = loop._pool
    os.kill(process.pid, signal.SIGSTOP)
    result = loop.apply_async(loopworks.whoami)
    assert result._write_to is process
    os.kill(process.pid, signal.SIGKILL)
    loop.run_until(result.ready)
    assert result.get()[0] == loop._pool[0].pid != process.pid


def test_a_job_that_was_written_in_part_is_run_by_another_worker(loop: LoopPool) -> None:
    (process,) = loop._pool
    os.kill(process.pid, signal.SIGSTOP)
    result = loop.apply_async(loopworks.size_of, (b"x" * 5_000_000,))
    assert loop.writers
    os.kill(process.pid, signal.SIGKILL)
    loop.run_until(result.ready)
    assert result.get() == 5_000_000
    assert not loop.writers


def test_what_was_written_before_the_end_counts(loop: LoopPool) -> None:
    (process,) = loop._pool
    result = loop.apply_async(loopworks.double, (21,))
    process.inq._writer.setblocking(True)
    process.inq.put(None)
    process._popen.wait(30)
    # Nobody has read anything yet.
    assert not result.accepted()
    assert loop.did_start_ok() is False
    assert result.get() == 42
    loop.maintain_pool()
    assert len(loop._pool) == 1


def test_regular_ends_are_quiet(
    make_loop: Callable[..., LoopPool], tmp_path: Path, logged: list[str]
) -> None:
    pool = make_loop(
        2, maxtasksperchild=3, max_restarts=1, on_process_exit=_Noted(str(tmp_path)), max_restart_freq=60
    )
    results = [pool.apply_async(loopworks.whoami) for _ in range(60)]
    pool.run_until(lambda: all(result.ready() for result in results))
    pids = [result.get()[0] for result in results]
    assert all(pids.count(pid) <= 3 for pid in pids)
    assert len(set(pids)) >= 20
    assert logged == []
    codes = {path.read_text() for path in tmp_path.iterdir()}
    assert codes == {"155"}


class _Noted:
    """Writes down how a worker has ended."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __call__(self, pid: int, code: int) -> None:
        loopworks.note_exit(self._where, pid, code)


def test_a_worker_that_is_too_large_leaves(make_loop: Callable[..., LoopPool]) -> None:
    pool = make_loop(1, max_memory_per_child=1)
    pids = set()
    for _ in range(3):
        result = pool.apply_async(loopworks.whoami)
        pool.run_until(result.ready)
        pids.add(result.get()[0])
    assert len(pids) == 3


def test_a_long_result_arrives_before_its_writer_leaves(make_loop: Callable[..., LoopPool]) -> None:
    pool = make_loop(1, maxtasksperchild=1)
    results = [pool.apply_async(loopworks.filled, (3_000_000,)) for _ in range(5)]
    pool.run_until(lambda: all(result.ready() for result in results))
    assert [len(result.get()) for result in results] == [3_000_000] * 5


def test_the_exits_of_workers_that_were_told_to_go_are_no_accidents(
    loop: LoopPool, tmp_path: Path, logged: list[str]
) -> None:
    result = begun(loop, loopworks.hang, tmp_path / "begun")
    pid = loop._pool[0].pid
    loop.run_until(result.accepted)
    loop.terminate_job(pid)
    loop.terminate_job(1)
    loop.run_until(result.ready)
    with pytest.raises(Terminated) as caught:
        result.get()
    assert caught.value.args == (signal.SIGTERM,)
    assert logged == []


def test_a_worker_that_may_not_begin_again_and_again_ends_the_pool(
    make_loop: Callable[..., LoopPool], capfd: pytest.CaptureFixture[str]
) -> None:
    pool = make_loop(1, initializer=loopworks.Initializers.fails, max_restarts=3, max_restart_freq=60)
    with pytest.raises(RestartFreqExceeded):
        pool.run_until(lambda: False)
    assert pool._state != 0
    assert "cannot begin" in capfd.readouterr().err


def test_beginning_a_job_proves_that_starting_works(make_loop: Callable[..., LoopPool]) -> None:
    pool = make_loop(1, max_restarts=1, max_restart_freq=60)
    for _ in range(5):
        result = pool.apply_async(loopworks.vanish, (1,))
        pool.run_until(result.ready)
    assert pool.restart_state.R <= 1


def test_growing_and_shrinking(make_loop: Callable[..., LoopPool], tmp_path: Path) -> None:
    pool = make_loop(1)
    pool.grow(2)
    assert (pool._processes, len(pool._pool)) == (3, 1)
    pool.maintain_pool()
    for process in pool._pool[1:]:
        pool.hear_up(process) if process.outqR_fd not in pool.by_out else None
    pool.run_until(lambda: len(pool.idle) == 3)
    assert [process.index for process in pool._pool] == [0, 1, 2]
    result = begun(pool, loopworks.hang, tmp_path / "begun")
    pool.run_until(result.accepted)
    pool.shrink(1)
    pool.run_until(lambda: len(pool._pool) == 2)
    # The others are told to go all the same, and it is said that they were not enough.
    with pytest.raises(ValueError, match="only 1"):
        pool.shrink(5)
    pool.run_until(lambda: len(pool._pool) == 1)
    assert pool._processes == 1
    assert result.worker_pids() == [pool._pool[0].pid]


def test_a_pool_may_begin_with_nothing(make_loop: Callable[..., LoopPool]) -> None:
    pool = make_loop(0)
    result = pool.apply_async(loopworks.double, (1,))
    pool.grow()
    pool.maintain_pool()
    pool.run_until(result.ready)
    assert result.get() == 2


def test_restarting_replaces_each_worker_after_one_more_job(
    make_loop: Callable[..., LoopPool], outcome: Outcome
) -> None:
    pool = make_loop(1, allow_restart=True)
    first = outcome(pool, loopworks.whoami)[0]
    pool.restart()
    # Whether it had begun to wait for a job when it was told is its affair.
    outcome(pool, loopworks.whoami)
    pool.run_until(lambda: pool._pool and pool._pool[0].pid != first)
    assert outcome(pool, loopworks.whoami)[0] != first


def test_a_start_that_fails_is_made_up_for(
    make_loop: Callable[..., LoopPool], outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_loop(1)
    pool.grow()
    fails = [True]
    start = pool._pool[0].__class__.start

    def sometimes(self: object) -> None:
        if fails.pop():
            raise BlockingIOError(11, "no process is left")
        start(self)

    monkeypatch.setattr(type(pool._pool[0]), "start", lambda self: sometimes(self) if fails else start(self))
    with pytest.raises(BlockingIOError):
        pool.maintain_pool()
    monkeypatch.undo()
    # Never started, so that nothing of it is watched.
    (failed,) = [process for process in pool._pool if process._popen is None]
    pool.by_in.pop(failed.inqW_fd)
    pool.on_process_down = lambda process: pool.spare.append((process.inq, process.outq, process.synq))
    pool.maintain_pool()
    assert len(pool._pool) == 2
    pool.on_process_down = pool.hear_down
    assert outcome(pool, loopworks.double, 1) == 2


def test_nothing_is_lost_when_workers_are_killed_all_the_time(make_loop: Callable[..., LoopPool]) -> None:
    pool = make_loop(2)
    results = [pool.apply_async(loopworks.filled, (number * 100,)) for number in range(300)]
    killed = 0
    deadline = time.monotonic() + 60
    while not all(result.ready() for result in results):
        assert time.monotonic() < deadline
        pool.step(0.01)
        done = sum(result.ready() for result in results)
        if done > 20 * (killed + 1):
            pool._pool[killed % len(pool._pool)].kill()
            killed += 1
    assert killed > 5
    lost = [result for result in results if not result.successful()]
    assert all(isinstance(result._value.exception.exc, WorkerLostError) for result in lost)
    assert len(lost) <= killed
