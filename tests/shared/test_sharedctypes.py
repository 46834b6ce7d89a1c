"""Values and arrays in shared memory."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import pickle

import pytest
import sharedwork

import billiard
from billiard import sharedctypes
from billiard.reduction import ForkingPickler


def test_a_child_changes_what_its_parent_sees(ctx, done):
    number = ctx.Value("i", 21)
    point = ctx.Value(sharedwork.Point, 1, 2.5)
    numbers = ctx.Array("d", [1.5, 2.5, 3.5])
    text = ctx.Array("c", 20)
    text.value = b"ab"
    raw = ctx.RawValue("q", 1 << 40)
    points = ctx.RawArray(sharedwork.Point, [(1, 0.0), (2, 0.0)])
    assert done(sharedwork.double, number, point, numbers, text, raw, points) == 0
    assert (number.value, point.x, point.y, numbers[:], text.value) == (42, 2, 5.0, [3.0, 5.0, 7.0], b"abab")
    assert (raw.value, [item.x for item in points]) == (1 << 41, [2, 4])


def test_no_step_is_lost(ctx):
    value = ctx.Value("L", 0)
    children = [ctx.Process(target=sharedwork.count, args=(value, 5000)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        child.close()
    assert value.value == 20_000


def test_the_lock_of_the_dead_goes_on(ctx, done):
    value = ctx.Value("i", 0)
    assert done(sharedwork.die_with_lock, value) == -9
    assert value.acquire(timeout=30)
    value.release()
    assert (value.value, value.get_lock().abandoned) == (13, True)


def test_what_was_given_is_given_on(ctx, done):
    value, array = ctx.Value("i", 1), ctx.Array("i", 3)
    assert done(sharedwork.give_on, ctx, value, array) == 0
    assert (value.value, array[:]) == (2, [0, 0, 7])


@pytest.mark.parametrize("code", sharedctypes.typecode_to_type)
def test_each_type_code(code):
    type_ = sharedctypes.typecode_to_type[code]
    array = billiard.RawArray(code, 5)
    assert type(array) is type_ * 5
    assert bytes(array) == bytes(ctypes.sizeof(array))
    item = {"c": b"x", "u": "x"}.get(code, 7)
    assert billiard.Value(code, item).value == item
    assert list(billiard.Array(code, [item] * 3)) == [item] * 3


def test_a_new_array_is_zero_where_an_old_one_was():
    for _ in range(3):
        array = billiard.RawArray("B", 50_000)
        assert not any(array)
        array[:] = [255] * 50_000
        del array


@pytest.mark.parametrize("raw", [True, False])
def test_arrays_are_views_for_others(raw):
    array = billiard.RawArray("d", [1, 2, 3]) if raw else billiard.Array("d", [1, 2, 3])
    view = memoryview(array if raw else array.get_obj()).cast("B").cast("d")
    view[1] = 5.5
    assert array[1] == 5.5
    if importlib.util.find_spec("numpy"):
        import numpy as np  # noqa: PLC0415 - not everywhere

        row = np.frombuffer(array if raw else array.get_obj())
        row *= 2
        assert array[:] == [2.0, 11.0, 6.0]


def test_an_object_lives_as_long_as_what_is_part_of_it():
    points = billiard.RawArray(sharedwork.Point, 2)
    last = points[1]
    del points
    gc.collect()
    keep = [billiard.RawArray("B", [255] * 32) for _ in range(50)]
    assert (last.x, last.y) == (0, 0.0)
    del keep


def test_structures_show_all_their_fields_and_keep_their_methods():
    named = billiard.Value(sharedwork.Named, 3, 1.5, b"me", 9)
    assert type(named).__name__ == "SynchronizedNamed"
    assert (named.x, named.y, named.name, named.get_obj().acquire) == (3, 1.5, b"me", 9)
    with named:
        named.x = 4
    assert (named.get_obj().x, named.acquire(), named.release()) == (4, True, None)
    assert type(billiard.Value(sharedwork.Named)) is type(named)
    assert repr(named).startswith("<SynchronizedNamed wrapper for <sharedwork.Named object at ")
    with pytest.raises(AttributeError):
        del named.x


class Counting:
    """A lock that counts, and that is none of the package's."""

    def __init__(self):
        self.held = self.times = 0

    def acquire(self):
        self.held += 1
        self.times += 1
        return True

    def release(self):
        self.held -= 1

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *args):
        self.release()


class CountingRLock(type(billiard.RLock())):  # type: ignore[misc]
    times = 0

    def acquire(self, block=True, timeout=None):
        CountingRLock.times += 1
        return super().acquire(block, timeout)


def test_any_lock_will_do():
    lock = Counting()
    array = billiard.Array("i", [1, 2, 3], lock=lock)
    assert array.get_lock() is lock
    array[0] += 1
    assert (len(array), array[:], lock.times, lock.held) == (3, [2, 2, 3], 3, 0)
    with array as got:
        assert (got, lock.held) == (True, 1)
    with pytest.raises(IndexError):
        array[5]
    with pytest.raises(TypeError):
        array[1] = "x"
    assert lock.held == 0
    value = billiard.Value("i", lock=CountingRLock(ctx=billiard.get_context()))
    value.value += 1
    assert CountingRLock.times == 2


@pytest.mark.parametrize("lock", [0, 1, 5, "lock"])
def test_what_is_no_lock_is_refused(lock):
    for make in (billiard.Value, billiard.Array, sharedctypes.Value):
        with pytest.raises(AttributeError, match="has no method 'acquire'"):
            make("i", 1, lock=lock)


def test_an_error_under_the_lock_releases_it():
    value = billiard.Value("i", 1)
    with pytest.raises(TypeError):
        value.value = "x"
    array = billiard.Array("i", 1)
    with pytest.raises(IndexError):
        array[3] = 1
    for it in (value, array):
        assert it.get_lock()._get_value() == 1


def test_unknown_arguments_are_refused():
    with pytest.raises(ValueError, match="unrecognized"):
        sharedctypes.Value("i", foo=1)
    for make in (billiard.Value, billiard.Array):
        with pytest.raises(TypeError, match="foo"):
            make("i", 1, foo=1)
    with pytest.raises(TypeError, match="by name"):
        billiard.Array("i", 1, False)
    with pytest.raises(TypeError, match="type code 'x'"):
        billiard.Value("x")


@pytest.mark.parametrize("make", [billiard.Value, billiard.RawValue, billiard.Array, billiard.RawArray])
@pytest.mark.parametrize("dumps", [pickle.dumps, ForkingPickler.dumps])
def test_it_is_inherited_or_refused(make, dumps):
    with pytest.raises((RuntimeError, TypeError, pickle.PicklingError)):
        dumps(make("i", 1))


def test_a_wrapper_that_was_not_made_says_so():
    class Careless(sharedctypes.Synchronized):
        def __init__(self):
            pass

    for use in (lambda it: it.value, lambda it: it.get_lock(), len, lambda it: it.__enter__()):
        with pytest.raises((RuntimeError, TypeError)):
            use(Careless())
