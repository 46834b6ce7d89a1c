"""What a pool of threads gives to those who submit work."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from . import _tasks
from ._timeouts import bounded
from ._views import Cache
from .einfo import ExceptionInfo
from .exceptions import TimeoutError

if TYPE_CHECKING:
    from types import TracebackType

    from ._threadengine import ThreadEngine

_numbers = itertools.count(1)


def next_number() -> int:
    """The number of the next job."""
    return next(_numbers)


def clipped(exc: BaseException) -> BaseException:
    """Take the frame that has caught an exception, which is the pool's own, from its traceback."""
    trace = exc.__traceback__
    return exc if trace is None or trace.tb_next is None else exc.with_traceback(trace.tb_next)


def described(exc: BaseException) -> ExceptionInfo:
    """Describe an exception that stays in this process, and need not be wrapped for a journey."""
    info = ExceptionInfo((type(exc), exc, exc.__traceback__))
    info.exception = exc
    return info


def failure(exc: BaseException) -> ExceptionInfo:
    """Describe what a task has raised."""
    return described(clipped(exc))


def raise_failure(info: ExceptionInfo) -> NoReturn:
    """Raise what a task has raised, as a step of an iteration."""
    error = _tasks.raisable_in_iteration(info)
    try:
        raise error
    finally:
        # The frame is a part of the traceback: it must not lead back to the exception.
        del error, info


