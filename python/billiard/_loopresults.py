"""The results of jobs in a pool that its owner drives: settled by whoever reads the workers' messages.

A result may be settled anywhere, in a signal handler on top of the code that is just settling it included. So
there is no lock: of several outcomes the first is kept, and a table entry decides which one was first.
"""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

from . import _billiard, _tasks
from ._loopmessages import ACK, NACK
from ._timeouts import bounded
from .common import human_status
from .einfo import ExceptionInfo, RemoteTraceback
from .exceptions import Terminated, TimeoutError, WorkerLostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    Outcome = tuple[bool, Any]


#: Numbers the jobs of all pools that owners drive.
job_counter = itertools.count()


def lost_with_worker(job: Any, pid: int | None, exitcode: int, process: Any = None) -> Outcome:
    """What a job has come to whose worker has ended.

    Args:
        job: The result.
        pid: The process id of the worker, if it is known.
        exitcode: Its exit code.
        process: Its process object, if it is known.
    """
    began = getattr(job, "_time_accepted", None)
    stack = getattr(process, "_last_stack", None)
    lost = WorkerLostError(
        f"Worker exited prematurely: {human_status(exitcode)} Job: {job._job}.",
        exitcode=exitcode,
        pid=pid,
        worker_name=getattr(process, "name", None),
        job=job._job,
        runtime=time.monotonic() - began if isinstance(began, float) else None,
        last_stack=stack,
        hint=_tasks.hint_for(exitcode, None, None),
    )
    if stack:
        # COMPAT: the message stays as it is, since it is kept in result stores; the traceback tells more.
        lost.__cause__ = RemoteTraceback(f'\n"""\n{stack}"""')
    return failure(lost)


class Either(type):
    """The type of results: those of the engine, which are made elsewhere, are instances too."""

    _native: type

    def __instancecheck__(cls, instance: object) -> bool:
        return type.__instancecheck__(cls, instance) or isinstance(instance, cls._native)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return type.__subclasscheck__(cls, subclass) or issubclass(subclass, cls._native)


def failure(error: BaseException) -> Outcome:
    """What a job has come to that fails with an error."""
    return False, ExceptionInfo((type(error), error, error.__traceback__))


