"""The end of a pool, in every order, and what it leaves."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import threading
import time
import warnings
import weakref
from collections.abc import Callable

import poolwork
import pytest

from billiard.exceptions import Terminated
from billiard.pool import CLOSE, RUN, TERMINATE, Pool


@pytest.mark.parametrize("steps", list(itertools.product(["close", "terminate", "join"], repeat=3)))
@pytest.mark.usefixtures("leak_census")
def test_steps_of_an_end_may_come_in_any_order(steps: tuple[str, ...]) -> None:
    pool = Pool(2)
    result = pool.apply_async(poolwork.double, (3,))
    assert result.get() == 6
    ended = False
    for step in steps:
        if step == "join" and not ended:
            with pytest.raises(AssertionError, match="closed or terminated"):
                pool.join()
        else:
            getattr(pool, step)()
            ended = True
    pool.terminate()
    pool.join()
    assert pool._pool == []
    assert result.get() == 6


def test_the_state_follows_the_steps(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(1)
    assert pool._state == RUN
    pool.close()
    assert pool._state == CLOSE
    pool.terminate()
    assert pool._state == TERMINATE


def test_a_closed_pool_finishes_what_it_accepted(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(2)
    results = [pool.apply_async(poolwork.double, (i,)) for i in range(500)]
    mapped = pool.map_async(poolwork.double, range(500))
    pool.close()
    pool.join()
    assert [result.get() for result in results] == mapped.get() == [2 * i for i in range(500)]


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_a_pool_that_has_ended_says_so(make_pool: Callable[..., Pool], end: str) -> None:
    pool = make_pool(1)
    getattr(pool, end)()
    wanted = "pool is closed" if end == "close" else "pool is terminated"
    for submit in (
        lambda: pool.apply(poolwork.double, (1,)),
        lambda: pool.apply_async(poolwork.double, (1,)),
        lambda: pool.map(poolwork.double, [1]),
        lambda: pool.starmap(poolwork.add, [(1, 2)]),
        lambda: pool.imap(poolwork.double, [1]),
        pool.grow,
    ):
        with pytest.raises(ValueError, match=wanted):
            submit()


def test_terminating_ends_every_job_before_it_returns(
    make_pool: Callable[..., Pool], tmp_path, until: Callable[..., None]
) -> None:
    pool = make_pool(2)
    gates = [tmp_path / f"never{i}" for i in range(2)]
    running = [pool.apply_async(poolwork.gate, (gate,)) for gate in gates]
    until(lambda: all(poolwork.began(gate).exists() for gate in gates))
    queued = [pool.apply_async(poolwork.double, (i,)) for i in range(10_000)]
    mapped = pool.map_async(poolwork.double, range(1000), chunksize=1)
    pool.terminate()
    for result in [*running, *queued, mapped]:
        assert result.ready()
        with pytest.raises(Terminated):
            result.get(0)
    pool.join()


def test_what_was_finished_before_the_end_stays(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(2)
    results = [pool.apply_async(poolwork.double, (i,)) for i in range(100)]
    results[-1].wait()
    for result in results:
        result.wait()
    pool.terminate()
    assert [result.get() for result in results] == [2 * i for i in range(100)]


@pytest.mark.usefixtures("leak_census")
def test_leaving_the_block_ends_the_pool() -> None:
    with pytest.raises(KeyError), Pool(2) as pool:
        raise KeyError
    assert pool._state == TERMINATE
    assert pool._pool == []


@pytest.mark.usefixtures("leak_census")
def test_a_forgotten_pool_is_ended_with_one_warning(until) -> None:
    pool = Pool(2)
    made = test_a_forgotten_pool_is_ended_with_one_warning.__code__.co_firstlineno
    pids = [worker.pid for worker in pool._pool]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        watch = weakref.ref(pool)
        del pool
        # The pool's thread may be about to do something for it, and hold it for a moment.
        until(lambda: (gc.collect(), watch() is None)[1])
    (warning,) = [w for w in caught if w.category is ResourceWarning]
    assert f"{__file__}:" in str(warning.message)
    assert int(str(warning.message).rsplit(":", 1)[1]) - made in range(1, 5)
    until(lambda: not any(os.path.exists(f"/proc/{pid}/stat") for pid in pids))


@pytest.mark.usefixtures("leak_census")
def test_a_result_keeps_its_pool_alive(until) -> None:
    pool = Pool(1)
    watch = weakref.ref(pool)
    result = pool.apply_async(poolwork.double, (4,))
    del pool
    gc.collect()
    assert watch() is not None
    assert result.get() == 8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del result
        until(lambda: (gc.collect(), watch() is None)[1])


def test_a_program_may_fall_off_its_end(program) -> None:
    done = program(
        """
        import billiard

        def double(x):
            return 2 * x

        if __name__ == "__main__":
            pool = billiard.Pool(2)
            print(pool.map(double, range(3)), *(worker.pid for worker in pool._pool))
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    values, pids = done.stdout.split("]")
    assert values == "[0, 2, 4"
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids.split())


