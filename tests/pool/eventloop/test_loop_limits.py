"""Time limits in a pool that its owner drives."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import loopworks
import pytest

from billiard import _loopwords
from billiard.context import BaseContext
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from harness.looppool import LoopPool


def test_a_soft_limit_is_raised_in_the_task(loop: LoopPool, tmp_path: Path) -> None:
    told: list[tuple[object, ...]] = []
    result = loop.apply_async(
        loopworks.endure,
        (str(tmp_path / "begun"),),
        soft_timeout=0.2,
        timeout_callback=lambda soft, timeout: told.append((soft, timeout)),
    )
    loop.run_until(result.ready)
    assert result.get() == "caught ()"
    assert told == [(True, 0.2)]
    uncaught = loop.apply_async(loopworks.hang, (str(tmp_path / "more"),), soft_timeout=0.1)
    loop.run_until(uncaught.ready)
    with pytest.raises(SoftTimeLimitExceeded):
        uncaught.get()


def test_a_hard_limit_ends_the_job_then_its_worker(loop: LoopPool, tmp_path: Path) -> None:
    told: list[tuple[object, ...]] = []
    pid = loop._pool[0].pid
    result = loop.apply_async(
        loopworks.stubborn,
        (str(tmp_path / "begun"),),
        timeout=0.5,
        timeout_callback=lambda soft, timeout: told.append((soft, timeout)),
    )
    loop.run_until(result.ready)
    with pytest.raises(TimeLimitExceeded) as caught:
        result.get()
    assert (caught.value.args, caught.value.pid) == ((0.5,), pid)
    assert told == [(False, 0.5)]
    after = loop.apply_async(loopworks.whoami)
    loop.run_until(after.ready)
    assert after.get()[0] != pid


def test_limits_of_the_pool_hold_where_a_job_has_none(
    make_loop: Callable[..., LoopPool], tmp_path: Path
) -> None:
    pool = make_loop(1, soft_timeout=0.2, timeout=30)
    result = pool.apply_async(loopworks.endure, (str(tmp_path / "begun"),))
    assert (result._soft_timeout, result._timeout) == (0.2, 30)
    pool.run_until(result.ready)
    assert result.get() == "caught ()"
    free = pool.apply_async(time.sleep, (0.5,), soft_timeout=0)
    pool.run_until(free.ready)
    assert free.get() is None


def test_the_owner_may_have_all_limits_looked_at(loop: LoopPool, tmp_path: Path) -> None:
    # As in a drain, where no timer of the loop's fires.
    loop.arm = loop.on_timeout_set = lambda *_: None
    result = loop.apply_async(loopworks.endure, (str(tmp_path / "begun"),), soft_timeout=0.1, timeout=60)
    loop.run_until((tmp_path / "begun").exists)
    loop.run_until(result.accepted)
    time.sleep(0.15)
    loop.check_timeouts()
    loop.check_timeouts()
    loop.run_until(result.ready)
    assert result.get() == "caught ()"


def test_a_soft_limit_that_comes_too_late_hits_nobody(loop: LoopPool, outcome: Callable[..., object]) -> None:
    pid = loop._pool[0].pid
    for number in range(200):
        os.kill(pid, signal.SIGUSR1)
        assert outcome(loop, loopworks.double, number) == 2 * number
    assert loop._pool[0].pid == pid


def test_a_soft_limit_of_another_job_does_not_strike(
    make_loop: Callable[..., LoopPool], ctx: BaseContext, tmp_path: Path
) -> None:
    """An owner that writes several jobs to a worker may find that its limit comes when the next one runs."""
    loop = make_loop(1, context=ctx)
    loop.run_until(lambda: loop.idle)
    (process,) = loop._pool
    result = loop.apply_async(loopworks.endure, (str(tmp_path / "begun"),))
    loop.run_until((tmp_path / "begun").exists)
    loop.run_until(result.accepted)

    def is_noted() -> bool:
        return any(os.pread(process._words.fileno(), 8, _loopwords._AIM))

    process._words.aim(result._job + 1)
    assert is_noted()
    os.kill(process.pid, signal.SIGUSR1)
    # The worker takes the note when it has the signal.
    loop.run_until(lambda: not is_noted())
    time.sleep(0.2)
    loop.step()
    assert not result.ready()
    # Nobody's, as a signal of the program's own is, strikes what runs.
    os.kill(process.pid, signal.SIGUSR1)
    loop.run_until(result.ready)
    assert result.get() == "caught ()"


def test_a_limit_of_a_job_that_has_ended_does_nothing(loop: LoopPool) -> None:
    result = loop.apply_async(loopworks.double, (1,), timeout=60, soft_timeout=30)
    loop.run_until(result.ready)
    pid = loop._pool[0].pid
    loop._timeout_handler.on_hard_timeout(result)
    assert result.get() == 2
    assert not loop.timers
    assert (loop._pool[0].pid, loop._pool[0].exitcode) == (pid, None)