class ThreadResult:
    """The result of a job, once it is there.

    Made by `ThreadPool.apply_async`. It has the interface of `billiard.pool.ApplyResult`.

    Args:
        engine: What runs the job.
        pool: Kept alive until the job has ended.
        function: What is called.
        parts: Of how many tasks the job consists.
        callback: Called with the value.
        error_callback: Called with the `ExceptionInfo` of a failure.
        accept_callback: Called with process id and time when a thread begins.
        timeout_callback: Kept; there are no limits.
        callbacks_propagate: Kept.
        correlation_id: Kept.
        slot: A slot of the pool's put lock is returned when the job has ended.
        tell: The pool wants to hear of the job.
    """

    _worker_lost = _write_to = _scheduled_for = None
    _timeout = _soft_timeout = _limit_passed = None
    _lost_worker_timeout: float | None = None
    _cancelled = False
    _terminated: object = None
    _success: bool | None = None
    _value: Any = None
    _time_accepted: float | None = None
    _trace: TracebackType | None = None

    def __init__(
        self,
        engine: ThreadEngine,
        pool: Any,
        function: Callable[..., Any],
        parts: int = 1,
        *,
        callback: Callable[[Any], object] | None,
        error_callback: Callable[[Any], object] | None,
        accept_callback: Callable[[int, float], object] | None = None,
        timeout_callback: Callable[..., object] | None = None,
        callbacks_propagate: Any = (),
        correlation_id: Any = None,
        slot: bool = False,
        tell: bool,
    ) -> None:
        self._job = next_number()
        self._event = threading.Event()
        self._engine = engine
        self._pool = pool
        self._function = function
        self._parts = parts
        self._begun = 0
        self._callback, self._error_callback = callback, error_callback
        self._accept_callback, self._timeout_callback = accept_callback, timeout_callback
        self._callbacks_propagate, self.correlation_id = callbacks_propagate, correlation_id
        self._holds_slot = slot
        self._tells_begin = tell or accept_callback is not None
        self._tells_end = tell or slot or callback is not None or error_callback is not None

    # --- for callers ---

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the result and return it.

        Args:
            timeout: Seconds to wait; ``None`` waits for ever.

        Raises:
            multiprocessing.TimeoutError: There is no result after ``timeout`` seconds.
            Exception: What the task raised; or why it could not return: `Terminated`, `RestartFreqExceeded`.
        """
        self.wait(timeout)
        if not self._event.is_set():
            raise TimeoutError
        if self._success:
            return self._value
        try:
            # Each caller adds its own frames, to what the task has left.
            raise _tasks.raisable(self._value).with_traceback(self._trace)
        finally:
            # The frame is a part of the traceback: it must not lead back to the exception.
            del self

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the job has ended, for ``timeout`` seconds at most."""
        timeout = bounded(timeout)
        if not self._event.is_set():
            self._engine.refuse_to_wait()
            self._event.wait(timeout)

    def ready(self) -> bool:
        """Whether the job has ended."""
        return self._event.is_set()

    def successful(self) -> bool:
        """Whether the job returned without an exception.

        Raises:
            AssertionError: The job has not ended.
        """
        if not self._event.is_set():
            raise AssertionError("the job has not ended")
        return bool(self._success)

    def accepted(self) -> bool:
        """Whether a thread has begun the job; of a map, whether all items were begun."""
        return 0 < self._begun == self._parts

    def worker_pids(self) -> list[int]:
        """The id of this process, once a thread has begun the job."""
        return [self._engine.pid] if self._begun else []

    def discard(self) -> None:
        """Let go of the job: nobody will ask for its result."""
        self._engine.forget(self)

    def terminate(self, signum: object) -> None:
        """Record that the job was asked to end by this signal. Nothing can end it."""
        self._terminated = signum

    def handle_timeout(self, soft: bool = False) -> None:
        """Tell the timeout callback, if there is one."""
        _tasks.handle_timeout(self, soft)

    def safe_apply_callback(self, fun: Callable[..., object] | None, *args: Any, **kwargs: Any) -> None:
        """Call ``fun``; an exception is logged, unless the job's ``callbacks_propagate`` names its class."""
        _tasks.safe_callback(self, fun, args, kwargs)

    @property
    def _cache(self) -> Cache:
        return Cache(self._engine)  # type: ignore[arg-type]

    @property
    def _accepted(self) -> bool:
        return self.accepted()

    @property
    def _worker_pid(self) -> int | None:
        return self._engine.pid if self._begun else None

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"<{name}: {self._job} ack:{self.accepted()} ready:{self.ready()}>"

    # --- for the engine ---

    def begin(self) -> None:
        """A thread begins one of the job's tasks."""
        with self._engine.lock:
            self._begun += 1
            if self._time_accepted is None:
                self._time_accepted = time.monotonic()
            if self._tells_begin and not self._event.is_set():
                self._engine.tell(self._pool, "accepted", self, self._engine.pid, self._time_accepted)

    def end_part(self, part: int, success: bool, value: Any) -> None:  # noqa: ARG002
        """A task has ended."""
        self.settle(success, value)

    def settle(self, success: bool, value: Any) -> None:
        """The job has ended, unless it has already."""
        with self._engine.lock:
            pool = self._end(success, value)
        del pool

    def _end(self, success: bool, value: Any) -> Any:
        """Like `settle`, with the lock held. The pool may go with what is returned: keep that for longer."""
        if self._event.is_set():
            return None
        pool, self._pool = self._pool, None
        if not success:
            self._trace = _tasks.raisable(value).__traceback__
        self._success, self._value = success, value
        self._engine.forget(self)
        self._event.set()
        if self._tells_end:
            self._engine.tell(pool, "done", self)
        return pool


class ThreadMapResult(ThreadResult):
    """The result of a map: a list, in the order of the input.

    Made by `ThreadPool.map_async` and `ThreadPool.starmap_async`. The first chunk that fails decides the
    error and ends the job; the others are run all the same.

    Args:
        engine: See `ThreadResult`, for this and what is not named here.
        pool: See there.
        function: See there.
        length: How many items there are.
        chunksize: How many of them make a task.
    """

    def __init__(
        self,
        engine: ThreadEngine,
        pool: Any,
        function: Callable[..., Any],
        length: int,
        chunksize: int,
        **options: Any,
    ) -> None:
        super().__init__(engine, pool, function, -(-length // chunksize), **options)
        self._length = length
        self._chunksize = chunksize
        self._number_left = self._parts
        self._values: list[Any] = [None] * length
        if not length:
            self._pool, self._success, self._value = None, True, self._values
            self._event.set()

    def end_part(self, part: int, success: bool, value: Any) -> None:
        """A chunk has ended."""
        with self._engine.lock:
            self._number_left -= 1
            if self._event.is_set():
                return
            if success:
                start = part * self._chunksize
                self._values[start : start + len(value)] = value
                if self._number_left:
                    return
                value = self._values
            else:
                self._values = []
            pool = self._end(success, value)
        del pool