def test_a_program_that_exits_while_jobs_run_ends_them(program) -> None:
    done = program(
        """
        import sys, time, billiard

        if __name__ == "__main__":
            pool = billiard.Pool(2)
            jobs = [pool.apply_async(time.sleep, (600,)) for _ in range(100)]
            while not pool._engine.load()[0]:
                pass
            sys.exit(3)
        """
    )
    assert done.returncode == 3, done.stderr


def test_a_pool_belongs_to_the_process_that_made_it(pool: Pool) -> None:
    assert pool.apply(poolwork.double, (1,)) == 2
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        text = "nothing was raised"
        try:
            pool.apply(poolwork.double, (1,))
        except RuntimeError as error:
            text = str(error)
        finally:
            os.write(writer, text.encode())
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with open(reader, "rb") as answer:
        assert b"belongs to the process that made it" in answer.read()
    assert pool.apply(poolwork.double, (1,)) == 2


def _pool_in_a_worker(n: int) -> list[int]:
    with Pool(2) as inner:
        return inner.map(poolwork.double, range(n))


def test_a_worker_may_have_a_pool_of_its_own(pool: Pool) -> None:
    assert pool.map(_pool_in_a_worker, [2, 3], chunksize=1) == [[0, 2], [0, 2, 4]]


def test_pools_do_not_disturb_each_other(make_pool: Callable[..., Pool]) -> None:
    pools = [make_pool(1) for _ in range(4)]
    results = [pool.map_async(poolwork.double, range(200), chunksize=1) for pool in pools]
    pools[1].terminate()
    for index in (0, 2, 3):
        assert results[index].get() == [2 * i for i in range(200)]
        assert pools[index].apply(poolwork.double, (1,)) == 2


def test_threads_share_a_pool(pool: Pool) -> None:
    sums: list[int] = []

    def submit(start: int) -> None:
        jobs = [pool.apply_async(poolwork.double, (start + i,)) for i in range(300)]
        sums.append(sum(job.get() for job in jobs))

    threads = [threading.Thread(target=submit, args=(1000 * n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sums) == sorted(sum(2 * (1000 * n + i) for i in range(300)) for n in range(6))


def test_joining_in_a_callback_does_not_wait_for_itself(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(1)
    joined = threading.Event()

    def end(_: object) -> None:
        pool.close()
        pool.join()
        joined.set()

    pool.apply_async(poolwork.double, (1,), callback=end).get()
    assert joined.wait(30)
    pool.join()


def test_an_interrupted_wait_can_go_on(pool: Pool, tmp_path) -> None:
    class Rang(Exception):
        pass

    def ring(*_: object) -> None:
        raise Rang

    before = signal.signal(signal.SIGUSR2, ring)
    try:
        gate = tmp_path / "gate"
        result = pool.apply_async(poolwork.gate, (gate, "through"))
        waiting = threading.Event()
        ringer = threading.Thread(target=_ring_when_running, args=(gate, waiting))
        ringer.start()
        with pytest.raises(Rang):  # noqa: PT012 - it may ring as soon as it may
            waiting.set()
            result.get()
        ringer.join()
        gate.touch()
        assert result.get() == "through"
    finally:
        signal.signal(signal.SIGUSR2, before)


def _ring_when_running(gate, waiting: threading.Event) -> None:
    waiting.wait()
    while not poolwork.began(gate).exists():
        time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGUSR2)
