"""Growing, shrinking and ending a pool that its owner drives."""

from __future__ import annotations

import select
import time
from contextlib import suppress
from typing import Any

from . import _tasks
from ._loopdesk import Desk
from ._loophandlers import send_signal
from ._loopreaper import Reaping
from ._service import CLOSE, RUN, TERMINATE, stop_if_not_current
from .common import TERM_SIGNAL
from .compat import isblocking, setblocking
from .exceptions import Terminated

#: Seconds between two looks at workers that are ending.
_LOOK = 0.05
#: Seconds that workers have to wind up, when the pool is terminated, before they are killed.
_GRACE = 5.0


class Controlling(Reaping):
    """The half of a pool that is told to grow, to shrink and to end."""

    threads: bool
    _taskqueue: Any
    _task_handler: Any
    _timeout_handler: Any
    _terminate: Any

    def _close_driven(self) -> None:
        if self._state != RUN:
            return
        self._state = CLOSE
        if self._putlock is not None:
            self._putlock.clear()
        self._worker_handler.close()
        self._taskqueue.put(None)

    def _join_driven(self) -> None:
        if self._state not in (CLOSE, TERMINATE):
            raise AssertionError("the pool must be closed or terminated before it is joined")
        if self._worker_handler._was_started:
            stop_if_not_current(self._worker_handler)
        self._stop_task_handler(self._task_handler)
        self._result_handler.stop()
        if self._desk is not None:
            self._desk.finish()
        for process in self._pool[:]:
            if process._popen is not None:
                _see_off(process, self._result_handler, None)
        if self._timeout_handler is not None:
            self._timeout_handler.terminate()
            if self._timeout_handler._was_started:
                self._timeout_handler.stop()
        # A signal handler may join on top of this; then it has all been done.
        self._terminate.cancel()
        _close_queues(self._inqueue, self._outqueue)

    def _terminate_driven(self) -> None:
        self._state = TERMINATE
        if self._putlock is not None:
            self._putlock.clear()
        self._worker_handler.terminate()
        self._terminate()

    @staticmethod
    def _stop_task_handler(task_handler: Any) -> None:
        """Have the task handler tell the workers that there are no more tasks."""
        task_handler.stop()

    def _help_stuff_finish_args(self) -> tuple[Any, ...]:
        """What `_help_stuff_finish` needs: nothing that keeps the pool alive."""
        return self._inqueue, self._task_handler, self._pool

    @staticmethod
    def _help_stuff_finish(inqueue: Any, task_handler: Any, _pool: list[Any]) -> None:  # noqa: ARG004
        """Take the tasks back that no worker has begun."""
        if isinstance(inqueue, Desk):
            inqueue.stop()
            return
        # Who has the lock waits for a task: then there is none.
        if inqueue is None or not inqueue._rlock.acquire(False):
            return
        try:
            while inqueue._reader.poll(0):
                inqueue._reader.recv_bytes()
        finally:
            inqueue._rlock.release()

    @classmethod
    def _set_result_sentinel(cls, outqueue: Any, pool: list[Any]) -> None:  # noqa: ARG003
        """Tell the thread that reads results that there are no more."""
        if outqueue is not None:
            outqueue.put(None)

    @classmethod
    def _terminate_pool(
        cls,
        taskqueue: Any,
        inqueue: Any,
        outqueue: Any,
        pool: list[Any],
        worker_handler: Any,
        task_handler: Any,
        result_handler: Any,
        cache: dict[int, Any],
        timeout_handler: Any,
        help_stuff_finish_args: tuple[Any, ...],
    ) -> None:
        """End a pool, also one that was collected, or that is there when the interpreter exits.

        What workers have written is delivered. Jobs that have not ended fail with `Terminated` for those who
        wait for them; where no thread of ours delivers results, their callbacks are not called: the owner
        knows that it has ended the pool, and what is to become of the jobs.
        """
        threads = result_handler._was_started
        for handler in (worker_handler, task_handler):
            handler.terminate()
        taskqueue.put(None)
        cls._help_stuff_finish(*help_stuff_finish_args)
        if timeout_handler is not None:
            timeout_handler.terminate()
        for process in pool[:]:
            if process._is_alive():
                process.terminate()
        if threads:
            stop_if_not_current(worker_handler)
            task_handler.stop()
            cls._set_result_sentinel(outqueue, pool)
        result_handler.terminate()
        if threads:
            result_handler.stop()
        deadline = time.monotonic() + _GRACE
        for process in pool[:]:
            if process._popen is not None:
                _see_off(process, result_handler, deadline)
        _settle(list(cache.values()), threads)
        _close_queues(inqueue, outqueue)

    # --- size ---

    def _grow_driven(self, n: int) -> None:
        for _ in range(n):
            self._processes += 1
            if self._putlock is not None:
                self._putlock.grow()
        self.on_grow(n)

    def _shrink_driven(self, n: int) -> None:
        busy = {pid for job in list(self._cache.values()) for pid in job.worker_pids()}
        idle = [
            process
            for process in self._pool
            if process.pid not in busy and not getattr(process, "_controlled_termination", False)
        ]
        for process in idle[:n]:
            self._processes -= 1
            if self._putlock is not None:
                self._putlock.shrink()
            process.terminate_controlled()
            self.on_shrink(1)
        if len(idle) < n:
            raise ValueError(f"cannot shrink the pool by {n}: only {len(idle)} of its workers are idle")

    def _restart_driven(self) -> None:
        for event in list(self._poolctrl.values()):
            event.set()

    def _terminate_job_driven(self, process: Any, sig: int | None) -> None:
        process._controlled_termination = True
        process._job_terminated = True
        send_signal(process, sig or TERM_SIGNAL)


