"""The thread that does what the engine cannot do without the interpreter."""

from __future__ import annotations

import threading
import warnings
import weakref
from typing import TYPE_CHECKING, Any

from . import _billiard, _tasks
from ._billiard import wait
from .dummy import DummyProcess
from .einfo import ExceptionInfo

if TYPE_CHECKING:
    from ._given import Parcel
    from .pool import Pool

RUN = 0
CLOSE = 1
TERMINATE = 2

#: Seconds after which a pool without an engine looks whether it is to have more workers.
_LOOK = 0.1


class PoolThread(DummyProcess):
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
        super().start(*args, **kwargs)
        self._was_started = True

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
        self._engine = getattr(pool, "_engine", None)
        self._pool = weakref.ref(pool)
        #: The workers of a pool that was collected on this thread, which cannot wait for its end meanwhile.
        self._left: list[Any] = []

    def body(self) -> None:
        """Handle events until the pool is over."""
        if self._engine is None:
            self._maintain()
            return
        while True:
            event = self._engine.next_event()
            if event is None:
                continue
            if event[0] == "over":
                for worker in self._left:
                    worker.join()
                return
            pool = self._pool()
            if pool is not None:
                pool._handle(event)
            elif event[0] == "start":
                self._engine.not_started(event[1], event[2])
            # The loop may sleep for long: it must not keep a pool or a result alive meanwhile.
            del event, pool

    def _maintain(self) -> None:
        """Reap and replace the workers of a pool that has threads, but queues of its own and no engine."""
        while self._state == RUN:
            pool = self._pool()
            if pool is None:
                return
            try:
                pool.maintain_pool()
            except Exception as exc:
                _tasks.log_error("Pool could not maintain its workers: %r", exc)
                # There is nobody left to run them.
                for job in list(pool._cache.values()):
                    job._set(None, (False, ExceptionInfo((type(exc), exc, exc.__traceback__))))
                    job.discard()
                return
            sentinels = pool.process_sentinels
            del pool
            wait(sentinels, _LOOK)


def end_pool(
    engine: _billiard.Engine,
    supervisor: Supervisor,
    workers: list[Any],
    closed: list[bool],
    origin: str,
    parcel: Parcel | None = None,
) -> None:
    """End a pool that was collected, or that is still there when the interpreter exits."""
    try:
        if not closed[0] and origin:
            warnings.warn(f"unclosed pool, made at {origin}", ResourceWarning, stacklevel=2)
    finally:
        # Where warnings are errors, too: nobody else would end it.
        engine.terminate()
        if threading.current_thread() is not supervisor:
            engine.join()
            supervisor.stop()
            # What the supervisor has not seen to, since there was no pool any more.
            for worker in list(workers):
                worker.join()
        else:
            supervisor._left = list(workers)
        if parcel is not None:
            parcel.close()


for _public in (PoolThread, Supervisor, stop_if_not_current):
    _public.__module__ = "billiard.pool"
