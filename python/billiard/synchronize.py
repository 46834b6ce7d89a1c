"""Locks, semaphores, conditions, events and barriers between processes, in anonymous shared memory.

Nothing here has a name that could be left behind, and nobody who is killed blocks the others: a lock whose
holder has died goes to whoever waits for it, and says so.
"""

from __future__ import annotations

import errno
import os
import threading

from . import _billiard, context, process, util

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .context import BaseContext

    _Place = tuple[Any, int, int]

__all__ = ["Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"]

RECURSIVE_MUTEX, SEMAPHORE = range(2)
#: The largest value of a semaphore.
SEM_VALUE_MAX = 2**31 - 1

_BROKEN = -2
_FILLING = 0
_DRAINING = 1


def sem_unlink(name: str, /) -> None:
    """Remove the name of a semaphore. Semaphores of this package have none.

    Raises:
        FileNotFoundError: Always.
    """
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def _semname(sl: SemLock) -> str | None:
    """The name of a semaphore: none."""
    return sl.name


def _tell_abandoned(lock: SemLock, pid: int) -> None:
    """Log that a lock was taken over from a process that has died with it."""
    # Like the errors of a pool, this is said whether or not anybody has asked for the package's logger.
    util.get_logger()
    util.warning(
        "%s was taken over: process %d has died with it, and what it protects may be half done",
        type(lock).__name__,
        pid,
    )


def _sent(place: _Place) -> _Place:
    """Where something lives, for the child that is being started."""
    fd, at, length = place
    popen = context.get_spawning_popen()
    return popen.DupFd(popen.duplicate_for_child(fd)), at, length


def _arrived(place: _Place) -> tuple[int, int, int]:
    """Where something lives that the parent has sent."""
    sent, at, length = place
    return sent.detach(), at, length


class SemLock(_billiard.SemLock):
    """A semaphore, or a recursive lock.

    Its methods are those of the native class that it inherits from.

    Args:
        kind: `SEMAPHORE` or `RECURSIVE_MUTEX`.
        value: How often it can be acquired before somebody releases it.
        maxvalue: The value above which it cannot be released.
        ctx: Ignored: it goes to children of every start method.

    Attributes:
        abandoned: For a lock, whether a process has died with it; settable to False. For a semaphore, how many
            the dead have taken that nobody has given back.

    Raises:
        OSError: There is no such value, or no memory or descriptor is left.
        ValueError: There is no such kind.

    Source: billiard 4.2.1 ``SemLock``. Different here: it has no name, its holder's death is noticed, and
    deadlines do not depend on the time of day.
    """

    #: Whether it belongs to whoever has acquired it.
    _owned = False

    def __init__(self, kind: int, value: int, maxvalue: int, ctx: BaseContext | None = None) -> None:  # noqa: ARG002
        self._make(kind, value, maxvalue, self._owned)

    @property
    def _semlock(self) -> SemLock:
        """The native object: this one."""
        return self

    @staticmethod
    def _make_name() -> str:
        """Return a name like those that semaphores of the original have."""
        return f"{process.current_process()._config['semprefix']}-{os.urandom(4).hex()}"

    def __getstate__(self) -> tuple[Any, ...]:
        # The text names the classes as the original does.
        _assert_spawning("Lock")
        return _sent(self._place()), self.kind, self.maxvalue, self.name

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        place, kind, _, _ = state
        self._receive(_arrived(place), kind, self._owned)

    def _owner(self) -> str:
        """Who has it, for a reader."""
        try:
            if self._is_mine():
                name: str = process.current_process().name
                thread = threading.current_thread()
                return name if thread is threading.main_thread() else f"{name}|{thread.name}"
            if self._get_value():
                return "None"
            return "SomeOtherThread" if self._count() else "SomeOtherProcess"
        except Exception:
            return "unknown"


def _assert_spawning(what: str) -> None:
    if context.get_spawning_popen() is None:
        raise RuntimeError(f"{what} objects should only be shared between processes through inheritance")


