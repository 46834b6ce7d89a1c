"""The same pool, whichever way its workers are started."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import warnings
import weakref

import chaosworks
import numpy as np
import poolwork
import pytest
import startworks as works
from startworks import Told

import billiard
from billiard import forkserver
from billiard.compat import mem_rss
from billiard.exceptions import SoftTimeLimitExceeded, Terminated, TimeLimitExceeded, WorkerLostError
from billiard.pool import EX_OK, EX_RECYCLE, MaybeEncodingError, Pool

#: How long a job may take to end on a machine that is busy.
PATIENCE = 30.0
#: A time limit. Nothing is sent before the worker is there, so the start of one does not count.
SHORT = 0.1

NAMES = {"fork": "ForkPoolWorker-", "forkserver": "ForkServerPoolWorker-", "spawn": "SpawnPoolWorker-"}


@pytest.fixture(autouse=True)
def quiet(caplog):
    """The pool logs every worker that it loses."""
    caplog.set_level("CRITICAL")


def pids(pool):
    return {worker.pid for worker in pool._pool}


# --- work -------------------------------------------------------------------------------------


def test_every_way_to_submit(start):
    pool = start(2)
    doubled = [2 * x for x in range(20)]
    assert pool.apply(poolwork.add, (1,), {"b": 2, "c": 3}) == 6
    assert pool.apply_async(poolwork.echo, (1, None), {"a": [2]}).get(PATIENCE) == ((1, None), {"a": [2]})
    assert pool.map(poolwork.double, range(20)) == doubled
    assert pool.map(poolwork.double, range(20), chunksize=1) == doubled
    assert pool.starmap(poolwork.add, [(1, 2), (3, 4)]) == [3, 7]
    assert list(pool.imap(poolwork.double, iter(range(20)))) == doubled
    assert list(pool.imap(poolwork.double, range(20), chunksize=3)) == doubled
    assert sorted(pool.imap_unordered(poolwork.double, range(20))) == doubled
    assert pool.map(len, ["a", "bb"]) == [1, 2]
    assert pool.map("a".__add__, ["b", "c"]) == ["ab", "ac"]


def test_callbacks(start, until):
    pool, heard = start(1), []
    good = pool.apply_async(
        poolwork.double, (3,), callback=heard.append, accept_callback=lambda *args: heard.append(args)
    )
    assert good.get(PATIENCE) == 6
    bad = pool.apply_async(poolwork.fail, ("bad",), error_callback=heard.append)
    with pytest.raises(ValueError, match="bad"):
        bad.get(PATIENCE)
    pool.map_async(poolwork.double, range(3), callback=heard.append)
    until(lambda: len(heard) == 4)
    (pid, at), value, info, values = heard
    assert {pid} == pids(pool)
    assert isinstance(at, float)
    assert value == 6
    assert info.type is ValueError
    assert values == [0, 2, 4]


def test_errors_of_tasks(start):
    pool = start(1)
    with pytest.raises(Told) as told:
        pool.apply(works.tell, (1, "two"))
    assert (told.value.first, told.value.second) == (1, "two")
    assert "in tell" in str(told.value.__cause__)
    with pytest.raises(KeyError):
        pool.map(poolwork.fail_if_three, range(5))
    stream = pool.imap(poolwork.fail_if_three, range(5))
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError):
        next(stream)
    assert list(stream) == [4]
    with pytest.raises(SystemExit):
        pool.apply(works.leave, (3,))
    assert pool.apply(poolwork.double, (1,)) == 2


def test_what_cannot_be_sent_or_read_fails_one_job_and_is_named(start):
    pool = start(1)
    worker, lock = pids(pool), threading.Lock()
    for call, name in (
        (lambda: pool.apply(lambda: 0), r"the function .*<lambda>"),
        (lambda: pool.apply(poolwork.identity, ({"a": [lock]},)), r"argument 0\['a'\]\[0\]"),
        (lambda: pool.map(poolwork.identity, [1, lock, 3], chunksize=3), "item 1"),
        (lambda: list(pool.imap(poolwork.identity, [1, lock])), "item 1"),
    ):
        with pytest.raises(Exception, match=f"cannot send {name}: "):
            call()
    with pytest.raises(ValueError, match="no number"):
        pool.apply(poolwork.identity, (works.Unreadable(),))
    with pytest.raises(MaybeEncodingError, match=r"cannot pickle '_thread.lock' object \(at result\)"):
        pool.apply(works.lock)
    with pytest.raises(MaybeEncodingError, match="cannot unpickle"):
        pool.apply(works.unreadable)
    assert pids(pool) == worker
    assert pool.apply(poolwork.double, (1,)) == 2


@pytest.mark.parametrize("size", [0, 9_000, 40_000, 3_000_000])
def test_arguments_and_results_of_every_size(start, size):
    pool, data = start(1), os.urandom(size)
    assert pool.apply(poolwork.identity, (data,)) == data
    assert pool.apply(poolwork.identity, (bytearray(data),)) == data
    assert pool.map(poolwork.identity, [data] * 3, chunksize=2) == [data] * 3
    assert pool.apply(poolwork.echo, (data,), {"more": data}) == ((data,), {"more": data})


def test_arrays_are_used_in_place(start):
    pool = start(1)
    array = np.arange(1 << 20, dtype="f8")
    assert pool.apply(works.see, (array,)) == ("SharedView", array.sum())
    back = pool.apply(poolwork.identity, (array,))
    assert np.array_equal(back, array)
    assert works.owner_of(back) == "SharedView"
    assert back.flags.writeable
    pool.terminate()
    pool.join()
    assert back[-1] == (1 << 20) - 1


# --- limits and losses ------------------------------------------------------------------------


def test_soft_limits(start, tmp_path):
    pool, path = start(1), tmp_path / "trace"
    worker = pids(pool)
    with pytest.raises(SoftTimeLimitExceeded) as passed:
        pool.apply_async(works.spin_deep, soft_timeout=SHORT).get(PATIENCE)
    assert "in spin_deep" in str(passed.value.__cause__)
    cleaned = pool.apply_async(works.clean_up, (str(path),), soft_timeout=SHORT)
    assert cleaned.get(PATIENCE) == path.read_text() == "cleaned"
    assert pids(pool) == worker


def test_hard_limits(start):
    pool = start(1)
    worker = pool.apply(poolwork.pid)
    # Asked just before the limit, a worker may not get to answer in time on a machine that is too busy.
    for _ in range(30):
        with pytest.raises(TimeLimitExceeded) as passed:
            pool.apply_async(works.spin_deep, timeout=0.25).get(PATIENCE)
        assert passed.value.args == (0.25,)
        if passed.value.last_stack is not None:
            break
    assert "in spin_deep" in passed.value.last_stack
    assert pool.apply(poolwork.pid) != worker


def test_the_limits_of_a_pool(start):
    pool = start(1, timeout=60, soft_timeout=SHORT)
    with pytest.raises(SoftTimeLimitExceeded):
        pool.apply(works.spin_deep)
    assert pool.apply_async(poolwork.sleep, (2 * SHORT,), soft_timeout=0).get(PATIENCE) == "slept"


def test_a_lost_worker(start):
    pool = start(1)
    pool.apply(poolwork.pid)
    worker = pool._pool[0]
    lost = pool.apply_async(poolwork.exit_hard, (7,))
    waiting = [pool.apply_async(poolwork.double, (x,)) for x in range(20)]
    with pytest.raises(WorkerLostError) as caught:
        lost.get(PATIENCE)
    error = caught.value
    assert (error.exitcode, error.pid, error.worker_name) == (7, worker.pid, worker.name)
    assert (error.func_name, error.job) == ("exit_hard", lost._job)
    assert [result.get(PATIENCE) for result in waiting] == [2 * x for x in range(20)]


def test_a_crash_comes_with_the_python_stack(start):
    pool = start(1)
    with pytest.raises(WorkerLostError) as caught:
        pool.apply(works.crash)
    assert caught.value.signal == signal.SIGSEGV
    assert "in crash_here" in caught.value.last_stack
    assert pool.apply(poolwork.double, (1,)) == 2


def test_a_worker_that_is_killed_from_outside(start):
    pool = start(2)
    for _ in range(3):
        with pytest.raises(WorkerLostError) as caught:
            pool.apply(poolwork.kill_self)
        assert caught.value.exitcode == -signal.SIGKILL
        assert pool.map(poolwork.double, range(10), chunksize=1) == [2 * x for x in range(10)]


def test_terminating_a_job(start, tmp_path, until):
    pool, never = start(1), tmp_path / "never"
    running = pool.apply_async(poolwork.gate, (str(never),))
    waiting = pool.apply_async(poolwork.double, (4,))
    until(poolwork.began(never).exists)
    pool.terminate_job(running.worker_pids()[0])
    with pytest.raises(Terminated):
        running.get(PATIENCE)
    assert waiting.get(PATIENCE) == 8


# --- workers ----------------------------------------------------------------------------------


def test_names_index_and_kin(start, method):
    pool = start(3)
    assert [worker.index for worker in pool._pool] == [0, 1, 2]
    assert all(worker.name.startswith(NAMES[method]) and worker.daemon for worker in pool._pool)
    name, index, daemon, pid, parent = pool.apply(works.who)
    assert (name, index, pid) in {(worker.name, worker.index, worker.pid) for worker in pool._pool}
    assert daemon
    assert parent == os.getpid()


def test_signals_and_streams_of_a_worker(start):
    pool = start(1)
    assert pool.apply(works.dispositions) == {
        "SIGINT": str(signal.SIG_IGN),
        "SIGTERM": "_on_terminate",
        "SIGUSR1": "_on_soft_timeout",
    }
    assert pool.apply(works.standard_input) == ("", b"")


def test_the_task_is_called_from_a_frame_of_the_worker(start):
    pool = start(1)
    assert [pool.apply(works.ready_counter) for _ in range(3)] == [0, 1, 2]


def test_a_worker_gets_the_descriptors_of_its_own_place_only(start, method):
    # A copy of this process has those of the fork server, too.
    others = chaosworks.pool_descriptors(None) if method == "fork" else 0
    start(2).map(poolwork.double, range(4), chunksize=1)
    pool = start(2)
    # Segment, doorbell and notebook; segment and two doorbells of the pool; the page that tells of signals.
    assert max(pool.map(chaosworks.pool_descriptors, range(20), chunksize=1)) <= others + 7


def test_initializers(start, tmp_path):
    pool = start(1, works.remember, (1, "two"), maxtasksperchild=1)
    assert [pool.apply(works.recall) for _ in range(3)] == [(1, "two")] * 3
    pool = start(1, works.refuse_once, (str(tmp_path / "tried"),))
    assert pool.map(poolwork.double, range(10)) == [2 * x for x in range(10)]


def test_a_worker_class_of_ones_own(start):
    pool = start(1, kind=works.ShoutingPool)
    worker = pool._pool[0].pid
    assert pool.apply(poolwork.double, (2,)) == (4, "!")
    assert pool.apply(works.recall, ("loop",)) == ((worker, worker), "!")


def test_a_worker_leaves_after_its_share(start):
    pool = start(1, maxtasksperchild=3)
    told = [pool.apply(poolwork.pid) for _ in range(9)]
    assert [told.count(number) for number in dict.fromkeys(told)] == [3, 3, 3]


def test_a_worker_with_too_much_memory_leaves(start):
    # A forked worker begins with what this process has resident.
    limit = mem_rss() + 50_000
    pool = start(1, max_memory_per_child=limit)
    first = pool.apply(poolwork.pid)
    assert pool.apply(poolwork.pid) == first
    assert pool.apply(works.grow_by, (int(limit) // 1024,)) == first
    assert pool.apply(poolwork.pid) != first


def test_growing_shrinking_restarting(start, until):
    pool = start(1)
    pool.grow(2)
    until(lambda: len(pool._pool) == 3)
    assert sorted(worker.index for worker in pool._pool) == [0, 1, 2]
    assert pool.map(poolwork.double, range(9), chunksize=1) == [2 * x for x in range(9)]
    until(lambda: not pool._cache)
    pool.shrink(2)
    until(lambda: len(pool._pool) == 1)
    before = pids(pool)
    pool.restart()
    until(lambda: len(pool._pool) == 1 and pids(pool).isdisjoint(before))
    assert pool.apply(poolwork.double, (1,)) == 2


def test_who_comes_and_goes_is_told(start, until, tmp_path):
    ups, downs, exits = [], [], works.Exits(str(tmp_path / "exits"))
    pool = start(
        1,
        on_process_up=ups.append,
        on_process_down=downs.append,
        on_process_exit=exits,
        maxtasksperchild=2,
    )
    assert ups == pool._pool
    recycled = pool.apply(poolwork.pid)
    pool.apply(poolwork.pid)
    until(lambda: downs and len(ups) == 2)
    os.kill(pool.apply(poolwork.pid), signal.SIGKILL)
    until(lambda: len(downs) == 2 and len(ups) == 3)
    last = pool.apply(poolwork.pid)
    pool.close()
    pool.join()
    assert [worker.exitcode for worker in downs] == [EX_RECYCLE, -signal.SIGKILL, EX_OK]
    assert [worker.pid for worker in ups] == [worker.pid for worker in downs]
    assert exits.codes() == {recycled: EX_RECYCLE, last: EX_OK}


def test_exit_codes_of_signals(start, until):
    downs = []
    pool = start(1, on_process_down=downs.append)
    pool.apply(poolwork.pid)
    pool.terminate_job(pool._pool[0].pid)
    until(lambda: downs)
    os.kill(pool.apply(poolwork.pid), signal.SIGTERM)
    until(lambda: len(downs) == 2)
    assert [worker.exitcode for worker in downs] == [-signal.SIGTERM] * 2


# --- the end ----------------------------------------------------------------------------------


def test_a_closed_pool_finishes_what_it_accepted(start):
    pool = start(2)
    results = [pool.apply_async(poolwork.double, (x,)) for x in range(200)]
    pool.close()
    with pytest.raises(ValueError, match="closed"):
        pool.apply(poolwork.double, (1,))
    pool.join()
    assert [result.get(0) for result in results] == [2 * x for x in range(200)]
    assert pool._pool == []


def test_a_terminated_pool_ends_every_job(start, tmp_path, until):
    pool, never = start(2), tmp_path / "never"
    results = [pool.apply_async(poolwork.gate, (str(never),))]
    results += [pool.apply_async(poolwork.sleep, (60,)) for _ in range(20)]
    until(poolwork.began(never).exists)
    pool.terminate()
    for result in results:
        with pytest.raises(Terminated):
            result.get(0)
    pool.join()
    assert pool._pool == []


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_a_pool_may_end_before_its_workers_have_begun(start, end):
    for _ in range(3):
        pool = start(2)
        getattr(pool, end)()
        pool.join()
        assert pool._pool == []


@pytest.mark.usefixtures("leak_census")
def test_a_forgotten_pool_is_ended(method, until):
    pool = Pool(2, context=billiard.get_context(method))
    workers = pids(pool)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        watch = weakref.ref(pool)
        del pool
        until(lambda: (gc.collect(), watch() is None)[1])
    assert [warning.category for warning in caught] == [ResourceWarning]
    until(lambda: not any(chaosworks.is_alive(pid) for pid in workers))


@pytest.mark.usefixtures("leak_census")
def test_a_forgotten_pool_is_ended_where_warnings_are_errors(method, monkeypatch, until):
    raised = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: raised.append(told.exc_type))
    pool = Pool(2, context=billiard.get_context(method))
    workers = pids(pool)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch = weakref.ref(pool)
        del pool
        until(lambda: (gc.collect(), watch() is None)[1])
    assert raised == [ResourceWarning]
    until(lambda: not any(chaosworks.is_alive(pid) for pid in workers))


FALLS_OFF = """
import sys
import billiard
import poolwork

