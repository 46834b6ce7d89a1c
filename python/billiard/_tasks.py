"""The Python side of what is rare in a pool: errors on their way, and what could not be sent.

The engine calls these functions by name; a task that simply succeeds never gets here.
"""

from __future__ import annotations

import io
import pickle
import signal
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from ._serializers import refused_by
from .common import clear_terminate_handler_fired, human_status
from .einfo import ExceptionInfo, ExceptionWithTraceback, RemoteTraceback, formatted
from .exceptions import (
    RestartFreqExceeded,
    SoftTimeLimitExceeded,
    Terminated,
    TimeLimitExceeded,
    WorkerLostError,
)
from .reduction import ForkingPickler

MAXMEM_USED_FMT = "child process exiting after exceeding memory limit ({0}KiB / {1}KiB)\n"

#: How deep an object is searched for the part that cannot be pickled.
_DEEPEST = 6

#: Makes the picklers of the pool whose worker this process is.
worker_pickler: Any = None


class MaybeEncodingError(Exception):
    """A result that could not be sent, or could not be read where it arrived.

    Args:
        exc: Why.
        value: What was to be sent.

    Attributes:
        exc: The reason, as text.
        value: The value, as text.
    """

    def __init__(self, exc: object, value: object) -> None:
        self.exc = exc if isinstance(exc, str) else repr(exc)
        self.value = value if isinstance(value, str) else _shown(value)
        super().__init__(self.exc, self.value)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self}>"

    def __str__(self) -> str:
        return f"Error sending result: {self.value}. Reason: {self.exc}."


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # a value that cannot be shown must not hide why it could not be sent
        return f"<{type(value).__name__} object, whose repr raised {type(error).__name__}>"


# --- errors of tasks ---


def tell_error(exc: BaseException, in_worker: bool) -> tuple[str, str, str, bytes]:
    """Describe an exception for its journey.

    Args:
        exc: The exception.
        in_worker: True if a task raised it: the traceback then begins with the frame of the worker's loop,
            from which the task was called.

    Returns:
        Name of the class, message, traceback as text, and a pickled `ExceptionInfo`.
    """
    tb = exc.__traceback__
    if in_worker:
        loop = sys._getframe(1)
        tb = types.TracebackType(tb, loop, loop.f_lasti, loop.f_lineno)
    info = ExceptionInfo((type(exc), exc, tb))
    name, text = type(exc).__qualname__, _message(exc)
    try:
        pickled = _pickled(info, in_worker)
    except Exception as refusal:
        error, _ = refused_by(refusal)
        told = MaybeEncodingError(f"{type(error).__name__}: {error}", f"{name}: {text}")
        told.__cause__ = RemoteTraceback(str(info.traceback))
        info.type, info.exception = type(told), ExceptionWithTraceback(told, None)
        info.exception.tb = f'\n"""\n{info.traceback}"""'
        info.tb = None
        pickled = bytes(ForkingPickler.dumps(info))
    return name, text, str(info.traceback), pickled


def _pickled(info: ExceptionInfo, in_worker: bool) -> bytes:
    try:
        return bytes(ForkingPickler.dumps(info))
    except Exception:
        # Its class may be one that only the pool's own serializer can send.
        if not in_worker or worker_pickler in (None, ForkingPickler):
            raise
    buffer = io.BytesIO()
    worker_pickler(buffer, None).dump(info)
    return buffer.getvalue()


