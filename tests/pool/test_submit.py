"""Submitting work and getting it back."""

import array
import math
import operator
import os
import weakref
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from poolwork import add, double, echo, gate, identity, pid

import billiard
from billiard.pool import ApplyResult, MapResult

KIB = 1024
#: Where the way of a message changes, or might: inside the ring, beside it, beside the pickle.
EDGES = (8 * KIB, 32 * KIB, 64 * KIB, 1024 * KIB)
SIZES = sorted({0, 1} | {edge + step for edge in EDGES for step in (-64, -33, -17, -9, -1, 0, 1, 2, 9, 64)})

Point = namedtuple("Point", "x y")


def length_and_ends(data):
    view = memoryview(data)
    return len(view), bytes(view[:4]), bytes(view[-4:])


def make_bytes(size):
    return bytes(i % 251 for i in range(256)) * (size // 256) + b"e" * (size % 256)


def make_array(shape, dtype, order="C"):
    return np.asarray(np.arange(math.prod(shape)).reshape(shape), dtype=dtype, order=order)


def total_and_layout(a):
    return a.sum(), a.flags.c_contiguous, a.flags.f_contiguous, a.dtype.str, a.shape


def can_write(a):
    return a.flags.writeable


def change(a):
    a[0] = 99
    return int(a[0])


def fill(data):
    data[:4] = b"work"
    return data


class Adder:
    def __init__(self, n):
        self.n = n

    def __call__(self, x):
        return self.n + x

    def add(self, x):
        return self.n + x

    @classmethod
    def make(cls, n):
        return cls(n).n

    @staticmethod
    def plain(x):
        return x + 1


def test_apply_returns_what_the_function_returns(pool):
    assert pool.apply(double, (21,)) == 42
    assert pool.apply(add, (1, 2), {"c": 3}) == 6
    assert pool.apply(add, [1], {"b": 1}) == 2
    assert pool.apply(echo) == ((), {})


def test_the_work_is_done_elsewhere(pool):
    assert pool.apply(pid) in {worker.pid for worker in pool._pool}
    assert pool.apply(pid) != os.getpid()


def test_apply_async_gives_a_handle(pool):
    result = pool.apply_async(double, (4,), correlation_id="mine")
    assert isinstance(result, ApplyResult)
    assert result.get(timeout=30) == 8
    assert result.get() == 8
    assert result.ready()
    assert result.successful()
    assert result.accepted()
    assert result.wait() is None
    assert result.worker_pids() == [result._worker_pid]
    assert result.correlation_id == "mine"
    assert repr(result) == f"<ApplyResult: {result._job} ack:True ready:True>"


def test_a_handle_before_its_result(pool, tmp_path, until):
    result = pool.apply_async(gate, (str(tmp_path / "go"),), correlation_id=1)
    assert not result.ready()
    with pytest.raises(AssertionError):
        result.successful()
    for timeout in (0, -1, 0.01):
        with pytest.raises(billiard.TimeoutError):
            result.get(timeout=timeout)
        assert result.wait(timeout) is None
    until(result.accepted)
    assert result.worker_pids() == [result._worker_pid]
    assert isinstance(result._time_accepted, float)
    (tmp_path / "go").touch()
    assert result.get() == result._worker_pid


def test_a_handle_takes_attributes_and_weak_references(pool):
    result = pool.apply_async(double, (4,))
    result._writer = "anything"
    assert weakref.ref(result)() is result
    assert result._writer == "anything"
    assert result._worker_lost is result._write_to is result._scheduled_for is None
    result.discard()
    result.discard()


def test_job_numbers_rise_over_all_pools(make_pool):
    numbers = [make_pool(1).apply_async(double, (1,))._job for _ in range(3)]
    assert numbers == sorted(set(numbers))


def test_map_keeps_the_order(pool):
    assert pool.map(double, range(1000)) == [2 * x for x in range(1000)]
    assert pool.map(double, iter(range(10))) == [2 * x for x in range(10)]
    assert pool.map(len, ["a", "bb", ""]) == [1, 2, 0]
    assert pool.starmap(add, [(1, 2), [3, 4], (5,)]) == [3, 7, 5]
    assert pool.starmap(pow, ((x, 2) for x in range(5))) == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("chunksize", [1, 2, 3, 7, 50, 100, 101, 5000])
def test_chunks_change_nothing_in_the_result(pool, chunksize):
    assert pool.map(double, list(range(100)), chunksize) == [2 * x for x in range(100)]
    assert pool.starmap(add, [(x, x) for x in range(100)], chunksize=chunksize) == [2 * x for x in range(100)]
    assert list(pool.imap(double, range(100), chunksize)) == [2 * x for x in range(100)]
    assert sorted(pool.imap_unordered(double, range(100), chunksize)) == [2 * x for x in range(100)]


def test_map_async_gives_a_handle(pool):
    result = pool.map_async(double, range(10), chunksize=3)
    assert isinstance(result, MapResult)
    assert result.get(30) == [2 * x for x in range(10)]
    assert (result._chunksize, result._length, result._number_left) == (3, 10, 0)
    assert set(result.worker_pids()) <= {worker.pid for worker in pool._pool}


def test_the_default_chunks_are_four_per_worker(pool):
    assert pool.map_async(double, range(80))._chunksize == 10
    assert pool.map_async(double, range(81))._chunksize == 11
    assert pool.map_async(double, range(3))._chunksize == 1


def test_nothing_to_do_is_done_at_once(pool):
    called = []
    result = pool.map_async(double, [], callback=called.append)
    assert result.ready()
    assert result.get() == []
    assert pool.map(double, []) == pool.starmap(add, []) == []
    assert list(pool.imap(double, [])) == list(pool.imap_unordered(double, [])) == []
    assert pool.apply(double, (1,)) == 2
    assert called == []


def test_the_callers_list_may_change_after_submitting(pool):
    items = list(range(100))
    result = pool.map_async(double, items)
    items.clear()
    assert result.get() == [2 * x for x in range(100)]


def test_all_kinds_of_functions(pool):
    assert pool.apply(Adder(3), (4,)) == 7
    assert pool.apply(Adder(3).add, (4,)) == 7
    assert pool.apply(Adder.make, (4,)) == 4
    assert pool.apply(Adder.plain, (4,)) == 5
    assert pool.apply(operator.add, (1, 2)) == 3
    assert pool.apply(operator.itemgetter(1), ("ab",)) == "b"
    assert pool.apply("abc".upper) == "ABC"
    assert pool.apply(int, ("12",)) == 12
    assert pool.map(Adder(1), range(5)) == [1, 2, 3, 4, 5]
    assert pool.map(Adder(1).add, range(5), 2) == [1, 2, 3, 4, 5]


def test_many_different_functions(pool):
    functions = [
        getattr(operator, name) for name in ("add", "sub", "mul", "mod", "pow", "and_", "or_", "xor")
    ] * 20
    assert [pool.apply(f, (7, 3)) for f in functions] == [f(7, 3) for f in functions]


@pytest.mark.parametrize(
    "value",
    [
        None, True, False, 0, -1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**200, 0.0, -0.0, 1e308, 1j,
        "", "ä€😀\0", "\ud800", b"", b"\0", (), ((),), [], {}, {1: [2, (3, {4})]}, {1, 2}, frozenset(), Ellipsis,
        NotImplemented, range(3), Point(1, 2), bytearray(b"abc"), Adder, slice(1, 2), array.array("d", [1.5]),
    ],
    ids=repr,
)  # fmt: skip
def test_values_come_back_equal_and_of_the_same_type(pool, value):
    back = pool.apply(identity, (value,))
    assert back == value
    assert type(back) is type(value)
    (again,) = pool.map(identity, [value])
    assert type(again) is type(value)
    assert repr(again) == repr(value)


def test_values_that_are_not_equal_to_themselves(pool):
    assert math.isnan(pool.apply(identity, (math.nan,)))
    assert math.copysign(1, pool.apply(identity, (-0.0,))) == -1


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    args=st.lists(trees, max_size=4),
    kwargs=st.dictionaries(st.text("abcdefgh", min_size=1), trees, max_size=3),
)
def test_any_arguments_come_back(pool, args, kwargs):
    assert pool.apply(echo, tuple(args), kwargs) == (tuple(args), kwargs)
    assert pool.map(identity, args) == args


