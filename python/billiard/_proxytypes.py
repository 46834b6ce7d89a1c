"""Proxies of the types that a `SyncManager` serves."""

from __future__ import annotations

import time

from ._proxies import BaseProxy, MakeProxyType, _forwarding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Any


class IteratorProxy(BaseProxy):
    """Stands for an iterator or a generator.

    Source: billiard 4.2.1 ``IteratorProxy``. Different here: it works.
    """

    _exposed_ = _exposed = ("__next__", "send", "throw", "close")

    def __iter__(self) -> IteratorProxy:
        return self

    def __next__(self, *args: Any) -> Any:
        return self._callmethod("__next__", args)

    def send(self, *args: Any) -> Any:
        """Resume the generator with a value."""
        return self._callmethod("send", args)

    def throw(self, *args: Any) -> Any:
        """Resume the generator with an exception."""
        return self._callmethod("throw", args)

    def close(self, *args: Any) -> Any:
        """End the generator."""
        return self._callmethod("close", args)


class AcquirerProxy(BaseProxy):
    """Stands for a lock or a semaphore. A `with` statement holds it."""

    _exposed_: tuple[str, ...] = ("acquire", "release")

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> Any:
        """Acquire it.

        Args:
            blocking: Whether to wait until it is free.
            timeout: Seconds to wait at most; ``None`` waits for ever.

        Returns:
            Whether it is acquired.
        """
        args = (blocking,) if timeout is None else (blocking, timeout)
        return self._callmethod("acquire", args)

    def release(self) -> Any:
        """Release it."""
        return self._callmethod("release")

    def __enter__(self) -> Any:
        return self._callmethod("acquire")

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> Any:
        return self._callmethod("release")


class ConditionProxy(AcquirerProxy):
    """Stands for a condition."""

    _exposed_ = ("acquire", "release", "wait", "notify", "notify_all")

    def wait(self, timeout: float | None = None) -> Any:
        """Release the lock, wait until notified, and acquire it again.

        Args:
            timeout: Seconds to wait at most; ``None`` waits for ever.

        Returns:
            Whether it was notified.
        """
        return self._callmethod("wait", (timeout,))

    def notify(self, n: int = 1) -> Any:
        """Wake up those who wait.

        Args:
            n: How many of them.
        """
        return self._callmethod("notify", (n,) if n != 1 else ())

    def notify_all(self) -> Any:
        """Wake up all who wait."""
        return self._callmethod("notify_all")

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until ``predicate``, which is called here, is true. Returns its last value.

        Args:
            predicate: What to wait for.
            timeout: Seconds to wait at most; ``None`` waits for ever.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (result := predicate()):
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result


class EventProxy(BaseProxy):
    """Stands for an event."""

    _exposed_ = ("is_set", "set", "clear", "wait")

    def is_set(self) -> Any:
        """Whether it is set."""
        return self._callmethod("is_set")

    def set(self) -> Any:
        """Set it, and wake up all who wait for it."""
        return self._callmethod("set")

    def clear(self) -> Any:
        """Have it not set."""
        return self._callmethod("clear")

    def wait(self, timeout: float | None = None) -> Any:
        """Wait until it is set, for ``timeout`` seconds at most. Returns whether it is."""
        return self._callmethod("wait", (timeout,))


class BarrierProxy(BaseProxy):
    """Stands for a barrier."""

    _exposed_ = ("__getattribute__", "wait", "abort", "reset")

    def wait(self, timeout: float | None = None) -> Any:
        """Wait until all parties do, for ``timeout`` seconds at most. Returns which of them this is."""
        return self._callmethod("wait", (timeout,))

    def abort(self) -> Any:
        """Break the barrier: everybody who waits gets an error."""
        return self._callmethod("abort")

    def reset(self) -> Any:
        """Make the barrier new: everybody who waits gets an error."""
        return self._callmethod("reset")

    @property
    def parties(self) -> Any:
        """How many have to wait."""
        return self._callmethod("__getattribute__", ("parties",))

    @property
    def n_waiting(self) -> Any:
        """How many do."""
        return self._callmethod("__getattribute__", ("n_waiting",))

    @property
    def broken(self) -> Any:
        """Whether it is broken."""
        return self._callmethod("__getattribute__", ("broken",))