class ApplyResult(metaclass=Either):
    """The result of a job, once it is there.

    Made by `Pool.apply_async`; this class is that of pools which their owner drives.

    Args:
        cache: The jobs that have not ended, by number. The new one enters itself.
        callback: Called with the value.
        accept_callback: Called with ``(pid, time)`` when a worker begins; the time is that of the monotonic
            clock.
        timeout_callback: Called with the keywords ``soft`` and ``timeout`` when a limit passes.
        error_callback: Called with the `ExceptionInfo` of a failure.
        soft_timeout: Soft limit in seconds; ``None`` for none.
        timeout: Hard limit likewise.
        lost_worker_timeout: How many seconds after the loss of its worker the job is given up, where the
            pool leaves that to time.
        on_timeout_set: Called with ``(result, soft, hard)`` when a worker begins.
        on_timeout_cancel: Called with the result before anything else when the job ends.
        callbacks_propagate: Exception classes that callbacks may raise into whoever delivers the result.
        send_ack: Called with ``(response, pid, job, fd)`` to tell a worker that waits for it whether it may
            begin.
        correlation_id: Anything; kept with the job.
    """

    _native = _billiard.ApplyResult

    _worker_lost: tuple[float, int] | None = None
    _write_to: Any = None
    _scheduled_for: Any = None
    _accepted: Any = False
    _cancelled = False
    _worker_pid: Any = None
    _time_accepted: Any = None
    _terminated: int | None = None
    #: Success and value, once there is an outcome.
    _outcome: Outcome | None = None

    def __init__(
        self,
        cache: MutableMapping[int, Any],
        callback: Callable[[Any], object] | None,
        accept_callback: Callable[[int, float], object] | None = None,
        timeout_callback: Callable[..., object] | None = None,
        error_callback: Callable[[ExceptionInfo], object] | None = None,
        soft_timeout: float | None = None,
        timeout: float | None = None,
        lost_worker_timeout: float = 10.0,
        on_timeout_set: Callable[[Any, Any, Any], object] | None = None,
        on_timeout_cancel: Callable[[Any], object] | None = None,
        callbacks_propagate: Any = (),
        send_ack: Callable[..., object] | None = None,
        correlation_id: Any = None,
    ) -> None:
        self.correlation_id = correlation_id
        self._job = job = next(job_counter)
        self._cache = cache
        self._callback = callback
        self._accept_callback = accept_callback
        self._error_callback = error_callback
        self._timeout_callback = timeout_callback
        self._soft_timeout = soft_timeout
        self._timeout = timeout
        self._lost_worker_timeout = lost_worker_timeout
        self._on_timeout_set = on_timeout_set
        self._on_timeout_cancel = on_timeout_cancel
        self._callbacks_propagate = callbacks_propagate
        self._send_ack = send_ack
        cache[job] = self

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._job} ack:{self._accepted} ready:{self.ready()}>"

    @property
    def _event(self) -> threading.Event:
        """Set when there is an outcome. Most results are never waited for, and do without."""
        event: threading.Event = self.__dict__.setdefault("_waited_for", threading.Event())
        if self._outcome is not None:
            event.set()
        return event

    @property
    def _success(self) -> bool:
        return self._told()[0]

    @property
    def _value(self) -> Any:
        return self._told()[1]

    def _told(self) -> Outcome:
        if self._outcome is None:
            raise AttributeError(f"job {self._job} has not ended")
        return self._outcome

    def ready(self) -> bool:
        """Tell whether the job has ended."""
        return self._outcome is not None

    def accepted(self) -> bool:
        """Tell whether a worker has begun the job."""
        return bool(self._accepted)

    def successful(self) -> bool:
        """Tell whether the job returned without an exception.

        Raises:
            AssertionError: The job has not ended.
        """
        if self._outcome is None:
            raise AssertionError("the job has not ended")
        return self._outcome[0]

    def worker_pids(self) -> list[int]:
        """Process ids of the workers that have begun the job."""
        return [self._worker_pid] if self._worker_pid else []

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the job has ended, while another thread drives the pool.

        Args:
            timeout: Seconds to wait; ``None`` waits for ever.

        Raises:
            ValueError: The timeout is nan.
        """
        if self._outcome is None:
            self._event.wait(bounded(timeout))

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the result, while another thread drives the pool, and return it.

        Args:
            timeout: Seconds to wait; ``None`` waits for ever.

        Raises:
            multiprocessing.TimeoutError: There is no result after ``timeout`` seconds.
            Exception: What the task raised, with the remote traceback as its cause; or why it could not
                return: `WorkerLostError`, `TimeLimitExceeded`, `Terminated`.
            ValueError: The timeout is nan.
        """
        self.wait(timeout)
        if self._outcome is None:
            raise TimeoutError
        success, value = self._outcome
        if success:
            return value
        raise _tasks.raisable(value)

    def discard(self) -> None:
        """Let go of the job: nobody will ask for its result."""
        self._cache.pop(self._job, None)

    def terminate(self, signum: int) -> None:
        """Record that the job was asked to end by this signal. `Pool.terminate_job` is what ends it."""
        self._terminated = signum

    def _cancel(self) -> None:
        """Have the worker told not to begin, if it asks."""
        self._cancelled = True

    def _set_terminated(self, signum: int | None = None) -> None:
        """End the job because its worker was told to end.

        Args:
            signum: The worker's exit status, which is the negative number of the signal.
        """
        pid = self.worker_pids()
        error = Terminated(-(signum or 0), pid=pid[0] if pid else None, job=self._job)
        self._set(None, failure(error))

    def _lose(self, pid: int | None, outcome: Outcome) -> None:  # noqa: ARG002
        """End the job with a worker that had begun it, or a part of it."""
        self._set(None, outcome)

    def _give_up(self, why: Terminated, tell: bool) -> None:
        """End the job with its pool.

        Args:
            why: The error that is raised for those who wait.
            tell: Whether the callbacks are called.
        """
        outcome = failure(why)
        if tell:
            self._accepted = True
            ApplyResult._set(self, None, outcome)
        elif self.__dict__.setdefault("_outcome", outcome) is outcome:
            self._event.set()
        self.discard()

    def handle_timeout(self, soft: bool = False) -> None:
        """Tell the timeout callback, if there is one, which limit has passed."""
        _tasks.handle_timeout(self, soft)

    def safe_apply_callback(self, fun: Callable[..., object] | None, *args: Any, **kwargs: Any) -> None:
        """Call ``fun``; what it raises is logged and goes no further.

        Raises:
            MemoryError: It does; and whatever is of a class in ``callbacks_propagate``.
        """
        if not fun:
            return
        try:
            fun(*args, **kwargs)
        except Exception as error:
            if isinstance(error, self._passing()):
                raise
            _tasks.log_error("Pool callback raised exception: %r", error)

    def _ack(self, i: int | None, time_accepted: float, pid: int, synqW_fd: int | None) -> None:  # noqa: ARG002
        """Note that a worker has begun the job, and tell it whether it may, if it waits for that."""
        self._accepted = True
        self._time_accepted = time_accepted
        self._worker_pid = pid
        if self._outcome is not None:
            self._cache.pop(self._job, None)
        if self._cancelled and self._send_ack:
            self._refuse(pid, synqW_fd, Terminated(0, pid=pid, job=self._job))
            return
        if self._on_timeout_set:
            self._on_timeout_set(self, self._soft_timeout, self._timeout)
        waits = self._send_ack and synqW_fd
        if self._accept_callback:
            try:
                self._accept_callback(pid, time_accepted)
            except BaseException as error:
                if waits:
                    self._refuse(pid, synqW_fd, error)
                if not isinstance(error, Exception) or isinstance(error, self._passing()):
                    raise
                _tasks.log_error("Pool callback raised exception: %r", error)
                if waits:
                    return
        if waits:
            self._answer(ACK, pid, synqW_fd)

    def _passing(self) -> tuple[type[BaseException], ...]:
        """What callbacks may raise into whoever delivers the result."""
        return (MemoryError, *self._callbacks_propagate)

    def _answer(self, response: int, pid: int, synqW_fd: int | None) -> None:
        if self._send_ack and synqW_fd:
            self._send_ack(response, pid, self._job, synqW_fd)

    def _refuse(self, pid: int, synqW_fd: int | None, why: BaseException) -> None:
        self._answer(NACK, pid, synqW_fd)
        self._set(None, failure(why))

    def _set(self, i: int | None, obj: Outcome) -> None:  # noqa: ARG002
        """End the job. Only the first outcome counts."""
        if self._on_timeout_cancel:
            self._on_timeout_cancel(self)
        known = self.__dict__
        # The table says who was first: a signal handler may be settling the job on top of us.
        if known.setdefault("_outcome", obj) is not obj:
            return
        if "_waited_for" in known:
            known["_waited_for"].set()
        if self._accepted:
            self._cache.pop(self._job, None)
        success, value = obj
        callback = self._callback if success else self._error_callback
        if callback and (success or value is not None):
            self.safe_apply_callback(callback, value)


