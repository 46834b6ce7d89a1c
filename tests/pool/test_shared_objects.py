"""What a pool gives each worker once: it arrives by every start method, lies in memory once, and goes."""

from __future__ import annotations

import array
import gc
import os
import pickle
import signal
import weakref
from pathlib import Path

import numpy as np
import pytest
import sharedobjects as works

import billiard
from billiard.exceptions import WorkerLostError
from billiard.pool import RestartFreqExceeded, ThreadPool, shared

MIB = 1 << 20


@pytest.fixture(autouse=True)
def quiet(caplog):
    """The pool logs every worker that it loses."""
    caplog.set_level("CRITICAL")


def memory_of(pid, field="Pss"):
    """How many bytes of the shared memory a process is charged with."""
    size, inside = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        head = line.split()
        if not head[0].endswith(":"):
            inside = works.MEMORY in line
        elif inside and head[0] == f"{field}:":
            size += int(head[1]) * 1024
    return size


def test_any_object_arrives(start):
    given = {"numbers": [1, 2], 3: ("x", None), "array": array.array("d", bytes(800_000))}
    pool = start(2, shared=given)
    assert pool.apply(works.get) == given
    assert pool.starmap(works.item, [("numbers", 1), (3, 0)], chunksize=1) == [2, "x"]


def test_each_worker_has_one_object_for_all_of_its_tasks(start):
    pool = start(1, shared=[1])
    assert len(set(pool.map(works.identity, range(20), chunksize=1))) == 1


def test_buffers_are_views_that_nobody_writes_to(start):
    given = {
        "array": np.arange(100_000, dtype=np.uint8),
        "small": np.arange(3, dtype=np.uint8),
        "bytes": bytes(range(100)) * 1000,
        "view": pickle.PickleBuffer(b"abc"),
    }
    pool = start(1, shared=given)
    assert pool.apply(works.look_at, ("array",)) == ("ndarray", b"\0\1\2", True)
    assert pool.apply(works.look_at, ("small",)) == ("ndarray", b"\0\1\2", True)
    assert pool.apply(works.look_at, ("bytes",)) == ("bytes", b"\0\1\2", True)
    assert pool.apply(works.look_at, ("view",)) == ("memoryview", b"abc", True)
    with pytest.raises(ValueError, match="read-only"):
        pool.apply(works.overwrite, ("array",))
    with pytest.raises(ValueError, match="WRITEABLE"):
        pool.apply(works.make_writeable, ("array",))
    with pytest.raises(TypeError, match="read-only"):
        pool.apply(works.overwrite, ("view",))


def test_what_the_program_does_to_it_later_is_not_seen(start):
    given = {"array": np.zeros(100_000), "list": [0]}
    pool = start(1, shared=given)
    given["array"][0] = given["list"][0] = 1
    assert pool.starmap(works.item, [("array", 0), ("list", 0)]) == [0, 0]


def test_the_initializer_has_it(start):
    pool = start(1, works.note_shared, shared=("given",))
    assert pool.apply(works.what_was_noted) == [("given",)]


def test_recycled_workers_have_it(start):
    pool = start(1, maxtasksperchild=1, shared={"array": np.arange(1000)})
    told = pool.map(works.total, ["array"] * 3, chunksize=1)
    assert len({pid for pid, _ in told}) == 3
    assert {found for _, found in told} == {499_500}


def test_the_replacement_of_a_killed_worker_has_it(start):
    pool = start(1, shared={"array": np.arange(1000)})
    pid, before = pool.apply(works.total, ("array",))
    os.kill(pid, signal.SIGKILL)
    try:
        other, after = pool.apply_async(works.total, ("array",)).get(30)
    except WorkerLostError:
        # It was handed to the dying one.
        other, after = pool.apply_async(works.total, ("array",)).get(30)
    assert other != pid
    assert before == after == 499_500


def test_grown_pools_and_restarted_ones_have_it(start, until):
    pool = start(1, shared={"array": np.arange(1000)})
    (first, _) = pool.apply(works.total, ("array",))
    pool.restart()
    until(lambda: pool.apply(works.total, ("array",))[0] != first)
    pool.grow(1)
    until(lambda: len({pid for pid, _ in pool.map(works.total, ["array"] * 8, chunksize=1)}) == 2)


