"""A pool that its owner drives, without queues of its own: nothing is torn or stuck, whoever is killed."""

from __future__ import annotations

import os
import random
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loopworks
import pytest

from billiard.context import BaseContext
from billiard.exceptions import RestartFreqExceeded, Terminated, WorkerLostError
from billiard.pool import Pool

SIZES = (10, 5_000, 100_000, 3_000_000)


class Owner:
    """Drives a pool as the documentation says."""

    def __init__(self, processes: int, **options: Any) -> None:
        self.pool = Pool(processes, threads=False, **options)

    def step(self, timeout: float = 0.05) -> None:
        pool = self.pool
        sentinels = pool.process_sentinels
        ready = select.select([pool._outqueue._reader, *sentinels], [], [], timeout)[0]
        if pool._outqueue._reader in ready:
            pool.handle_result_event()
        if any(sentinel in ready for sentinel in sentinels):
            pool.maintain_pool()

    def run_until(self, done: Callable[[], object], limit: float = 60.0) -> None:
        deadline = time.monotonic() + limit
        while not done():
            assert time.monotonic() < deadline, "it is stuck"
            self.step()

    def end(self) -> None:
        self.pool.terminate()


@pytest.fixture
def own(ended: Callable[..., Owner]) -> Callable[..., Owner]:
    """Make a pool with an owner; it is terminated after the test, and nothing of it may be left then."""
    return lambda processes=2, **options: ended(Owner(processes, **options), Owner.end)


def test_everything_comes_back(own: Callable[..., Owner], ctx: BaseContext) -> None:
    owner = own(context=ctx)
    pool = owner.pool
    results = [pool.apply_async(loopworks.double, (number,)) for number in range(200)]
    mapped = pool.map_async(loopworks.double, range(20), 3)
    stream = pool.imap(loopworks.double, range(10), 2)
    unordered = pool.imap_unordered(loopworks.double, range(10))
    failed = pool.map_async(loopworks.fail, ["a"])
    owner.run_until(lambda: not pool._cache)
    assert [result.get() for result in results] == [2 * number for number in range(200)]
    assert mapped.get() == [2 * number for number in range(20)]
    assert list(stream) == [2 * number for number in range(10)]
    assert sorted(unordered) == [2 * number for number in range(10)]
    with pytest.raises(ValueError, match="a"):
        failed.get()
    pool.close()
    pool.join()


def test_full_pipes_do_not_stand_in_each_others_way(own: Callable[..., Owner]) -> None:
    owner = own()
    told: list[int] = []

    def again(value: bytes) -> None:
        told.append(len(value))
        if len(told) <= 10:
            owner.pool.apply_async(loopworks.filled, (100_000,), callback=again)

    for _ in range(50):
        # Both ways go through pipes that hold less.
        owner.pool.apply_async(loopworks.echo, (b"x" * 200_000,), callback=again)
    owner.run_until(lambda: not owner.pool._cache)
    assert sorted(told) == [100_000] * 10 + [200_000] * 50


def test_an_owner_never_waits_for_a_worker_that_does_not_read(own: Callable[..., Owner]) -> None:
    owner = own(1)
    assert _outcome(owner, loopworks.double, 1) == 2
    (process,) = owner.pool._pool
    os.kill(process.pid, signal.SIGSTOP)
    result = owner.pool.apply_async(loopworks.size_of, (b"x" * 3_000_000,))
    for _ in range(5):
        owner.step(0.01)
    os.kill(process.pid, signal.SIGCONT)
    owner.run_until(result.ready)
    assert result.get() == 3_000_000


@pytest.mark.parametrize("share", [None, 2])
def test_workers_killed_at_any_moment_tear_and_lose_nothing_else(
    own: Callable[..., Owner], share: int | None
) -> None:
    owner = own(3, maxtasksperchild=share, max_restarts=100_000)
    pool, chance = owner.pool, random.Random(4)
    lost, kills = 0, 0
    for _ in range(12):
        spared = kills + 20
        sizes = [chance.choice(SIZES) for _ in range(20)]
        results = [pool.apply_async(loopworks.echo, (b"x" * size,)) for size in sizes]
        maps = [pool.map_async(loopworks.size_of, [b"x" * 200_000] * 9, 3)]
        streams = [pool.imap(loopworks.size_of, [b"x" * 5000] * 9)]

        def done(jobs: list[Any] = results + maps, spared: int = spared) -> bool:
            nonlocal kills
            if pool._pool and kills < spared and chance.random() < 0.1:
                kills += 1
                chance.choice(pool._pool).kill()
            return all(job.ready() for job in jobs) and not pool._cache

        owner.run_until(done)
        for size, result in zip(sizes, results, strict=True):
            try:
                assert result.get() == b"x" * size
            except WorkerLostError:
                lost += 1
        for stream in streams:
            places = 0
            while True:
                places += 1
                try:
                    assert stream.next(0) == 5000
                except WorkerLostError:
                    continue
                except StopIteration:
                    break
            assert places == 10
    assert 0 < lost <= kills
    pool.close()
    pool.join()