@pytest.mark.parametrize("size", SIZES)
def test_sizes_around_every_edge(pool, size):
    data = make_bytes(size)
    text = "x" * size
    assert pool.apply(length_and_ends, (data,)) == length_and_ends(data)
    assert pool.apply(make_bytes, (size,)) == data
    assert pool.apply(identity, (text,)) == text
    assert pool.apply(identity, (bytearray(data),)) == bytearray(data)
    assert pool.map(identity, [data, text], chunksize=2) == [data, text]


def test_large_arguments_and_results_do_not_use_up_the_memory(pool):
    data = os.urandom(1 << 20)
    for _ in range(300):
        assert len(pool.apply(identity, (data,))) == len(data)


def test_a_result_that_is_much_larger_than_any_channel(pool):
    assert pool.apply(make_bytes, (100 << 20,)) == make_bytes(100 << 20)


def test_many_large_messages_at_once(pool):
    results = [pool.apply_async(identity, (bytes([i]) * (200 * KIB),)) for i in range(200)]
    assert [(r.get()[0], len(r.get())) for r in results] == [(i, 200 * KIB) for i in range(200)]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(0,), (3,), (1000,), (64, 64), (100, 30, 7), (1 << 20,)])
def test_numpy_arrays_both_ways(pool, shape, order):
    for dtype in ("u1", "<i4", ">f8", "c16"):
        a = make_array(shape, dtype, order)
        assert pool.apply(total_and_layout, (a,)) == total_and_layout(a)
        back = pool.apply(make_array, (shape, dtype, order))
        assert back.dtype == a.dtype
        assert np.array_equal(back, a)


