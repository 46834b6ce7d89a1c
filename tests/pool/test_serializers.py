"""How calls and results are sent: what each serializer can send, and what it says about the rest."""

from __future__ import annotations

import functools
import io
import pickle
import threading

import cloudpickle
import numpy as np
import poolwork
import pytest
import startworks as works

import billiard
from billiard._serializers import pickler_for
from billiard.exceptions import WorkerLostError
from billiard.pool import MaybeEncodingError, Pool


@pytest.fixture(autouse=True)
def quiet(caplog):
    """The pool logs every worker that it loses."""
    caplog.set_level("CRITICAL")


@pytest.fixture
def cloud(start):
    """Make a pool that sends by value what cannot be imported, by each start method."""
    return functools.partial(start, serializer="cloudpickle")


# --- cloudpickle ------------------------------------------------------------------------------


def test_lambdas_closures_and_local_classes_are_sent_by_value(cloud):
    pool, factor = cloud(2), 3

    class Number:
        def __init__(self, value):
            self.value = value

        def times(self, other):
            return Number(self.value * other)

    def scale(number):
        return number.times(factor)

    assert pool.apply(lambda x: x + 1, (1,)) == 2
    assert pool.apply(scale, (Number(2),)).value == 6
    assert type(pool.apply(scale, (Number(2),))) is Number
    assert pool.apply(Number(5).times, (2,)).value == 10
    assert pool.apply(functools.partial(scale, Number(7))).value == 21
    assert pool.apply(lambda *a, **k: (a, k), (1, Number), {"c": lambda: 4})[1]["c"]() == 4
    assert pool.apply(lambda: lambda y: factor * y)(5) == 15
    assert pool.apply(poolwork.double, (2,)) == 4


def test_every_way_to_submit_takes_them(cloud):
    pool, factor = cloud(2), 3
    tripled = [3 * x for x in range(20)]
    assert pool.map(lambda x: factor * x, range(20)) == tripled
    assert pool.map(lambda x: factor * x, range(20), chunksize=1) == tripled
    assert pool.starmap(lambda x, y: factor * x * y, [(1, 2), (3, 4)]) == [6, 36]
    assert list(pool.imap(lambda x: factor * x, range(20))) == tripled
    assert list(pool.imap(lambda x: factor * x, range(20), chunksize=7)) == tripled
    assert sorted(pool.imap_unordered(lambda x: factor * x, range(20))) == tripled
    assert [f() for f in pool.map(lambda x: lambda: factor * x, range(20), chunksize=3)] == tripled
    assert pool.map_async(lambda x: factor * x, range(20)).get(60) == tripled


def test_a_context_says_it_for_all_its_pools(method, make_pool):
    context = billiard.get_context(method, serializer="cloudpickle")
    offset = 1
    pool = make_pool(1, context=context, initializer=lambda: works.remember(offset))
    assert pool.apply(lambda x: x + offset, (1,)) == 2
    assert pool.apply(works.recall) == (1,)
    with context.Pool(1) as other:
        assert other.apply(lambda x: x + offset, (1,)) == 2
    # A pool may know better than its context.
    plain = make_pool(1, context=context, serializer="pickle")
    with pytest.raises(pickle.PicklingError):
        plain.apply(lambda x: x)


def test_what_workers_are_started_with_is_sent_by_value_too(cloud, tmp_path, until):
    begun, left = str(tmp_path / "begun"), str(tmp_path / "left")

    def begin(number):
        with open(begun, "a") as file:
            file.write(f"{number} ")

    def leave(pid, code):
        with open(left, "a") as file:
            file.write(f"{pid} {code} ")

    pool = cloud(1, begin, (4,), on_process_exit=leave, maxtasksperchild=1)
    first = pool.apply(poolwork.pid)
    until((tmp_path / "left").exists)
    pool.close()
    pool.join()
    assert (tmp_path / "begun").read_text().startswith("4 4")
    assert f"{first} 155" in (tmp_path / "left").read_text()


