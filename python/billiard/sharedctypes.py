"""Objects of `ctypes` in shared memory, with or without a lock."""

from __future__ import annotations

import ctypes
import weakref

from . import _billiard, heap
from .context import assert_spawning
from .reduction import ForkingPickler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .context import BaseContext

    _Type = str | type[Any]

__all__ = ["Array", "RawArray", "RawValue", "Value", "copy", "synchronized"]

#: What may stand for a type: the letters of the module `array`, and ``c`` for a character.
typecode_to_type: dict[str, type[Any]] = {
    "c": ctypes.c_char,
    "u": ctypes.c_wchar,
    "b": ctypes.c_byte,
    "B": ctypes.c_ubyte,
    "h": ctypes.c_short,
    "H": ctypes.c_ushort,
    "i": ctypes.c_int,
    "I": ctypes.c_uint,
    "l": ctypes.c_long,
    "L": ctypes.c_ulong,
    "q": ctypes.c_longlong,
    "Q": ctypes.c_ulonglong,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
}

#: The locks that no subclass has changed; what is done with them needs no call of Python code.
_NATIVE_LOCKS = frozenset((_billiard.Lock, _billiard.RLock, _billiard.Semaphore, _billiard.BoundedSemaphore))


def _type_of(typecode_or_type: _Type) -> Any:
    if isinstance(typecode_or_type, str):
        try:
            return typecode_to_type[typecode_or_type]
        except KeyError:
            codes = "".join(typecode_to_type)
            raise TypeError(f"there is no type code {typecode_or_type!r}; there are {codes}") from None
    return typecode_or_type


def _new_value(type_: Any) -> Any:
    return rebuild_ctype(type_, heap.BufferWrapper._zeroed(ctypes.sizeof(type_)), None)


def RawValue(typecode_or_type: _Type, *args: Any) -> Any:
    """Return an object of `ctypes` in shared memory, without a lock.

    Args:
        typecode_or_type: Its type, or the letter that stands for it: one of ``cubBhHiIlLqQfd``.
        args: What its type is called with; without them it is zero.

    Raises:
        OSError: No memory or descriptor is left.
        TypeError: There is no such type, or it does not take these arguments.

    Source: billiard 4.2.1 ``RawValue``. Different here: ``q`` and ``Q``.
    """
    obj = _new_value(_type_of(typecode_or_type))
    obj.__init__(*args)
    return obj


def RawArray(typecode_or_type: _Type, size_or_initializer: Any) -> Any:
    """Return an array of `ctypes` in shared memory, without a lock.

    Args:
        typecode_or_type: The type of its items, or the letter that stands for it.
        size_or_initializer: How many items, which are zero then; or a sequence of them.

    Raises:
        OSError: No memory or descriptor is left.
        TypeError: There is no such type, or the items are none of it.
        ValueError: The size is negative.

    Source: billiard 4.2.1 ``RawArray``. Different here: ``q`` and ``Q``.
    """
    type_ = _type_of(typecode_or_type)
    if isinstance(size_or_initializer, int):
        if size_or_initializer < 0:
            raise ValueError(f"an array has at least 0 items, not {size_or_initializer}")
        return _new_value(type_ * size_or_initializer)
    array = _new_value(type_ * len(size_or_initializer))
    array.__init__(*size_or_initializer)
    return array


def Value(typecode_or_type: _Type, *args: Any, **kwds: Any) -> Any:
    """Return an object of `ctypes` in shared memory, with a lock.

    Args:
        typecode_or_type: Its type, or the letter that stands for it: one of ``cubBhHiIlLqQfd``.
        args: What its type is called with; without them it is zero.
        lock: By keyword. True or ``None`` for a new `RLock`; whatever has ``acquire`` and ``release``; False
            for no lock: then the object is what `RawValue` returns.
        ctx: By keyword. The context that a new lock belongs to.

    Returns:
        The object's wrapper. ``value += 1`` on it is two steps: hold ``get_lock()`` for both.

    Raises:
        AttributeError: The lock is none.
        OSError: No memory or descriptor is left.
        TypeError: There is no such type, or it does not take these arguments.
        ValueError: There is no such keyword.

    Source: billiard 4.2.1 ``Value``. Different here: if a process dies with the lock, the next one gets it.
    """
    lock, ctx = _options(kwds)
    return _with_lock(RawValue(typecode_or_type, *args), lock, ctx)


def Array(typecode_or_type: _Type, size_or_initializer: Any, **kwds: Any) -> Any:
    """Return an array of `ctypes` in shared memory, with a lock.

    Args:
        typecode_or_type: The type of its items, or the letter that stands for it.
        size_or_initializer: How many items, which are zero then; or a sequence of them.
        lock: By keyword, as for `Value`.
        ctx: By keyword, as for `Value`.

    Returns:
        The array's wrapper. ``numpy.frombuffer(it.get_obj(), dtype)`` is a view of it, without a copy.

    Raises:
        AttributeError: The lock is none.
        OSError: No memory or descriptor is left.
        TypeError: There is no such type, or the items are none of it.
        ValueError: The size is negative, or there is no such keyword.

    Source: billiard 4.2.1 ``Array``. Different here: as for `Value`.
    """
    lock, ctx = _options(kwds)
    return _with_lock(RawArray(typecode_or_type, size_or_initializer), lock, ctx)


def _options(kwds: dict[str, Any]) -> tuple[Any, BaseContext | None]:
    lock, ctx = kwds.pop("lock", None), kwds.pop("ctx", None)
    if kwds:
        raise ValueError(f"unrecognized keyword argument(s): {list(kwds)}")
    if lock not in (True, False, None) or type(lock) is int:
        _check_lock(lock)
    return lock, ctx


