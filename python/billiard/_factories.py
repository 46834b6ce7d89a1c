"""What a context makes for processes to share: locks, queues, pipes, values."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._billiard import SemLock
    from .connection import Connection
    from .context import BaseContext
    from .queues import JoinableQueue as JoinableQueueType
    from .queues import Queue as QueueType
    from .queues import SimpleQueue as SimpleQueueType
    from .synchronize import (
        Barrier,
        BoundedSemaphore,
        Condition,
        Event,
        Lock,
        RLock,
        Semaphore,
    )


def _only_lock(options: dict[str, Any]) -> Any:
    """What a factory is told about the lock, and nothing else."""
    lock = options.pop("lock", True)
    if options:
        raise TypeError(f"unexpected keyword arguments: {', '.join(options)}; there is only `lock`")
    return lock


class Factories:
    """The factories of what processes share."""

    if TYPE_CHECKING:

        def get_context(self) -> BaseContext:
            """Return the context that is to be used."""

    def Lock(self) -> Lock:
        """Return a lock between processes; see `billiard.synchronize.Lock`."""
        from .synchronize import Lock

        return Lock(ctx=self.get_context())

    def RLock(self) -> RLock:
        """Return a lock that its thread may acquire again; see `billiard.synchronize.RLock`."""
        from .synchronize import RLock

        return RLock(ctx=self.get_context())

    def Semaphore(self, value: int = 1) -> Semaphore:
        """Return a semaphore; see `billiard.synchronize.Semaphore`.

        Args:
            value: How often it can be acquired before somebody releases it.

        Raises:
            OSError: The value is negative or above 2147483647.
        """
        from .synchronize import Semaphore

        return Semaphore(value, ctx=self.get_context())

    def BoundedSemaphore(self, value: int = 1) -> BoundedSemaphore:
        """Return a semaphore that is never above the value that it begins with.

        Args:
            value: That value.

        Raises:
            OSError: The value is negative or above 2147483647.
        """
        from .synchronize import BoundedSemaphore

        return BoundedSemaphore(value, ctx=self.get_context())

    def Condition(self, lock: SemLock | None = None) -> Condition:
        """Return a condition; see `billiard.synchronize.Condition`.

        Args:
            lock: The lock that it goes with; ``None`` for a new `RLock`.
        """
        from .synchronize import Condition

        return Condition(lock, ctx=self.get_context())

    def Event(self) -> Event:
        """Return a flag that can be waited for; see `billiard.synchronize.Event`."""
        from .synchronize import Event

        return Event(ctx=self.get_context())

    def Barrier(
        self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None
    ) -> Barrier:
        """Return a barrier; see `billiard.synchronize.Barrier`, which describes the arguments."""
        from .synchronize import Barrier

        return Barrier(parties, action, timeout, ctx=self.get_context())

    def Pipe(
        self, duplex: bool = True, rnonblock: bool = False, wnonblock: bool = False, *, oob: bool = False
    ) -> tuple[Connection, Connection]:
        """Return two connections with each other; `billiard.connection.Pipe` describes the arguments."""
        from .connection import Pipe

        return Pipe(duplex, rnonblock, wnonblock, oob=oob)

    def allow_connection_pickling(self) -> None:
        """Have the package's picklers know connections. They do as soon as there are any."""
        from . import connection  # noqa: F401

    def Queue(self, maxsize: int = 0, *, maxbytes: int | None = None) -> QueueType:
        """Return a queue; `billiard.queues.Queue` describes it and the arguments."""
        from .queues import Queue

        return Queue(maxsize, ctx=self.get_context(), maxbytes=maxbytes)

    def JoinableQueue(self, maxsize: int = 0, *, maxbytes: int | None = None) -> JoinableQueueType:
        """Return a queue that knows what is done; `billiard.queues.JoinableQueue` describes it."""
        from .queues import JoinableQueue

        return JoinableQueue(maxsize, ctx=self.get_context(), maxbytes=maxbytes)

    def SimpleQueue(self) -> SimpleQueueType:
        """Return a queue that is a pipe; `billiard.queues.SimpleQueue` describes it."""
        from .queues import SimpleQueue

        return SimpleQueue(ctx=self.get_context())

    def RawValue(self, typecode_or_type: str | type[Any], *args: Any) -> Any:
        """Return an object of `ctypes` in shared memory; see `billiard.sharedctypes.RawValue`."""
        from .sharedctypes import RawValue

        return RawValue(typecode_or_type, *args)

    def RawArray(self, typecode_or_type: str | type[Any], size_or_initializer: Any) -> Any:
        """Return an array of `ctypes` in shared memory; see `billiard.sharedctypes.RawArray`."""
        from .sharedctypes import RawArray

        return RawArray(typecode_or_type, size_or_initializer)

    def Value(self, typecode_or_type: str | type[Any], *args: Any, **kwargs: Any) -> Any:
        """Return an object of `ctypes` in shared memory, with a lock; see `billiard.sharedctypes.Value`.

        Args:
            typecode_or_type: Its type, or the letter that stands for it.
            args: What its type is called with.
            kwargs: ``lock``: True, a lock, or False for none.

        Raises:
            TypeError: There is no such type or keyword.
        """
        from .sharedctypes import Value

        return Value(typecode_or_type, *args, lock=_only_lock(kwargs), ctx=self.get_context())

    def Array(
        self, typecode_or_type: str | type[Any], size_or_initializer: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Return an array of `ctypes` in shared memory, with a lock; see `billiard.sharedctypes.Array`.

        Args:
            typecode_or_type: The type of its items, or the letter that stands for it.
            size_or_initializer: How many items, or a sequence of them.
            args: Nothing; the original ignores what is given here.
            kwargs: ``lock``: True, a lock, or False for none.

        Raises:
            TypeError: There is no such type or keyword, or there are more arguments.
        """
        from .sharedctypes import Array

        if args:
            raise TypeError(f"Array() takes 2 positional arguments, not {2 + len(args)}; give `lock` by name")
        return Array(typecode_or_type, size_or_initializer, lock=_only_lock(kwargs), ctx=self.get_context())
