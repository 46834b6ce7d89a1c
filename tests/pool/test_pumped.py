"""Pools that their owner drives from an event loop, through one descriptor."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import poolwork
import pytest

from billiard import _billiard
from billiard._pumped import PumpedPool
from billiard._tasks import raisable
from billiard.exceptions import RestartFreqExceeded, Terminated, TimeLimitExceeded, WorkerLostError

PATIENCE = 30.0


class Counter:
    """Counts what it is called for."""

    def __init__(self) -> None:
        self.released = 0

    def release(self) -> None:
        self.released += 1

    def grow(self) -> None:
        pass

    shrink = clear = grow


class Log:
    """Remembers what the callbacks of a job were called with, and on which thread."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.threads: set[int] = set()

    def _note(self, what: str, value: Any) -> None:
        self.told.append((what, value))
        self.threads.add(threading.get_ident())

    def names(self) -> list[str]:
        return [name for name, _ in self.told]

    def ended(self) -> bool:
        return bool({"value", "error"} & set(self.names()))

    def __getitem__(self, name: str) -> Any:
        return dict(self.told)[name]

    def callbacks(self) -> dict[str, Any]:
        return {
            "callback": lambda value: self._note("value", value),
            "error_callback": lambda info: self._note("error", raisable(info)),
            "accept_callback": lambda pid, at: self._note("accepted", (pid, at)),
            "timeout_callback": lambda soft, timeout: self._note("soft" if soft else "hard", timeout),
        }


