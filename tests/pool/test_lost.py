"""Workers that die, and what is said about it."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time

import pytest
from poolwork import die_if_three, double, exit_hard, gate, identity, kill_self, pid, sleep

from billiard.exceptions import Terminated, WorkerLostError


def crash():
    crash_here()


def crash_here():
    ctypes.string_at(0)


def abort():
    os.abort()


def die_slowly(seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pass
    os._exit(9)


def raise_then_leave_a_trace(path):
    try:
        raise ValueError("before the end")
    finally:
        open(path, "w").close()


def lost(pool, function, *args):
    with pytest.raises(WorkerLostError) as caught:
        pool.apply_async(function, args).get(60)
    return caught.value


@pytest.mark.parametrize("code", [0, 1, 7, 155, 255])
def test_a_worker_that_exits_loses_its_job(pool, code):
    error = lost(pool, exit_hard, code)
    assert error.exitcode == code
    assert error.signal is error.signal_name is None
    assert f"Worker exited prematurely: exitcode {code} Job: {error.job}." in str(error)
    assert pool.apply(double, (2,)) == 4


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE], ids=str)
def test_a_worker_that_is_killed_loses_its_job(pool, number):
    error = lost(pool, kill_self, number)
    assert error.exitcode == -number
    assert error.signal == number
    assert error.signal_name == number.name
    assert f"signal {int(number)} ({number.name})" in str(error)
    assert pool.apply(double, (2,)) == 4


def test_the_error_says_what_is_known(make_pool):
    pool = make_pool(1)
    worker = pool._pool[0]
    result = pool.apply_async(die_slowly, (0.05,))
    with pytest.raises(WorkerLostError) as caught:
        result.get()
    error = caught.value
    assert error.pid == worker.pid
    assert error.worker_name == worker.name
    assert error.job == error.task_id == result._job
    assert error.func_name == "die_slowly"
    assert error.runtime >= 0.05
    assert "die_slowly" in str(error)
    assert not error.oom_killed
    assert error.hint is None


def test_a_kill_from_outside_comes_with_a_hint(pool):
    error = lost(pool, kill_self)
    assert "nobody in this pool sent SIGKILL" in error.hint
    assert error.hint in str(error)


@pytest.mark.parametrize("function", [crash, abort], ids=["segfault", "abort"])
def test_a_crash_comes_with_the_python_stack(pool, function):
    error = lost(pool, function)
    names = {"crash": ["in crash_here", "in crash"], "abort": ["in abort"]}[function.__name__]
    assert error.signal_name == {"crash": "SIGSEGV", "abort": "SIGABRT"}[function.__name__]
    for name in names:
        assert name in error.last_stack
        assert name in str(error)
    assert "Fatal Python error" in error.last_stack


def test_one_crash_costs_one_job(make_pool, tmp_path):
    pool, go = make_pool(3), tmp_path / "go"
    running = [pool.apply_async(gate, (str(tmp_path / f"go{i}"), i)) for i in range(2)]
    culprit = pool.apply_async(exit_hard, (3,))
    waiting = [pool.apply_async(identity, (i,)) for i in range(50)]
    with pytest.raises(WorkerLostError):
        culprit.get()
    assert [w.get() for w in waiting] == list(range(50))
    for i in range(2):
        (tmp_path / f"go{i}").touch()
    assert [r.get() for r in running] == [0, 1]
    assert not go.exists()


def test_what_a_dead_worker_had_not_begun_runs_elsewhere_once(make_pool, tmp_path):
    pool = make_pool(1)
    culprit = pool.apply_async(exit_hard, (3,))
    results = [pool.apply_async(count, (str(tmp_path / str(i)),)) for i in range(100)]
    with pytest.raises(WorkerLostError):
        culprit.get()
    assert [r.get() for r in results] == [1] * 100


def count(path):
    with open(path, "a") as file:
        file.write("x")
    return os.path.getsize(path)


def test_many_crashes_among_many_jobs(make_pool):
    pool = make_pool(3)
    results = [pool.apply_async(exit_hard if i % 10 == 3 else identity, (i,)) for i in range(300)]
    for i, result in enumerate(results):
        if i % 10 == 3:
            with pytest.raises(WorkerLostError):
                result.get()
        else:
            assert result.get() == i


def test_a_map_with_a_lost_item_fails(pool):
    with pytest.raises(WorkerLostError) as caught:
        pool.map(die_if_three, range(8), chunksize=1)
    assert caught.value.exitcode == 7
    assert pool.map(double, range(10)) == [2 * i for i in range(10)]


@pytest.mark.parametrize("kind", ["imap", "imap_unordered"])
def test_a_lost_item_of_a_stream_comes_at_its_position(pool, kind):
    results, got, lost_at = getattr(pool, kind)(die_if_three, range(8)), [], None
    while True:
        try:
            got.append(next(results))
        except StopIteration:
            break
        except WorkerLostError:
            lost_at = len(got)
    assert sorted(got) == [0, 1, 2, 4, 5, 6, 7]
    assert lost_at == 3 if kind == "imap" else lost_at is not None


def test_idle_workers_that_are_killed_cost_nothing(make_pool, until):
    pool = make_pool(2)
    for _ in range(25):
        pids = {worker.pid for worker in pool._pool}
        for number in pids:
            os.kill(number, signal.SIGKILL)
        assert pool.apply_async(double, (3,)).get(60) == 6
        # A worker that is being started is in the list, and has no number yet.
        until(lambda pids=pids: len({worker.pid for worker in pool._pool} - pids - {None}) == 2)


def test_a_stopped_worker_delays_only_what_it_runs(make_pool):
    pool = make_pool(2)
    victim = pool._pool[0].pid
    pool.map(double, range(4), 1)
    os.kill(victim, signal.SIGSTOP)
    results = [pool.apply_async(identity, (bytes(1 << 20),)) for _ in range(40)]
    unfinished = [r for r in results if not _finished(r)]
    # Nobody can tell a stopped worker from a busy one: at most what it had claimed may wait.
    assert len(unfinished) <= 1
    os.kill(victim, signal.SIGKILL)
    for result in unfinished:
        with contextlib.suppress(WorkerLostError):
            assert len(result.get(60)) == 1 << 20


def _finished(result):
    result.wait(5 if not result.ready() else 0)
    return result.ready()


def test_the_result_of_a_worker_that_dies_afterwards_counts(make_pool):
    for _ in range(20):
        pool = make_pool(1)
        result = pool.apply_async(pid)
        until_ready = result.get()
        os.kill(until_ready, signal.SIGKILL)
        assert result.get() == until_ready


def test_a_terminated_job_says_so(make_pool, tmp_path, until):
    pool = make_pool(2)
    result = pool.apply_async(gate, (str(tmp_path / "never"),))
    until((tmp_path / "never.began").exists)
    (number,) = result.worker_pids()
    pool.terminate_job(number)
    with pytest.raises(Terminated) as caught:
        result.get()
    assert caught.value.args == (signal.SIGTERM,)
    assert pool.map(double, range(4)) == [0, 2, 4, 6]


def test_a_killed_job_says_so(make_pool, tmp_path, until):
    pool = make_pool(2)
    result = pool.apply_async(gate, (str(tmp_path / "never"),))
    until(result.worker_pids)
    pool.terminate_job(result.worker_pids()[0], signal.SIGKILL)
    with pytest.raises(Terminated) as caught:
        result.get()
    assert caught.value.args == (signal.SIGKILL,)


def test_only_workers_of_the_pool_are_signalled(make_pool):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        make_pool(1).terminate_job(other.pid)
        make_pool(1).terminate_job(os.getpid(), signal.SIGKILL)
        other.communicate(b"\n")
    assert other.returncode == 0


def test_the_end_of_a_job_that_is_over_hits_no_other(make_pool):
    pool = make_pool(1)
    number = pool.apply(pid)
    results = [pool.apply_async(sleep, (0.001,)) for _ in range(20)]
    pool.terminate_job(number)
    terminated = 0
    for result in results:
        try:
            result.get()
        except Terminated:
            terminated += 1
    assert terminated <= 1


def test_a_dead_worker_is_replaced_under_the_same_index(make_pool, until):
    pool = make_pool(3)
    old = pool._pool[1]
    assert [worker.index for worker in pool._pool] == [0, 1, 2]
    os.kill(old.pid, signal.SIGKILL)
    until(lambda: len(pool._pool) == 3 and old not in pool._pool)
    assert sorted(worker.index for worker in pool._pool) == [0, 1, 2]
    assert old.exitcode == -signal.SIGKILL