def test_numpy_views_and_odd_arrays(pool):
    base = np.arange(100_000.0)
    for a in (base[::3], base[::-1], base.reshape(100, 1000).T, np.array([{"a": 1}, None]), np.float32(3.5)):
        assert np.array_equal(pool.apply(identity, (a,)), a)
    record = np.zeros(5000, dtype=[("a", "i4"), ("b", "f8")])
    record["b"] = 1.5
    assert np.array_equal(pool.apply(identity, (record,)), record)


def test_arrays_are_as_writable_as_they_were(pool):
    a = np.zeros(100_000)
    assert pool.apply(can_write, (a,))
    assert pool.apply(change, (a,)) == 99
    assert a[0] == 0
    back = pool.apply(identity, (a,))
    back[0] = 1
    a.flags.writeable = False
    assert not pool.apply(can_write, (a,))
    assert not pool.apply(identity, (a,)).flags.writeable


def test_a_result_array_outlives_its_worker_and_its_pool(make_pool):
    pool = make_pool(1)
    back = pool.apply(make_array, ((1 << 18,), "<i8"))
    others = [pool.apply(make_array, ((1 << 18,), "<i8")) for _ in range(5)]
    pool.terminate()
    pool.join()
    assert np.array_equal(back, np.arange(1 << 18))
    assert all(np.array_equal(back, other) for other in others)


def test_bytearrays_and_buffers_can_be_changed_without_harm(pool):
    data = bytearray(make_bytes(100_000))
    assert bytes(pool.apply(fill, (data,))[:4]) == b"work"
    assert data == make_bytes(100_000)
    back = pool.apply(fill, (bytearray(100_000),))
    assert type(back) is bytearray
    back.extend(b"more")
    assert len(back) == 100_004


def test_a_caller_may_change_a_buffer_as_soon_as_it_is_submitted(pool):
    a = np.ones(100_000)
    results = []
    for i in range(50):
        a[:] = i
        results.append(pool.apply_async(total_and_layout, (a,)))
    assert [r.get()[0] for r in results] == [i * 100_000 for i in range(50)]


def test_identical_objects_stay_identical_inside_one_message(pool):
    shared = [1]
    (a, b), _ = pool.apply(echo, (shared, shared))
    assert a is b
    loop = []
    loop.append(loop)
    back = pool.apply(identity, (loop,))
    assert back[0] is back
