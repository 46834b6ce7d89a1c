"""Workers, and whole pools, are killed at random moments. Every job ends all the same, once; nothing hangs.

The randomness is seeded; the seed is in the name of the test. ``BILLIARD_CHAOS=20`` makes it twenty times as
much.
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import chaosworks as works
import poolwork
import pytest
from chaosworks import CHAOS, is_alive, kill, worker_pids

from billiard.exceptions import Terminated, WorkerLostError

#: How long a job may take to end on a machine that is busy.
PATIENCE = 30.0


@pytest.fixture(autouse=True)
def quiet(caplog):
    """The pool logs every worker that it loses."""
    caplog.set_level("CRITICAL")


@pytest.mark.parametrize("processes", [1, 4])
def test_killing_all_idle_workers_again_and_again(make_pool, processes):
    pool = make_pool(processes)
    for round_ in range(50 * CHAOS):
        assert pool.apply_async(poolwork.double, (round_,)).get(PATIENCE) == 2 * round_
        for pid in worker_pids(pool):
            kill(pid)
        # The kill may hit a worker that has just been given the next task, but then it says so.
        with contextlib.suppress(WorkerLostError):
            assert pool.apply_async(poolwork.double, (round_,)).get(PATIENCE) == 2 * round_
    assert pool.apply_async(poolwork.double, (1,)).get(PATIENCE) == 2


def seeds(**counts):
    """So many seeds for each start method. What takes longer to start is tried less often."""
    cases = [(method, seed) for method, count in counts.items() for seed in range(count * CHAOS)]
    return pytest.mark.parametrize(("method", "seed"), cases, indirect=["method"])


@seeds(fork=3, forkserver=2, spawn=2)
def test_random_kills_cost_only_what_was_running(start, tmp_path, method, seed):
    chance = random.Random(seed)
    log = tmp_path / "runs"
    log.touch()
    tasks, pause = {"fork": (1500, 0.1), "forkserver": (800, 0.1), "spawn": (300, 0.4)}[method]
    pool = start(4)
    results = [
        pool.apply_async(works.log_run_slowly, (str(log), number, chance.uniform(0, 0.004)))
        for number in range(tasks)
    ]
    kills = ended = 0
    while ended < tasks:
        time.sleep(chance.uniform(0, pause))
        before, ended = ended, sum(result.ready() for result in results)
        # A pool none of whose workers lives long enough to begin is given up, with good reason.
        if ended > before:
            kill(chance.choice(worker_pids(pool) or [0x7FFF_FFFF]))
            kills += 1
    outcomes = collections.Counter(outcome(result) for result in results)
    times = collections.Counter(works.runs(log))
    assert outcomes["ok"] + outcomes["WorkerLostError"] == tasks, outcomes
    assert outcomes["WorkerLostError"] <= kills
    assert max(times.values()) == 1, "a task has run twice"
    assert all(times[number] == 1 for number, result in enumerate(results) if result.successful())


def outcome(result):
    try:
        result.get(PATIENCE)
    except Exception as error:
        return type(error).__name__
    return "ok"


def test_large_messages_under_random_kills(make_pool):
    """The memory behind them is shared by all; none may come back as somebody else's."""
    chance = random.Random(7)
    pool = make_pool(3)
    over = threading.Event()
    progress = threading.Event()

    def killer():
        while not over.wait(chance.uniform(0.005, 0.05)):
            # A pool none of whose workers lives long enough to begin is given up, with good reason.
            if progress.wait(0.1):
                progress.clear()
                kill(chance.choice(worker_pids(pool) or [0x7FFF_FFFF]))

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        lost = 0
        for _ in range(10 * CHAOS):
            sent = [bytearray([n]) * chance.randrange(5_000, 2_000_000) for n in range(20)]
            results = [pool.apply_async(poolwork.identity, (payload,)) for payload in sent]
            for payload, result in zip(sent, results, strict=True):
                try:
                    assert result.get(PATIENCE) == payload
                except WorkerLostError:
                    lost += 1
                progress.set()
    finally:
        over.set()
        thread.join()
    assert lost < 200 * CHAOS


def test_a_large_argument_for_a_stopped_worker_holds_up_nobody(make_pool, until):
    pool = make_pool(2)
    stopped = pool.apply(poolwork.pid)
    os.kill(stopped, signal.SIGSTOP)
    until(lambda: works.is_stopped(stopped))
    try:
        results = [pool.apply_async(works.length, (b"x" * (64 << 20),)) for _ in range(2)]
        # Whichever was given to the one that does not move goes to the other one.
        for _ in range(20):
            assert pool.apply_async(poolwork.double, (1,)).get(PATIENCE) == 2
        assert [result.get(PATIENCE) for result in results] == [64 << 20] * 2
    finally:
        os.kill(stopped, signal.SIGKILL)
    assert pool.apply_async(poolwork.double, (1,)).get(PATIENCE) == 2


