"""Workers: how they begin, what they are, and why they leave."""

import inspect
import os
import signal

import pytest
from poolwork import double, gate, identity, pid

from billiard.compat import mem_rss
from billiard.exceptions import RestartFreqExceeded, Terminated
from billiard.pool import EX_OK, Pool, Worker
from billiard.process import current_process

STATE = {}


def remember(*args):
    STATE["initargs"] = args


def recall():
    return STATE.get("initargs")


def refuse(path):
    with open(path, "a") as file:
        file.write("x")
    raise LookupError("no database")


def refuse_once(path):
    if not os.path.exists(path):
        open(path, "w").close()
        raise LookupError("not yet")


def who():
    process = current_process()
    return process.name, process.index, process.daemon, process.pid


def ready_counter():
    return inspect.stack()[1].frame.f_locals["self"].on_ready_counter.value


def grow_by(mib):
    STATE["ballast"] = bytearray(os.urandom(1)) * (mib << 20)
    return os.getpid()


def spike(mib):
    len(bytearray(os.urandom(1)) * (mib << 20))
    return os.getpid()


def handlers():
    names = {name: signal.getsignal(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGUSR1")}
    return {name: getattr(handler, "__name__", str(handler)) for name, handler in names.items()}


class Shouting(Worker):
    def prepare_result(self, result):
        return f"{result}!"

    def on_loop_start(self, pid):
        STATE["loop"] = pid


class ShoutingPool(Pool):
    Worker = Shouting


def test_initializer_and_its_arguments(make_pool):
    assert make_pool(1, initializer=remember, initargs=(1, "two")).apply(recall) == (1, "two")
    assert make_pool(1, remember, [3]).apply(recall) == (3,)
    assert make_pool(1, initializer=remember).apply(recall) == ()


def test_the_initializer_runs_in_replacements_too(make_pool):
    pool = make_pool(1, remember, ("again",), maxtasksperchild=1)
    for _ in range(3):
        assert pool.apply(recall) == ("again",)


def test_an_initializer_that_always_raises_breaks_the_pool_and_says_why(make_pool, tmp_path, caplog):
    caplog.set_level("CRITICAL")
    path = tmp_path / "attempts"
    pool = make_pool(2, initializer=refuse, initargs=(str(path),))
    waiting = pool.apply_async(double, (1,))
    stream = pool.imap(double, range(3))
    with pytest.raises(RestartFreqExceeded) as caught:
        waiting.get()
    assert "LookupError: no database" in str(caught.value.__cause__)
    assert "in refuse" in str(caught.value.__cause__)
    # The first ones, and a bounded number of attempts to replace them.
    assert 2 < len(path.read_text()) <= 2 + 6
    with pytest.raises(RestartFreqExceeded):
        next(stream)
    for call in (pool.apply, pool.apply_async):
        with pytest.raises(RestartFreqExceeded) as caught:
            call(double, (1,))
        assert "no database" in str(caught.value.__cause__)
    for call in (pool.map, pool.imap, pool.imap_unordered, pool.map_async):
        with pytest.raises(RestartFreqExceeded):
            call(double, [1])
    with pytest.raises(RestartFreqExceeded):
        pool.maintain_pool()


def test_an_initializer_that_raises_once_costs_nothing(make_pool, tmp_path):
    pool = make_pool(1, initializer=refuse_once, initargs=(str(tmp_path / "tried"),))
    assert pool.map(double, range(10)) == [2 * i for i in range(10)]


def test_max_restarts_limits_workers_that_never_finished_a_job(make_pool):
    pool = make_pool(1, max_restarts=3, max_restart_freq=60)
    results = [pool.apply_async(os._exit, (3,)) for _ in range(20)]
    errors = []
    for result in results:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            result.get()
        errors.append(type(caught.value).__name__)
    assert errors == ["WorkerLostError"] * 4 + ["RestartFreqExceeded"] * 16


def test_a_worker_leaves_after_its_share(make_pool):
    pool = make_pool(1, maxtasksperchild=3)
    pids = [pool.apply(pid) for _ in range(9)]
    assert [pids.count(number) for number in dict.fromkeys(pids)] == [3, 3, 3]


def test_many_recycled_workers_lose_and_double_nothing(make_pool):
    pool = make_pool(2, maxtasksperchild=1)
    assert pool.map(identity, range(200), chunksize=1) == list(range(200))
    assert [r.get() for r in [pool.apply_async(double, (i,)) for i in range(100)]] == [
        2 * i for i in range(100)
    ]
    assert list(pool.imap(double, range(50))) == [2 * i for i in range(50)]


def test_a_chunk_is_one_task_of_a_share(make_pool):
    pool = make_pool(1, maxtasksperchild=2)
    assert len(set(pool.map(pid, range(100), chunksize=25))) == 2


def test_a_worker_with_too_much_memory_leaves(make_pool):
    # A forked worker begins with what this process has resident.
    pool = make_pool(1, max_memory_per_child=mem_rss() + 100_000)
    first = pool.apply(pid)
    assert pool.apply(grow_by, (200,)) == first
    assert pool.apply(pid) != first


def test_memory_that_was_given_back_is_forgotten(make_pool):
    # A forked worker begins with what this process has resident.
    pool = make_pool(1, max_memory_per_child=mem_rss() + 100_000)
    first = pool.apply(pid)
    assert pool.apply(spike, (200,)) == first
    assert pool.apply(pid) == first


def test_names_index_and_daemon(make_pool):
    pool = make_pool(3)
    assert [worker.index for worker in pool._pool] == [0, 1, 2]
    for worker in pool._pool:
        assert worker.name.startswith("ForkPoolWorker-")
        assert worker.daemon
        assert worker.is_alive()
    name, index, daemon, number = pool.apply(who)
    assert (name, index, number) in {(w.name, w.index, w.pid) for w in pool._pool}
    assert daemon


def test_exit_codes(make_pool, until, caplog):
    caplog.set_level("CRITICAL")
    downs = []
    pool = make_pool(1, on_process_down=downs.append)
    pool.terminate_job(pool._pool[0].pid)
    until(lambda: len(downs) == 1)
    os.kill(pool.apply(pid), signal.SIGTERM)
    until(lambda: len(downs) == 2)
    assert pool.apply(double, (1,)) == 2
    pool.close()
    pool.join()
    assert [worker.exitcode for worker in downs] == [-signal.SIGTERM, -signal.SIGTERM, EX_OK]


def test_signals_of_a_worker(pool):
    assert pool.apply(handlers) == {
        "SIGINT": str(signal.SIG_IGN),
        "SIGTERM": "_on_terminate",
        "SIGUSR1": "_on_soft_timeout",
    }


def test_the_ready_counter_is_what_the_parent_has_seen(make_pool):
    pool = make_pool(1)
    assert [pool.apply(ready_counter) for _ in range(4)] == [0, 1, 2, 3]


def test_a_subclass_may_have_workers_of_its_own(make_pool):
    pool = make_pool(1, kind=ShoutingPool)
    assert pool.apply(double, (2,)) == "4!"
    assert pool.apply_async(STATE.get, ("loop",)).get() == "None!"


def test_jobs_of_a_terminated_worker_that_had_not_begun_run_elsewhere(make_pool, tmp_path, until):
    pool = make_pool(1)
    first = pool.apply_async(gate, (str(tmp_path / "never"),))
    until((tmp_path / "never.began").exists)
    others = [pool.apply_async(identity, (i,)) for i in range(10)]
    pool.terminate_job(first.worker_pids()[0], signal.SIGKILL)
    with pytest.raises(Terminated):
        first.get()
    assert [r.get() for r in others] == list(range(10))
