"""The handlers of a pool that its owner drives: what reads results, keeps time limits, and ends workers.

They can be run as threads. Celery's event loop, and every pool without threads, calls their methods instead.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from signal import SIGKILL
from typing import Any

from ._loopdesk import Desk
from ._loopmessages import ACK, DEATH, READY
from ._service import CLOSE, RUN, TERMINATE, PoolThread
from ._worker import SIG_SOFT_TIMEOUT
from .common import TERM_SIGNAL
from .einfo import ExceptionInfo
from .exceptions import TimeLimitExceeded
from .util import debug

#: Seconds a worker has to end between the signal that asks it to and the one that does not ask.
_GRACE = 0.1
#: Seconds between two looks of a handler that is a thread.
_LOOK = 0.2
#: Seconds that results are waited for after the last worker has gone.
_LAST_WORDS = 5.0


class WorkersJoined(Exception):
    """All workers have terminated."""


class TaskHandler(PoolThread):
    """Hands tasks out.

    Args:
        taskqueue: Where ``(tasks, set_length)`` come from; ``None`` ends it.
        put: Sends a task to the workers.
        outqueue: Where results arrive.
        pool: The process objects of the workers.
        cache: The jobs that have not ended, by number.
    """

    def __init__(
        self, taskqueue: Any, put: Any, outqueue: Any, pool: list[Any], cache: dict[int, Any]
    ) -> None:
        super().__init__(name="billiard-tasks")
        self.taskqueue = taskqueue
        self.put = put
        self.outqueue = outqueue
        self.pool = pool
        self.cache = cache

    def body(self) -> None:
        """Send what is in the queue, until it says that there is no more."""
        while (entry := self.taskqueue.get()) is not None and self._state != TERMINATE:
            tasks, set_length = entry
            count = 0
            for count, task in enumerate(tasks, 1):  # noqa: B007
                if self._state == TERMINATE:
                    break
                self._send(task)
            if set_length:
                set_length(count)
        self.tell_others()

    def _send(self, task: Any) -> None:
        try:
            self.put(task)
        except Exception as exc:
            job, i = task[1][:2]
            result = self.cache.get(job)
            if result is not None:
                result._set(i, (False, ExceptionInfo((type(exc), exc, exc.__traceback__))))

    def tell_others(self) -> None:
        """Tell the result handler and every worker that there are no more tasks."""
        with suppress(OSError):
            if self.outqueue is not None:
                self.outqueue.put(None)
            if self.put is not None:
                for _ in self.pool:
                    self.put(None)

    def on_stop_not_started(self) -> None:
        """Tell the others, without having been a thread."""
        self.tell_others()


class TimeoutHandler(PoolThread):
    """Keeps time limits.

    Args:
        processes: The process objects of the workers.
        cache: The jobs that have not ended, by number.
        t_soft: Default soft limit in seconds; ``None`` for none.
        t_hard: Default hard limit likewise.
    """

    def __init__(
        self, processes: list[Any], cache: dict[int, Any], t_soft: float | None, t_hard: float | None
    ) -> None:
        super().__init__(name="billiard-limits")
        self.processes = processes
        self.cache = cache
        self.t_soft = t_soft
        self.t_hard = t_hard
        self._ended = threading.Event()
        #: Jobs whose soft limit has passed.
        self._warned: set[int] = set()

    def body(self) -> None:
        """Look again and again, until the pool ends."""
        for _ in self.handle_timeouts():
            self._ended.wait(_LOOK)

    def terminate(self) -> None:
        """End at once."""
        super().terminate()
        self._ended.set()

    def _process_by_pid(self, pid: int) -> tuple[Any, int | None]:
        for index, process in enumerate(list(self.processes)):
            if process.pid == pid:
                return process, index
        return None, None

    def on_soft_timeout(self, job: Any) -> None:
        """Have `SoftTimeLimitExceeded` raised in a job, if a worker runs it."""
        self._warned.add(job._job)
        process, _ = self._process_by_pid(job._worker_pid)
        if process is None:
            return
        debug("soft time limit exceeded for %r", job)
        job.handle_timeout(soft=True)
        words = getattr(process, "_words", None)
        if words is not None:
            words.aim(job._job)
        with suppress(ProcessLookupError):
            send_signal(process, SIG_SOFT_TIMEOUT)

    def on_hard_timeout(self, job: Any) -> None:
        """End a job with `TimeLimitExceeded`, then the worker that runs it."""
        if job.ready():
            return
        debug("hard time limit exceeded for %r", job)
        limit = TimeLimitExceeded(job._timeout, pid=job._worker_pid, job=job._job)
        job._set(None, (False, ExceptionInfo((type(limit), limit, None))))
        process, _ = self._process_by_pid(job._worker_pid)
        job.handle_timeout(soft=False)
        if process is not None:
            self._trywaitkill(process)

    def _trywaitkill(self, worker: Any) -> None:
        """End a worker: ask it first. One that leads a process group takes the group with it."""
        debug("terminating worker pid:%s", worker.pid)
        group = _own_group(worker)
        _end(worker, group, TERM_SIGNAL)
        if worker._popen.wait(timeout=_GRACE) is None or group:
            _end(worker, group, SIGKILL)

    def handle_timeouts(self) -> Iterator[None]:
        """Look for limits that have passed; each step is one look at all jobs."""
        while self._state == RUN:
            self.handle_event()
            yield

    def handle_event(self, *args: Any) -> None:  # noqa: ARG002
        """Look once at all jobs."""
        now = time.monotonic()
        for job in list(self.cache.values()):
            self._look_at(job, now)
        self._warned.intersection_update(self.cache)

    def _look_at(self, job: Any, now: float) -> None:
        began = job._time_accepted
        if not isinstance(began, float) or job.ready():
            return
        soft = job._soft_timeout if job._soft_timeout is not None else self.t_soft
        hard = job._timeout if job._timeout is not None else self.t_hard
        # The soft one first: whoever looks late must not skip it.
        if hard and now >= began + hard:
            self.on_hard_timeout(job)
        elif soft and now >= began + soft and job._job not in self._warned:
            self.on_soft_timeout(job)


def send_signal(process: Any, number: int) -> None:
    """Signal a worker through its handle: a process that has taken over the number of a dead one is safe."""
    with suppress(ProcessLookupError):
        process._popen._send_signal(number)


def _own_group(process: Any) -> int | None:
    """The process group that a worker leads, if it does."""
    with suppress(OSError):
        if process._popen.poll() is None and os.getpgid(process.pid) == process.pid:
            return int(process.pid)
    return None


def _end(process: Any, group: int | None, number: int) -> None:
    if group is None:
        send_signal(process, number)
        return
    with suppress(ProcessLookupError):
        os.killpg(group, number)


class ResultHandler(PoolThread):
    """Takes what workers say.

    Args:
        outqueue: Where it comes from.
        get: Gets a message.
        cache: The jobs that have not ended, by number.
        poll: Called with seconds to wait; answers whether there was a message, and the message.
        join_exited_workers: Reaps workers.
        putlock: A slot of it is given back for each job that has ended.
        restart_state: The limit on restarts; a worker that begins a job proves that starting works.
        check_timeouts: Keeps time limits while the pool drains.
        on_job_ready: Called with ``(job, i, obj, inqW_fd)`` for each result.
        on_ready_counters: By process id, what counts the results of a worker.

    Attributes:
        state_handlers: Who handles what kind of message; others may be added.
    """

    def __init__(
        self,
        outqueue: Any,
        get: Any,
        cache: dict[int, Any],
        poll: Any,
        join_exited_workers: Any,
        putlock: Any,
        restart_state: Any,
        check_timeouts: Any,
        on_job_ready: Any,
        on_ready_counters: dict[int, Any] | None = None,
    ) -> None:
        super().__init__(name="billiard-results")
        self.outqueue = outqueue
        self.get = get
        self.cache = cache
        self.poll = poll
        self.join_exited_workers = join_exited_workers
        self.putlock = putlock
        self.restart_state = restart_state
        self.check_timeouts = check_timeouts
        self.on_job_ready = on_job_ready
        self.on_ready_counters = on_ready_counters
        #: By job and place, the worker that has begun it, where somebody counts.
        self._begun: dict[tuple[int, int | None], int] = {}
        self._make_methods()

    def _make_methods(self) -> None:
        cache, putlock, restart_state = self.cache, self.putlock, self.restart_state
        on_job_ready, counters, begun = self.on_job_ready, self.on_ready_counters, self._begun

        def on_ack(job: int, i: int | None, time_accepted: float, pid: int, synqW_fd: int | None) -> None:
            restart_state.R = 0
            if counters:
                begun[job, i] = pid
            result = cache.get(job)
            if result is not None:
                result._ack(i, time_accepted, pid, synqW_fd)

        def on_ready(job: int, i: int | None, obj: Any, inqW_fd: int | None) -> None:
            if on_job_ready is not None:
                on_job_ready(job, i, obj, inqW_fd)
            if begun:
                self._count(job, i)
            result = cache.get(job)
            if result is None:
                return
            if putlock is not None and not result.ready():
                putlock.release()
            result._set(i, obj)

        def on_death(pid: int, exitcode: int) -> None:
            # COMPAT: the original signals the worker here, to hurry it. Ours are on their way, and the
            # number may belong to somebody else by now.
            debug("worker %s leaves with %s", pid, exitcode)

        self.state_handlers: dict[int, Callable[..., object]] = {
            ACK: on_ack,
            READY: on_ready,
            DEATH: on_death,
        }

    def _count(self, job: int, i: int | None) -> None:
        """Count a result for the worker that has begun it, wherever the job is by now."""
        counter = (self.on_ready_counters or {}).get(self._begun.pop((job, i), 0))
        if counter is not None:
            with counter.get_lock():
                counter.value += 1

    def on_worker_exit(self, pid: int) -> None:
        """Forget what a worker that has ended has begun."""
        for key in [key for key, owner in self._begun.items() if owner == pid]:
            del self._begun[key]

    def on_state_change(self, task: tuple[int, tuple[Any, ...]]) -> None:
        """Handle a message. One of a kind that nobody knows is ignored."""
        state, args = task
        handler = self.state_handlers.get(state)
        if handler is None:
            debug("unknown job state: %s (args=%s)", state, args)
            return
        handler(*args)

    def handle_event(self, fileno: Any = None, events: Any = None) -> None:  # noqa: ARG002
        """Handle what has arrived, without waiting for more."""
        while self._state != TERMINATE and self._handle_one(0):
            pass

    def _handle_one(self, timeout: float) -> bool:
        """Handle a message, if there is one in time. False too at the end of all messages."""
        try:
            there, task = self.poll(timeout)
        except (OSError, EOFError) as exc:
            debug("result handler got %r", exc)
            return False
        if not there:
            return False
        if task is None:
            if self._state == RUN:
                self._state = CLOSE
            return False
        self.on_state_change(task)
        return True

    def body(self) -> None:
        """Handle messages until the pool ends."""
        while self._state == RUN:
            self._handle_one(_LOOK)
        self.finish_at_shutdown()

    def finish_at_shutdown(self, handle_timeouts: bool = False) -> None:
        """Handle what is still to come: until no job is left, or no worker that could run one.

        Args:
            handle_timeouts: Whether to keep time limits meanwhile.
        """
        deadline: float | None = None
        while self.cache and self._state != TERMINATE:
            if handle_timeouts and self.check_timeouts is not None:
                self.check_timeouts()
            nobody = isinstance(self.outqueue, Desk) and not self.outqueue.has_workers()
            there = self._handle_one(0.0 if nobody else _LOOK)
            if not there and deadline is not None and time.monotonic() > deadline:
                debug("result handler: no worker is left")
                return
            try:
                self.join_exited_workers(shutdown=True)
            except WorkersJoined:
                if isinstance(self.outqueue, Desk):
                    # It has heard all there was before it let the last one go.
                    return
                if deadline is None:
                    deadline = time.monotonic() + _LAST_WORDS

    def on_stop_not_started(self) -> None:
        """Do what the thread would do at the end."""
        self.finish_at_shutdown(handle_timeouts=True)


for _public in (WorkersJoined, TaskHandler, TimeoutHandler, ResultHandler):
    _public.__module__ = "billiard.pool"