def test_a_large_argument_of_the_only_worker_survives_it(make_pool, until):
    """A task that a stopped worker has not begun is run by its successor."""
    pool = make_pool(1)
    stopped = pool.apply(poolwork.pid)
    os.kill(stopped, signal.SIGSTOP)
    until(lambda: works.is_stopped(stopped))
    result = pool.apply_async(works.length, (b"x" * (64 << 20),))
    assert not result.ready()
    os.kill(stopped, signal.SIGKILL)
    assert result.get(PATIENCE) == 64 << 20


def test_a_task_that_runs_when_its_worker_is_stopped_and_killed_is_lost(make_pool, until, tmp_path):
    pool = make_pool(2)
    gated = pool.apply_async(poolwork.gate, (str(tmp_path / "gate"),))
    until(
        lambda: poolwork.began(tmp_path / "gate").exists() and poolwork.began(tmp_path / "gate").read_text()
    )
    stopped = int(poolwork.began(tmp_path / "gate").read_text())
    os.kill(stopped, signal.SIGSTOP)
    until(lambda: works.is_stopped(stopped))
    assert pool.map(poolwork.double, range(100)) == [2 * x for x in range(100)]
    os.kill(stopped, signal.SIGKILL)
    with pytest.raises(WorkerLostError):
        gated.get(PATIENCE)


class Storm:
    """Does at random what one can do with a pool, and knows what must come of it."""

    def __init__(self, pool, seed):
        self.pool = pool
        self.chance = random.Random(seed)
        self.results = []
        self.closed = False

    def step(self):
        deeds = [self.submit] * 6 + [self.kill] * 3 + [self.look, self.grow, self.shrink, self.stop, self.map]
        self.chance.choice(deeds)()

    def submit(self):
        if self.closed:
            with pytest.raises(ValueError, match="pool is"):
                self.pool.apply_async(poolwork.double, (1,))
            return
        task = self.chance.choice(
            [
                (poolwork.double, (1,)),
                (poolwork.sleep, (self.chance.uniform(0, 0.003),)),
                (works.length, (b"x" * self.chance.choice([10_000, 300_000]),)),
                (works.echo_bytes, (self.chance.choice([10_000, 300_000]),)),
                (poolwork.fail, ()),
                (poolwork.exit_hard, ()),
            ]
        )
        self.results.append(self.pool.apply_async(*task))

    def map(self):
        if not self.closed:
            self.results.append(self.pool.map_async(poolwork.double, range(20), chunksize=3))

    def kill(self):
        for pid in worker_pids(self.pool)[: self.chance.randrange(1, 3)]:
            kill(pid)

    def stop(self):
        for pid in worker_pids(self.pool)[:1]:
            kill(pid, signal.SIGSTOP)
            kill(pid, self.chance.choice([signal.SIGKILL, signal.SIGCONT]))

    def grow(self):
        if not self.closed and self.pool._processes < 5:
            self.pool.grow(1)

    def shrink(self):
        if not self.closed and self.pool._processes > 1:
            with contextlib.suppress(ValueError):
                self.pool.shrink(1)

    def look(self):
        if self.results:
            with contextlib.suppress(Exception):
                self.chance.choice(self.results).get(self.chance.uniform(0, 0.003))

    def end(self):
        self.closed = True
        ends = [self.pool.terminate]
        if self.chance.random() < 0.5:
            ends = [self.pool.close, *self.chance.choice([[], [self.kill], [self.submit]]), *ends]
        if self.chance.random() < 0.3:
            ends[-1] = self.pool.close
        threads = [threading.Thread(target=self.wait_for_all) for _ in range(2)]
        for thread in threads:
            thread.start()
        for end in ends:
            end()
        self.pool.join()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a thread still waits for a job of a pool that is over"

    def wait_for_all(self):
        for result in list(self.results):
            with contextlib.suppress(Exception):
                result.get(PATIENCE)


@seeds(fork=60, forkserver=20, spawn=10)
def test_any_order_of_events_ends_every_job(start, seed):
    storm = Storm(start(1 + seed % 3), seed)
    for _ in range(storm.chance.randrange(1, 40)):
        storm.step()
    storm.end()
    outcomes = collections.Counter(outcome(result) for result in storm.results)
    assert all(result.ready() for result in storm.results)
    assert set(outcomes) <= {"ok", "ValueError", "WorkerLostError", "Terminated"}, outcomes