class Lock(SemLock):
    """A lock. Any thread of any process may release it.

    If the process that has acquired it dies, the lock goes to whoever waits for it or asks next; then
    `abandoned` is true, and a warning is logged.
    """

    _owned = True

    def __init__(self, ctx: BaseContext | None = None) -> None:
        super().__init__(SEMAPHORE, 1, 1, ctx=ctx)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}(owner={self._owner()})>"


class RLock(SemLock):
    """A lock that the thread which has it may acquire again, and that only this thread releases.

    If its process dies, the lock goes on as a `Lock` does.
    """

    _owned = True

    def __init__(self, ctx: BaseContext | None = None) -> None:
        super().__init__(RECURSIVE_MUTEX, 1, 1, ctx=ctx)

    def __repr__(self) -> str:
        owner = self._owner()
        count: object = {"None": 0, "unknown": "unknown"}.get(owner, "nonzero")
        if not owner.startswith(("None", "SomeOther", "unknown")):
            count = self._count()
        return f"<{type(self).__name__}({owner}, {count})>"


class Semaphore(SemLock):
    """A semaphore.

    What a process has taken when it dies stays taken; `abandoned` tells how much that is.

    Args:
        value: How often it can be acquired before somebody releases it.
    """

    def __init__(self, value: int = 1, ctx: BaseContext | None = None) -> None:
        super().__init__(SEMAPHORE, value, SEM_VALUE_MAX, ctx=ctx)

    def get_value(self) -> int:
        """Return how often it could be acquired now."""
        return self._get_value()

    def _told(self) -> object:
        try:
            return self._get_value()
        except Exception:
            return "unknown"

    def __repr__(self) -> str:
        return f"<{type(self).__name__}(value={self._told()})>"


class BoundedSemaphore(Semaphore):
    """A semaphore that is never above the value that it was made with.

    Args:
        value: That value.
    """

    def __init__(self, value: int = 1, ctx: BaseContext | None = None) -> None:
        SemLock.__init__(self, SEMAPHORE, value, value, ctx=ctx)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}(value={self._told()}, maxvalue={self.maxvalue})>"


class _Count:
    """A number of a condition, behind the method by which the original's semaphores tell theirs."""

    def __init__(self, count: Callable[[], int]) -> None:
        self.get_value = count


