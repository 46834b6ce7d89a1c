"""Exceptions that travel between processes, with a traceback that can be printed on the other side.

A real traceback cannot be pickled. `Traceback` and its companions hold the few fields that `traceback`,
`inspect` and `logging` look at, and claim through ``__class__`` to be the real types, so that those accept
them.
"""

from __future__ import annotations

import sys
import traceback
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = ["ExceptionInfo", "Traceback"]

#: Chains longer than this end in a stand-in that says so; pickling a longer one could itself overflow the
#: stack.
DEFAULT_MAX_FRAMES = sys.getrecursionlimit() // 8

_HAS_POSITIONS = sys.version_info >= (3, 11)
_Position = tuple["int | None", "int | None", "int | None", "int | None"]
_UNKNOWN: _Position = (None, None, None, None)


def formatted(exc: BaseException, tb: types.TracebackType | None) -> str:
    """A traceback as text.

    There is one for every exception. `traceback` cannot show each: it believes what a SyntaxError says of its
    position.
    """
    try:
        return "".join(traceback.format_exception(type(exc), exc, tb))
    except Exception as why:
        stack = "".join(traceback.format_tb(tb))
        kind = f"{type(exc).__module__}.{type(exc).__qualname__}"
        return f"{stack}{kind}: <cannot be shown: {type(why).__name__} in its formatting>\n"


class RemoteTraceback(Exception):
    """The text of a traceback from another process, as the ``__cause__`` of the exception from there."""

    def __init__(self, tb: str) -> None:
        self.tb = tb

    def __str__(self) -> str:
        return self.tb


class ExceptionWithTraceback(Exception):
    """An exception on its way to another process, unpickled as the exception itself with its cause set.

    Args:
        exc: The exception.
        tb: Its traceback, or ``None``.

    Attributes:
        exc: The exception.
        tb: The formatted traceback, between lines of three quotes.
    """

    def __init__(self, exc: BaseException, tb: types.TracebackType | None) -> None:
        # Without arguments: they would keep the frames alive after the exception itself has let go of them.
        super().__init__()
        text = formatted(exc, tb)
        self.exc = exc
        self.tb = f'\n"""\n{text}"""'

    def __str__(self) -> str:
        return self.tb

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild_exc, (self.exc, self.tb)


def rebuild_exc(exc: BaseException, tb: str) -> BaseException:
    """Give ``exc`` its remote traceback as the cause, and return it."""
    exc.__cause__ = RemoteTraceback(tb)
    return exc


class _Arrived:
    """An exception from elsewhere that travels on, with its remote traceback packed beside it."""

    def __init__(self, exc: BaseException, tb: str) -> None:
        self.exc = exc
        self.tb = tb

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild_exc, (self.exc, self.tb)


class _Sparse:
    """The positions of a code object, of which only one instruction's is known."""

    def __init__(self, index: int, position: _Position) -> None:
        self.index = index
        self.position = position

    def __call__(self) -> Iterator[_Position]:
        # `traceback` skips to the instruction it wants; what comes before it is never looked at.
        for _ in range(self.index):
            yield _UNKNOWN
        yield self.position


class _Object:
    """A bag of attributes that can also be asked for code positions."""

    __default_co_positions__: tuple[_Position, ...] = (_UNKNOWN,)

    def __init__(self, **kw: Any) -> None:
        for name, value in kw.items():
            setattr(self, name, value)

    if _HAS_POSITIONS:

        @property
        def co_positions(self) -> Callable[[], Iterator[_Position]]:
            return _positions_of(self.__dict__.get("_co_positions", self.__default_co_positions__))

        @co_positions.setter
        def co_positions(self, value: Any) -> None:
            self._co_positions = value


def _positions_of(stored: Any) -> Callable[[], Iterator[_Position]]:
    if callable(stored):
        return stored  # type: ignore[no-any-return]
    positions: Iterable[_Position] = stored
    return lambda: iter(positions)


def _reduce(stand_in: Any) -> tuple[Any, ...]:
    # `pickle` would believe the claimed class, so the real one is named here.
    return object.__new__, (type(stand_in),), stand_in.__dict__


class _Code:
    """What a traceback needs to know of a code object.

    Args:
        code: The code object.
        lasti: Offset of the one instruction whose position is kept; ``None`` keeps all, which is a kilobyte
        and more.
    """

    co_argcount = 0
    co_cellvars: tuple[str, ...] = ()
    co_freevars: tuple[str, ...] = ()
    co_varnames: tuple[str, ...] = ()
    co_code = b""
    co_lnotab = b""

    def __init__(self, code: Any, *, lasti: int | None = None) -> None:
        self.co_filename = code.co_filename
        self.co_name = code.co_name
        self.co_argcount = code.co_argcount
        self.co_firstlineno = code.co_firstlineno
        self.co_flags = code.co_flags
        self.co_nlocals = code.co_nlocals
        self.co_stacksize = code.co_stacksize
        self.co_names = code.co_names if lasti is None else ()
        if _HAS_POSITIONS:
            self.co_qualname = code.co_qualname
            self._co_positions: Any = _pick(code, lasti)

    if _HAS_POSITIONS:

        @property
        def co_positions(self) -> Callable[[], Iterator[_Position]]:
            return _positions_of(self._co_positions)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return types.CodeType

    def __reduce__(self) -> tuple[Any, ...]:
        return _reduce(self)


def _pick(code: Any, lasti: int | None) -> Any:
    if lasti is None:
        return list(code.co_positions())
    if lasti < 0:
        return _Sparse(0, _UNKNOWN)
    index = lasti // 2
    for at, position in enumerate(code.co_positions()):
        if at == index:
            return _Sparse(index, position)
    return _Sparse(0, _UNKNOWN)