def test_64_mib_for_4_workers_are_in_memory_once(start, until):
    given = {"array": np.ones(64 * MIB, dtype=np.uint8)}
    pool = start(4, shared=given)
    seen = set()

    def all_have_seen_it():
        told = pool.map(works.total, ["array"] * 8, chunksize=1)
        assert {found for _, found in told} == {64 * MIB}
        seen.update(pid for pid, _ in told)
        return len(seen) == 4

    until(all_have_seen_it)
    assert all(memory_of(pid, "Rss") >= 64 * MIB for pid in seen)
    assert 64 * MIB <= sum(memory_of(pid) for pid in seen) < 65 * MIB


def test_the_memory_goes_with_the_pool(start):
    pool = start(1, shared={"bytes": bytes(MIB)})
    assert works.holds_memory() == 1
    pool.apply(works.look_at, ("bytes",))
    pool.close()
    pool.join()
    assert works.holds_memory() == 0
    other = start(1, shared={"bytes": bytes(MIB)})
    assert works.holds_memory() == 1
    other.terminate()
    assert works.holds_memory() == 0


@pytest.mark.filterwarnings("ignore:unclosed pool")
def test_the_memory_goes_with_a_pool_that_is_collected(leak_census):  # noqa: ARG001
    pool = billiard.Pool(1, shared=bytes(MIB))
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    assert works.holds_memory() == 0


def test_relatives_do_not_keep_the_memory(make_pool):
    make_pool(1, shared=bytes(MIB))
    other = make_pool(1)
    assert other.apply(works.holds_memory) == 0


def test_a_nested_pool_has_its_own_or_nothing(make_pool):
    pool = make_pool(1, shared="outer", context=billiard.get_context("fork"))
    assert pool.apply(works.in_nested_pool) == ("inner", False, "outer")


def test_what_cannot_be_pickled_is_refused_at_once(start):
    with pytest.raises(pickle.PicklingError, match=r"cannot give the workers shared\['f'\]\[1\]: .*lambda"):
        start(1, shared={"f": [0, lambda: 0]})
    with pytest.raises(pickle.PicklingError, match=r"cannot give the workers shared: RuntimeError"):
        start(1, shared=billiard.Lock())
    assert works.holds_memory() == 0


def test_what_cannot_be_unpickled_breaks_the_pool_and_says_why(start):
    pool = start(1, max_restarts=2, max_restart_freq=60, shared=works.Unwilling())
    with pytest.raises(RestartFreqExceeded) as caught:
        pool.apply_async(works.get).get(30)
    assert "LookupError: not here" in str(caught.value.__cause__)


def test_other_serializers_send_it(start):
    pool = start(1, serializer=(works.dumps, works.loads), shared=5)
    assert pool.apply(works.get) == 5


def test_cloudpickle_sends_what_cannot_be_imported(start):
    pool = start(1, serializer="cloudpickle", shared={"f": lambda x: x + 1, "array": np.arange(9)})
    assert pool.apply(lambda: (shared()["f"](1), shared()["array"].flags.writeable)) == (2, False)


def test_who_is_given_nothing_is_told(make_pool):
    with pytest.raises(RuntimeError, match=r"Pool\(shared=...\)"):
        shared()
    with pytest.raises(RuntimeError, match=r"Pool\(shared=...\)"):
        make_pool(1).apply(works.get)


def test_threads_have_the_object_itself(make_pool):
    given = {"array": np.zeros(3)}
    pool = make_pool(2, works.note_shared, kind=ThreadPool, shared=given)
    works.seen.clear()
    assert pool.apply(works.get) is given
    assert make_pool(1, kind=ThreadPool, shared=1).apply(works.get) == 1
    with pytest.raises(RuntimeError, match=r"Pool\(shared=...\)"):
        make_pool(1, kind=ThreadPool).apply(works.get)
    with pytest.raises(RuntimeError, match=r"Pool\(shared=...\)"):
        shared()


def test_a_pool_in_a_thread_of_another_pool_is_given_its_own(make_pool):
    threads = make_pool(1, kind=ThreadPool, shared="threads")

    def inside():
        with billiard.get_context("fork").Pool(1) as pool:
            result = pool.apply_async(works.get)
            result.wait(30)
            return result.successful(), shared()

    assert threads.apply(inside) == (False, "threads")
