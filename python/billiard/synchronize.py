"""Locks, semaphores, conditions, events and barriers between processes, in anonymous shared memory.

Nothing here has a name that could be left behind, and nobody who is killed blocks the others: a lock whose
holder has died goes to whoever waits for it, and says so.
"""

from __future__ import annotations

import errno
import os
import threading

from . import _billiard, context, process, util
from ._billiard import BoundedSemaphore, Lock, RLock, Semaphore, SemLock

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


def ensure_SemLock() -> None:
    """Raise if there are no semaphores; there always are."""


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


class _RandomNames:
    """Names of eight letters and digits, without end."""

    def __iter__(self) -> _RandomNames:
        return self

    def __next__(self) -> str:
        return os.urandom(4).hex()


_names = _RandomNames()
# The class is compiled, and knows nothing of what is made here.
SemLock._rand = _names  # type: ignore[attr-defined]


def _make_name() -> str:
    return f"{process.current_process()._config['semprefix']}-{next(_names)}"


def _state_of(lock: SemLock) -> tuple[Any, ...]:
    """What of a lock is sent to a child that is being started."""
    context.assert_spawning(lock)
    return _sent(lock._place()), lock.kind, lock.maxvalue, lock.name


def _set_state(lock: SemLock, state: tuple[Any, ...]) -> None:
    """Make of a new lock the one that was sent."""
    place, kind, _, _ = state
    lock._receive(_arrived(place), kind)


def _owner(lock: SemLock) -> str:
    """Who has a lock, for a reader."""
    try:
        if lock._is_mine():
            name: str = process.current_process().name
            thread = threading.current_thread()
            return name if thread is threading.main_thread() else f"{name}|{thread.name}"
        if lock._get_value():
            return "None"
        return "SomeOtherThread" if lock._count() else "SomeOtherProcess"
    except Exception:
        return "unknown"


def _value(semaphore: SemLock) -> object:
    try:
        return semaphore._get_value()
    except Exception:
        return "unknown"


def _describe_lock(lock: Lock) -> str:
    return f"<{type(lock).__name__}(owner={_owner(lock)})>"


def _describe_rlock(lock: RLock) -> str:
    owner = _owner(lock)
    counts: dict[str, object] = {"None": 0, "unknown": "unknown"}
    count = counts.get(owner, lock._count() if owner != "unknown" and lock._is_mine() else "nonzero")
    return f"<{type(lock).__name__}({owner}, {count})>"


def _describe_semaphore(semaphore: Semaphore) -> str:
    return f"<{type(semaphore).__name__}(value={_value(semaphore)})>"


def _describe_bounded(semaphore: BoundedSemaphore) -> str:
    return f"<{type(semaphore).__name__}(value={_value(semaphore)}, maxvalue={semaphore.maxvalue})>"


class _Count:
    """A number of a condition, behind the method by which the original's semaphores tell theirs."""

    def __init__(self, count: Callable[[], int]) -> None:
        self.get_value = count


class Condition(_billiard.Condition):
    """A condition: some wait, others notify them, and all hold its lock meanwhile.

    Nobody waits for those who were notified, so one that is killed blocks nobody; and a notification is not
    lost with a process that dies before it has taken it.

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
        context.assert_spawning(self)
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
        context.assert_spawning(self)
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
        self._gate = _billiard.Barrier(min(max(parties, 0), 2**16))

    def __getstate__(self) -> tuple[Any, ...]:
        context.assert_spawning(self)
        return self._parties, self._action, self._timeout, _sent(self._gate._place())

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._parties, self._action, self._timeout, place = state
        self._gate = _billiard.Barrier(0, _arrived(place))

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
        """0 while it fills, 1 while it opens, -2 if it is broken. Setting it to 0 resets it, to -2 breaks it.

        Raises:
            ValueError: It was set to something else that it is not.
        """
        if self._gate.broken:
            return _BROKEN
        return _DRAINING if self._gate.opening else _FILLING

    @_state.setter
    def _state(self, value: int) -> None:
        if value == _BROKEN:
            self.abort()
        elif value == _FILLING:
            self.reset()
        elif value != self._state:
            raise ValueError(f"a barrier cannot be put into state {value}: use `reset` or `abort`")

    @property
    def _count(self) -> int:
        """How many wait; setting it to 0 resets the barrier.

        Raises:
            ValueError: It was set to another number than wait.
        """
        return self._gate.waiting

    @_count.setter
    def _count(self, value: int) -> None:
        if value == 0:
            self.reset()
        elif value != self._count:
            raise ValueError(f"{value} do not wait at the barrier: whoever does calls `wait`")

    def __repr__(self) -> str:
        told = "broken" if self.broken else f"waiters={self.n_waiting}/{self.parties}"
        return f"<{type(self).__name__} at {id(self):#x}: {told}>"
