"""A pool of worker processes, with time limits and exact knowledge of what became of every job.

The work is done by the engine in `billiard._billiard`. This module has the names, the hooks that subclasses
override, and the one service thread that does what needs the interpreter: callbacks, and starting workers.
"""

from __future__ import annotations

import os
import signal
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from . import _billiard, _tasks
from ._billiard import ApplyResult, IMapIterator, IMapUnorderedIterator, MapResult
from ._tasks import MAXMEM_USED_FMT, MaybeEncodingError
from ._worker import (
    EX_FAILURE,
    EX_OK,
    EX_RECYCLE,
    SIG_INSPECT,
    SIG_SOFT_TIMEOUT,
    Worker,
    soft_timeout_sighandler,
)
from .common import TERM_SIGNAL, human_status, restart_state
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
from .util import Finalize, error, get_logger

RUN = 0
CLOSE = 1
TERMINATE = 2

ACK = 0
READY = 1
TASK = 2
NACK = 3
DEATH = 4

LOST_WORKER_TIMEOUT = 10.0
TIMEOUT_MAX = threading.TIMEOUT_MAX
SIGKILL = signal.SIGKILL
Lock = threading.Lock

cpu_count = _default_context.cpu_count
get_context = _default_context.get_context

_EXPECTED_EXITS = (EX_OK, EX_RECYCLE)


def mapstar(args: tuple[Any, ...]) -> list[Any]:
    """Call ``args[0]`` with the items of the other sequences, as `map` does."""
    return list(map(*args))


def starmapstar(args: tuple[Callable[..., Any], Iterable[Any]]) -> list[Any]:
    """Call ``args[0]`` with each item of ``args[1]`` as its arguments."""
    return [args[0](*item) for item in args[1]]


class WorkersJoined(Exception):
    """All workers have terminated."""


class LaxBoundedSemaphore(threading.Semaphore):
    """A semaphore that ignores a release above its initial value.

    Args:
        value: How many may hold it.
        verbose: Ignored.
    """

    _value: int
    _cond: threading.Condition

    def __init__(self, value: int = 1, verbose: object = None) -> None:  # noqa: ARG002
        super().__init__(value)
        self._initial_value = value

    def grow(self) -> None:
        """Let one more hold it."""
        with self._cond:
            self._initial_value += 1
            self._value += 1
            self._cond.notify()

    def shrink(self) -> None:
        """Let one less hold it. If all are held, the next release does not free one."""
        with self._cond:
            self._initial_value -= 1
            self._value = min(self._value, self._initial_value)

    def release(self, n: int = 1) -> None:
        """Give back, unless nothing was taken."""
        with self._cond:
            if self._value < self._initial_value:
                freed = min(n, self._initial_value - self._value)
                self._value += freed
                self._cond.notify(freed)

    def clear(self) -> None:
        """Give everything back."""
        with self._cond:
            freed = max(self._initial_value - self._value, 0)
            self._value += freed
            self._cond.notify(freed)


class _Cache(Mapping[int, Any]):
    """The jobs of a pool that have not ended, by number."""

    def __init__(self, engine: _billiard.Engine) -> None:
        self._engine = engine

    def __getitem__(self, job: int) -> Any:
        for handle in self._engine.handles():
            if handle._job == job:
                return handle
        raise KeyError(job)

    def __iter__(self) -> Iterator[int]:
        return iter([handle._job for handle in self._engine.handles()])

    def __len__(self) -> int:
        return len(self._engine.handles())


class _TaskQueue:
    """The tasks that no worker has been given."""

    def __init__(self, engine: _billiard.Engine) -> None:
        self._engine = engine

    def qsize(self) -> int:
        return self._engine.load()[1]

    def empty(self) -> bool:
        return self.qsize() == 0


