"""The same program on the original package and on this one says the same."""

from __future__ import annotations

import re

PROGRAM = """
import ctypes
import billiard
from billiard import heap, sharedctypes as shared

class Pair(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_double)]

MAKERS = (shared.RawValue, shared.Value, shared.RawArray, shared.Array, shared.synchronized, shared.copy)

def attempt(call, *args, **options):
    name = getattr(call, "__name__", call) if call in MAKERS else "call"
    try:
        print(name, args, options, call(*args, **options))
    except BaseException as error:
        print(name, args, options, f"{type(error).__name__}: {error}")

for args in [("i",), ("i", 5), ("i", "a"), ("d", 1.5), ("c", b"a"), ("u", "x"), (ctypes.c_int, 3), (int, 3),
             ("i", 1, 2), (5,), ("i", 2**40), ("b", 200), ("c", b"ab"), (Pair, 1, 2.5),
             (ctypes.c_int * 3, 1, 2)]:
    for make in (shared.RawValue, shared.Value, billiard.RawValue, billiard.Value):
        attempt(make, *args)
for args in [("i", 3), ("i", [1, 2]), ("c", b"abc"), ("c", 3), ("u", "abc"), ("i", 2.5), ("i", True),
             ("i", 0), ("i", iter([1])), ("i", 2**70), ("i", []), (ctypes.c_short, (1, 2, 3)), ("i", ["a"]),
             ("i", None), (Pair, [(1, 2), (3, 4)])]:
    for make in (shared.RawArray, shared.Array, billiard.RawArray, billiard.Array):
        attempt(make, *args)
for options in [{"lock": True}, {"lock": None}, {"lock": False}, {"lock": 0}, {"lock": 5}]:
    for make in (shared.Value, shared.Array, billiard.Value, billiard.Array):
        attempt(make, "i", 1, **options)
attempt(shared.Value, "i", foo=1, bar=2)
lock = billiard.Lock()
value = billiard.Value("i", 1, lock=lock)
print(value.get_lock() is lock, value.acquire(), value.release())
print(value.__enter__(), value.__exit__(None, None, None))
value.other = 1
value.value += 2**31
print(value.value, value.get_obj(), value.other)
for what in (value, 5, ctypes.c_int(3), Pair(1, 2), (ctypes.c_char * 3)(), (ctypes.c_wchar * 3)()):
    attempt(shared.synchronized, what)
    attempt(shared.copy, what)
pair = billiard.Value(Pair, 1, 2.5)
pair.x = 7
print(type(pair), pair.x, pair.y)
print(shared.class_cache[Pair] is type(pair), shared.make_property("x") is type(pair).x)
array = billiard.Array("i", 5)
array[0:2] = [3, 4]
for call, *args in [(array.__len__,), (lambda i: array[i], 7), (lambda i: array[i], -1),
                    (lambda i: array[i], slice(1, 4)), (lambda i: array[i], "x"), (array.__getslice__, 1, 3),
                    (array.__setslice__, 0, 2, [8, 9]), (list, array)]:
    attempt(call, *args)
def assign(i, what):
    array[i] = what
for args in [(slice(0, 2), [1, 2, 3]), (9, 1), (0, "x"), (0, 2**40), (slice(None, None, 2), [1, 1, 1])]:
    attempt(assign, *args)
print(array[:])
text = billiard.Array("c", 5)
for name, what in [("value", b"abc"), ("value", b"abcdefg"), ("raw", b"abcdefg"), ("raw", b"ab"),
                   ("value", "ab")]:
    attempt(setattr, text, name, what)
    print(text.value, text.raw, text[:], text[0], len(text))
attempt(shared.reduce_ctype, value.get_obj())
for size, length in [(8, None), (8, 2), (2, None)]:
    attempt(shared.rebuild_ctype, ctypes.c_int, heap.BufferWrapper(size), length)
for size in (0, 10):
    wrapper = heap.BufferWrapper(size)
    view = wrapper.create_memoryview()
    print(wrapper.get_size(), wrapper._state[1], view.nbytes, view.format)
print(heap.Heap._roundup(13, 8), heap.Heap._roundup(16, 8), heap.Arena(100).size)
"""


def test_the_same_program_says_the_same(original, program):
    theirs, ours = original(PROGRAM), program(PROGRAM)
    assert (theirs.returncode, ours.returncode) == (0, 0), ours.stderr

    def lines(text):
        return re.sub(r"0x[0-9a-f]+", "0x", text).splitlines()

    assert lines(ours.stdout) == lines(theirs.stdout)