class _Frame:
    """What a traceback needs to know of a frame. Local variables stay at home."""

    Code = _Code

    f_back = None
    f_trace = None
    f_exc_traceback = None
    f_exc_type = None
    f_exc_value = None
    f_restricted = False

    def __init__(self, frame: Any, *, lasti: int | None = None) -> None:
        self.f_builtins: dict[str, Any] = {}
        self.f_globals = {
            "__file__": frame.f_globals.get("__file__", "__main__"),
            "__name__": frame.f_globals.get("__name__"),
            "__loader__": None,
        }
        # Only this marker, with which test tools hide their own frames.
        self.f_locals: dict[str, Any] = {}
        if "__traceback_hide__" in frame.f_locals:
            self.f_locals["__traceback_hide__"] = frame.f_locals["__traceback_hide__"]
        self.f_code = self.Code(frame.f_code, lasti=lasti)
        self.f_lineno = frame.f_lineno
        self.f_lasti = frame.f_lasti

    if _HAS_POSITIONS:

        @property
        def co_positions(self) -> Callable[[], Iterator[_Position]]:
            return self.f_code.co_positions

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return types.FrameType

    def __reduce__(self) -> tuple[Any, ...]:
        return _reduce(self)


class _Truncated:
    """The end of a chain that was too long."""

    def __init__(self) -> None:
        self.tb_lineno = -1
        self.tb_frame = _Object(
            f_globals={"__file__": "", "__name__": "", "__loader__": None},
            f_fileno=None,
            f_code=_Object(co_filename="...", co_name="[rest of traceback truncated]"),
        )
        self.tb_next = None
        self.tb_lasti = 0

    if _HAS_POSITIONS:

        @property
        def co_positions(self) -> Callable[[], Iterator[_Position]]:
            return self.tb_frame.co_positions

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return types.TracebackType

    def __reduce__(self) -> tuple[Any, ...]:
        return _reduce(self)


class Traceback:
    """A copy of a traceback that can be pickled, printed and logged.

    Args:
        tb: The traceback.
        max_frames: How long the chain may get; beyond it stands a note that the rest was cut off.
        depth: How many frames came before ``tb``.

    Attributes:
        tb_frame: The frame.
        tb_lineno: The line in it.
        tb_lasti: The instruction in it.
        tb_next: The next link, one call further in; ``None`` at the end.
    """

    Frame = _Frame

    tb_next: Traceback | _Truncated | None

    def __init__(self, tb: Any, max_frames: int = DEFAULT_MAX_FRAMES, depth: int = 0) -> None:
        self._copy(tb)
        # A loop, since a long chain comes from a stack that was full.
        link, tb = self, tb.tb_next
        while tb is not None:
            if depth > max_frames:
                link.tb_next = _Truncated()
                return
            following = type(self).__new__(type(self))
            following._copy(tb)
            link.tb_next = following
            link, tb, depth = following, tb.tb_next, depth + 1

    def _copy(self, tb: Any) -> None:
        self.tb_frame = self.Frame(tb.tb_frame, lasti=tb.tb_lasti)
        self.tb_lineno = tb.tb_lineno
        self.tb_lasti = tb.tb_lasti
        self.tb_next = None

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return types.TracebackType

    def __reduce__(self) -> tuple[Any, ...]:
        # Packed flat: a nested chain would need a deep stack on both sides.
        states = []
        link: Any = self
        while type(link) is type(self):
            state = dict(link.__dict__)
            link = state.pop("tb_next", None)
            states.append(state)
        return _rebuild_chain, (type(self), states, link)


def _rebuild_chain(kind: type[Traceback], states: list[dict[str, Any]], end: Any) -> Any:
    for state in reversed(states):
        link = kind.__new__(kind)
        link.__dict__.update(state)
        link.tb_next = end
        end = link
    return end


class ExceptionInfo:
    """An exception and its traceback, in a form that travels.

    Args:
        exc_info: ``(type, exception, traceback)``; the default is the exception being handled.
        internal: True for errors of the package itself, as opposed to the task's.

    Attributes:
        type: The exception's class.
        exception: The exception in its wrapping; after a journey the exception itself, whose ``__cause__``
            holds the text of the traceback.
        tb: A `Traceback`; ``None`` for an exception that was never raised.
        traceback: The traceback as text, causes included.
        internal: See the argument.

    Raises:
        ValueError: No exception is being handled and none was given.
    """

    type: type[BaseException] | None = None
    exception: BaseException | None = None
    tb: Traceback | None = None
    traceback: str | None = None
    internal: bool = False

    def __init__(self, exc_info: Any = None, internal: bool = False) -> None:
        kind, exception, tb = exc_info or sys.exc_info()
        if exception is None:
            raise ValueError("no exception to describe: none is being handled and none was given")
        self.type = kind
        self.exception = ExceptionWithTraceback(exception, tb)
        self.tb = None if tb is None else Traceback(tb)
        self.traceback = formatted(exception, tb)
        self.internal = internal

    def __str__(self) -> str:
        return str(self.traceback)

    def __repr__(self) -> str:
        wrapped = self.exception
        shown = wrapped.exc if isinstance(wrapped, ExceptionWithTraceback) else wrapped
        return f"<{self.__class__.__name__}: {shown!r}>"

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        exception = self.exception
        if exception is None or isinstance(exception, ExceptionWithTraceback):
            return state
        cause = getattr(exception, "__cause__", None)
        if isinstance(cause, RemoteTraceback):
            state["exception"] = _Arrived(exception, cause.tb)
        return state

    @property
    def exc_info(self) -> tuple[Any, Any, Any]:
        """``(type, exception, tb)``, as `logging` takes it."""
        return self.type, self.exception, self.tb