class PoolThread(threading.Thread):
    """A daemon thread of a pool.

    Attributes:
        _state: `RUN`, `CLOSE` or `TERMINATE`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._state = RUN
        self._was_started = False
        self.daemon = True

    def run(self) -> None:
        """Run `body`; what it raises is logged and ends the thread, never the process."""
        try:
            self.body()
        except Exception as exc:
            _tasks.log_error("Thread %r crashed: %r", type(self).__name__, exc)

    def body(self) -> None:
        """What the thread does."""

    def start(self, *args: Any, **kwargs: Any) -> None:
        """Start the thread."""
        self._was_started = True
        super().start(*args, **kwargs)

    def on_stop_not_started(self) -> None:
        """Called by `stop` instead of waiting if the thread was never started."""

    def stop(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended."""
        if self._was_started:
            stop_if_not_current(self, timeout)
        else:
            self.on_stop_not_started()

    def terminate(self) -> None:
        """Note that the pool is terminating."""
        self._state = TERMINATE

    def close(self) -> None:
        """Note that the pool is closed."""
        self._state = CLOSE


def stop_if_not_current(thread: threading.Thread, timeout: float | None = None) -> None:
    """Wait for a thread, unless it is the calling one."""
    if thread is not threading.current_thread():
        thread.join(timeout)


class Supervisor(PoolThread):
    """Does what the engine cannot do without the interpreter: starts workers, calls callbacks, in order.

    Args:
        pool: The pool. It is not kept alive.
    """

    def __init__(self, pool: Pool) -> None:
        super().__init__(name="billiard-service")
        self._engine = pool._engine
        self._pool = weakref.ref(pool)

    def body(self) -> None:
        """Handle events until the pool is over."""
        while True:
            event = self._engine.next_event()
            if event is None:
                continue
            if event[0] == "over":
                return
            pool = self._pool()
            if pool is not None:
                pool._handle(event)
            elif event[0] == "start":
                self._engine.not_started(event[1], event[2])
            # The loop may sleep for long: it must not keep a pool or a result alive meanwhile.
            del event, pool


def _end_pool(engine: _billiard.Engine, supervisor: Supervisor, closed: list[bool], origin: str) -> None:
    """End a pool that was collected, or that is still there when the interpreter exits."""
    if not closed[0] and origin:
        warnings.warn(f"unclosed pool, made at {origin}", ResourceWarning, stacklevel=2)
    engine.terminate()
    if threading.current_thread() is not supervisor:
        engine.join()
        supervisor.stop()


