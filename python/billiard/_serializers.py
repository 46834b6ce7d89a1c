"""What turns objects into bytes: the package's pickler, or one that the program has chosen."""

from __future__ import annotations

import functools
import pickle

from .reduction import ForkingPickler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, ClassVar

    from .process import BaseProcess

    Serializer = str | tuple[Callable[[Any], bytes], Callable[[bytes], Any]] | None


class _Refusal(pickle.PicklingError):
    """A serializer other than the package's own has refused an object.

    Attributes:
        reason: What it has raised.
        pickler: Makes a pickler like the one that has raised it.
    """

    def __init__(self, reason: Exception, pickler: Any) -> None:
        super().__init__(str(reason))
        self.reason, self.pickler = reason, pickler


def refused_by(error: Exception) -> tuple[Exception, Any]:
    """Tell what a pickler of `pickler_for` has raised, and what makes another pickler like it.

    Args:
        error: What has come out of its ``dump``.
    """
    if isinstance(error, _Refusal):
        return error.reason, error.pickler
    return error, ForkingPickler


def pickler_for(serializer: Serializer) -> Any:
    """Return the pickler class of a serializer.

    What it writes can be read by `pickle.loads`, whichever it is.

    Args:
        serializer: ``None`` or ``"pickle"`` for the package's own; ``"cloudpickle"`` to send functions and
            classes that cannot be imported by value; or a pair of functions, one that turns an object into
            bytes and one, importable by the receiver, that turns them back. A worker uses both.

    Raises:
        ImportError: ``cloudpickle`` is not installed.
        TypeError: It is none of these.
        ValueError: There is no serializer of that name.
    """
    if serializer is None or serializer == "pickle":
        return ForkingPickler
    if serializer == "cloudpickle":
        return _cloud_pickler()
    if isinstance(serializer, str):
        raise ValueError(f"serializer must be 'pickle', 'cloudpickle' or a pair, not {serializer!r}")
    try:
        dumps, loads = serializer
    except (TypeError, ValueError):
        dumps = loads = None  # type: ignore[assignment]
    if not (callable(dumps) and callable(loads)):
        raise TypeError(f"serializer must be a name or a pair of functions, not {serializer!r}")
    return functools.partial(_PairPickler, dumps, loads)


def packed(serializer: Serializer, value: Any) -> Any:
    """Have a pair of functions turn an object into bytes that turn themselves back when they are unpickled.

    Args:
        serializer: See `pickler_for`; only a pair has to: with the others the whole pickle is theirs.
        value: The object. ``None`` is nothing to send.
    """
    if value is None or serializer is None or isinstance(serializer, str):
        return value
    return _Packed(serializer, value)


def process_sent_by(kind: type[BaseProcess], serializer: Serializer) -> type[BaseProcess]:
    """Return a class like ``kind`` whose processes are sent by a serializer, unless they name another one.

    Args:
        kind: A class of processes that can be imported.
        serializer: See `pickler_for`.
    """

    def reduce(self: BaseProcess, protocol: Any) -> Any:
        if type(self) is not sent:
            return kind.__reduce_ex__(self, protocol)
        # Nobody can import this class. What is particular about it has been said once the process is sent.
        return _blank, (kind,), self.__dict__

    members = {"__module__": kind.__module__, "__doc__": kind.__doc__, "__reduce_ex__": reduce}
    sent = type(kind.__name__, (kind,), {**members, "_serializer": serializer})
    return sent


def _blank(kind: type[BaseProcess]) -> BaseProcess:
    return kind.__new__(kind)


@functools.cache
def _cloud_pickler() -> Any:
    try:
        import cloudpickle
    except ImportError as error:
        why = 'serializer="cloudpickle" needs cloudpickle: pip install "billiard[cloudpickle]"'
        raise ImportError(why, name="cloudpickle") from error
    from collections import ChainMap

    class CloudPickler(cloudpickle.Pickler):  # type: ignore[misc]
        """Sends what cannot be imported by value, and the package's own types like `ForkingPickler`."""

        dispatch_table: ClassVar[Any] = ChainMap(
            ForkingPickler._extra_reducers, cloudpickle.Pickler.dispatch_table
        )

        def dump(self, obj: Any) -> None:
            """Pickle an object."""
            try:
                super().dump(obj)
            except Exception as error:
                raise _Refusal(error, type(self)) from None

        def clear_memo(self) -> None:
            """Forget what was pickled, and the modules that it came from: others may get their addresses."""
            super().clear_memo()
            self.globals_ref.clear()

    return CloudPickler


class _Packed:
    """An object in the form that the program's own function has given it."""

    def __init__(self, serializer: tuple[Callable[[Any], bytes], Callable[[bytes], Any]], obj: Any) -> None:
        dumps, self._loads = serializer
        self._data = dumps(obj)
        self._is_tuple = type(obj) is tuple

    def __reduce__(self) -> tuple[Any, ...]:
        if self._is_tuple:
            return _unpack_tuple, (self._loads, self._data)
        return self._loads, (self._data,)


def _unpack_tuple(loads: Callable[[bytes], Iterable[Any]], data: bytes) -> tuple[Any, ...]:
    """A call is a tuple, and there are formats that make a list of it."""
    return tuple(loads(data))


class _PairPickler:
    """Looks like a pickler to those who use one, and leaves the work to the program's own function."""

    def __init__(
        self,
        dumps: Callable[[Any], bytes],
        loads: Callable[[bytes], Any],
        file: Any,
        protocol: int | None = None,
        *,
        buffer_callback: object = None,  # noqa: ARG002
    ) -> None:
        self._serializer = dumps, loads
        self._file, self._protocol = file, protocol

    def dump(self, obj: Any) -> None:
        try:
            pickled = pickle.dumps(_Packed(self._serializer, obj), self._protocol)
        except Exception as error:
            like_this = functools.partial(type(self), *self._serializer)
            raise _Refusal(error, like_this) from None
        self._file.write(pickled)

    def clear_memo(self) -> None:
        """There is none: every object is packed by itself."""