class NamespaceProxy(BaseProxy):
    """Stands for a namespace: its attributes are the object's. Those that begin with an underscore are the
    proxy's own.
    """

    _exposed_ = ("__getattribute__", "__setattr__", "__delattr__")

    def __getattr__(self, key: str) -> Any:
        if key[0] == "_":
            return object.__getattribute__(self, key)
        return object.__getattribute__(self, "_callmethod")("__getattribute__", (key,))

    def __setattr__(self, key: str, value: Any) -> None:
        if key[0] == "_":
            return object.__setattr__(self, key, value)
        object.__getattribute__(self, "_callmethod")("__setattr__", (key, value))

    def __delattr__(self, key: str) -> None:
        if key[0] == "_":
            return object.__delattr__(self, key)
        object.__getattribute__(self, "_callmethod")("__delattr__", (key,))


class ValueProxy(BaseProxy):
    """Stands for a value."""

    _exposed_ = ("get", "set")

    def get(self) -> Any:
        """The value."""
        return self._callmethod("get")

    def set(self, value: Any) -> Any:
        """Set the value."""
        return self._callmethod("set", (value,))

    value = property(get, set)


_ListProxy_Attributes = (
    *("__add__", "__contains__", "__delitem__", "__getitem__", "__len__", "__mul__", "__reversed__"),
    *("__rmul__", "__setitem__", "append", "count", "extend", "index", "insert", "pop", "remove"),
    *("reverse", "sort", "__imul__"),
)
BaseListProxy: Any = MakeProxyType("BaseListProxy", _ListProxy_Attributes)


class ListProxy(BaseListProxy):  # type: ignore[misc]
    """Stands for a list."""

    _exposed_ = (*_ListProxy_Attributes, "clear", "copy")

    clear = _forwarding("clear")
    copy = _forwarding("copy")

    def __iadd__(self, value: Any) -> ListProxy:
        self._callmethod("extend", (value,))
        return self

    def __imul__(self, value: Any) -> ListProxy:
        self._callmethod("__imul__", (value,))
        return self


_DictProxy_Attributes = (
    *("__contains__", "__delitem__", "__getitem__", "__len__", "__setitem__", "clear", "copy", "get"),
    *("has_key", "items", "keys", "pop", "popitem", "setdefault", "update", "values"),
)


class DictProxy(MakeProxyType("DictProxy", _DictProxy_Attributes)):  # type: ignore[misc]
    """Stands for a dictionary. Iterating goes over the keys that it had when the iteration began."""

    def __iter__(self) -> Iterator[Any]:
        return iter(self._callmethod("keys"))

    def has_key(self, key: Any) -> bool:
        """Whether there is such a key."""
        return key in self

    def __or__(self, other: Any) -> Any:
        return self.copy() | (other.copy() if isinstance(other, DictProxy) else other)

    def __ror__(self, other: Any) -> Any:
        return other | self.copy()

    def __ior__(self, other: Any) -> DictProxy:
        self.update(other.copy() if isinstance(other, DictProxy) else other)
        return self


_ArrayProxy_Attributes = ("__len__", "__getitem__", "__setitem__")
ArrayProxy: Any = MakeProxyType("ArrayProxy", _ArrayProxy_Attributes)

BasePoolProxy: Any = MakeProxyType(
    "PoolProxy",
    (
        *("apply", "apply_async", "close", "imap", "imap_unordered", "join", "map", "map_async"),
        *("starmap", "starmap_async", "terminate"),
    ),
)
BasePoolProxy._method_to_typeid_ = {
    "apply_async": "AsyncResult",
    "map_async": "AsyncResult",
    "starmap_async": "AsyncResult",
    "imap": "Iterator",
    "imap_unordered": "Iterator",
}


class PoolProxy(BasePoolProxy):  # type: ignore[misc]
    """Stands for a pool. A `with` statement terminates it."""

    def __enter__(self) -> PoolProxy:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.terminate()


# They travel under this name, to the original's processes as well.
for _item in list(vars().values()):
    if getattr(_item, "__module__", None) == __name__:
        _item.__module__ = "billiard.managers"
