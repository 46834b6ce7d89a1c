"""The threads of a pool, and the tasks that they run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ._threadresults import failure

if TYPE_CHECKING:
    from ._threadengine import ThreadEngine


class _Job(Protocol):
    """What a task tells of itself."""

    def begin(self) -> None:
        """It begins."""

    def end_part(self, part: int, success: bool, value: Any) -> None:
        """It has ended."""


class Call:
    """A call.

    Args:
        job: What it belongs to.
        function: What is called.
        args: With these arguments.
        kwargs: And these.
    """

    __slots__ = ("_args", "_function", "_job", "_kwargs")

    def __init__(self, job: _Job, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self._job, self._function = job, function
        self._args, self._kwargs = args, kwargs

    def run(self) -> None:
        """Make it, and tell the job the outcome."""
        self._job.begin()
        try:
            value = self._function(*self._args, **self._kwargs)
        except BaseException as exc:
            self._job.end_part(0, False, failure(exc))
        else:
            self._job.end_part(0, True, value)
        finally:
            # What was raised knows this frame: it must not lead back to the exception, by way of the result.
            del self


class Chunk:
    """A call for each of several items.

    Args:
        job: What it belongs to.
        part: Its place in the job.
        function: What is called.
        items: The items.
        star: Whether an item holds the arguments, rather than being the only one.
    """

    __slots__ = ("_function", "_items", "_job", "_part", "_star")

    def __init__(
        self, job: _Job, part: int, function: Callable[..., Any], items: list[Any], star: bool = False
    ) -> None:
        self._job, self._part = job, part
        self._function, self._items, self._star = function, items, star

    def run(self) -> None:
        """Make it, and tell the job the outcome."""
        self._job.begin()
        function, values = self._function, []
        try:
            # A loop: `map` would take a StopIteration of the function for the end of the items.
            for item in self._items:
                values.append(function(*item) if self._star else function(item))
        except BaseException as exc:
            self._job.end_part(self._part, False, failure(exc))
        else:
            self._job.end_part(self._part, True, values)
        finally:
            del self


Task = Call | Chunk


class Worker:
    """What a thread of the pool does.

    Args:
        engine: Where its tasks come from.
        initializer: Called first, with ``initargs``.
        initargs: See there.

    Attributes:
        thread: The thread.
        is_busy: Whether code of the program may be running in it.
    """

    thread: threading.Thread

    def __init__(
        self, engine: ThreadEngine, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
    ) -> None:
        self._engine = engine
        self._initializer = initializer
        self._initargs = initargs
        self.is_busy = initializer is not None

    def __call__(self) -> None:
        """Run tasks until it is told to leave."""
        if not self._engine.is_hired(self):
            return
        try:
            if self._is_prepared():
                self._work()
        finally:
            self._engine.note_left(self)

    def _is_prepared(self) -> bool:
        try:
            if self._initializer is not None:
                self._initializer(*self._initargs)
        except BaseException as exc:
            self._engine.give_up(exc)
            return False
        self.is_busy = False
        return True

    def _work(self) -> None:
        engine = self._engine
        while (task := engine.tasks.get()) is not None:
            # In this order: who ends the pool looks at it the other way round, and one of us sees the other.
            self.is_busy = True
            if engine.is_working():
                task.run()
            # While it waits for the next one it must keep nothing alive.
            del task
            self.is_busy = False