def _checked(name: str, value: Any, least: float | None, kind: Any = (int, float)) -> Any:
    """Refuse what is no number, or too small."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, kind):
        wanted = "an int" if kind is int else "an int or float"
        raise TypeError(f"{name} must be {wanted}, not {type(value).__name__} (got {value!r})")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
    return value


class Pool:
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
        threads: False: the owner drives the pool.
        semaphore: Used as put lock instead of a `LaxBoundedSemaphore`.
        putlocks: Default for ``waitforslot`` of `apply_async`.
        allow_restart: Accepted; `restart` always works.
        synack: Accepted; has an effect only for pools with queues of their own.
        on_process_exit: Called with process id and exit code in each worker just before it ends.
        context: Makes the processes; the default is the default context.
        max_memory_per_child: Replace a worker that has more than so many KiB resident after a job.
        enable_timeouts: Accepted; limits are always enforced.
        **kwargs: Ignored, since programs rely on it.

    Raises:
        TypeError: A number is none, or a callable cannot be called.
        ValueError: A number is too small.

    Source: billiard 4.2.1 ``Pool``. Different here: see the package's list of differences.
    """

    Worker = Worker
    Supervisor = Supervisor
    SoftTimeLimitExceeded = SoftTimeLimitExceeded
    _wrap_exception = True

    def __init__(  # noqa: PLR0915
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
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        if not threads:
            raise NotImplementedError("pools that their owner drives (threads=False) are not available yet")
        self._ctx = context or get_context()
        if processes is None:
            processes = self._ctx.usable_cpu_count()
        self._processes: int = _checked("processes", processes, 1, int)
        self._maxtasksperchild = _checked("maxtasksperchild", maxtasksperchild, 1, int)
        self._max_memory_per_child = _checked("max_memory_per_child", max_memory_per_child, 0)
        self.timeout = _checked("timeout", timeout, 0)
        self.soft_timeout = _checked("soft_timeout", soft_timeout, 0)
        self.lost_worker_timeout = (
            _checked("lost_worker_timeout", lost_worker_timeout, 0) or LOST_WORKER_TIMEOUT
        )
        limit = _checked("max_restarts", max_restarts, 0, int)
        window = _checked("max_restart_freq", max_restart_freq, 0) or 1
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

        self._engine = _billiard.Engine(
            self._processes,
            tasks_per_worker=self._maxtasksperchild,
            max_restarts=limit or None,
            restart_window=float(window),
            terminate=int(TERM_SIGNAL),
            soft=int(SIG_SOFT_TIMEOUT),
            inspect=int(SIG_INSPECT),
            cpus=self._ctx.usable_cpu_count(),
        )
        self._setup_queues()
        self._taskqueue = _TaskQueue(self._engine)
        self._cache = _Cache(self._engine)
        self._state = RUN
        self._broken: str | None = None
        self._closed = [False]
        self._pool: list[Any] = []
        self._by_seat: dict[tuple[int, int], Any] = {}
        self._poolctrl: dict[int, Any] = {}
        self._on_ready_counters: dict[int, Any] = {}
        self._exits = 0
        self.putlocks = putlocks
        self._putlock = semaphore or LaxBoundedSemaphore(self._processes)
        self._worker_handler = self.Supervisor(self)
        self._terminate = Finalize(
            self,
            _end_pool,
            args=(self._engine, self._worker_handler, self._closed, _origin()),
            exitpriority=15,
        )
        try:
            for _ in range(self._processes):
                event = self._engine.next_event(0)
                if event is None:
                    break
                self._handle(event)
        except BaseException:
            self._abandon()
            raise
        self._engine.run()
        self._worker_handler.start()

    def _abandon(self) -> None:
        """Take back a construction that has failed half-way."""
        self._closed[0] = True
        self._terminate.cancel()
        for process in self._pool:
            process.kill()
            process.join()

    # --- hooks for subclasses ---

    def _setup_queues(self) -> None:
        """Set the queues that workers get. The engine has channels of its own."""
        self._inqueue = self._outqueue = None
        self._quick_put = self._quick_get = self._poll_result = None

    def Process(self, *args: Any, **kwds: Any) -> Any:
        """Make a process object."""
        return self._Process(*args, **kwds)

    def WorkerProcess(self, worker: Any) -> Any:
        """Make the process object that will run a worker."""
        return worker.contribute_to_object(self.Process(target=worker))

    def get_process_queues(self) -> tuple[Any, Any, Any]:
        """Return the queues of the next worker: jobs, results, confirmations."""
        return self._inqueue, self._outqueue, None

    def _process_register_queues(self, worker: Any, queues: tuple[Any, Any, Any]) -> None:
        """Called with each worker's process object before it is started."""

    def process_flush_queues(self, worker: Any) -> None:
        """Called with the process object of a worker that has ended, first of all."""

    def _process_cleanup_queues(self, worker: Any) -> None:
        """Called with the process object of a worker that has ended, before `on_process_down`."""

    def on_job_ready(self, job: int, i: int | None, obj: Any, inqW_fd: Any) -> None:
        """Called for each job that has ended, before its callbacks."""

    def on_job_process_down(self, job: Any, pid_gone: int) -> None:
        """Called for a job whose worker has ended."""

    def on_job_process_lost(self, job: Any, pid: int, exitcode: int) -> None:
        """Called for a job that was lost with its worker."""

    def on_grow(self, n: int) -> None:
        """Called when the pool has grown."""

    def on_shrink(self, n: int) -> None:
        """Called when the pool has shrunk."""

    # --- workers ---

    def _avail_index(self) -> int:
        taken = {worker.index for worker in self._pool}
        return next(index for index in range(len(taken) + 1) if index not in taken)

    def _create_worker_process(self, i: int) -> Any:
        """Start one worker, with the index ``i``."""
        queues = self.get_process_queues()
        worker = self.Worker(
            *queues,
            self._initializer,
            self._initargs,
            self._maxtasksperchild,
            None,
            self._on_process_exit,
            self.threads,
            self._wrap_exception,
            self._max_memory_per_child,
        )
        worker._seat = self._seat
        process = self.WorkerProcess(worker)
        self._pool.append(process)
        self._process_register_queues(process, queues)
        process.name = process.name.replace("Process", "PoolWorker")
        process.daemon = True
        process.index = i
        try:
            process.start()
        except BaseException:
            self._pool.remove(process)
            raise
        finally:
            # The worker has it; kept here, its descriptors would be inherited by the next one.
            worker._seat = None
        self._poolctrl[process.pid] = None
        self._call(self.on_process_up, process)
        return process

    def _start_worker(self, seat: int, generation: int) -> None:
        try:
            self._seat = place = self._engine.seat(seat, generation)
            process = self._create_worker_process(self._avail_index())
        except BaseException:
            self._engine.not_started(seat, generation)
            raise
        finally:
            self._seat = None
        self._by_seat[seat, generation] = process
        self._engine.started(place, process._popen._child, process.name)

    def _worker_ended(self, seat: int, generation: int, pid: int, exitcode: int) -> None:
        self._exits += 1
        process = self._by_seat.pop((seat, generation), None)
        if process is None:
            return
        process.join()
        self._poolctrl.pop(pid, None)
        if (
            exitcode not in _EXPECTED_EXITS
            and not process._controlled_termination
            and self._state != TERMINATE
        ):
            get_logger()
            error("Process %r pid:%r exited with %r", process.name, pid, human_status(exitcode))
        self._call(self.process_flush_queues, process)
        self._pool.remove(process)
        self._call(self._process_cleanup_queues, process)
        self._call(self.on_process_down, process)

    @property
    def process_sentinels(self) -> list[int]:
        """Descriptors that become readable when a worker ends."""
        return [worker._popen.sentinel for worker in self._pool]

    def _process_by_pid(self, pid: int) -> tuple[Any, int | None]:
        for index, worker in enumerate(self._pool):
            if worker.pid == pid:
                return worker, index
        return None, None

    # --- events, on the service thread ---

    def _handle(self, event: tuple[Any, ...]) -> None:
        """Handle one event of the engine. Whatever goes wrong in it, the next one is handled too."""
        try:
            _HANDLERS[event[0]](self, *event[1:])
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

    def _on_exited(self, seat: int, generation: int, pid: int, exitcode: int, last_words: str | None) -> None:
        if last_words and exitcode not in _EXPECTED_EXITS:
            self._last_words = last_words
        self._worker_ended(seat, generation, pid, exitcode)

    def _on_broke(self) -> None:
        self._broken = getattr(self, "_last_words", "")

    def _on_done(self, handle: Any) -> None:
        self._call(self.on_timeout_cancel, handle)
        if handle._holds_slot:
            self._putlock.release()
        success, value = handle._success, handle._value
        self._call(self.on_job_ready, handle._job, None, (success, value), None)
        self._call(handle._callback if success else handle._error_callback, value)
        if handle._limit_passed is not None:
            self._call(handle._timeout_callback, soft=False, timeout=handle._limit_passed)

    def _on_accepted(self, handle: Any, pid: int, accepted: float) -> None:
        self._call(self.on_timeout_set, handle, handle._soft_timeout, handle._timeout)
        self._call(handle._accept_callback, pid, accepted)

    def _on_soft_limit(self, handle: Any, limit: float) -> None:
        self._call(handle._timeout_callback, soft=True, timeout=limit)

    # --- submitting ---

    def apply(self, func: Callable[..., Any], args: Any = (), kwds: Any = {}) -> Any:  # noqa: B006
        """Call a function in a worker and wait for what it returns."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Any = (),
        kwds: Any = {},  # noqa: B006
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[Any], object] | None = None,
        accept_callback: Callable[[int, float], object] | None = None,
        timeout_callback: Callable[..., object] | None = None,
        waitforslot: bool | None = None,
        soft_timeout: float | None = None,
        timeout: float | None = None,
        lost_worker_timeout: float | None = None,
        callbacks_propagate: Any = (),
        correlation_id: Any = None,
    ) -> Any:
        """Call a function in a worker.

        Args:
            func: The function.
            args: Its positional arguments.
            kwds: Its keyword arguments.
            callback: Called with the value.
            error_callback: Called with the `ExceptionInfo` of a failure.
            accept_callback: Called with ``(pid, time)`` when a worker begins; the time is that of the
                monotonic clock.
            timeout_callback: Called with the keywords ``soft`` and ``timeout`` when a limit passes.
            waitforslot: Wait until the pool's put lock has a free slot; the default is ``putlocks``.
            soft_timeout: Soft limit in seconds; 0 for none, ``None`` for the pool's.
            timeout: Hard limit likewise.
            lost_worker_timeout: Accepted; the loss of a worker is known at once.
            callbacks_propagate: Exception classes; kept with the job.
            correlation_id: Anything; kept with the job.

        Returns:
            An `ApplyResult`.

        Raises:
            ValueError: The pool is closed.
            RestartFreqExceeded: The pool is broken.
        """
        slot = self.putlocks if waitforslot is None else waitforslot
        if slot:
            self._putlock.acquire()
        try:
            return self._engine.submit(
                self,
                func,
                args,
                kwds,
                callback,
                error_callback,
                accept_callback,
                timeout_callback,
                self.soft_timeout if soft_timeout is None else soft_timeout,
                self.timeout if timeout is None else timeout,
                lost_worker_timeout,
                callbacks_propagate,
                correlation_id,
                slot,
                self._wants_everything(),
            )
        except ValueError:
            if slot:
                self._putlock.release()
            self._refuse_if_broken()
            raise

    def _wants_everything(self) -> bool:
        """Whether somebody wants to hear of every job."""
        return bool(
            self.on_timeout_set or self.on_timeout_cancel or type(self).on_job_ready is not Pool.on_job_ready
        )

    def _refuse_if_broken(self) -> None:
        if self._engine.phase() == "broken":
            raise _tasks.broken_pool(self._broken or getattr(self, "_last_words", "")) from None

    def map(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[Any]:
        """Call a function with each item and wait for the list of what it returns."""
        return self.map_async(func, iterable, chunksize).get()  # type: ignore[no-any-return]

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Any]:
        """Like `map`, but an item holds the positional arguments."""
        return self.starmap_async(func, iterable, chunksize).get()  # type: ignore[no-any-return]

    def map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[Any], object] | None = None,
    ) -> Any:
        """Call a function with each item.

        Args:
            func: The function.
            iterable: The items.
            chunksize: How many items travel together; the default makes four chunks per worker.
            callback: Called with the list of values.
            error_callback: Called with the `ExceptionInfo` of the first failure.

        Returns:
            A `MapResult`.

        Raises:
            ValueError: The pool is closed, or ``chunksize`` is below 1.
        """
        return self._map_async(func, iterable, mapstar, chunksize, callback, error_callback)

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[Any], object] | None = None,
    ) -> Any:
        """Like `map_async`, but an item holds the positional arguments."""
        return self._map_async(func, iterable, starmapstar, chunksize, callback, error_callback)

    def _map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        mapper: Callable[..., Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[Any], object] | None = None,
    ) -> Any:
        items = iterable if isinstance(iterable, list) else list(iterable)
        chunksize = _checked("chunksize", chunksize, 1, int)
        if chunksize is None:
            chunksize = max(-(-len(items) // (4 * self._processes)), 1)
        try:
            return self._engine.submit_map(
                self,
                func,
                items,
                chunksize,
                mapper is starmapstar,
                callback,
                error_callback,
                self.soft_timeout,
                self.timeout,
                self.lost_worker_timeout,
                self._wants_everything(),
            )
        except ValueError:
            self._refuse_if_broken()
            raise

    def imap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        lost_worker_timeout: float | None = None,
        *,
        buffersize: int | None = None,
    ) -> Any:
        """Call a function with each item; the results come one by one, in the order of the items.

        Args:
            func: The function.
            iterable: The items. They are taken as they are needed, by a thread of their own.
            chunksize: How many items travel together.
            lost_worker_timeout: Accepted; the loss of a worker is known at once.
            buffersize: How many chunks may be on their way, or done and not taken, at once; the default is
                16 per worker. A closed pool takes the rest of the items at once.

        Returns:
            An `IMapIterator`. What a task, or the iterable, raises is raised at its position.
        """
        return self._imap(func, iterable, chunksize, lost_worker_timeout, buffersize, ordered=True)

    def imap_unordered(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        lost_worker_timeout: float | None = None,
        *,
        buffersize: int | None = None,
    ) -> Any:
        """Like `imap`, but the results come as they are ready."""
        return self._imap(func, iterable, chunksize, lost_worker_timeout, buffersize, ordered=False)

    def _imap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int,
        lost_worker_timeout: float | None,
        buffersize: int | None,
        *,
        ordered: bool,
    ) -> Any:
        _checked("chunksize", chunksize, 1, int)
        _checked("buffersize", buffersize, 1, int)
        window = buffersize or 16 * self._processes
        try:
            iterator, feeder = self._engine.submit_stream(
                self,
                func,
                iter(iterable),
                chunksize,
                window,
                ordered,
                self.soft_timeout,
                self.timeout,
                lost_worker_timeout,
            )
        except ValueError:
            self._refuse_if_broken()
            raise
        threading.Thread(target=feeder.run, name="billiard-feeder", daemon=True).start()
        return iterator

    # --- control ---

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.terminate()

    def close(self) -> None:
        """Accept no more jobs. Those that were accepted are finished, then the workers leave."""
        if self._state == RUN:
            self._state = CLOSE
            self._closed[0] = True
            self._putlock.clear()
            self._worker_handler.close()
            self._engine.close()

    def terminate(self) -> None:
        """End the pool now. Every job that has not ended fails with `Terminated`. Returns when it is over."""
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
        if self._state not in (CLOSE, TERMINATE):
            raise AssertionError("the pool must be closed or terminated before it is joined")
        if threading.current_thread() is self._worker_handler:
            return
        self._engine.join()
        self._worker_handler.stop()
        self._terminate.cancel()

    def restart(self) -> None:
        """Replace every worker, as soon as it has finished what it runs."""
        self._engine.renew()

    def grow(self, n: int = 1) -> None:
        """Add ``n`` workers."""
        _checked("n", n, 0, int)
        self._engine.grow(n)
        self._processes += n
        for _ in range(n):
            self._putlock.grow()
        self.on_grow(n)

    def shrink(self, n: int = 1) -> None:
        """Send ``n`` idle workers home: all of them, or none.

        Raises:
            ValueError: There are not so many idle workers.
        """
        _checked("n", n, 0, int)
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
        if process is not None:
            process._controlled_termination = True
            process._job_terminated = True
            self._engine.end_job(pid, int(sig or TERM_SIGNAL))

    def maintain_pool(self) -> None:
        """Do nothing: the pool maintains itself.

        Raises:
            RestartFreqExceeded: The pool is broken.
        """
        if self._state == RUN:
            self._refuse_if_broken()

    def did_start_ok(self) -> bool:
        """Tell whether no worker has ended since the last look."""
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


_HANDLERS: dict[str, Callable[..., None]] = {
    "start": Pool._start_worker,
    "up": Pool._on_up,
    "exited": Pool._on_exited,
    "done": Pool._on_done,
    "accepted": Pool._on_accepted,
    "soft": Pool._on_soft_limit,
    "broke": Pool._on_broke,
}


def _origin() -> str:
    """Where in the program the pool is made."""
    import sys

    here = os.path.dirname(__file__)
    frame = sys._getframe(1)
    while frame.f_back is not None and os.path.dirname(frame.f_code.co_filename) == here:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


__all__ = [
    "ACK",
    "CLOSE",
    "DEATH",
    "EX_FAILURE",
    "EX_OK",
    "EX_RECYCLE",
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
    "SoftTimeLimitExceeded",
    "Supervisor",
    "Terminated",
    "TimeLimitExceeded",
    "TimeoutError",
    "Worker",
    "WorkerLostError",
    "WorkersJoined",
    "mapstar",
    "soft_timeout_sighandler",
    "starmapstar",
    "stop_if_not_current",
]
