"""A pool of threads with the interface of a pool of processes."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Any, NoReturn

from ._given import begin_thread
from ._semaphore import LaxBoundedSemaphore
from ._service import RUN, PoolThread
from ._submitting import checked
from ._threadengine import BROKEN, ThreadEngine
from ._views import Cache, TaskQueue
from .common import restart_state
from .dummy import DummyProcess
from .pool import LOST_WORKER_TIMEOUT, Pool, _origin, get_context
from .util import Finalize


class ThreadPool(Pool):
    """A pool of threads, with the methods of a pool of processes.

    Nothing is pickled: functions, arguments, results and exceptions are handed over as they are. Nothing can
    stop a thread either: there are no time limits, `terminate` gives up what runs without waiting for it, and
    the methods that end or replace single workers raise `NotImplementedError`. An error of the initializer
    breaks the pool.

    Args:
        processes: Number of threads; the default is the number of usable processors.
        initializer: Called in each thread before its first job, with ``initargs``.
        initargs: See there.
        shared: What `billiard.pool.shared` returns in the threads: the object itself; ``None`` for nothing.

    Raises:
        TypeError: ``processes`` is no number, or ``initializer`` cannot be called.
        ValueError: ``processes`` is below 1.
        RuntimeError: The system cannot start so many threads.

    Source: billiard 4.2.1 ``ThreadPool``, which could not be constructed.
    """

    DummyProcess = DummyProcess
    Process = DummyProcess
    _engine: ThreadEngine  # type: ignore[assignment]

    # Without the other constructor: what it makes is for processes.
    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        *,
        shared: Any = None,
    ) -> None:
        self._ctx = get_context()
        if processes is None:
            processes = self._ctx.usable_cpu_count()
        size: int = checked("processes", processes, 1, int)
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be a callable, not {type(initializer).__name__}")
        self._initializer, self._initargs = initializer, tuple(initargs)
        self.timeout = self.soft_timeout = None
        self.lost_worker_timeout = LOST_WORKER_TIMEOUT
        self.on_timeout_set = self.on_timeout_cancel = None
        self.threads, self.synack = True, False
        self.allow_restart = self.enable_timeouts = False
        self.readers = {}
        self.max_restarts, self.restart_state = 0, restart_state(None, 1)
        self._state = RUN
        self._closed = [False]
        self._exits = 0
        self.putlocks = False
        self._putlock = LaxBoundedSemaphore(size)
        if shared is None:
            self._engine = ThreadEngine(initializer, self._initargs)
        else:
            self._engine = ThreadEngine(_begin, (shared, initializer, self._initargs))
        self._setup_queues()
        self._taskqueue = TaskQueue(self._engine)  # type: ignore[arg-type]
        self._cache = Cache(self._engine)  # type: ignore[arg-type]
        self._worker_handler = _CallbackThread(self._engine.events)
        self._terminate = Finalize(
            self, _end_pool, args=(self._engine, self._closed, _origin()), exitpriority=15
        )
        self._processes = size
        try:
            self._worker_handler.start()
            for _ in range(size):
                with self._engine.lock:
                    # The initializer may have failed by now: whoever submits something will hear of it.
                    if self._engine.is_running():
                        self._engine.hire(self.Process)
        except BaseException:
            self.terminate()
            raise

    @property
    def _pool(self) -> list[Any]:  # type: ignore[override]
        """The threads."""
        return [worker.thread for worker in list(self._engine.workers)]

    @property
    def process_sentinels(self) -> list[int]:
        """Nothing: threads have no descriptors."""
        return []

    def _refuse_if_broken(self) -> None:
        if self._engine.phase() == BROKEN:
            raise self._engine.why_broken()

    def close(self) -> None:
        """Accept no more jobs. Those that were accepted are finished, then the threads end."""
        if self._state != RUN:
            return
        self._engine.refuse_copies()
        with self._engine.lock:
            if not self._processes and self._engine.is_running() and self._engine.has_work():
                # Of a pool that was shrunk to nothing.
                self._engine.hire(self.Process)
            super().close()

    def terminate(self) -> None:
        """End the pool now. Every job that has not ended fails with `Terminated`.

        A task that runs goes on until it returns; nobody hears of its result. The other threads have ended
        when this returns, and all callbacks have run. `join` waits for the rest.
        """
        super().terminate()
        if not self._engine.is_copy() and not self._engine.is_inside():
            self._engine.join_idle()
            self._worker_handler.stop()

    def join(self) -> None:
        """Wait until the threads are gone and all callbacks have run.

        Raises:
            AssertionError: The pool was neither closed nor terminated.
            RuntimeError: A task of the pool waits for the pool's end, which waits for the task.
        """
        if threading.current_thread() in self._pool:
            raise RuntimeError("a task cannot wait for the end of its own pool")
        super().join()

    def grow(self, n: int = 1) -> None:
        """Add ``n`` threads.

        Raises:
            RuntimeError: The system cannot start so many threads; some may have been added.
            ValueError: The pool is closed.
        """
        checked("n", n, 0, int)
        self._engine.refuse_copies()
        self._engine.refuse_if_over()
        for _ in range(n):
            self._engine.hire(self.Process)
            self._processes += 1
            self._putlock.grow()
        self.on_grow(n)

    def shrink(self, n: int = 1) -> None:
        """Send ``n`` idle threads home: all of them, or none.

        Raises:
            ValueError: There are not so many idle threads, or the pool is closed.
        """
        checked("n", n, 0, int)
        self._engine.refuse_copies()
        self._engine.shrink(n)
        self._processes -= n
        for _ in range(n):
            self._putlock.shrink()
            self.on_shrink(1)

    def restart(self) -> NoReturn:
        """Threads are not replaced.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "threads share the state of the program: a new one would begin with the same"
        )

    def terminate_job(self, pid: int, sig: int | None = None) -> NoReturn:
        """Single jobs are not terminated: a thread has no process of its own.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("nothing can stop a thread; use a pool of processes")


class _CallbackThread(PoolThread):
    """Lets pools hear of their jobs, one at a time.

    Args:
        events: What there is to hear: see `ThreadEngine`.
    """

    def __init__(self, events: SimpleQueue[tuple[Any, ...] | None]) -> None:
        super().__init__(name="billiard-callbacks")
        self._events = events

    def body(self) -> None:
        """Handle events until the last."""
        while (event := self._events.get()) is not None:
            pool, *what = event
            pool._handle(what)
            # It may sleep for long: it must not keep a pool or a result alive meanwhile.
            del event, pool, what


def _begin(shared: Any, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    """Be what starts a thread of a pool that has something to share."""
    begin_thread(shared)
    if initializer is not None:
        initializer(*initargs)


def _end_pool(engine: ThreadEngine, closed: list[bool], origin: str) -> None:
    """End a pool on demand, when it is collected, or when the interpreter exits."""
    engine.terminate()
    # Last, since warnings may be errors.
    if not closed[0]:
        warnings.warn(f"unclosed pool, made at {origin}", ResourceWarning, stacklevel=2)


ThreadPool.__module__ = "billiard.pool"