class Condition(_billiard.Condition):
    """A condition: some wait, others notify them, and all hold its lock meanwhile.

    Nobody waits for those who were notified, so one that is killed blocks nobody; and a notification is not lost
    with a process that dies before it has taken it.

    Args:
        lock: A lock of this module; ``None`` for a new `RLock`.
        ctx: The context that it belongs to.

    Raises:
        AssertionError: There is no context.
        OSError: No memory or descriptor is left.
        TypeError: The lock is of another kind.

    Source: billiard 4.2.1 ``Condition``. Different here: ``notify`` takes a count.
    """

    acquire: Callable[..., bool]
    release: Callable[[], None]

    def __init__(self, lock: SemLock | None = None, ctx: BaseContext | None = None) -> None:
        if not ctx:
            raise AssertionError("a condition belongs to a context: use the one of `get_context()`")
        self._lock = lock or RLock(ctx=ctx)
        self._make(self._lock)
        self._make_methods()

    def _make_methods(self) -> None:
        self.acquire, self.release = self._lock.acquire, self._lock.release

    @property
    def _sleeping_count(self) -> _Count:
        """How many wait."""
        return _Count(self._sleepers)

    @property
    def _woken_count(self) -> _Count:
        """How many were notified and have not confirmed it: nobody has to."""
        return _Count(int)

    @property
    def _wait_semaphore(self) -> _Count:
        """How many notifications nobody has taken yet."""
        return _Count(self._grants)

    def __getstate__(self) -> tuple[Any, ...]:
        _assert_spawning(type(self).__name__)
        return self._lock, _sent(self._place())

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._lock, place = state
        self._make(self._lock, _arrived(place))
        self._make_methods()

    def __repr__(self) -> str:
        try:
            waiters: object = self._sleepers()
        except Exception:
            waiters = "unknown"
        return f"<{type(self).__name__}({self._lock}, {waiters})>"

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until something is true.

        Args:
            predicate: What to ask, with the lock held: at first, and after each notification.
            timeout: Seconds to wait in all; ``None`` waits for ever.

        Returns:
            What ``predicate`` has answered last.

        Raises:
            AssertionError: The calling thread does not hold the lock.
        """
        from time import monotonic

        result = predicate()
        end = None if timeout is None else monotonic() + timeout
        while not result:
            left = None if end is None else end - monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
            result = predicate()
        return result


class Event(_billiard.Event):
    """A flag that can be waited for.

    Args:
        ctx: The context that it belongs to.

    Raises:
        AssertionError: There is no context.
        OSError: No memory or descriptor is left.

    Source: billiard 4.2.1 ``Event``. Different here: whoever waits while it is set has seen it, even if it is
    cleared again at once.
    """

    def __init__(self, ctx: BaseContext | None = None) -> None:
        if not ctx:
            raise AssertionError("an event belongs to a context: use the one of `get_context()`")
        self._make()

    def __getstate__(self) -> _Place:
        _assert_spawning(type(self).__name__)
        return _sent(self._place())

    def __setstate__(self, state: _Place) -> None:
        self._make(_arrived(state))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x} {'set' if self.is_set() else 'unset'}>"


class Barrier(threading.Barrier):
    """A place where a number of threads of any processes wait for each other, again and again.

    If a process dies while it waits here, the barrier breaks: the others are told within 100 ms.

    Args:
        parties: How many threads go on together.
        action: What the last one to come calls before they do.
        timeout: Seconds that ``wait`` waits if it is not told otherwise; ``None`` for ever.
        ctx: The context that it belongs to.

    Raises:
        AssertionError: There is no context.
        OSError: No memory or descriptor is left.

    Source: billiard 4.2.1 ``Barrier``. Different here: what the death of a party does.
    """

    _parties: int
    _action: Callable[[], object] | None
    _timeout: float | None

    def __init__(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        ctx: BaseContext | None = None,
    ) -> None:
        if not ctx:
            raise AssertionError("a barrier belongs to a context: use the one of `get_context()`")
        self._parties, self._action, self._timeout = parties, action, timeout
        self._gate = _billiard.Barrier()

    def __getstate__(self) -> tuple[Any, ...]:
        _assert_spawning(type(self).__name__)
        return self._parties, self._action, self._timeout, _sent(self._gate._place())

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._parties, self._action, self._timeout, place = state
        self._gate = _billiard.Barrier(_arrived(place))

    def wait(self, timeout: float | None = None) -> int:
        """Wait until all are there.

        Args:
            timeout: Seconds to wait, after which the barrier is broken; ``None`` for the barrier's own.

        Returns:
            How many were there before.

        Raises:
            threading.BrokenBarrierError: It is broken, or was while this thread has waited.
        """
        index = self._gate.wait(self._parties, self._action, self._timeout if timeout is None else timeout)
        if index is None:
            raise threading.BrokenBarrierError
        return index

    def reset(self) -> None:
        """Begin anew. Those who wait get a `threading.BrokenBarrierError`."""
        self._gate.reset()

    def abort(self) -> None:
        """Break it: those who wait, and who come, get a `threading.BrokenBarrierError`, until it is reset."""
        self._gate.abort()

    @property
    def parties(self) -> int:
        """How many threads go on together."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """How many wait now."""
        return self._gate.waiting

    @property
    def broken(self) -> bool:
        """Whether it is broken."""
        return self._gate.broken

    @property
    def _state(self) -> int:
        if self._gate.broken:
            return _BROKEN
        return _DRAINING if self._gate.opening else _FILLING

    @property
    def _count(self) -> int:
        return self._gate.waiting

    def __repr__(self) -> str:
        told = "broken" if self.broken else f"waiters={self.n_waiting}/{self.parties}"
        return f"<{type(self).__name__} at {id(self):#x}: {told}>"