def test_workers_that_are_replaced_after_each_task_lose_nothing(make_pool, tmp_path):
    log = tmp_path / "runs"
    log.touch()
    pool = make_pool(2, maxtasksperchild=1)
    tasks = 300 * CHAOS
    results = [pool.apply_async(works.log_run, (str(log), number)) for number in range(tasks)]
    assert [result.get(4 * PATIENCE) for result in results] == list(range(tasks))
    assert sorted(works.runs(log)) == list(range(tasks))


def test_a_result_that_was_handed_in_outlives_its_worker(make_pool):
    """Nobody looks while the worker is killed: what it has published counts."""
    pool = make_pool(1)
    for _ in range(20 * CHAOS):
        pid = pool.apply_async(poolwork.pid).get(PATIENCE)
        result = pool.apply_async(works.echo_bytes, (100_000,))
        while not result.ready():
            time.sleep(0)
        kill(pid)
        assert result.get(PATIENCE) == b"x" * 100_000


def test_one_crash_fails_one_job(make_pool):
    pool = make_pool(2)
    jobs = [(poolwork.sleep, (0.01,))] * 6 + [(works.suicide, ())] + [(poolwork.sleep, (0.01,))] * 6
    outcomes = collections.Counter(outcome(r) for r in [pool.apply_async(*job) for job in jobs])
    assert outcomes == {"ok": 12, "WorkerLostError": 1}
    assert pool.map(poolwork.double, range(10)) == [2 * x for x in range(10)]


def test_a_long_task_does_not_hold_up_short_ones(make_pool, tmp_path):
    pool = make_pool(2)
    pool.map(poolwork.double, range(1000))  # they are short, so many are handed out ahead
    path = tmp_path / "gate"
    results = [pool.apply_async(poolwork.sleep, (0.001,)) for _ in range(50)]
    gated = pool.apply_async(poolwork.gate, (str(path),))
    results += [pool.apply_async(poolwork.sleep, (0.001,)) for _ in range(50)]
    for result in results:
        assert result.get(PATIENCE) == "slept"
    assert not gated.ready()
    path.touch()
    gated.get(PATIENCE)


def test_what_waits_behind_a_task_goes_on_when_its_worker_is_killed(make_pool, until, tmp_path):
    log = tmp_path / "runs"
    log.touch()
    pool = make_pool(1)
    pool.map(poolwork.double, range(1000))
    path = tmp_path / "gate"
    gated = pool.apply_async(poolwork.gate, (str(path),))
    results = [pool.apply_async(works.log_run, (str(log), number)) for number in range(50)]
    until(lambda: poolwork.began(path).exists() and poolwork.began(path).read_text())
    kill(int(poolwork.began(path).read_text()))
    assert [result.get(PATIENCE) for result in results] == list(range(50))
    assert works.runs(log) == list(range(50))
    with pytest.raises(WorkerLostError):
        gated.get(PATIENCE)


def test_jobs_of_a_terminated_pool_end(make_pool):
    pool = make_pool(2)
    results = [pool.apply_async(poolwork.sleep, (60,)) for _ in range(20)]
    waited = []
    threads = [threading.Thread(target=lambda r=r: waited.append(outcome(r))) for r in results]
    for thread in threads:
        thread.start()
    pool.terminate()
    for thread in threads:
        thread.join(PATIENCE)
    assert waited == ["Terminated"] * 20
    with pytest.raises(Terminated):
        results[0].get()


# --- who waits for whom -----------------------------------------------------------------------


def test_a_signal_handler_may_wait_for_another_job(make_pool, until, tmp_path):
    pool = make_pool(2)
    path = tmp_path / "gate"
    gated = pool.apply_async(poolwork.gate, (str(path), 7))
    until(poolwork.began(path).exists)
    got = []

    def handler(*_):
        got.append(pool.apply_async(poolwork.double, (len(got),)).get(PATIENCE))
        if len(got) == 20:
            path.touch()
        else:
            signal.setitimer(signal.ITIMER_REAL, 0.002)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        assert gated.get(PATIENCE) == 7
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert got == [2 * n for n in range(20)]


def test_a_slow_signal_handler_holds_up_nobody_else(make_pool, until, tmp_path):
    pool = make_pool(2)
    path = tmp_path / "gate"
    gated = pool.apply_async(poolwork.gate, (str(path), 7))
    until(poolwork.began(path).exists)
    got = []
    in_handler = threading.Event()

    def other():
        in_handler.wait(PATIENCE)
        got.extend(pool.apply_async(poolwork.double, (n,)).get(PATIENCE) for n in range(100))
        path.touch()

    def handler(*_):
        in_handler.set()
        until(lambda: len(got) == 100, "the other thread gets its results")

    before = signal.signal(signal.SIGALRM, handler)
    thread = threading.Thread(target=other)
    thread.start()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert gated.get(2 * PATIENCE) == 7
    finally:
        signal.signal(signal.SIGALRM, before)
        thread.join()