def test_a_lost_item_of_a_stream_stands_in_its_place(own: Callable[..., Owner]) -> None:
    owner = own()
    stream = owner.pool.imap(loopworks.nap_die_or_go_on, range(4))
    owner.run_until(lambda: not owner.pool._cache)
    assert stream.next(0) == 0
    with pytest.raises(WorkerLostError):
        stream.next(0)
    assert list(stream) == [2, 3]


@pytest.mark.parametrize("terminated", [False, True])
def test_a_map_fails_with_a_worker(own: Callable[..., Owner], terminated: bool) -> None:
    owner = own()
    pool = owner.pool
    mapped = pool.map_async(loopworks.nap_if_even, [0] * 4, 1)
    stream = pool.imap(loopworks.double, [1])
    owner.run_until(mapped.worker_pids)
    pid = mapped.worker_pids()[0]
    if terminated:
        pool.terminate_job(pid)
    else:
        pool._process_by_pid(pid)[0].kill()
    owner.run_until(lambda: not pool._cache)
    with pytest.raises(Terminated if terminated else WorkerLostError) as caught:
        mapped.get()
    if not terminated:
        assert caught.value.pid == pid
    assert list(stream) == [2]


def test_a_job_of_a_stream_can_be_terminated(own: Callable[..., Owner]) -> None:
    owner = own()
    stream = owner.pool.imap(loopworks.nap_if_even, [0, 1])
    owner.run_until(stream.worker_pids)
    owner.run_until(lambda: 0 in stream._begun)
    owner.pool.terminate_job(stream._begun[0])
    owner.run_until(lambda: not owner.pool._cache)
    with pytest.raises(Terminated):
        stream.next(0)
    assert list(stream) == [1]


def test_a_job_that_kills_whoever_reads_it_is_lost_at_last(own: Callable[..., Owner]) -> None:
    owner = own()
    pids = {process.pid for process in owner.pool._pool}
    deadly = owner.pool.apply_async(loopworks.size_of, (loopworks.OnlyToWrite("die"),))
    others = [owner.pool.apply_async(loopworks.double, (number,)) for number in range(50)]
    owner.run_until(lambda: not owner.pool._cache)
    with pytest.raises(WorkerLostError) as caught:
        deadly.get()
    assert (caught.value.exitcode, caught.value.job) == (-9, deadly._job)
    assert [other.get() for other in others] == [2 * number for number in range(50)]
    owner.run_until(lambda: len(owner.pool._pool) == 2)
    assert pids != {process.pid for process in owner.pool._pool}


@pytest.mark.parametrize("where", ["worker", "owner"])
def test_what_cannot_be_read_fails_its_job(own: Callable[..., Owner], where: str) -> None:
    owner = own(1)
    if where == "worker":
        outcome = _outcome(owner, loopworks.size_of, loopworks.OnlyToWrite())
    else:
        outcome = _outcome(owner, loopworks.only_to_write)
    assert isinstance(outcome, ValueError)
    assert "only to write" in str(outcome)
    assert _outcome(owner, loopworks.double, 1) == 2


def test_a_job_that_exits_where_it_is_read_fails(own: Callable[..., Owner]) -> None:
    owner = own(1)
    (process,) = owner.pool._pool
    outcome = _outcome(owner, loopworks.size_of, loopworks.OnlyToWrite("leave"))
    assert isinstance(outcome, WorkerLostError)
    assert _outcome(owner, loopworks.double, 1) == 2
    assert owner.pool._pool == [process]


