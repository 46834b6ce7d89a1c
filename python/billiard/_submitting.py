"""Taking work: `apply`, `map`, `imap` and their variants."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from typing import Any

from . import _billiard, _tasks
from ._hooks import Hooks, is_overridden

#: The hooks that are called for jobs.
JOB_HOOKS = ("on_job_ready", "on_job_process_down", "on_job_process_lost")
_HEARS_OF_JOBS = {"on_timeout_set", "on_timeout_cancel", *JOB_HOOKS}


def mapstar(args: tuple[Any, ...]) -> list[Any]:
    """Call ``args[0]`` with the items of the other sequences, as `map` does."""
    return list(map(*args))


def starmapstar(args: tuple[Callable[..., Any], Iterable[Any]]) -> list[Any]:
    """Call ``args[0]`` with each item of ``args[1]`` as its arguments."""
    return [args[0](*item) for item in args[1]]


def checked(name: str, value: Any, least: float | None, kind: Any = (int, float)) -> Any:
    """Refuse what is no number, or too small."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, kind):
        wanted = "an int" if kind is int else "an int or float"
        raise TypeError(f"{name} must be {wanted}, not {type(value).__name__} (got {value!r})")
    if math.isnan(value):
        raise ValueError(f"{name} must be a number, not nan")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
    return value


class Submitting(Hooks):
    """The half of a pool that takes work."""

    _engine: _billiard.Engine
    _putlock: Any
    _processes: int
    putlocks: bool
    timeout: float | None
    soft_timeout: float | None
    lost_worker_timeout: float
    on_timeout_set: Callable[[Any, Any, Any], object] | None
    on_timeout_cancel: Callable[[Any], object] | None
    _driven: bool
    _submit_driven: Callable[..., Any]
    _map_driven: Callable[..., Any]
    _imap_driven: Callable[..., Any]
    #: Whether somebody wants to hear of every job.
    _hears_of_jobs: bool

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
        if self._driven:
            return self._submit_driven(
                func,
                args,
                kwds,
                callback,
                error_callback,
                accept_callback,
                timeout_callback,
                waitforslot,
                soft_timeout,
                timeout,
                lost_worker_timeout,
                callbacks_propagate,
                correlation_id,
            )
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
                self._hears_of_jobs,
            )
        except BaseException as error:
            if slot:
                self._putlock.release()
            if isinstance(error, ValueError):
                self._refuse_if_broken()
            raise

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
        if name in _HEARS_OF_JOBS:
            # Known beforehand, since it is asked for each job.
            hears = any(getattr(self, attr, None) for attr in ("on_timeout_set", "on_timeout_cancel"))
            object.__setattr__(self, "_hears_of_jobs", hears or is_overridden(self, *JOB_HOOKS))

    def _refuse_if_broken(self) -> None:
        if self._engine.phase() == "broken":
            error = _tasks.broken_pool(self._engine.start_error())
            raise error from error.__cause__

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
        chunksize = checked("chunksize", chunksize, 1, int)
        if chunksize is None:
            # A pool that was shrunk to nothing keeps its jobs until it grows.
            chunksize = max(-(-len(items) // (4 * max(self._processes, 1))), 1)
        if self._driven:
            return self._map_driven(func, items, mapper, chunksize, callback, error_callback)
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
                self._hears_of_jobs,
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
        checked("chunksize", chunksize, 1, int)
        checked("buffersize", buffersize, 1, int)
        if self._driven:
            return self._imap_driven(func, iterable, chunksize, lost_worker_timeout, mapstar, ordered=ordered)
        window = buffersize or 16 * max(self._processes, 1)
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


for _public in (mapstar, starmapstar):
    _public.__module__ = "billiard.pool"
