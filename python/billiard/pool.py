"""A pool of worker processes, with time limits and exact knowledge of what became of every job.

The work is done by the engine in `billiard._billiard`. This module has the names, and what a pool does
with its workers.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from . import _billiard
from ._engineworkers import EngineWorkers
from ._given import Parcel, shared
from ._hooks import is_overridden
from ._loophandlers import ResultHandler, TaskHandler, TimeoutHandler, WorkersJoined
from ._loopiterators import IMapIterator, IMapUnorderedIterator
from ._loopmessages import ACK, DEATH, NACK, READY, TASK
from ._looppool import Driven
from ._loopresults import ApplyResult, MapResult, job_counter
from ._loopworker import (
    EX_FAILURE,
    EX_OK,
    EX_RECYCLE,
    GUARANTEE_MESSAGE_CONSUMPTION_RETRY_INTERVAL,
    GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT,
)
from ._preload import load_ahead, thread_limits
from ._semaphore import LaxBoundedSemaphore
from ._serializers import pickler_for
from ._service import CLOSE, RUN, TERMINATE, PoolThread, Supervisor, end_pool, stop_if_not_current
from ._submitting import Submitting, checked, mapstar, starmapstar
from ._tasks import MAXMEM_USED_FMT, MaybeEncodingError
from ._views import Cache, TaskQueue
from ._worker import (
    SIG_INSPECT,
    SIG_SOFT_TIMEOUT,
    Worker,
    soft_timeout_sighandler,
)
from .common import TERM_SIGNAL, restart_state
from .context import _default_context
from .exceptions import (
    CoroStop,
    RestartFreqExceeded,
    SoftTimeLimitExceeded,
    Terminated,
    TimeLimitExceeded,
    TimeoutError,
    WorkerLostError,
)
from .util import Finalize, error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ._serializers import Serializer
    from ._threadpool import ThreadPool

#: A name of this module that others import.
_ = error


LOST_WORKER_TIMEOUT = 10.0
TIMEOUT_MAX = threading.TIMEOUT_MAX
SIGKILL = signal.SIGKILL
Lock = threading.Lock

cpu_count = _default_context.cpu_count
get_context = _default_context.get_context


class Pool(EngineWorkers, Submitting, Driven):
    """A pool of worker processes.

    Args:
        processes: Number of workers; the default is the number of usable processors.
        initializer: Called in each worker before its first job, with ``initargs``.
        initargs: See there.
        maxtasksperchild: Replace a worker after so many jobs.
        timeout: Default hard limit of a job in seconds: the job fails with `TimeLimitExceeded`, its worker is
            terminated and replaced.
        soft_timeout: Default soft limit in seconds: `SoftTimeLimitExceeded` is raised inside the task.
        lost_worker_timeout: Accepted; the loss of a worker is known at once.
        max_restarts: Give up when so many workers that never finished a job are lost within
            ``max_restart_freq`` seconds. Starts that fail are always limited.
        max_restart_freq: See there.
        on_process_up: Called with the process object of each worker that was started.
        on_process_down: Called with the process object of each worker that has ended.
        on_timeout_set: Called with ``(result, soft, hard)`` when a worker begins a job.
        on_timeout_cancel: Called with the result just before a job's callbacks.
        threads: False: the owner drives the pool, and there is no thread. ``docs/event-loops.md`` tells more.
        semaphore: Used as put lock instead of a `LaxBoundedSemaphore`.
        putlocks: Default for ``waitforslot`` of `apply_async`.
        allow_restart: Accepted; `restart` always works.
        synack: Workers begin a job only when the owner has confirmed it; for pools with queues of their own.
        on_process_exit: Called with process id and exit code in each worker just before it ends.
        context: Makes the processes; the default is the default context.
        max_memory_per_child: Replace a worker that has more than so many KiB resident after a job.
        enable_timeouts: Accepted; limits are always enforced.
        preload: Names of modules that every worker has loaded before its first job: where workers are copies
            of this process, they are loaded here; else in the fork server, or in each worker.
        serializer: How calls and results are sent: ``"pickle"``, ``"cloudpickle"``, which sends functions and
            classes that cannot be imported by value, or a pair of functions; the default is the context's,
            which is pickle.
        threads_per_worker: How many threads numerical libraries (OpenMP, OpenBLAS, MKL, numexpr, numba) may
            use in each worker; ``"auto"`` shares the usable processors out among the workers. It tells those
            that a worker loads itself: where it is a copy of a process that has loaded them, they stay as
            they are.
        shared: Any object that can be pickled. Each worker gets it once, when it begins, and its tasks have
            it from `shared`; arrays and other buffers in it are in memory once, for all of them, and cannot
            be written to. ``None`` for nothing. ``docs/shared-memory.md`` tells more.
        freeze: True: workers that are copies of this process leave what it had at that time alone when they
            collect garbage, so that the memory stays common to all. What they *use* is still copied, for its
            reference count. If the program has called `gc.freeze` itself, or `gc.disable`, nothing is done.
            ``None``: True where the owner drives the pool (``threads=False``); a subclass that collects
            garbage before it starts a worker is spared most of it then, if many are started.
        **kwargs: Ignored, since programs rely on it.

    Raises:
        ImportError: The serializer is not installed, or a module to preload cannot be imported where workers
            are copies of this process. Elsewhere that breaks the pool, as workers that cannot begin do.
        OSError: There is no room for the shared object.
        pickle.PicklingError: The shared object cannot be pickled; the text says which part of it.
        TypeError: A number is none, or a callable cannot be called.
        ValueError: A number is too small.

    Source: billiard 4.2.1 ``Pool``. Different here: see the package's list of differences.
    """

    #: How often a start that fails is tried again; ``None``: as often as is usual.
    _start_retries: int | None = None
    Worker = Worker
    Supervisor = Supervisor
    SoftTimeLimitExceeded = SoftTimeLimitExceeded
    _wrap_exception = True
    #: Whether the owner drives it, or at least its queues.
    _driven = False
    #: What its workers are given.
    _parcel: Parcel | None = None

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        timeout: float | None = None,
        soft_timeout: float | None = None,
        lost_worker_timeout: float | None = None,
        max_restarts: int | None = None,
        max_restart_freq: float | None = 1,
        on_process_up: Callable[[Any], object] | None = None,
        on_process_down: Callable[[Any], object] | None = None,
        on_timeout_set: Callable[[Any, Any, Any], object] | None = None,
        on_timeout_cancel: Callable[[Any], object] | None = None,
        threads: bool = True,
        semaphore: Any = None,
        putlocks: bool = False,
        allow_restart: bool = False,
        synack: bool = False,
        on_process_exit: Callable[[int, int], object] | None = None,
        context: Any = None,
        max_memory_per_child: float | None = None,
        enable_timeouts: bool = False,  # noqa: ARG002
        *,
        preload: Iterable[str] = (),
        serializer: Serializer = None,
        threads_per_worker: int | str | None = None,
        shared: Any = None,
        freeze: bool | None = None,
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        self._driven = not threads or is_overridden(self, "get_process_queues")
        self._ctx = context or get_context()
        if processes is None:
            processes = self.cpu_count() if self._driven else self._ctx.usable_cpu_count()
        # One that is driven may begin with none, and grow.
        self._processes: int = checked("processes", processes, 0 if self._driven else 1, int)
        self._maxtasksperchild = checked("maxtasksperchild", maxtasksperchild, 1, int)
        self._max_memory_per_child = checked("max_memory_per_child", max_memory_per_child, 0)
        self.timeout = checked("timeout", timeout, 0)
        self.soft_timeout = checked("soft_timeout", soft_timeout, 0)
        self.lost_worker_timeout = (
            checked("lost_worker_timeout", lost_worker_timeout, 0) or LOST_WORKER_TIMEOUT
        )
        limit = checked("max_restarts", max_restarts, 0, int)
        window = checked("max_restart_freq", max_restart_freq, 0) or 1
        for name, function in (("initializer", initializer), ("on_process_exit", on_process_exit)):
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be a callable, not {type(function).__name__}")
        self._initializer, self._initargs = initializer, tuple(initargs)
        self._on_process_exit = on_process_exit
        self.on_process_up, self.on_process_down = on_process_up, on_process_down
        self.on_timeout_set, self.on_timeout_cancel = on_timeout_set, on_timeout_cancel
        self.threads, self.synack = threads, synack
        self.allow_restart, self.enable_timeouts = allow_restart, True
        self.readers: dict[int, Any] = {}
        self.max_restarts = limit or round(self._processes * 100)
        self.restart_state = restart_state(limit, window)
        self._Process = self._ctx.Process
        self._serializer = serializer if serializer is not None else self._ctx._serializer
        self._environment = thread_limits(threads_per_worker, self._processes, self._ctx)
        self._preload = load_ahead(self._ctx, preload)
        self._freeze = self._driven if freeze is None else freeze
        if shared is not None:
            self._parcel = Parcel(shared, self._serializer)
        self._state = RUN
        self.putlocks = putlocks
        if self._driven:
            self._begin_driven(semaphore)
            return

        self._engine = _billiard.Engine(
            self._processes,
            tasks_per_worker=self._maxtasksperchild,
            max_restarts=limit or None,
            restart_window=float(window),
            terminate=int(TERM_SIGNAL),
            soft=int(SIG_SOFT_TIMEOUT),
            inspect=int(SIG_INSPECT),
            cpus=self._ctx.usable_cpu_count(),
            pickler=pickler_for(self._serializer),
            retries=self._start_retries,
        )
        self._setup_queues()
        self._taskqueue = TaskQueue(self._engine)
        self._cache = Cache(self._engine)
        self._closed = [False]
        self._open_books()
        self._putlock = semaphore or LaxBoundedSemaphore(self._processes)
        self._worker_handler = self.Supervisor(self)
        self._terminate = Finalize(
            self,
            end_pool,
            args=(self._engine, self._worker_handler, self._pool, self._closed, _origin(), self._parcel),
            exitpriority=15,
        )
        self._begin()

    def _worker_process(self, queues: tuple[Any, Any, Any], event: Any = None) -> Any:
        """Make a worker, and the process object that will run it."""
        worker = self.Worker(
            *queues,
            self._initializer,
            self._initargs,
            self._maxtasksperchild,
            event,
            self._on_process_exit,
            self.threads,
            self._wrap_exception,
            self._max_memory_per_child,
        )
        worker._preload, worker._serializer = self._preload, self._serializer
        worker._environment, worker._parcel = self._environment, self._parcel
        worker._seat = self._seat
        process = self.WorkerProcess(worker)
        process._environment = self._environment
        process._parcel = self._parcel
        if self._serializer is not None:
            # What a pair of functions makes of a call, it need not be able to make of a process object.
            process._serializer = self._serializer if isinstance(self._serializer, str) else None
        return process

    def _create_worker_process(self, i: int) -> Any:
        """Start one worker, with the index ``i``."""
        if self._driven:
            return self._create_driven_worker(i)
        return self._create_engine_worker(i)

    @property
    def process_sentinels(self) -> list[int]:
        """Descriptors that become readable when a worker ends."""
        return [worker._popen.sentinel for worker in self._pool]

    def _process_by_pid(self, pid: int) -> tuple[Any, int | None]:
        for index, worker in enumerate(self._pool):
            if worker.pid == pid:
                return worker, index
        return None, None

    def _setup_queues(self) -> None:
        """Set the queues that workers get. An engine has channels of its own."""
        if self._driven:
            self._setup_driven_queues()
        else:
            super()._setup_queues()

    # --- control ---

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.terminate()

    def close(self) -> None:
        """Accept no more jobs. Those that were accepted are finished, then the workers leave."""
        if self._driven:
            self._close_driven()
            return
        if self._state == RUN:
            self._state = CLOSE
            self._closed[0] = True
            self._putlock.clear()
            self._worker_handler.close()
            self._engine.close()

    def terminate(self) -> None:
        """End the pool now. Every job that has not ended fails with `Terminated`. Returns when it is over.

        Where the owner drives the pool those who wait for the jobs are told, but no callbacks are called:
        what becomes of the jobs is the owner's affair.
        """
        if self._driven:
            self._terminate_driven()
            return
        self._state = TERMINATE
        self._closed[0] = True
        self._putlock.clear()
        self._worker_handler.terminate()
        self._terminate()

    def join(self) -> None:
        """Wait until the workers are gone and all callbacks have run.

        Raises:
            AssertionError: The pool was neither closed nor terminated.
        """
        if self._driven:
            self._join_driven()
            return
        if self._state not in (CLOSE, TERMINATE):
            raise AssertionError("the pool must be closed or terminated before it is joined")
        if threading.current_thread() is self._worker_handler:
            return
        self._engine.join()
        self._worker_handler.stop()
        self._terminate.cancel()
        if self._parcel is not None:
            self._parcel.close()

    def restart(self) -> None:
        """Replace every worker, as soon as it has finished what it runs. One whose owner drives it, and that
        runs nothing, takes one more job.
        """
        if self._driven:
            self._restart_driven()
            return
        self._engine.renew()

    def grow(self, n: int = 1) -> None:
        """Add ``n`` workers."""
        checked("n", n, 0, int)
        if self._driven:
            self._grow_driven(n)
            return
        self._engine.grow(n)
        self._processes += n
        for _ in range(n):
            self._putlock.grow()
        self.on_grow(n)

    def shrink(self, n: int = 1) -> None:
        """Send ``n`` idle workers home: all of them, or none; as many as there are, where the owner drives
        the pool.

        Raises:
            ValueError: There are not so many idle workers.
        """
        checked("n", n, 0, int)
        if self._driven:
            self._shrink_driven(n)
            return
        pids = set(self._engine.shrink(n))
        self._processes -= n
        for process in list(self._pool):
            if process.pid in pids:
                process._controlled_termination = True
        for _ in range(n):
            self._putlock.shrink()
            self.on_shrink(1)

    def terminate_job(self, pid: int, sig: int | None = None) -> None:
        """Signal a worker. If it dies of it, the job that it runs fails with `Terminated`.

        Args:
            pid: Process id of the worker; another process is never touched.
            sig: The signal; the default asks it to terminate.
        """
        process, _ = self._process_by_pid(pid)
        if process is None:
            return
        if self._driven:
            self._terminate_job_driven(process, sig)
        else:
            process._controlled_termination = True
            process._job_terminated = True
            self._engine.end_job(pid, int(sig or TERM_SIGNAL))

    def maintain_pool(self) -> None:
        """Do nothing: the pool maintains itself. Where the owner drives it, reap and replace workers, once.

        Raises:
            RestartFreqExceeded: The pool is broken; one that its owner drives is closed then.
            MemoryError: There is no memory for another worker.
            OSError: The system cannot start another worker.
        """
        if self._driven:
            self._maintain_driven()
            return
        if self._state == RUN:
            self._refuse_if_broken()

    def did_start_ok(self) -> bool:
        """Tell whether no worker has ended since the last look."""
        if self._driven:
            return not self._join_exited_workers()
        exits, self._exits = self._exits, 0
        return exits == 0

    def cpu_count(self) -> int:
        """Return the number of processors, or 1 where it is unknown."""
        try:
            return cpu_count()
        except NotImplementedError:
            return 1

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")


def _origin() -> str:
    """Where in the program the pool is made."""
    here = os.path.dirname(__file__)
    ours = (here, os.path.join(here, "dummy"))
    frame = sys._getframe(1)
    while frame.f_back is not None and os.path.dirname(frame.f_code.co_filename) in ours:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def __getattr__(name: str) -> Any:
    # Made from the other pool, so it can only be had later.
    if name == "ThreadPool":
        from ._threadpool import ThreadPool

        return ThreadPool
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "ACK",
    "CLOSE",
    "DEATH",
    "EX_FAILURE",
    "EX_OK",
    "EX_RECYCLE",
    "GUARANTEE_MESSAGE_CONSUMPTION_RETRY_INTERVAL",
    "GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT",
    "LOST_WORKER_TIMEOUT",
    "MAXMEM_USED_FMT",
    "NACK",
    "READY",
    "RUN",
    "SIGKILL",
    "SIG_SOFT_TIMEOUT",
    "TASK",
    "TERMINATE",
    "TIMEOUT_MAX",
    "ApplyResult",
    "CoroStop",
    "IMapIterator",
    "IMapUnorderedIterator",
    "LaxBoundedSemaphore",
    "Lock",
    "MapResult",
    "MaybeEncodingError",
    "Pool",
    "PoolThread",
    "RestartFreqExceeded",
    "ResultHandler",
    "SoftTimeLimitExceeded",
    "Supervisor",
    "TaskHandler",
    "Terminated",
    "ThreadPool",
    "TimeLimitExceeded",
    "TimeoutError",
    "TimeoutHandler",
    "Worker",
    "WorkerLostError",
    "WorkersJoined",
    "job_counter",
    "mapstar",
    "shared",
    "soft_timeout_sighandler",
    "starmapstar",
    "stop_if_not_current",
]