def drive(pool: PumpedPool, done: Callable[[], object], what: str = "") -> None:
    """Do what an event loop does, until something is true."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        left = deadline - time.monotonic()
        if left <= 0:
            pytest.fail(f"did not happen in {PATIENCE} s: {what or done}")
        if select.select([pool.fileno()], [], [], left)[0]:
            pool.pump()


@pytest.fixture
def pumped(make_pool: Callable[..., Any]) -> Callable[..., PumpedPool]:
    """Make a pool that the test drives."""

    def make(*args: Any, **kwargs: Any) -> PumpedPool:
        pool: PumpedPool = make_pool(*args, kind=PumpedPool, **kwargs)
        return pool

    return make


def submit(pool: PumpedPool, func: Callable[..., Any], *args: Any, **options: Any) -> Log:
    log = Log()
    assert pool.apply_async(func, args, {}, **log.callbacks(), **options) is not None
    return log


def begin(pool: PumpedPool, func: Callable[..., Any], *args: Any, **options: Any) -> Log:
    """Submit a job, and wait until a worker has begun it."""
    log = submit(pool, func, *args, **options)
    drive(pool, lambda: "accepted" in log.names(), "the job begins")
    return log


def test_the_owner_hears_of_everything_on_its_own_thread(pumped):
    semaphore = Counter()
    pool = pumped(2, semaphore=semaphore)
    before = threading.active_count()
    log = submit(pool, poolwork.add, 1, 2)
    failed = submit(pool, poolwork.fail, "so")
    drive(pool, lambda: log.ended() and failed.ended())
    assert log.names() == ["accepted", "value"]
    assert log["value"] == 3
    assert failed.names() == ["accepted", "error"]
    assert repr(failed["error"]) == "ValueError('so')"
    pid, at = log["accepted"]
    assert pid in [worker.pid for worker in pool._pool]
    assert 0 <= time.monotonic() - at < PATIENCE
    assert log.threads == failed.threads == {threading.get_ident()}
    assert semaphore.released == 2
    assert threading.active_count() == before


def test_there_is_no_other_thread_in_the_process(script):
    ran = script(
        """
        import os
        from billiard._pumped import PumpedPool

        pool = PumpedPool(2)
        result = pool.apply_async(abs, (-3,))
        print(result.get(30), len(os.listdir("/proc/self/task")))
        pool.close()
        pool.join()
        """
    )
    assert (ran.stdout, ran.stderr) == ("3 1\n", "")


def test_the_descriptor_is_silent_while_nothing_happens(pumped):
    pool = pumped(1)
    log = submit(pool, poolwork.identity, 1)
    drive(pool, log.ended)
    # The worker's own last step, and a deadline that was set meanwhile.
    deadline = time.monotonic() + PATIENCE
    while select.select([pool.fileno()], [], [], 0.3)[0]:
        pool.pump()
        assert time.monotonic() < deadline, "it never falls silent"
    assert pool.pump() == 0


def test_many_jobs_end_once_each(pumped):
    semaphore = Counter()
    pool = pumped(2, semaphore=semaphore)
    ended: list[int] = []
    for n in range(2000):
        pool.apply_async(poolwork.double, (n,), callback=ended.append)
    drive(pool, lambda: len(ended) == 2000)
    assert sorted(ended) == [2 * n for n in range(2000)]
    assert semaphore.released == 2000


def test_a_callback_may_submit(pumped):
    pool = pumped(1)
    ended: list[int] = []

    def go_on(value: int) -> None:
        ended.append(value)
        if value < 50:
            pool.apply_async(poolwork.add, (value, 1), callback=go_on)

    pool.apply_async(poolwork.add, (0, 1), callback=go_on)
    drive(pool, lambda: ended and ended[-1] == 50)
    assert ended == list(range(1, 51))


def test_a_release_may_submit(pumped):
    semaphore = Counter()
    pool = pumped(1, semaphore=semaphore)
    ended: list[int] = []
    waiting = list(range(20))

    def release() -> None:
        if waiting:
            pool.apply_async(poolwork.identity, (waiting.pop(),), callback=ended.append)

    pool._release = release
    release()
    drive(pool, lambda: len(ended) == 20)
    assert sorted(ended) == list(range(20))


def test_a_hard_limit_is_told_before_the_failure_with_the_stack(pumped):
    pool = pumped(1)
    overdue: list[tuple[Any, str | None]] = []
    pool._on_overdue = lambda handle, stack: overdue.append((handle.correlation_id, stack))
    log = submit(pool, time.sleep, 60, timeout=0.2, correlation_id="late")
    drive(pool, log.ended)
    assert log.names() == ["accepted", "hard", "error"]
    assert log["hard"] == 0.2
    assert isinstance(log["error"], TimeLimitExceeded)
    [(which, stack)] = overdue
    assert which == "late"
    assert stack is None or "workloop" in stack
    # The next one runs at the worker's successor.
    drive(pool, submit(pool, poolwork.identity, 1).ended)


def test_a_soft_limit_is_told_and_the_worker_lives(pumped):
    pool = pumped(1)
    pid = pool._pool[0].pid
    log = submit(pool, time.sleep, 60, soft_timeout=0.2)
    drive(pool, log.ended)
    assert log.names() == ["accepted", "soft", "error"]
    after = submit(pool, poolwork.pid)
    drive(pool, after.ended)
    assert after["value"] == pid


def test_a_lost_worker_is_named_and_replaced(pumped):
    pool = pumped(1)
    pool._named = True
    log = submit(pool, poolwork.kill_self, signal.SIGKILL)
    drive(pool, log.ended)
    assert isinstance(log["error"], WorkerLostError)
    assert log["error"].exitcode == -signal.SIGKILL
    after = submit(pool, poolwork.with_pid, "x")
    drive(pool, after.ended)
    assert after["value"] == ("x", pool._pool[0].pid)


def test_what_a_dead_worker_had_not_begun_is_run(pumped):
    pool = pumped(1)
    first = begin(pool, time.sleep, 60)
    others = [submit(pool, poolwork.identity, n) for n in range(3)]
    os.kill(pool._pool[0].pid, signal.SIGKILL)
    drive(pool, lambda: first.ended() and all(log.ended() for log in others))
    assert isinstance(first["error"], WorkerLostError)
    assert [log["value"] for log in others] == [0, 1, 2]


def test_jobs_that_nobody_has_begun_are_taken_back(pumped):
    semaphore = Counter()
    pool = pumped(1, semaphore=semaphore)
    first = begin(pool, time.sleep, 60)
    second, third = (pool.apply_async(poolwork.identity, (n,), {}, callback=pytest.fail) for n in (2, 3))
    assert pool.withdraw([second]) == [second]
    assert pool.withdraw() == [third]
    assert semaphore.released == 2
    assert pool.withdraw() == []
    assert second.ready()
    with pytest.raises(Terminated):
        second.get(PATIENCE)
    assert len(pool._cache) == 1
    pool.terminate_job(pool._pool[0].pid, signal.SIGKILL)
    drive(pool, first.ended)
    assert isinstance(first["error"], Terminated)
    assert semaphore.released == 3


def test_an_exception_of_a_callback_is_logged_and_the_next_event_comes(pumped, monkeypatch):
    logged: list[BaseException] = []
    monkeypatch.setattr("billiard._tasks.callback_failed", logged.append)
    pool = pumped(1)
    pool.apply_async(poolwork.identity, (1,), {}, callback=lambda _: 1 / 0)
    log = submit(pool, poolwork.identity, 2)
    drive(pool, log.ended)
    assert [type(error) for error in logged] == [ZeroDivisionError]


@pytest.mark.parametrize(
    ("raised", "propagate"),
    [(SystemExit, ()), (KeyboardInterrupt, ()), (MemoryError, ()), (KeyError, (LookupError,))],
)
def test_what_must_go_further_does_and_nothing_is_lost(pumped, raised, propagate):
    pool = pumped(1)

    def stop(_: object) -> None:
        raise raised

    pool.apply_async(poolwork.identity, (0,), {}, callback=stop, callbacks_propagate=propagate)
    logs = [submit(pool, poolwork.identity, n) for n in range(5)]
    with pytest.raises(raised):
        drive(pool, lambda: False)
    drive(pool, lambda: all(log.ended() for log in logs))
    assert [log["value"] for log in logs] == list(range(5))


def test_a_closed_pool_takes_nothing_and_finishes(pumped):
    pool = pumped(1)
    logs = [submit(pool, poolwork.identity, n) for n in range(100)]
    pool.close()
    assert pool.apply_async(poolwork.identity, (1,)) is None
    pool.join()
    assert [log["value"] for log in logs] == list(range(100))


def test_a_pool_is_joined_only_when_it_is_closed(pumped):
    with pytest.raises(AssertionError, match="closed or terminated"):
        pumped(1).join()


def test_terminate_tells_what_has_ended_and_nothing_else(pumped):
    pool = pumped(1)
    done = submit(pool, poolwork.identity, 1)
    running = begin(pool, time.sleep, 60)
    assert done["value"] == 1
    waiting = submit(pool, poolwork.identity, 2)
    pool.terminate()
    pool.join()
    assert running.names() == ["accepted"]
    assert waiting.names() == []


def test_a_pool_can_be_terminated_from_a_callback(pumped):
    pool = pumped(2)
    submit(pool, time.sleep, 60)
    pool.apply_async(poolwork.identity, (1,), {}, callback=lambda _: pool.terminate())
    drive(pool, lambda: pool._over)
    assert pool._pool == [] or all(worker.exitcode is not None for worker in pool._pool)


def test_a_signal_handler_may_end_the_pool_while_it_is_joined(pumped):
    pool = pumped(1)
    begin(pool, time.sleep, 60)
    pool.close()
    before = signal.signal(signal.SIGUSR2, lambda *_: pool.terminate())
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR2))
    timer.start()
    try:
        pool.join()
    finally:
        timer.join()
        signal.signal(signal.SIGUSR2, before)


def test_workers_can_be_added_and_sent_home(pumped):
    pool = pumped(1)
    pool.grow(2)
    drive(pool, lambda: len(pool._pool) == 3)
    drive(pool, submit(pool, poolwork.identity, 1).ended)
    pool.shrink(2)
    drive(pool, lambda: len(pool._pool) == 1)
    drive(pool, submit(pool, poolwork.identity, 1).ended)


def test_workers_that_have_done_their_share_are_replaced(pumped):
    pool = pumped(2, maxtasksperchild=1)
    logs = [submit(pool, poolwork.pid) for _ in range(12)]
    drive(pool, lambda: all(log.ended() for log in logs))
    assert len({log["value"] for log in logs}) == 12
    assert pool.did_start_ok() is False


def _exits_if(path: str) -> None:
    if Path(path).exists():
        os._exit(3)


def test_a_broken_pool_says_so_once_and_ends(pumped, tmp_path):
    flag = tmp_path / "flag"
    pool = pumped(1, initializer=_exits_if, initargs=(str(flag),), max_restarts=1)
    drive(pool, submit(pool, poolwork.identity, 1).ended)
    flag.touch()
    worker = pool._pool[0]
    os.kill(worker.pid, signal.SIGKILL)
    worker._popen.wait(PATIENCE)
    waiting = submit(pool, poolwork.identity, 2)
    with pytest.raises(RestartFreqExceeded):
        drive(pool, lambda: False)
    with pytest.raises(RestartFreqExceeded):
        pool.maintain_pool()
    pool.close()
    pool.join()
    assert waiting.names() == []


def test_a_forked_copy_refuses(pumped, tmp_path):
    pool = pumped(1)
    told = tmp_path / "told"
    child = os.fork()
    if child == 0:
        try:
            pool.pump()
        except RuntimeError as error:
            told.write_text(str(error))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert "belongs to the process that made it" in told.read_text()
    drive(pool, submit(pool, poolwork.identity, 1).ended)


def test_figures_tell_what_was_done_and_by_whom(pumped):
    pool = pumped(2)
    logs = [submit(pool, poolwork.identity, n) for n in range(10)]
    drive(pool, lambda: all(log.ended() for log in logs))
    begin(pool, time.sleep, 60)
    waiting = pool.apply_async(poolwork.identity, (1,))
    waiting.get(PATIENCE)
    figures = _billiard.pool_figures(pool._engine)
    assert figures["tasks"]["finished"] == 11
    assert figures["tasks"]["pending"] == 1
    assert figures["exits"] == 0
    workers = figures["workers"]
    assert {worker["pid"] for worker in workers} == {worker.pid for worker in pool._pool}
    assert sum(worker["finished"] for worker in workers) == 11
    assert [worker["busy"] is not None for worker in workers].count(True) == 1
    assert all(worker["rss"] > 0 for worker in workers)