def test_many_threads_share_many_jobs(make_pool):
    """Threads come and go, give up and come back; whoever leads hands over."""
    pool = make_pool(2)
    trouble = []

    def client(seed):
        chance = random.Random(seed)
        for n in range(30 * CHAOS):
            result = pool.apply_async(poolwork.sleep, (chance.uniform(0, 0.002),))
            shared.append(result)
            try:
                result.wait(chance.uniform(0, 0.002))
                chance.choice(shared).get(PATIENCE)
                assert result.get(PATIENCE) == "slept"
            except BaseException as error:
                trouble.append((seed, n, error))

    shared: list = []
    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not trouble


def test_a_job_that_two_threads_wait_for_is_not_forgotten_when_one_gives_up(make_pool, until, tmp_path):
    pool = make_pool(1)
    path = tmp_path / "gate"
    gated = pool.apply_async(poolwork.gate, (str(path),), timeout=1.0)
    until(poolwork.began(path).exists)
    ended = []
    waiter = threading.Thread(target=lambda: ended.append(outcome(gated)))
    waiter.start()
    gated.wait(0.05)
    waiter.join(PATIENCE)
    assert ended == ["TimeLimitExceeded"]


def test_a_worker_may_be_up_before_its_hook_has_run(make_pool, until):
    """What it says before the pool knows where to look is heard afterwards."""
    seen = []

    def slow_hook(process):
        seen.append(process.pid)
        if len(seen) > 1:
            time.sleep(0.5)  # longer than it takes a worker to come up

    pool = make_pool(1, on_process_up=slow_hook)
    pid = pool.apply(poolwork.pid)
    kill(pid)
    results = [pool.apply_async(poolwork.double, (n,)) for n in range(10)]
    until(lambda: all(result.ready() for result in results))


def test_a_forked_copy_of_the_program_does_not_disturb_the_pool(make_pool, until, tmp_path):
    pool = make_pool(1)
    path = tmp_path / "gate"
    gated = pool.apply_async(poolwork.gate, (str(path), 1))
    until(poolwork.began(path).exists)
    sent = [bytes([n]) * 100_000 for n in range(5)]
    results = [pool.apply_async(poolwork.identity, (payload,)) for payload in sent]
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            for _ in range(20):
                with contextlib.suppress(RuntimeError):
                    pool.apply_async(works.length, (b"Z" * 100_000,))
                    os._exit(2)
            del results, gated, pool
            code = 0
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    path.touch()
    assert gated.get(PATIENCE) == 1
    assert [result.get(PATIENCE) for result in results] == sent


# --- nobody outlives the parent ---------------------------------------------------------------

PARENT = """
import os, sys, threading, time
sys.path.insert(0, {folder!r})
import billiard, poolwork

def tell(process):
    os.write(1, b"%d\\n" % process.pid)

def start():
    global pool
    pool = billiard.get_context({method!r}).Pool({processes}, on_process_up=tell)

if {from_thread}:
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
else:
    start()
if {busy}:
    results = [pool.apply_async(poolwork.sleep, (0.002,)) for _ in range(100_000)]
os.write(1, b"ready\\n")
time.sleep(600)
"""


@seeds(fork=8, forkserver=6, spawn=6)
def test_no_worker_outlives_a_parent_that_is_killed(method, seed, until):
    """Nor does the fork server, which is one of its children."""
    chance = random.Random(seed)
    source = PARENT.format(
        folder=str(Path(__file__).parent),
        method=method,
        processes=chance.randrange(1, 5),
        from_thread=chance.random() < 0.5,
        busy=chance.random() < 0.5,
    )
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        told = b""
        if chance.random() < 0.5:
            while b"ready" not in told:
                told += os.read(parent.stdout.fileno(), 4096)
        time.sleep(chance.uniform(0, 0.2 if method == "fork" else 0.6))
        family = set(poolwork.family_of(parent.pid))
        parent.kill()
        told += parent.stdout.read()
    family |= {int(line) for line in told.split() if line.isdigit()}
    until(lambda: not any(is_alive(pid) for pid in family), f"{family} end")


def test_workers_survive_the_thread_that_started_them(make_pool, until):
    """Asking the kernel for a signal at the parent's death would mean the death of that thread."""
    pools = []
    thread = threading.Thread(target=lambda: pools.append(make_pool(2)))
    thread.start()
    thread.join()
    native = str(thread.native_id)
    until(lambda: native not in os.listdir("/proc/self/task"))
    pool = pools.pop()
    pids = set(worker_pids(pool))
    assert {pool.apply_async(poolwork.pid).get(PATIENCE) for _ in range(20)} <= pids
    assert set(worker_pids(pool)) == pids