if __name__ == "__main__":
    billiard.set_start_method(sys.argv[1])
    pool = billiard.Pool(2)
    print(type(pool._pool[0]).__name__, pool.map(poolwork.double, range(3)))
    print(*(worker.pid for worker in pool._pool))
    server = sys.modules.get("billiard.forkserver")
    if server is not None and server._forkserver._child is not None:
        print(server._forkserver._child.pid)
"""


def test_a_program_may_fall_off_its_end(script, method, until):
    """The default context is used, and what it started goes with the program, the fork server too."""
    done = script(FALLS_OFF, method)
    assert (done.returncode, done.stderr) == (0, "")
    first, rest = done.stdout.split("\n", 1)
    kind = {"fork": "ForkProcess", "forkserver": "ForkServerProcess", "spawn": "SpawnProcess"}[method]
    assert first == f"{kind} [0, 2, 4]"
    processes = [int(pid) for pid in rest.split()]
    assert len(processes) == (3 if method == "forkserver" else 2)
    until(lambda: not any(chaosworks.is_alive(pid) for pid in processes))


EXITS_EARLY = """
import sys, time
import billiard

if __name__ == "__main__":
    pool = billiard.get_context(sys.argv[1]).Pool(2)
    jobs = [pool.apply_async(time.sleep, (600,)) for _ in range(50)]
    while not pool._engine.load()[0]:
        time.sleep(0.002)
    sys.exit(3)