def test_a_job_that_ends_well_when_it_is_terminated_is_told(
    own: Callable[..., Owner], tmp_path: Path
) -> None:
    owner = own(1)
    begun = tmp_path / "begun"
    result = owner.pool.apply_async(loopworks.leave_well, (str(begun),))
    owner.run_until(begun.exists)
    owner.run_until(result.accepted)
    owner.pool.terminate_job(owner.pool._pool[0].pid)
    owner.run_until(result.ready)
    with pytest.raises(Terminated):
        result.get()


def test_what_nobody_waits_for_keeps_no_pool_from_its_end(own: Callable[..., Owner]) -> None:
    owner = own()
    failed = owner.pool.map_async(loopworks.fail, ["no"] * 500, 1)
    owner.run_until(failed.ready)
    owner.pool._pool[0].kill()
    owner.pool.close()
    owner.pool.join()
    with pytest.raises(ValueError, match="no"):
        failed.get()


def test_jobs_of_a_closed_pool_whose_workers_cannot_begin_fail(own: Callable[..., Owner]) -> None:
    owner = own(1, initializer=loopworks.Initializers.fails)
    results = [owner.pool.apply_async(loopworks.double, (number,)) for number in range(3)]
    owner.pool.close()
    owner.pool.join()
    for result in results:
        with pytest.raises(RestartFreqExceeded):
            result.get(0)


def test_what_waits_is_done_although_the_workers_of_a_closed_pool_die(own: Callable[..., Owner]) -> None:
    owner = own(1)
    pool = owner.pool
    results = [pool.apply_async(loopworks.nap_and_double, (number, 0.2)) for number in range(4)]
    owner.run_until(results[0].accepted)
    pool.close()
    pool._pool[0].kill()
    pool.join()
    with pytest.raises(WorkerLostError):
        results[0].get()
    assert [result.get(0) for result in results[1:]] == [2, 4, 6]


def test_a_pool_may_begin_with_nobody_and_grow(own: Callable[..., Owner]) -> None:
    owner = own(0)
    results = [owner.pool.apply_async(loopworks.double, (number,)) for number in range(5)]
    owner.pool.grow(2)
    owner.pool.maintain_pool()
    owner.run_until(lambda: not owner.pool._cache)
    assert [result.get() for result in results] == [0, 2, 4, 6, 8]
    owner.pool.shrink(1)
    owner.run_until(lambda: len(owner.pool._pool) == 1)
    assert _outcome(owner, loopworks.double, 4) == 8


ENDED_BY_A_HANDLER = f"""
import random, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import loopworks
from billiard.pool import Pool

chance = random.Random(int(sys.argv[1]))
ended = []

def end(*_):
    pool.close()
    pool.join()
    ended.append(True)

signal.signal(signal.SIGALRM, end)
for turn in range(20):
    pool, results = Pool(2, threads=False), []
    ended.clear()
    signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0005, 0.005))
    while not ended:
        size = chance.choice((10, 10, 200_000))
        result = pool.apply_async(loopworks.echo, (b"x" * size,))
        if result is not None:
            results.append((size, result))
        pool.handle_result_event()
    for number, (size, result) in enumerate(results):
        assert result.ready(), (turn, number, len(results))
        assert len(result.get()) == size
print("ended")
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_signal_handler_may_join_at_any_moment(program: Callable[..., Any], seed: int) -> None:
    done = program(ENDED_BY_A_HANDLER, str(seed))
    assert (done.stdout, done.stderr, done.returncode) == ("ended\n", "", 0)


PUT_BY_A_HANDLER = f"""
import random, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import loopworks
from billiard.pool import Pool

chance = random.Random(int(sys.argv[1]))
pool, results = Pool(2, threads=False), []

def put(*_):
    results.append(pool.apply_async(loopworks.double, (1,)))
    if len(results) < 600:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0001, 0.002))

signal.signal(signal.SIGALRM, put)
put()
while len(results) < 600:
    results.append(pool.apply_async(loopworks.double, (1,)))
    while not results[-1].ready():
        pool.handle_result_event()
signal.setitimer(signal.ITIMER_REAL, 0)
while pool._cache:
    pool.handle_result_event()
assert all(result.ready() and result.successful() for result in results)
pool.close()
pool.join()
print("done")
"""


def test_a_signal_handler_may_put_at_any_moment(program: Callable[..., Any]) -> None:
    done = program(PUT_BY_A_HANDLER, "5")
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


def _outcome(owner: Owner, function: Callable[..., object], *args: object) -> object:
    result = owner.pool.apply_async(function, args)
    owner.run_until(result.ready)
    try:
        return result.get()
    except Exception as error:
        return error
