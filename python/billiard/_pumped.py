"""A pool that its owner drives, on the thread of an event loop."""

from __future__ import annotations

from . import _billiard, _tasks
from .pool import RUN, Pool
from .util import error, get_logger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any


class PumpedPool(Pool):
    """A pool without threads of its own: callbacks, time limits and lost workers are seen to by `pump`.

    The owner watches one descriptor, `fileno`, and calls `pump` when it is readable; everything that the pool
    has to say is said then, on that thread. Replacements of workers are forked there, too. Nobody waits for a
    place in the queue: the put lock is only given back, once for each job that ends. If no worker can be
    started any more, `pump` raises `RestartFreqExceeded`, and nothing is told of the jobs that wait.

    Args:
        processes: Number of workers; the default is the number of usable processors.
        semaphore: Its ``release`` is called for each job that has ended, just before the job's callbacks.
        threads: Accepted; there are none.
        kwargs: As for `Pool`.
    """

    #: Made last, when there are workers.
    _pump: _billiard.Pump
    _over = False
    #: Whether the first argument of each job is its name.
    _named = False

    def __init__(
        self, processes: int | None = None, *, semaphore: Any = None, threads: bool = False, **kwargs: Any
    ) -> None:
        del threads
        self._release = None if semaphore is None else semaphore.release
        super().__init__(processes, semaphore=semaphore, threads=True, **kwargs)

    def _begin(self) -> None:
        # As long as it is not set, workers would take over more signals than the owner uses.
        self.threads = False
        try:
            for _ in range(self._processes):
                event = self._engine.next_event(0)
                if event is None:
                    break
                super()._handle(event)
            self._pump = _billiard.Pump(self._engine)
        except BaseException:
            self._abandon()
            raise

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to do."""
        return self._pump.fileno()

    def pump(self) -> int:
        """Do what is due, and call whoever wants to hear of it. Never waits.

        Returns:
            How many events there were; jobs that began or ended, and workers.

        Raises:
            RestartFreqExceeded: The workers cannot be started; the pool is broken.
            BaseException: What a callback has raised that is not to be logged: no `Exception`, or a
                `MemoryError`, or one of the job's ``callbacks_propagate``.
        """
        return self._pump.pump(self._handle, self._release, self._settle)

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Any = (),
        kwds: Any = {},  # noqa: B006
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[Any], object] | None = None,
        accept_callback: Callable[[int, float], object] | None = None,
        timeout_callback: Callable[..., object] | None = None,
        waitforslot: bool | None = None,  # noqa: ARG002
        soft_timeout: float | None = None,
        timeout: float | None = None,
        lost_worker_timeout: float | None = None,
        callbacks_propagate: Any = (),
        correlation_id: Any = None,
    ) -> Any:
        """Call a function in a worker; see `Pool.apply_async`.

        Returns:
            An `ApplyResult`; ``None`` if the pool is closed.
        """
        if self._state != RUN:
            return None
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
            False,
            False,
            args[0] if self._named and args else None,
        )

    def withdraw(self, results: Iterable[Any] | None = None) -> list[Any]:
        """Take jobs back that no worker has begun. They do not run, and none of their callbacks is called.

        Args:
            results: What `apply_async` has returned; ``None`` takes back all jobs.

        Returns:
            The results of the jobs that were taken back.
        """
        withdrawn = self._pump.withdraw(None if results is None else list(results))
        if self._release is not None:
            for _ in withdrawn:
                self._release()
        return withdrawn

    def did_start_ok(self) -> bool:
        """Tell whether no worker has ended since the last look."""
        self.pump()
        return super().did_start_ok()

    def join(self) -> None:
        """Drive the pool until the workers are gone and all callbacks have run.

        Raises:
            AssertionError: The pool was neither closed nor terminated.
        """
        if self._state == RUN:
            raise AssertionError("the pool must be closed or terminated before it is joined")
        at_most = self._on_pumped()
        while not self._over:
            self._pump.wait(at_most)
            self.pump()
            at_most = self._on_pumped()
        self._terminate.cancel()
        if self._parcel is not None:
            self._parcel.close()

    def terminate(self) -> None:
        """End the pool now. What has ended is told; of the other jobs nobody hears any more."""
        if not self._over:
            self.pump()
        super().terminate()
        self._pump.forget()
        self._over = True

    def _handle(self, event: tuple[Any, ...]) -> None:
        if event[0] == "over":
            self._over = True
        elif event[0] == "overdue":
            self._on_overdue(*event[1:])
        elif event[0] == "broke":
            # The owner hears of it once, and not of each job.
            self._pump.forget()
            self._refuse_if_broken()
        else:
            try:
                super()._handle(event)
            except Exception as exc:
                _tasks.log_error("Pool could not handle %r: %r", event[0], exc)

    def _call(self, function: Callable[..., object] | None, *args: Any, **kwargs: Any) -> None:
        try:
            super()._call(function, *args, **kwargs)
        except Exception as exc:
            _tasks.log_error("Pool callback raised exception: %r", exc)

    def _on_pumped(self) -> float | None:
        """Called between waits while the pool is joined.

        Returns:
            How many seconds the next wait may take; ``None``: as long as nothing happens.
        """
        return None

    def _on_overdue(self, handle: Any, stack: str | None) -> None:
        """Called for a job that has passed its hard limit, with the stack of its worker, if it is known."""
        if stack:
            get_logger()
            error(
                "Job %s was here when its time limit passed:\n%s", handle.correlation_id or handle._job, stack
            )