"""


def test_a_program_that_exits_while_jobs_run_ends_them(script, method):
    done = script(EXITS_EARLY, method)
    assert (done.returncode, done.stderr) == (3, "")


INTERRUPTED = """
import os, sys
import billiard
import poolwork

if __name__ == "__main__":
    pool = billiard.get_context(sys.argv[1]).Pool(2)
    gates = [sys.argv[2] + str(number) for number in range(2)]
    pool.map(poolwork.gate, gates, chunksize=1)
"""


def test_ctrl_c_is_one_interrupt_in_the_parent(method, script_file, until, tmp_path):
    command = [sys.executable, script_file(INTERRUPTED), method, str(tmp_path / "gate")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as running:
        until(lambda: all(poolwork.began(tmp_path / f"gate{number}").exists() for number in range(2)))
        family = poolwork.family_of(running.pid)
        os.killpg(running.pid, signal.SIGINT)
        _, told = running.communicate(timeout=PATIENCE)
    assert running.returncode == -signal.SIGINT
    assert told.count("Traceback (most recent call last)") == told.count("KeyboardInterrupt") == 1, told
    until(lambda: not any(chaosworks.is_alive(pid) for pid in family))


# --- the fork server --------------------------------------------------------------------------

SERVER_KILLED = """
import os
import billiard
from billiard import forkserver
import poolwork