def _check_lock(lock: Any) -> None:
    if not hasattr(lock, "acquire"):
        raise AttributeError(f"'{lock!r}' has no method 'acquire'")


def _with_lock(obj: Any, lock: Any, ctx: BaseContext | None) -> Any:
    if lock is False:
        return obj
    return synchronized(obj, None if lock is True else lock, ctx)


def copy(obj: Any) -> Any:
    """Return a copy of an object of `ctypes`, in shared memory of its own, without a lock.

    Raises:
        OSError: No memory or descriptor is left.
        TypeError: It is no such object.
    """
    other = _new_value(type(obj))
    ctypes.pointer(other)[0] = obj
    return other


def synchronized(obj: Any, lock: Any = None, ctx: BaseContext | None = None) -> Any:
    """Give an object of `ctypes` a lock.

    Args:
        obj: The object.
        lock: Whatever has ``acquire`` and ``release``; ``None`` for a new `RLock`.
        ctx: The context that a new lock belongs to; ``None`` for the one in use.

    Returns:
        A `Synchronized`, `SynchronizedString` or `SynchronizedArray`; for a structure, an object of a class
        of its own that has the structure's fields.

    Raises:
        AssertionError: It has a lock already.
        AttributeError: It is no object of `ctypes`.
    """
    if isinstance(obj, SynchronizedBase):
        raise AssertionError("object already synchronized")
    if isinstance(obj, ctypes._SimpleCData):
        return Synchronized(obj, lock, ctx)
    if isinstance(obj, ctypes.Array):
        kind = SynchronizedString if obj._type_ is ctypes.c_char else SynchronizedArray
        return kind(obj, lock, ctx)
    return _class_of(type(obj))(obj, lock, ctx)


#: The classes that `synchronized` has made for structures.
class_cache: weakref.WeakKeyDictionary[type[Any], type[SynchronizedBase]] = weakref.WeakKeyDictionary()
#: The attributes that `make_property` has made, by name.
prop_cache: dict[str, Any] = {}


def _class_of(type_: Any) -> type[SynchronizedBase]:
    """The class of wrappers of a structure."""
    try:
        return class_cache[type_]
    except KeyError:
        # Those of the structure's bases too; what a wrapper is used by is not covered.
        bases = [base for base in type_.__mro__ if "_fields_" in vars(base)] or [type_]
        fields = [field[0] for base in bases for field in base._fields_]
        members = {name: make_property(name) for name in fields if not hasattr(SynchronizedBase, name)}
        made = type(f"Synchronized{type_.__name__}", (SynchronizedBase,), members)
        return class_cache.setdefault(type_, made)


def make_property(name: str) -> Any:
    """Return the attribute of a wrapper's class that stands for this one of its object, under the lock."""
    try:
        return prop_cache[name]
    except KeyError:
        return prop_cache.setdefault(name, _billiard.GuardedAttribute(name))


def reduce_ctype(obj: Any) -> tuple[Callable[..., Any], tuple[Any, Any, int | None]]:
    """Pickle an object in shared memory for the child that is being started.

    Raises:
        RuntimeError: None is.
    """
    assert_spawning(obj)
    if isinstance(obj, ctypes.Array):
        return rebuild_ctype, (obj._type_, obj._wrapper, obj._length_)  # type: ignore[attr-defined]
    return rebuild_ctype, (type(obj), obj._wrapper, None)


def rebuild_ctype(type_: Any, wrapper: heap.BufferWrapper, length: int | None) -> Any:
    """Make an object of `ctypes` of a block of shared memory.

    Args:
        type_: Its type, or that of an array's items.
        wrapper: The block.
        length: How many items an array has; ``None`` if it is none.

    Raises:
        ValueError: The block is too small.
    """
    if length is not None:
        type_ = type_ * length
    ForkingPickler.register(type_, reduce_ctype)
    obj = type_.from_buffer(wrapper._state[0][0])
    obj._wrapper = wrapper
    return obj


class SynchronizedBase(_billiard.Guarded):
    """An object in shared memory and its lock.

    Args:
        obj: The object.
        lock: Whatever has ``acquire`` and ``release``; ``None`` for a new `RLock`.
        ctx: The context that a new lock belongs to; ``None`` for the one in use.

    Attributes:
        acquire: The lock's method.
        release: The lock's method.

    Source: billiard 4.2.1 ``SynchronizedBase``. Different here: it works without a lock and a context.
    """

    def __init__(self, obj: Any, lock: Any = None, ctx: BaseContext | None = None) -> None:
        if lock is None:
            from .context import _default_context

            lock = (ctx or _default_context.get_context()).RLock()
        self._make(obj, lock, type(lock) in _NATIVE_LOCKS)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, Any]]:
        assert_spawning(self)
        return synchronized, (self._obj, self._lock)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} wrapper for {self._obj}>"


class Synchronized(SynchronizedBase):
    """A number, character or pointer in shared memory, with a lock.

    Attributes:
        value: The value, read and set under the lock.
    """

    value = make_property("value")


class SynchronizedArray(SynchronizedBase):
    """An array in shared memory, with a lock, under which its items are read and set."""

    __len__ = _billiard.Guarded._count_items
    __getitem__ = _billiard.Guarded._get_item
    __setitem__ = _billiard.Guarded._set_item

    def __getslice__(self, start: int, stop: int) -> Any:
        """Return a list of some items."""
        return self[start:stop]

    def __setslice__(self, start: int, stop: int, values: Any) -> None:
        """Set some items to as many values."""
        self[start:stop] = values


class SynchronizedString(SynchronizedArray):
    """An array of characters in shared memory, with a lock.

    Attributes:
        value: The bytes up to the first one that is zero.
        raw: All bytes.
    """

    value = make_property("value")
    raw = make_property("raw")