class MapResult(ApplyResult):
    """The result of a map: a list, in the order of the input.

    The first chunk that fails decides the error and ends the job.

    Args:
        cache: The jobs that have not ended, by number.
        chunksize: How many items travel together.
        length: How many items there are.
        callback: Called with the list of values.
        error_callback: Called with the `ExceptionInfo` of the first failure.
    """

    _native = _billiard.MapResult

    def __init__(
        self,
        cache: MutableMapping[int, Any],
        chunksize: int,
        length: int,
        callback: Callable[[list[Any]], object] | None,
        error_callback: Callable[[ExceptionInfo], object] | None,
    ) -> None:
        super().__init__(cache, callback, error_callback=error_callback)
        self._chunksize = chunksize
        self._length = length
        self._number_left = -(-length // chunksize)
        self._values: list[Any] = [None] * length
        self._accepted = [False] * length
        self._worker_pid = [None] * length
        self._time_accepted = [None] * length
        self._arrived: set[int] = set()
        if not length:
            self._outcome = True, self._values
            self.discard()

    def accepted(self) -> bool:
        """Tell whether workers have begun all items."""
        return all(self._accepted)

    def worker_pids(self) -> list[int]:
        """Process ids of the workers that have begun chunks which have not ended."""
        begun = range(self._number_of_chunks())
        pids = (self._worker_pid[i * self._chunksize] for i in begun if i not in self._arrived)
        return list(dict.fromkeys(pid for pid in pids if pid is not None))

    def _number_of_chunks(self) -> int:
        return -(-self._length // self._chunksize)

    def _items(self, i: int) -> slice:
        return slice(i * self._chunksize, min((i + 1) * self._chunksize, self._length))

    def _ack(self, i: int | None, time_accepted: float, pid: int, *args: Any) -> None:  # noqa: ARG002
        """Note that a worker has begun a chunk."""
        if i is None:
            return
        where = self._items(i)
        count = where.stop - where.start
        self._accepted[where] = [True] * count
        self._worker_pid[where] = [pid] * count
        self._time_accepted[where] = [time_accepted] * count
        if self._outcome is not None and self.accepted():
            self.discard()

    def _set(self, i: int | None, success_result: Outcome) -> None:
        """Take the values of a chunk, or the failure that ends the job."""
        success, values = success_result
        if not success:
            self.discard()
            super()._set(None, success_result)
        elif i is not None and i not in self._arrived:
            self._arrived.add(i)
            self._values[self._items(i)] = values
            self._number_left -= 1
            if not self._number_left:
                self.discard()
                super()._set(None, (True, self._values))


for _public in (ApplyResult, MapResult):
    _public.__module__ = "billiard.pool"
