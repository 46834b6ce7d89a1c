"""Jobs in a pool that its owner drives: submitted, run, and told of."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loopworks
import pytest

import billiard
from billiard.exceptions import Terminated, WorkerLostError
from billiard.pool import MaybeEncodingError, Worker
from harness.looppool import LoopPool

Outcome = Callable[..., object]

HERE = Path(__file__).parent
BENCHES = HERE.parents[2] / "benches"


def test_jobs_come_back(make_loop: Callable[..., LoopPool]) -> None:
    pool = make_loop(2)
    results = [pool.apply_async(loopworks.double, (number,)) for number in range(100)]
    pool.run_until(lambda: all(result.ready() for result in results))
    assert [result.get() for result in results] == [2 * number for number in range(100)]
    assert pool._cache == {}
    assert all(result.worker_pids()[0] in [process.pid for process in pool._pool] for result in results)


def test_there_is_no_thread_in_the_owner(
    make_loop: Callable[..., LoopPool], outcome: Outcome, threads: Callable[[], set[str]]
) -> None:
    # One of an earlier test that was joined may be there for a moment.
    before = threads()
    pool = make_loop(2)
    assert outcome(pool, loopworks.double, 2) == 4
    assert threads() <= before


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_knows_who_it_is(make_loop: Callable[..., LoopPool], outcome: Outcome, method: str) -> None:
    pool = make_loop(1, context=billiard.get_context(method))
    pid, name, index = outcome(pool, loopworks.whoami)
    assert (pid, name, index) == (pool._pool[0].pid, pool._pool[0].name, 0)
    assert name.startswith(f"{method.capitalize()}PoolWorker-")
    # A worker is known by the number that its owner has for it, whatever it has itself.
    assert list(pool.idle) == pool._pool
    assert outcome(pool, loopworks.double, 4) == 8


@pytest.mark.parametrize("size", [0, 100, 16_384, 65_536, 3_000_000])
def test_messages_of_any_size(loop: LoopPool, outcome: Outcome, size: int) -> None:
    assert len(outcome(loop, loopworks.filled, size)) == size
    assert outcome(loop, loopworks.size_of, b"x" * size) == size


def test_callbacks_are_called_in_order(loop: LoopPool) -> None:
    told: list[tuple[object, ...]] = []
    result = loop.apply_async(
        loopworks.double,
        (4,),
        callback=lambda value: told.append(("done", value, result.ready())),
        error_callback=lambda info: told.append(("failed", info)),
        accept_callback=lambda pid, at: told.append(("accepted", pid, at <= time.monotonic())),
        correlation_id="mine",
    )
    loop.run_until(result.ready)
    assert told == [("accepted", loop._pool[0].pid, True), ("done", 8, True)]
    assert result.correlation_id == "mine"
    assert result._time_accepted <= time.monotonic()


def test_a_failure_tells_its_story(loop: LoopPool) -> None:
    told: list[object] = []
    result = loop.apply_async(loopworks.fail, ("no",), error_callback=told.append)
    loop.run_until(result.ready)
    with pytest.raises(ValueError, match="no") as caught:
        result.get()
    assert "in fail" in str(caught.value.__cause__)
    (info,) = told
    assert info.type is ValueError
    assert "in fail" in info.traceback


def test_a_callback_may_submit(loop: LoopPool) -> None:
    told: list[int] = []

    def again(value: int) -> None:
        told.append(value)
        if value < 100:
            loop.apply_async(loopworks.double, (value,), callback=again)

    loop.apply_async(loopworks.double, (1,), callback=again)
    loop.run_until(lambda: told and told[-1] >= 100)
    assert told == [2, 4, 8, 16, 32, 64, 128]


def test_what_callbacks_raise_goes_where_it_is_to_go(loop: LoopPool, logged: list[str]) -> None:
    def wrong(*_: object) -> None:
        raise KeyError("mine")

    result = loop.apply_async(loopworks.double, (1,), callback=wrong, accept_callback=wrong)
    loop.run_until(result.ready)
    assert result.get() == 2
    assert logged == ["Pool callback raised exception: KeyError('mine')"] * 2
    result = loop.apply_async(loopworks.double, (1,), callback=wrong, callbacks_propagate=(KeyError,))
    with pytest.raises(KeyError, match="mine"):
        loop.run_until(lambda: False)
    assert result.get() == 2

    def full(*_: object) -> None:
        raise MemoryError

    loop.apply_async(loopworks.double, (1,), callback=full)
    with pytest.raises(MemoryError):
        loop.run_until(lambda: False)


def test_what_cannot_be_sent_back_is_told(loop: LoopPool, outcome: Outcome) -> None:
    pid = loop._pool[0].pid
    told = outcome(loop, loopworks.unpicklable)
    assert isinstance(told, MaybeEncodingError)
    assert "lock" in str(told)
    # It could be pickled, but nobody could read it: an owner would stumble over it.
    told = outcome(loop, loopworks.fail_badly)
    assert isinstance(told, MaybeEncodingError)
    assert "fail_badly" in str(told)
    assert outcome(loop, loopworks.double, 1) == 2
    assert loop._pool[0].pid == pid


def test_a_job_that_its_worker_cannot_read_fails_alone(
    loop: LoopPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = loop._pool[0].pid
    # Pickled by a name that the worker does not have.
    monkeypatch.setattr(loopworks, "newcomer", loopworks.gone, raising=False)
    monkeypatch.setattr(loopworks.gone, "__qualname__", "newcomer")
    result = loop.apply_async(loopworks.newcomer, ([1, {2: 3}],), {"a": {4}})
    loop.run_until(result.ready)
    with pytest.raises(AttributeError, match="newcomer"):
        result.get()
    after = loop.apply_async(loopworks.double, (1,))
    loop.run_until(after.ready)
    assert after.worker_pids() == [pid]


def test_what_cannot_be_sent_is_raised_at_once(loop: LoopPool) -> None:
    with pytest.raises(Exception, match=r"pickle|lambda"):
        loop.apply_async(lambda: None)
    assert loop._cache == {}


def test_an_exit_is_an_error_that_every_owner_can_keep(loop: LoopPool, outcome: Outcome) -> None:
    pid = loop._pool[0].pid
    told = outcome(loop, loopworks.leave, 7)
    assert isinstance(told, WorkerLostError)
    assert str(told).startswith("Worker exited prematurely: exitcode 7 Job: ")
    assert told.exitcode == 7
    assert "in leave" in str(told.__cause__)
    assert isinstance(outcome(loop, loopworks.interrupt), KeyboardInterrupt)
    assert outcome(loop, loopworks.whoami)[0] == pid


def test_nothing_is_taken_by_a_pool_that_is_closed(loop: LoopPool) -> None:
    loop.close()
    assert loop.apply_async(loopworks.double, (1,)) is None
    with pytest.raises(ValueError, match="closed"):
        loop.map_async(loopworks.double, [1])
    with pytest.raises(ValueError, match="closed"):
        loop.imap(loopworks.double, [1])


def test_a_semaphore_of_the_owners_is_given_back_for_each_result(make_loop: Callable[..., LoopPool]) -> None:
    class Counting:
        def __init__(self) -> None:
            self.calls: list[str] = []

        def __getattr__(self, name: str) -> Callable[[], None]:
            return lambda: self.calls.append(name)

    semaphore = Counting()
    pool = make_loop(1, semaphore=semaphore)
    results = [pool.apply_async(loopworks.double, (number,)) for number in range(3)]
    pool.run_until(lambda: all(result.ready() for result in results))
    assert semaphore.calls == ["release"] * 3
    pool.grow(2)
    pool.close()
    assert semaphore.calls[3:] == ["grow", "grow", "clear"]


def test_a_word_is_waited_for_where_one_is_given(make_loop: Callable[..., LoopPool]) -> None:
    pool = make_loop(1, synack=True)
    kept = pool.apply_async(loopworks.double, (1,))
    dropped = pool.apply_async(loopworks.double, (2,))
    dropped._cancel()
    after = pool.apply_async(loopworks.double, (3,))
    pool.run_until(lambda: after.ready() and dropped.ready())
    assert (kept.get(), after.get()) == (2, 6)
    with pytest.raises(Terminated):
        dropped.get()
    assert pool._cache == {}


def test_agents_may_wrap_what_a_worker_does(
    make_loop: Callable[..., LoopPool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loop, leave = Worker.workloop, Worker._do_exit

    def workloop(*args: Any, **kwargs: Any) -> Any:
        try:
            return loop(*args, **kwargs)
        finally:
            (tmp_path / "flushed").touch()

    def do_exit(self: Worker, *args: Any, **kwargs: Any) -> Any:
        (tmp_path / "left").write_text(repr(args[1]))
        return leave(self, *args, **kwargs)

    monkeypatch.setattr(Worker, "workloop", workloop)
    monkeypatch.setattr(Worker, "_do_exit", do_exit)
    pool = make_loop(1)
    result = pool.apply_async(loopworks.double, (1,))
    pool.run_until(result.ready)
    pool.close()
    pool.join()
    assert result.get() == 2
    assert (tmp_path / "flushed").exists()
    assert (tmp_path / "left").read_text() == "0"


PATCHED = f"""
import sys
from unittest.mock import Mock, patch
sys.path[:0] = [{str(BENCHES)!r}, {str(HERE)!r}]
import loopworks
from harness.looppool import LoopPool

with patch("billiard.process.BaseProcess", Mock()):
    pool = LoopPool(1)
    result = pool.apply_async(loopworks.double, (1,))
    pool.run_until(result.ready)
    print(result.get())
    pool.terminate()
from billiard._parent import ParentProcess
print(isinstance(ParentProcess, type))
"""


def test_classes_are_made_before_somebody_patches_their_base(program: Callable[..., Any]) -> None:
    done = program(PATCHED)
    assert (done.stdout, done.stderr) == ("2\nTrue\n", "")
