"""What a pool does when its engine tells it something."""

from __future__ import annotations

import threading

from . import _tasks
from ._hooks import Hooks, is_overridden
from .exceptions import Terminated, WorkerLostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: What the engine tells, and who handles it.
_HANDLERS = {
    "start": "_start_worker",
    "up": "_on_up",
    "exited": "_on_exited",
    "done": "_on_done",
    "accepted": "_on_accepted",
    "soft": "_on_soft_limit",
    "broke": "_on_broke",
}


class Events(Hooks):
    """The half of a pool that handles events: in the constructor, and then on the service thread."""

    _putlock: Any
    _worker_handler: Any
    threads: bool
    #: Called with the result and the `ExceptionInfo` of a job that has failed; returns what is told.
    _settle: Callable[[Any, Any], Any] | None = None
    on_timeout_set: Callable[[Any, Any, Any], object] | None
    on_timeout_cancel: Callable[[Any], object] | None

    def _start_worker(self, seat: int, generation: int) -> None:
        raise NotImplementedError

    def _worker_ended(self, seat: int, generation: int, pid: int, exitcode: int) -> None:
        raise NotImplementedError

    def _handle(self, event: tuple[Any, ...]) -> None:
        """Handle one event of the engine. Whatever goes wrong in it, the next one is handled too."""
        try:
            getattr(self, _HANDLERS[event[0]])(*event[1:])
        except BaseException as exc:
            if threading.current_thread() is not self._worker_handler:
                raise
            _tasks.log_error("Pool could not handle %r: %r", event[0], exc)

    def _call(self, function: Callable[..., object] | None, *args: Any, **kwargs: Any) -> None:
        """Call a hook or a callback. On the service thread nothing that it raises goes further."""
        if function is None:
            return
        try:
            function(*args, **kwargs)
        except BaseException as exc:
            # In the constructor there is somebody above; later even the end of the thread would end the pool.
            if threading.current_thread() is not self._worker_handler:
                raise
            _tasks.log_error("Pool callback raised exception: %r", exc)

    def _on_up(self, seat: int, generation: int) -> None:
        """A worker takes jobs."""

    def _on_exited(self, seat: int, generation: int, pid: int, exitcode: int, _: str | None) -> None:
        self._worker_ended(seat, generation, pid, exitcode)

    def _on_broke(self) -> None:
        """Pending jobs have been told; later calls ask the engine."""

    def _on_done(self, handle: Any) -> None:
        self._call(self.on_timeout_cancel, handle)
        if handle._holds_slot:
            self._putlock.release()
        success, value = handle._success, handle._value
        self._call(self.on_job_ready, handle._job, None, (success, value), None)
        if not success and is_overridden(self, "on_job_process_down", "on_job_process_lost"):
            self._tell_of_loss(handle, _tasks.raisable(value))
        told = value if success or self._settle is None else self._settle(handle, value)
        self._call(handle._callback if success else handle._error_callback, told)
        if handle._limit_passed is not None:
            self._call(handle._timeout_callback, soft=False, timeout=_tasks.as_given(handle._limit_passed))

    def _tell_of_loss(self, handle: Any, why: BaseException) -> None:
        if isinstance(why, (WorkerLostError, Terminated)) and why.pid is not None:
            self._call(self.on_job_process_down, handle, why.pid)
        if isinstance(why, WorkerLostError):
            self._call(self.on_job_process_lost, handle, why.pid, why.exitcode)

    def _on_accepted(self, handle: Any, pid: int, accepted: float) -> None:
        self._call(self.on_timeout_set, handle, handle._soft_timeout, handle._timeout)
        self._call(handle._accept_callback, pid, accepted)

    def _on_soft_limit(self, handle: Any, limit: float) -> None:
        self._call(handle._timeout_callback, soft=True, timeout=_tasks.as_given(limit))