def _message(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:
        return "<message could not be made>"


def read_error(name: str, text: str, trace: str, pickled: bytes) -> ExceptionInfo:
    """Make the `ExceptionInfo` that a worker has sent; one that says what is known if it cannot be read."""
    try:
        info = pickle.loads(pickled)
    except Exception as error:
        told = MaybeEncodingError(f"cannot unpickle: {type(error).__name__}: {error}", f"{name}: {text}")
        told.__cause__ = RemoteTraceback(f'\n"""\n{trace}"""')
        info = _told(told)
        info.traceback = trace
    return info  # type: ignore[no-any-return]


def unreadable_result(error: BaseException) -> ExceptionInfo:
    """The task returned, but what it returned cannot be unpickled here."""
    told = MaybeEncodingError(f"cannot unpickle: {type(error).__name__}: {error}", "the task's result")
    told.__cause__ = error
    return _told(told)


def raisable(info: ExceptionInfo) -> BaseException:
    """The exception that a caller is to see: the real one, of the class that ``except`` names."""
    exc = info.exception
    if isinstance(exc, ExceptionWithTraceback):
        return exc.exc
    return exc if exc is not None else RuntimeError("the task failed without an exception")


def raisable_in_iteration(info: ExceptionInfo) -> BaseException:
    """Like `raisable`, for a step of an iteration: a task's own `StopIteration` would look like the end."""
    error = raisable(info)
    if isinstance(error, StopIteration):
        wrapped = RuntimeError("the task raised StopIteration")
        wrapped.__cause__ = error
        return wrapped
    return error


def _told(exc: BaseException) -> ExceptionInfo:
    return ExceptionInfo((type(exc), exc, exc.__traceback__))


# --- jobs without a result ---


def _name_of(what: object) -> str:
    if isinstance(what, str):
        return what
    return str(getattr(what, "__qualname__", None) or type(what).__qualname__)


def _stack(last_stack: str | None) -> str | None:
    """The last thing that a worker's crash handler wrote."""
    if not last_stack:
        return None
    return last_stack[max(last_stack.rfind("Fatal Python error"), 0) :].rstrip()


def lost(
    job: int,
    pid: int | None,
    worker_name: str | None,
    last_stack: str | None,
    what: object,
    exitcode: int,
    runtime: float,
    rss_peak: int | None,
    oom_killed: bool | None,
) -> ExceptionInfo:
    """The worker died while it ran the job."""
    stack = _stack(last_stack)
    hint = hint_for(exitcode, rss_peak, oom_killed)
    text = f"Worker exited prematurely: {human_status(exitcode)} Job: {job}."
    details = [f"It ran {_name_of(what)} for {runtime:.3f} s."]
    if hint:
        details.append(f"Hint: {hint}.")
    if stack:
        details.append(stack)
    return _told(
        WorkerLostError(
            "\n".join([text, *details]),
            exitcode=exitcode,
            pid=pid,
            worker_name=worker_name,
            job=job,
            func_name=_name_of(what),
            runtime=runtime,
            last_stack=stack,
            rss_peak=rss_peak,
            oom_killed=oom_killed,
            hint=hint,
        )
    )


def hint_for(exitcode: int, rss_peak: int | None, oom_killed: bool | None) -> str | None:
    if exitcode != -signal.SIGKILL:
        return None
    size = f", at a peak of {rss_peak} KiB" if rss_peak else ""
    if oom_killed:
        return f"the kernel has killed for memory{size}; give the workers more, or set max_memory_per_child"
    if oom_killed is None:
        return (
            f"nobody in this pool sent SIGKILL{size}: the usual suspect is the system's memory killer. Look "
            "at its log, and at max_memory_per_child"
        )
    return f"nobody in this pool sent SIGKILL{size}, and the kernel has killed nothing here for memory"


def time_limit(
    job: int, pid: int | None, worker_name: str | None, last_stack: str | None, what: object, limit: float
) -> ExceptionInfo:
    """The hard limit of the job has passed."""
    del worker_name, what
    return _told(TimeLimitExceeded(as_given(limit), pid=pid, job=job, last_stack=_stack(last_stack)))


def terminated(
    job: int,
    pid: int | None,
    worker_name: str | None,
    last_stack: str | None,
    what: object,
    exitcode: int | None,
) -> ExceptionInfo:
    """Somebody ended the job, or the pool."""
    del worker_name, what, last_stack
    return _told(Terminated(-(exitcode or 0), pid=pid, job=job))


def broken(
    job: int | None = None,
    pid: int | None = None,
    worker_name: str | None = None,
    last_stack: str | None = None,
    what: object = None,
) -> ExceptionInfo:
    """No worker can be started, so the job will never run."""
    del job, pid, worker_name, what
    return _told(broken_pool(last_stack))


def broken_pool(last_words: str | None) -> RestartFreqExceeded:
    """Why a pool does nothing any more."""
    error = RestartFreqExceeded("the pool's workers cannot be started; it has given up restarting them")
    if last_words:
        error.__cause__ = RemoteTraceback(f'\n"""\n{last_words}"""')
    return error


# --- what cannot be sent ---


def unsendable(error: BaseException, function: object, args: Any, kwargs: Any) -> BaseException:
    """Name the part of a call that cannot be pickled."""
    parts: list[tuple[str, object]] = [(f"the function {_name_of(function)}", function)]
    parts += [(f"argument {index}", value) for index, value in enumerate(args)]
    parts += [(f"argument {name!r}", value) for name, value in dict(kwargs).items()]
    return _named(error, parts)


def unsendable_item(error: BaseException, function: object, items: Any, start: int) -> BaseException:
    """Name the item of a map that cannot be pickled."""
    parts: list[tuple[str, object]] = [(f"the function {_name_of(function)}", function)]
    parts += [(f"item {start + index}", value) for index, value in enumerate(items)]
    return _named(error, parts)


def unsendable_result(error: BaseException, value: object) -> BaseException:
    """Say why a task's result cannot be sent."""
    if not isinstance(error, Exception):
        return error
    path, reason = culprit("result", value, error)
    return MaybeEncodingError(f"{type(reason).__name__}: {reason} (at {path})", _shown(value))


def _named(error: BaseException, parts: list[tuple[str, object]]) -> BaseException:
    if not isinstance(error, Exception):
        return error
    error, pickler = refused_by(error)
    for name, value in parts:
        refusal = _refusal(value, pickler)
        if refusal is not None:
            path, reason = _trace(name, value, refusal, pickler)
            told = pickle.PicklingError(f"cannot send {path}: {type(reason).__name__}: {reason}")
            told.__cause__ = error
            return told
    return error


def _refusal(value: object, pickler: Any) -> Exception | None:
    try:
        pickler(io.BytesIO(), None).dump(value)
    except Exception as error:
        # Its frames lead back to all callers, who would be held by their own local variable.
        return refused_by(error)[0].with_traceback(None)
    return None


def culprit(path: str, value: object, error: Exception) -> tuple[str, Exception]:
    """Follow an object down to the part of it that cannot be pickled.

    Args:
        path: What the object is called.
        value: The object.
        error: What the pickler has raised.

    Returns:
        What the part is called, and what is wrong with it.
    """
    reason, pickler = refused_by(error)
    return _trace(path, value, reason, pickler)


def _trace(
    path: str, value: object, reason: Exception, pickler: Any, depth: int = 0
) -> tuple[str, Exception]:
    if depth < _DEEPEST:
        for step, part in _parts(value):
            refusal = _refusal(part, pickler)
            if refusal is not None:
                return _trace(path + step, part, refusal, pickler, depth + 1)
    return path, reason


def _parts(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{index}]", part) for index, part in enumerate(value))
    elif isinstance(getattr(value, "__dict__", None), dict) and not isinstance(
        value, (type, types.FunctionType, types.ModuleType)
    ):
        yield from ((f".{name}", part) for name, part in vars(value).items())


# --- in the worker ---


def forget_the_end() -> None:
    """A task has caught the exit that a terminate signal has raised in it: the worker goes on."""
    clear_terminate_handler_fired()


def memory_limit_passed(used: int, limit: int) -> None:
    """Note why the worker leaves."""
    from .util import get_logger, warning

    get_logger()
    warning(MAXMEM_USED_FMT.format(used, limit))


# --- callbacks ---


def safe_callback(
    handle: Any, fun: Callable[..., object] | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Call what the program wants called; exceptions are logged, but for those that the job lets through."""
    if fun is None:
        return
    try:
        fun(*args, **kwargs)
    except tuple(handle._callbacks_propagate):
        raise
    except Exception as error:
        log_error("Pool callback raised exception: %r", error)


def callback_failed(error: BaseException) -> None:
    """Log what a callback has raised."""
    from .util import error as log
    from .util import get_logger

    get_logger()
    log("Pool callback raised exception: %r", error, exc_info=error)


def as_given(limit: float | None) -> float | None:
    """A limit as programs write it, and read it in logs: whole seconds are an int."""
    return int(limit) if limit is not None and limit == int(limit) else limit


def handle_timeout(handle: Any, soft: bool) -> None:
    """Tell the job's timeout callback which limit has passed."""
    limit = handle._soft_timeout if soft else handle._timeout
    safe_callback(handle, handle._timeout_callback, (), {"soft": soft, "timeout": as_given(limit)})


def log_error(text: str, *args: object) -> None:
    """Log an error of the pool, with the traceback of the exception that is being handled."""
    from .util import error, get_logger

    get_logger()
    error(text, *args, exc_info=True)


def stack_of(exc: BaseException) -> str:
    """A traceback as text."""
    return formatted(exc, exc.__traceback__)


MaybeEncodingError.__module__ = "billiard.pool"

__all__ = ["MAXMEM_USED_FMT", "MaybeEncodingError", "SoftTimeLimitExceeded"]
