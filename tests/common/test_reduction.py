"""The pickler."""

from __future__ import annotations

import copyreg
import functools
import io
import pickle

import pytest

from billiard import reduction
from billiard.reduction import ForkingPickler


class Plain:
    def __init__(self, value=0):
        self.value = value

    def method(self):
        return self.value

    @classmethod
    def make(cls):
        return cls(9)


def _plain_from(value):
    return Plain(value)


@pytest.fixture
def registered():
    """Registers a reducer for `Plain`, and takes it back."""

    def now(reduce, table=ForkingPickler._extra_reducers):
        table[Plain] = reduce
        added.append(table)

    added = []
    yield now
    for table in added:
        table.pop(Plain, None)


def test_a_pickle_is_a_view_that_loads():
    view = ForkingPickler.dumps({"a": 1}, 2)
    assert isinstance(view, memoryview)
    assert ForkingPickler.loads(view) == {"a": 1}
    assert bytes(view[:2]) == b"\x80\x02"
    assert ForkingPickler.loadbuf(io.BytesIO(view)) == {"a": 1}


def test_dump_writes_to_a_file():
    file = io.BytesIO()
    reduction.dump([1], file, 4)
    assert pickle.loads(file.getvalue()) == [1]


def test_a_reducer_registered_later_is_seen_by_picklers_that_exist(registered):
    file = io.BytesIO()
    pickler = ForkingPickler(file)
    pickler.dump(Plain(1))
    registered(lambda it: (_plain_from, (it.value + 100,)))
    pickler.clear_memo()
    pickler.dump(Plain(2))
    file.seek(0)
    assert [pickle.load(file).value, pickle.load(file).value] == [1, 102]


def test_reducers_of_copyreg_are_seen_too_and_ours_come_first(registered):
    registered(lambda it: (_plain_from, (it.value + 10,)), copyreg.dispatch_table)
    assert ForkingPickler.loads(ForkingPickler.dumps(Plain(1))).value == 11
    registered(lambda it: (_plain_from, (it.value + 100,)))
    assert ForkingPickler.loads(ForkingPickler.dumps(Plain(1))).value == 101
    assert pickle.loads(pickle.dumps(Plain(1))).value == 11


def test_registering_is_for_the_exact_type(registered):
    ForkingPickler.register(Plain, lambda _: (_plain_from, (5,)))
    registered(ForkingPickler._extra_reducers[Plain])
    assert ForkingPickler.loads(ForkingPickler.dumps(Derived(1))).value == 1


class Derived(Plain):
    pass


@pytest.mark.parametrize(
    ("thing", "use"),
    [
        (Plain(3).method, lambda f: f()),
        (Plain.make, lambda f: f().value),
        (list.append, lambda f: f is list.append),
        (int.__add__, lambda f: f(1, 2)),
        (functools.partial(divmod, 7), lambda f: f(2)),
        (functools.partial(dict, a=1), lambda f: f()),
        (functools.partial(functools.partial(max, 1), 2), lambda f: f()),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4, None])
def test_callables_travel(thing, use, protocol):
    assert use(ForkingPickler.loads(ForkingPickler.dumps(thing, protocol))) == use(thing)


def test_attributes_of_a_partial_travel():
    partial = functools.partial(int)
    partial.note = "mine"
    assert ForkingPickler.loads(ForkingPickler.dumps(partial)).note == "mine"


def test_what_cannot_be_pickled_is_an_error():
    with pytest.raises((AttributeError, pickle.PicklingError)):
        ForkingPickler.dumps(lambda: 0)