def test_exceptions_of_local_classes_arrive_as_what_they_are(cloud):
    pool = cloud(1)

    class Refused(Exception):
        def __init__(self, why, how):
            super().__init__(why, how)
            self.how = how

    def refuse(x):
        raise Refused(x, lambda: x)

    for call in (
        lambda: pool.apply(refuse, (1,)),
        lambda: pool.map(refuse, [1, 2]),
        lambda: next(pool.imap(refuse, [1])),
    ):
        with pytest.raises(Refused) as caught:
            call()
        assert caught.value.args[0] == caught.value.how() == 1
        assert "in refuse" in str(caught.value.__cause__)
    with pytest.raises(ZeroDivisionError):
        pool.apply(lambda: 1 // 0)
    with pytest.raises(WorkerLostError) as lost:
        pool.apply(lambda: poolwork.exit_hard(3))
    assert lost.value.exitcode == 3


def test_arrays_travel_beside_what_is_sent_by_value(cloud):
    pool, array = cloud(1), np.arange(1 << 20, dtype="f8")
    assert pool.apply(lambda a: (works.see(a),), (array,)) == (("SharedView", array.sum()),)
    back = pool.apply(lambda a: {"twice": 2 * a}, (array,))["twice"]
    assert np.array_equal(back, 2 * array)
    assert works.owner_of(back) == "SharedView"
    # An array in a closure, as well.
    assert pool.apply(lambda: works.see(array)) == ("SharedView", array.sum())


def in_main(source):
    """Define things as an interactive session does."""
    namespace = {"__name__": "__main__"}
    exec(source, namespace)
    return namespace


def test_a_function_is_sent_as_it_is_when_it_is_submitted(cloud, tmp_path):
    pool, go = cloud(1), tmp_path / "go"
    session = in_main("factor = 2\ndef scale(x): return factor * x")
    gated = pool.apply_async(poolwork.gate, (str(go),))
    # All are submitted before the first one runs.
    results = []
    for session["factor"] in range(2, 6):
        results.append(pool.apply_async(session["scale"], (10,)))
        results.append(pool.map_async(session["scale"], [1, 2]))
    go.touch()
    gated.get(60)
    told = [result.get(60) for result in results]
    assert told == [20, [2, 4], 30, [3, 6], 40, [4, 8], 50, [5, 10]]
    exec("def scale(x): return -x", session)
    assert pool.apply(session["scale"], (1,)) == -1


def test_what_has_the_address_of_something_older_is_not_taken_for_it():
    """Picklers are used again, and cloudpickle remembers modules by address."""
    file = io.BytesIO()
    pickler = pickler_for("cloudpickle")(file, 5)
    for number in range(10):
        file.seek(0)
        pickler.dump(in_main(f"__file__ = {number}\ndef where(): return __file__")["where"])
        pickler.clear_memo()
        assert pickle.loads(file.getvalue()).__globals__["__file__"] == number


def test_the_part_that_cannot_be_sent_is_named(cloud):
    pool, lock = cloud(1), threading.Lock()
    for call, name in (
        (lambda: pool.apply(lambda x: x, ({"a": [lock]},)), r"argument 0\['a'\]\[0\]"),
        (lambda: pool.apply(lambda x: x, (lambda: 1,), {"key": lock}), "argument 'key'"),
        (lambda: pool.apply(lambda: lock), r"the function .*<lambda>"),
        (lambda: pool.map(lambda x: x, [1, lock], chunksize=1), "item 1"),
    ):
        with pytest.raises(pickle.PicklingError, match=f"cannot send {name}: TypeError: cannot pickle"):
            call()
    with pytest.raises(MaybeEncodingError, match=r"cannot pickle '_thread.lock' object \(at result\)"):
        pool.apply(threading.Lock)
    with pytest.raises(MaybeEncodingError, match=r"at result\[1\]"):
        pool.apply(lambda: (lambda: 1, threading.Lock()))
    assert pool.apply(lambda: 5) == 5


@pytest.mark.usefixtures("leak_census")
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_the_part_of_a_worker_that_cannot_be_sent_is_named(method):
    with pytest.raises(pickle.PicklingError, match=r"\.initargs\[0\] to the child: TypeError: cannot pickle"):
        Pool(
            1, lambda: 0, (threading.Lock(),), context=billiard.get_context(method), serializer="cloudpickle"
        )


# --- without a serializer ---------------------------------------------------------------------


@pytest.mark.parametrize("serializer", [None, "pickle"])
def test_a_lambda_is_refused_by_name_and_the_pool_lives_on(start, serializer):
    pool = start(1, serializer=serializer)
    for call in (
        lambda: pool.apply(lambda: 0),
        lambda: pool.map(lambda x: x, [1]),
        lambda: next(pool.imap(lambda x: x, [1])),
    ):
        with pytest.raises(pickle.PicklingError, match=r"cannot send the function .*<lambda>"):
            call()
    assert pool.apply(poolwork.double, (1,)) == 2


# --- a pair of functions ----------------------------------------------------------------------


@pytest.mark.parametrize("pair", [tuple, list])
def test_a_pair_of_functions_packs_calls_and_results(start, pair):
    works.SEEN.clear()
    pool = start(1, works.remember, (["argument"],), serializer=pair([works.dumps, works.loads]))
    assert pool.apply(poolwork.echo, ({"a": 1},), {"b": [2]}) == (({"a": 1},), {"b": [2]})
    assert works.SEEN == [(({"a": 1},), {"b": [2]})]
    assert pool.map(poolwork.identity, [{1}, {2}], chunksize=2) == [{1}, {2}]
    assert works.SEEN[1:] == [[{1}, {2}]]
    assert list(pool.imap(poolwork.identity, [{1}, {2}])) == [{1}, {2}]
    seen = pool.apply(works.seen)
    assert any("echo" in text and "{'b': [2]}" in text for text in seen)
    assert pool.apply(works.recall) == (["argument"],)
    with pytest.raises(works.Told):
        pool.apply(works.tell, (1, 2))


def test_the_initializer_goes_through_the_pair_where_it_has_to_be_sent(method, make_pool):
    works.SEEN.clear()
    context = billiard.get_context(method, serializer=(works.dumps, works.loads))
    pool = make_pool(1, works.remember, ("argument",), context=context)
    seen = pool.apply(works.seen)
    assert any("remember" in text for text in seen) == (method != "fork")
    assert pool.apply(works.recall) == ("argument",)


def test_a_pair_may_be_no_pickle_at_all(start):
    pool = start(1, works.remember, ("argument",), serializer=(works.dumps_json, works.loads_json))
    assert pool.apply(poolwork.add, (1,), {"b": 2}) == 3
    # Only what was a tuple to begin with is one again.
    assert pool.apply(poolwork.echo, ({"a": (1, None)},)) == ([{"a": [1, None]}], {})
    assert pool.map(poolwork.identity, ["a" * 100_000, {"b": 1.5}]) == ["a" * 100_000, {"b": 1.5}]
    assert pool.apply(works.recall) == ("argument",)
    with pytest.raises(ValueError, match="bad"):
        pool.apply(poolwork.fail, ("bad",))
    with pytest.raises(pickle.PicklingError, match="cannot send argument 0: AttributeError"):
        pool.apply(poolwork.identity, (b"bytes",))
    with pytest.raises(MaybeEncodingError, match="no attribute '__qualname__'"):
        pool.apply(works.lock)
    assert pool.apply(poolwork.double, (1,)) == 2


def test_a_pair_of_cloudpickle(start):
    pool = start(
        1, lambda *args: works.remember(*args, 6), (5,), serializer=(cloudpickle.dumps, cloudpickle.loads)
    )
    assert pool.apply(lambda x: x + 1, (1,)) == 2
    assert pool.apply(works.recall) == (5, 6)


# --- bad choices ------------------------------------------------------------------------------


@pytest.mark.usefixtures("leak_census")
@pytest.mark.parametrize(
    ("serializer", "error"),
    [
        ("dill", ValueError),
        ("", ValueError),
        (5, TypeError),
        (True, TypeError),
        ({}, TypeError),
        ((pickle.dumps,), TypeError),
        ((pickle.dumps, None), TypeError),
        ((pickle.dumps, pickle.loads, 1), TypeError),
        (pickle, TypeError),
    ],
)
def test_a_serializer_is_a_name_or_a_pair(serializer, error):
    with pytest.raises(error, match="serializer must be") as refused:
        Pool(1, serializer=serializer)
    assert repr(serializer) in str(refused.value)
    with pytest.raises(error, match="serializer must be"):
        billiard.get_context("fork", serializer=serializer)


MISSING = """
import sys
sys.modules["cloudpickle"] = None
import billiard

for make in (
    lambda: billiard.Pool(1, serializer="cloudpickle"),
    lambda: billiard.get_context("spawn", serializer="cloudpickle"),
):
    try:
        make()
    except ImportError as error:
        print(error.name, error)
with billiard.Pool(1) as pool:
    print(pool.apply(abs, (-1,)))
"""


def test_without_cloudpickle_the_extra_is_named(program):
    done = program(MISSING)
    assert (done.returncode, done.stderr) == (0, "")
    *errors, last = done.stdout.splitlines()
    assert last == "1"
    assert len(errors) == 2
    assert all(
        line.startswith("cloudpickle ") and 'pip install "billiard[cloudpickle]"' in line for line in errors
    )
