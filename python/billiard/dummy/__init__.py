"""The interface of the package, with threads in the place of processes.

A program that was written for processes can be tried out on threads by importing this module instead.
"""

from __future__ import annotations

import array
import sys
import threading
import weakref
from builtins import dict, list  # noqa: F401, UP029 - names that a manager has
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from queue import Queue
from threading import BoundedSemaphore, Event, Lock, RLock, Semaphore
from threading import Condition as _Condition
from threading import current_thread as current_process
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

    from ..pool import ThreadPool

__all__ = [
    "BoundedSemaphore",
    "Condition",
    "Event",
    "JoinableQueue",
    "Lock",
    "Manager",
    "Pipe",
    "Pool",
    "Process",
    "Queue",
    "RLock",
    "Semaphore",
    "active_children",
    "current_process",
    "freeze_support",
]

JoinableQueue = Queue


def __getattr__(name: str) -> Any:
    why = None
    # The pipe is the one thing here that threads share with processes; most programs do without.
    if name == "Pipe":
        try:
            return import_module("billiard.connection").Pipe
        except ImportError as error:
            why = error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from why


class DummyProcess(threading.Thread):
    """A thread with the interface of a process.

    Args:
        group: Must be ``None``.
        target: What `run` calls.
        name: The name; the default is that of a thread.
        args: Positional arguments of ``target``.
        kwargs: Keyword arguments of ``target``.

    Source: billiard 4.2.1 ``DummyProcess``. Different here: a thread that is no `DummyProcess` has children
    too, and one that could not be started has no exit code.
    """

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] = {},
    ) -> None:
        super().__init__(group, target, name, args, kwargs)
        self._pid: int | None = None
        self._children: weakref.WeakKeyDictionary[DummyProcess, None] = weakref.WeakKeyDictionary()
        self._start_called = False
        self._parent = current_process()

    def start(self) -> None:
        """Start the thread.

        Raises:
            AssertionError: Another thread has made the object.
            RuntimeError: It was started before, or the system cannot start another thread.
        """
        if self._parent is not current_process():
            raise AssertionError("can only be started by the thread that made it")
        super().start()
        self._start_called = True
        _children_of(self._parent)[self] = None

    @property
    def exitcode(self) -> int | None:
        """0 when the thread has ended, however it did; ``None`` before."""
        return 0 if self._start_called and not self.is_alive() else None


Process = DummyProcess


def _children_of(thread: threading.Thread) -> weakref.WeakKeyDictionary[DummyProcess, None]:
    known: weakref.WeakKeyDictionary[DummyProcess, None] = vars(thread).setdefault(
        "_children", weakref.WeakKeyDictionary()
    )
    return known


_children_of(current_process())


def active_children() -> list[DummyProcess]:
    """Return the threads that the calling one has started as processes and that still run."""
    children = _children_of(current_process())
    for child in list(children):
        if not child.is_alive():
            children.pop(child, None)
    return list(children)


def freeze_support() -> None:
    """Do nothing: threads need no support in a frozen program."""


class Condition(_Condition):
    """`threading.Condition`, as a class of its own."""


class Namespace:
    """An object that takes attributes.

    Args:
        **kwds: The first of them.
    """

    def __init__(self, /, **kwds: Any) -> None:
        vars(self).update(kwds)

    def __repr__(self) -> str:
        shown = sorted(f"{name}={value!r}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"{type(self).__name__}({', '.join(shown)})"


def Array(typecode: str, sequence: Iterable[Any], lock: object = True) -> array.array[Any]:  # noqa: ARG001
    """Return an `array.array`, which threads share as it is.

    Args:
        typecode: Type of the items, as `array` names it.
        sequence: The items.
        lock: Ignored.
    """
    return array.array(typecode, sequence)


class Value:
    """A value that threads share.

    Args:
        typecode: Kept, and shown by `repr`; any object may be a value.
        value: The first one.
        lock: Ignored.
    """

    def __init__(self, typecode: Any, value: Any, lock: object = True) -> None:  # noqa: ARG002
        self._typecode = typecode
        self._value = value

    def _get(self) -> Any:
        return self._value

    def _set(self, value: Any) -> None:
        self._value = value

    value = property(_get, _set, doc="What was assigned last.")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self._typecode!r}, {self._value!r})>"


def Manager() -> ModuleType:
    """Return this module, which has what a manager has, since threads share everything."""
    return sys.modules[__name__]


def shutdown() -> None:
    """Do nothing: this manager is no process."""


def Pool(
    processes: int | None = None,
    initializer: Callable[..., object] | None = None,
    initargs: Iterable[Any] = (),
) -> ThreadPool:
    """Return a `billiard.pool.ThreadPool`.

    Args:
        processes: Number of threads; the default is the number of usable processors.
        initializer: Called in each thread before its first job, with ``initargs``.
        initargs: See there.
    """
    from ..pool import ThreadPool

    return ThreadPool(processes, initializer, initargs)
