"""What children do with queues: children that are not forks import it from here."""

from __future__ import annotations

import os
import pickle
import signal
from typing import Any

import billiard


def put_all(queue: Any, objects: list[object]) -> None:
    for obj in objects:
        queue.put(obj)


def put_numbers(queue: Any, who: int, count: int) -> None:
    for number in range(count):
        queue.put((who, number))


def get_until_none(queue: Any, results: Any) -> None:
    got = []
    while (obj := queue.get()) is not None:
        got.append(obj)
    results.put(got)


def put_and_leave(queue: Any, size: int) -> None:
    queue.put(bytes(size))


def put_close_and_leave(queue: Any, count: int) -> None:
    for number in range(count):
        queue.put(number)
    queue.close()
    queue.join_thread()


def put_and_be_killed(queue: Any, obj: object) -> None:
    queue.put(obj)
    os.kill(os.getpid(), signal.SIGKILL)


def echo(questions: Any, answers: Any) -> None:
    while (obj := questions.get()) is not None:
        answers.put(obj)


def work_off(queue: Any, count: int) -> None:
    for _ in range(count):
        queue.get()
        queue.task_done()


def put_into_inner(outer: Any, inner: Any) -> None:
    """A queue that came in a child's argument goes on to a child of that child."""
    child = billiard.get_context("spawn").Process(target=put_all, args=(inner, ["from a grandchild"]))
    child.start()
    child.join()
    outer.put(child.exitcode)


def describe(queue: Any, results: Any) -> None:
    results.put((queue._maxsize, queue.qsize(), queue._closed, type(queue).__name__))


class Unreadable:
    """Can be pickled, but not unpickled."""

    def __reduce__(self) -> Any:
        return explode, ()


def explode() -> None:
    raise KeyError("unreadable")


def dumps(obj: Any) -> bytes:
    """A serializer that can be told from pickle: what is refused, and what it writes, is its own."""
    if isinstance(obj, dict):
        raise KeyError("refused")
    return b"mine" + pickle.dumps(obj)


def loads(data: bytes) -> Any:
    assert data[:4] == b"mine"
    return pickle.loads(data[4:])