def _see_off(process: Any, result_handler: Any, deadline: float | None) -> None:
    """Wait for the end of a worker, and read what it has to say meanwhile: it cannot end before it has said
    it.

    Args:
        process: Its process object.
        result_handler: Who handles the messages, where no thread of it does.
        deadline: When it is killed; ``None`` for never.
    """
    ears = result_handler.outqueue
    queue = ears if isinstance(ears, Desk) else process.outq
    reader = None if result_handler.is_alive() else getattr(queue, "_reader", None)
    while process._is_alive():
        left = _LOOK if deadline is None else min(deadline - time.monotonic(), _LOOK)
        if left <= 0:
            process.kill()
            deadline = None
            continue
        reader = _listen(process, reader, result_handler, left)
    while reader is not None and _is_readable(reader):
        reader = _take_message(reader, result_handler)
    process.join()


def _listen(process: Any, reader: Any, result_handler: Any, timeout: float) -> Any:
    """Wait for a message of a worker, or its end. Returns the reader, ``None`` when it is of no use."""
    if reader is None or reader.closed:
        process._popen.wait(timeout)
        return None
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    sentinel = process._popen.sentinel
    if sentinel is not None:
        poll.register(sentinel, select.POLLIN)
    events = dict(poll.poll(timeout * 1000))
    return _take_message(reader, result_handler) if reader.fileno() in events else reader


def _is_readable(reader: Any) -> bool:
    return not reader.closed and bool(reader.poll(0))


def _take_message(reader: Any, result_handler: Any) -> Any:
    """Handle one message, if all of it is there. Returns the reader, ``None`` when it is of no use."""
    try:
        blocking = isblocking(reader)
        setblocking(reader, False)
        try:
            task = reader.recv()
        finally:
            setblocking(reader, blocking)
    except BlockingIOError:
        return reader
    except Exception as error:  # the end of the pipe; or something that is no message, and then nothing is
        if not isinstance(error, (OSError, EOFError)):
            _tasks.log_error("Pool cannot read what a worker has said: %r", error)
        return None
    if task:
        result_handler.on_state_change(task)
    return reader


def _settle(jobs: list[Any], tell: bool) -> None:
    """End what was not finished."""
    for job in jobs:
        pids = job.worker_pids()
        job._give_up(Terminated(0, pid=pids[0] if pids else None, job=job._job), tell)


def _close_queues(*queues: Any) -> None:
    for one in queues:
        if one is not None:
            with suppress(AttributeError):
                one.close()
