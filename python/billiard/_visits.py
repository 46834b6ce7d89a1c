"""Who visits a manager's server, and what they hold of what it has, to be let go when they die."""

from __future__ import annotations

import threading
from contextlib import suppress

from . import util

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PLAIN_LOCK = type(threading.Lock())
_LOCKS = (_PLAIN_LOCK, type(threading.RLock()), threading.Condition)


class Client:
    """A process that has told who it is."""

    def __init__(self) -> None:
        self.visits = 0
        self.refs: dict[str, int] = {}
        self.locks: set[str] = set()
        #: It is dead: what it gets from now on is let go at once.
        self.gone = False


class Visit:
    """A client's connection, and what it has acquired that only its own thread can release."""

    def __init__(self) -> None:
        self.client: Client | None = None
        self.is_lifeline = False
        self.is_seated = False
        #: It has asked the server to end, and is told so first.
        self.is_last = False
        self.owned: dict[str, list[Any]] = {}


class Holders:
    """Knows which client holds which lock.

    Args:
        mutex: The server's.
        objects: Ident -> (object, ...).
    """

    def __init__(self, mutex: Any, objects: dict[str, Any]) -> None:
        self._mutex = mutex
        self._objects = objects
        self._holders: dict[str, Client] = {}

    def call(
        self, visit: Visit | None, ident: Any, obj: Any, method: str, function: Any, args: Any, kwds: Any
    ) -> Any:
        """Call a method of an object, and note what the visitor has acquired or released by that."""
        if visit is None or not isinstance(obj, _LOCKS):
            return function(*args, **kwds)
        if type(obj) is not _PLAIN_LOCK:
            result = function(*args, **kwds)
            if method == "acquire" and result:
                visit.owned.setdefault(ident, [obj, 0])[1] += 1
            elif method == "release" and ident in visit.owned:
                visit.owned[ident][1] -= 1
            return result
        if method == "release":
            with self._mutex:
                self.forget(ident)
            return function(*args, **kwds)
        result = function(*args, **kwds)
        if method == "acquire" and result and visit.client is not None:
            with self._mutex:
                self._holders[ident] = visit.client
                visit.client.locks.add(ident)
                if visit.client.gone:
                    self.give_back(visit.client)
        return result

    def forget(self, ident: str) -> None:
        """Nobody holds a lock any more. The mutex is held."""
        holder = self._holders.pop(ident, None)
        if holder is not None:
            holder.locks.discard(ident)

    def give_back(self, client: Client) -> None:
        """Release the locks of a client that is dead. The mutex is held."""
        while client.locks:
            ident = client.locks.pop()
            self._holders.pop(ident, None)
            entry = self._objects.get(ident)
            if entry is not None:
                util.warning("the lock %s was held by a client that died; it is released", ident)
                with suppress(RuntimeError):
                    entry[0].release()

    def release(self, visit: Visit) -> None:
        """Release what only this thread can, since it is the owner."""
        for ident, (obj, count) in visit.owned.items():
            for _ in range(count):
                util.warning("the lock %s was held by a client that is gone; it is released", ident)
                # A client may have been told to wait while it held nothing.
                with suppress(RuntimeError):
                    obj.release()
        visit.owned.clear()
