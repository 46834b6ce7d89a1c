"""Submitting work and getting it back."""

import array
import math
import operator
import os
import weakref
from collections import namedtuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from poolwork import add, double, echo, gate, identity, pid

import billiard
from billiard.pool import ApplyResult, MapResult

Point = namedtuple("Point", "x y")


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
        "", "ä€😀\0", "\ud800", b"", b"\0", (), ((),), [], {}, {1: [2, (3, {4})]}, {1, 2}, frozenset(),
        Ellipsis, NotImplemented, range(3), Point(1, 2), bytearray(b"abc"), Adder, slice(1, 2),
        array.array("d", [1.5]),
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


def test_identical_objects_stay_identical_inside_one_message(pool):
    shared = [1]
    (a, b), _ = pool.apply(echo, (shared, shared))
    assert a is b
    loop = []
    loop.append(loop)
    back = pool.apply(identity, (loop,))
    assert back[0] is back


def test_a_pool_that_is_not_running_refuses_before_it_looks_at_the_call(make_pool):
    pool = make_pool(1)
    pool.close()
    for items in ([], [1], [lambda: 0], [bytes(1 << 20)]):
        for call in (pool.map, pool.map_async, pool.imap, pool.imap_unordered, pool.starmap):
            with pytest.raises(ValueError, match="pool is closed"):
                call(double, items)
        with pytest.raises(ValueError, match="pool is closed"):
            pool.apply_async(double, tuple(items))


def test_a_call_that_is_refused_holds_no_slot(make_pool):
    pool = make_pool(1)
    with pytest.raises(TypeError):
        pool.apply_async(double, (1,), waitforslot=True, timeout="soon")
    assert pool._putlock._value == 1


def test_a_forked_copy_refuses_large_work_too(pool):
    large = bytes(1 << 20)
    assert len(pool.apply(identity, (large,))) == len(large)

    def in_child():
        refused = 0
        for call in (pool.apply_async, pool.map, pool.imap):
            try:
                call(identity, (large,))
            except RuntimeError as error:
                refused += "forked child" in str(error)
        os._exit(refused)

    child = billiard.Process(target=in_child)
    child.start()
    child.join()
    assert child.exitcode == 3
    child.close()