if __name__ == "__main__":
    pool = billiard.get_context("forkserver").Pool(2)
    workers = {worker.pid for worker in pool._pool}
    server = forkserver._forkserver._child
    os.kill(server.pid, 9)
    server.wait(30)
    assert set(pool.map(poolwork.pid, range(20), chunksize=1)) <= workers
    for _ in range(2):
        os.kill(pool.apply(poolwork.pid), 9)
        assert pool.map(poolwork.double, range(20), chunksize=1) == [2 * x for x in range(20)]
    assert forkserver._forkserver._child.pid != server.pid
    print("over")
"""


def test_workers_outlive_their_fork_server(script):
    done = script(SERVER_KILLED)
    assert done.stdout == "over\n", done.stderr


@pytest.mark.usefixtures("fork_server")
def test_many_replacements_of_the_fork_server_lose_and_double_nothing(make_pool):
    pool = make_pool(4, maxtasksperchild=1, context=billiard.get_context("forkserver"), preload=["poolwork"])
    results = [pool.apply_async(poolwork.with_pid, (number,)) for number in range(500)]
    told = [result.get(PATIENCE) for result in results]
    assert [number for number, _ in told] == list(range(500))
    assert len({pid for _, pid in told}) == 500


def test_a_few_fresh_replacements_lose_and_double_nothing(make_pool):
    pool = make_pool(2, maxtasksperchild=1, context=billiard.get_context("spawn"))
    told = pool.map(poolwork.with_pid, range(20), chunksize=1)
    assert [number for number, _ in told] == list(range(20))
    assert len({pid for _, pid in told}) == 20


@pytest.mark.usefixtures("fork_server")
def test_the_fork_server_has_loaded_the_pool(make_pool):
    """A worker that had to load it itself would take many times as long to start."""
    make_pool(1, context=billiard.get_context("forkserver"))
    assert "billiard.pool" in forkserver._forkserver._loaded
