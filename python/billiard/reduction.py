"""Pickling between processes."""

from __future__ import annotations

import copyreg
import functools
import io
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

__all__ = ["ForkingPickler", "dump", "register"]

_Reducer = Callable[[Any], Any]


class _Reducers(dict[type, _Reducer]):
    """The reducers registered here, then those of `copyreg`; both as they are at the moment of asking.

    The pickler asks it for every object of a class that it does not know by itself, so the second look is a
    method of the other table, which costs no Python call.
    """

    __missing__ = copyreg.dispatch_table.__getitem__


class ForkingPickler(pickle.Pickler):
    """A pickler that knows the package's own types, and those registered by others.

    Args:
        file: Where the pickle is written.
        protocol: The pickle protocol; ``None`` for the interpreter's default.

    Source: billiard 4.2.1 ``ForkingPickler``. Different here: what is registered later is seen by picklers
    that exist.
    """

    _extra_reducers: ClassVar[dict[type, _Reducer]] = _Reducers()
    _copyreg_dispatch_table = copyreg.dispatch_table

    dispatch_table = _extra_reducers

    loads = staticmethod(pickle.loads)

    @classmethod
    def register(cls, type: type, reduce: _Reducer) -> None:
        """Have objects of exactly this type pickled by ``reduce``, which answers like ``__reduce__``."""
        cls._extra_reducers[type] = reduce

    @classmethod
    def dumps(cls, obj: Any, protocol: int | None = None) -> memoryview:
        """Pickle an object.

        Returns:
            The pickle, as a view of the buffer that it was written to.
        """
        buffer = io.BytesIO()
        cls(buffer, protocol).dump(obj)
        return buffer.getbuffer()

    @classmethod
    def loadbuf(cls, buf: io.BytesIO, protocol: int | None = None) -> Any:  # noqa: ARG003
        """Unpickle what is in a buffer, whatever its position."""
        return cls.loads(buf.getbuffer())


register = ForkingPickler.register


def dump(obj: Any, file: Any, protocol: int | None = None) -> None:
    """Pickle an object to a file."""
    ForkingPickler(file, protocol).dump(obj)


def _reduce_method(m: Any) -> tuple[Any, ...]:
    return getattr, (m.__self__, m.__func__.__name__)


def _reduce_method_descriptor(m: Any) -> tuple[Any, ...]:
    return getattr, (m.__objclass__, m.__name__)


def _reduce_partial(p: functools.partial[Any]) -> tuple[Any, ...]:
    if p.__dict__:
        return p.__reduce__()  # type: ignore[return-value]
    return _rebuild_partial, (p.func, p.args, p.keywords)


def _rebuild_partial(func: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> functools.partial[Any]:
    return functools.partial(func, *args, **keywords)


class _Sample:
    def method(self) -> None: ...


register(type(_Sample().method), _reduce_method)
register(type(list.append), _reduce_method_descriptor)
register(type(int.__add__), _reduce_method_descriptor)
register(functools.partial, _reduce_partial)
