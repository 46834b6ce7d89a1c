"""What children do with shared memory. Here, so that children that start afresh can import it."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Any

from billiard.heap import BufferWrapper
from billiard.shared_memory import ShareableList, SharedMemory


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_double))


class Named(Point):
    """A structure that inherits fields, and that has one of a name that wrappers use themselves."""

    _fields_ = (("name", ctypes.c_char * 8), ("acquire", ctypes.c_int))


def double(*shared: Any) -> None:
    number, point, numbers, text, raw, points = shared
    with number.get_lock():
        number.value *= 2
    point.x, point.y = point.x * 2, point.y * 2
    with numbers:
        numbers[:] = [2 * item for item in numbers]
    text.value = text.value * 2
    raw.value *= 2
    for item in points:
        item.x *= 2


def count(value: Any, times: int) -> None:
    for _ in range(times):
        with value.get_lock():
            value.value += 1


def die_with_lock(value: Any) -> None:
    value.acquire()
    value.value = 13
    os.kill(os.getpid(), signal.SIGKILL)


def give_on(ctx: Any, value: Any, array: Any) -> None:
    """Hands what it was given to a child of its own."""
    child = ctx.Process(target=mark, args=(value, array))
    child.start()
    child.join()
    raise SystemExit(child.exitcode)


def mark(value: Any, array: Any) -> None:
    value.value += 1
    array[-1] = 7


def hold_and_die(values: list[Any]) -> None:
    own = [BufferWrapper(1 << 20) for _ in range(8)]
    for value in values:
        value[0] = len(own)
    os.kill(os.getpid(), signal.SIGKILL)


def write(wrapper: BufferWrapper, text: bytes) -> None:
    wrapper.create_memoryview()[: len(text)] = text


def receive_and_write(queue: Any, text: bytes) -> None:
    write(queue.get(timeout=30), text)


def put_block(queue: Any, answers: Any, text: bytes) -> None:
    wrapper = BufferWrapper(100)
    write(wrapper, text)
    queue.put(wrapper)
    # The one that sends it must be there until it has arrived.
    answers.get(timeout=30)


def set_named(memory: SharedMemory, items: ShareableList) -> None:
    memory.buf[:5] = b"child"
    items[0] += 1
    items[1] = "other"


def make_named(queue: Any) -> None:
    memory = SharedMemory(create=True, size=100)
    memory.buf[:3] = b"abc"
    memory.close()
    queue.put(memory.name)


def make_named_and_die(queue: Any) -> None:
    make_named(queue)
    os.kill(os.getpid(), signal.SIGKILL)


def open_named_and_die(name: str, go: Any) -> None:
    memory = SharedMemory(name)
    memory.buf[0] = 1
    go.set()
    os.kill(os.getpid(), signal.SIGKILL)
