"""A pool that its owner drives: it makes the workers and keeps the books, and does nothing by itself.

There is no thread (unless the pool is one with threads and queues of its own) and nothing that sleeps. The
owner watches the sentinels of the workers and the descriptors of the queues, and calls what has to be done.
"""

from __future__ import annotations

import itertools
import queue
import time
import weakref
from typing import Any

from . import _parent
from ._freezing import Sparing, frozen
from ._hooks import is_overridden
from ._loopcontrol import Controlling
from ._loopdesk import Desk
from ._loophandlers import ResultHandler, TaskHandler, TimeoutHandler, WorkersJoined
from ._loopiterators import IMapIterator, IMapUnorderedIterator, flattened
from ._loopmessages import TASK
from ._loopresults import ApplyResult, MapResult
from ._loopwords import last_words
from ._semaphore import LaxBoundedSemaphore
from ._service import RUN
from .util import Finalize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


#: Imported now: Celery's tests put something else in the place of the class that it builds on.
_ = _parent


class Driven(Controlling):
    """The half of a pool that its owner drives."""

    TaskHandler = TaskHandler
    TimeoutHandler = TimeoutHandler
    ResultHandler = ResultHandler

    Worker: Any
    Supervisor: Any
    threads: bool
    _driven: bool
    _freeze: bool
    synack: bool
    putlocks: bool
    allow_restart: bool
    timeout: float | None
    soft_timeout: float | None
    lost_worker_timeout: float
    check_timeouts: Callable[..., None] | None
    on_process_up: Any
    on_timeout_set: Any
    on_timeout_cancel: Any
    _terminate: Any
    _maxtasksperchild: int | None

    # --- beginning ---

    def _begin_driven(self, semaphore: Any) -> None:
        """Make queues, handlers and workers."""
        self._setup_queues()
        self._taskqueue = queue.SimpleQueue[Any]()
        self._cache = {}
        self._pool, self._poolctrl, self._on_ready_counters, self._gone = [], {}, {}, {}
        self._hears_late = self.threads
        self._sparing = Sparing(self._freeze)
        self._putlock = semaphore or LaxBoundedSemaphore(self._processes)
        self._result_handler = None
        try:
            for i in range(self._processes):
                self._sparing.start(self._create_worker_process, i)
        except BaseException:
            self._abandon_driven()
            raise
        self._worker_handler = self.Supervisor(self)
        self._task_handler = self.TaskHandler(
            self._taskqueue, self._quick_put, self._outqueue, self._pool, self._cache
        )
        self._timeout_handler = self.TimeoutHandler(self._pool, self._cache, self.soft_timeout, self.timeout)
        self.check_timeouts = self._timeout_handler.handle_event
        self._result_handler = self.create_result_handler()
        handlers = self._worker_handler, self._task_handler, self._result_handler
        self._terminate = Finalize(
            self,
            self._terminate_pool,
            args=(
                self._taskqueue,
                self._inqueue,
                self._outqueue,
                self._pool,
                *handlers,
                self._cache,
                self._timeout_handler,
                self._help_stuff_finish_args(),
            ),
            exitpriority=15,
        )
        if self.threads:
            for handler in (*handlers, self._timeout_handler):
                handler.start()

    def _abandon_driven(self) -> None:
        """Take back a construction that has failed half-way."""
        for process in self._pool:
            if process._popen is not None:
                process.kill()
                process.join()

    def _setup_driven_queues(self) -> None:
        """Make what workers are talked to through, for pools that have no queues of their own."""
        if not self.threads and not is_overridden(self, "get_process_queues"):
            self._inqueue = self._outqueue = self._desk = desk = Desk()
            self._quick_put, self._quick_get, self._poll_result = desk.put, desk.get, desk.take
            return
        # What a subclass hands out to all of its workers.
        self._inqueue = self._ctx.SimpleQueue()  # type: ignore[attr-defined]
        self._outqueue = self._ctx.SimpleQueue()  # type: ignore[attr-defined]
        self._quick_put, self._quick_get = self._inqueue.put, self._outqueue.get
        get, reader = self._quick_get, self._outqueue._reader

        def poll_result(timeout: float) -> tuple[bool, Any]:
            return (True, get()) if reader.poll(timeout) else (False, None)

        self._poll_result = poll_result

    def create_result_handler(self, **extra_kwargs: Any) -> Any:
        """Make the result handler. What a subclass gives by keyword goes to `ResultHandler`."""
        here = weakref.ref(self)

        def join_exited_workers(shutdown: bool = False) -> list[int | None]:
            # The handler must not keep the pool: a pool that nobody holds ends.
            pool = here()
            if pool is None:
                raise WorkersJoined
            return pool._join_exited_workers(shutdown)

        handler = self.ResultHandler(
            self._outqueue,
            self._quick_get,
            self._cache,
            self._poll_result,
            join_exited_workers,
            self._putlock,
            self.restart_state,
            self.check_timeouts,
            self.on_job_ready if is_overridden(self, "on_job_ready") else None,
            on_ready_counters=self._on_ready_counters,
            **extra_kwargs,
        )
        if self._desk is not None:
            self._desk.listen_in(handler.state_handlers)
        return handler

    def process_flush_queues(self, worker: Any) -> None:
        """Called with the process object of a worker that has ended, first of all; takes what it has left to
        say, and the job that it has left, where the pool has no queues of its own.
        """
        if self._desk is None or self._result_handler is None:
            return
        self._result_handler.handle_event()
        given_up = self._desk.leave(worker)
        if given_up is not None:
            # As if it had begun: then it is lost.
            job, i = given_up
            if (result := self._cache.get(job)) is not None:
                result._ack(i, time.monotonic(), worker.pid, None)

    def handle_result_event(self, *args: Any) -> None:
        """Handle the results that have arrived."""
        self._result_handler.handle_event(*args)

    def _create_driven_worker(self, i: int) -> Any:
        """Start one worker, with the index ``i``."""
        event = self._ctx.Event()  # type: ignore[attr-defined]
        queues = self.get_process_queues() if self._desk is None else self._desk.queues()
        process = self._worker_process(queues, event)  # type: ignore[attr-defined]
        process._words = process._target._words = last_words()
        if self._desk is not None:
            self._desk.seat(process, self._maxtasksperchild)
        self._pool.append(process)
        self._process_register_queues(process, queues)
        process.name = process.name.replace("Process", "PoolWorker")
        process.daemon = True
        process.index = i
        # A start that fails leaves it on the list, from where it is reaped like all others.
        outer, self._starting = self._starting, process
        try:
            with frozen(self._freeze):
                process.start()
        except BaseException:
            if self._desk is not None:
                self._desk.leave(process)
            raise
        finally:
            self._starting = outer
        if self._desk is not None:
            self._desk.started(process)
            if self._desk.closed:
                # A signal handler has ended the pool on top of this.
                process.kill()
                process.join()
        self._poolctrl[process.pid] = event
        if self.on_process_up is not None:
            self.on_process_up(process)
        return process

    # --- work ---

    def _submit_driven(
        self,
        func: Callable[..., Any],
        args: Any,
        kwds: Any,
        callback: Any,
        error_callback: Any,
        accept_callback: Any,
        timeout_callback: Any,
        waitforslot: bool | None,
        soft_timeout: float | None,
        timeout: float | None,
        lost_worker_timeout: float | None,
        callbacks_propagate: Any,
        correlation_id: Any,
    ) -> ApplyResult | None:
        if self._state != RUN:
            return None
        if (self.putlocks if waitforslot is None else waitforslot) and self._putlock is not None:
            self._putlock.acquire()
            if self._state != RUN:
                return None
        result = ApplyResult(
            self._cache,
            callback,
            accept_callback,
            timeout_callback,
            error_callback,
            self.soft_timeout if soft_timeout is None else soft_timeout,
            self.timeout if timeout is None else timeout,
            lost_worker_timeout or self.lost_worker_timeout,
            self.on_timeout_set,
            self.on_timeout_cancel,
            callbacks_propagate,
            self.send_ack if self.synack else None,
            correlation_id,
        )
        self._hand_out((TASK, (result._job, None, func, args, kwds)), result)
        if self._desk is not None and self._desk.closed and not result.ready():
            # A signal handler has ended the pool on top of this.
            result.discard()
            return None
        return result

    def _hand_out(self, task: tuple[int, tuple[Any, ...]], result: Any) -> None:
        if self.threads:
            self._taskqueue.put(([task], None))
            return
        try:
            self._quick_put(task)
        except BaseException:
            result.discard()
            raise

    def _map_driven(
        self,
        func: Callable[..., Any],
        items: list[Any],
        mapper: Callable[..., Any],
        chunksize: int,
        callback: Any,
        error_callback: Any,
    ) -> MapResult:
        if self._state != RUN:
            raise ValueError("the pool is closed")
        result = MapResult(self._cache, chunksize, len(items), callback, error_callback)
        for i in range(-(-len(items) // chunksize)):
            chunk = tuple(items[i * chunksize : (i + 1) * chunksize])
            self._hand_out((TASK, (result._job, i, mapper, ((func, chunk),), {})), result)
        return result

    def _imap_driven(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int,
        lost_worker_timeout: float | None,
        mapper: Callable[..., Any],
        *,
        ordered: bool,
    ) -> Any:
        if self._state != RUN:
            raise ValueError("the pool is closed")
        kind = IMapIterator if ordered else IMapUnorderedIterator
        result = kind(self._cache, lost_worker_timeout or self.lost_worker_timeout)
        items, count = iter(iterable), 0
        while chunk := tuple(itertools.islice(items, chunksize)):
            call = (func, chunk) if chunksize == 1 else (mapper, ((func, chunk),))
            self._hand_out((TASK, (result._job, count, *call, {})), result)
            count += 1
        result._set_length(count)
        return result if chunksize == 1 else flattened(result)
