"""A pool for Celery on this package's own engine.

Choose it with Celery's setting for pools of others::

    CELERY_CUSTOM_WORKER_POOL=billiard.contrib.celery:TaskPool celery -A app worker -P custom

Tasks go to the workers through shared memory, and the worker's event loop watches one descriptor for
everything that comes back. Signals, process initializers, time limits, remote control and acknowledgements
are those of Celery's prefork pool, of which this is a subclass. ``docs/celery-pool.md`` tells more.
"""

from __future__ import annotations

import gc
import inspect
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.concurrency import prefork
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.request import Request

from .. import pool
from .._billiard import pool_figures
from .._pumped import PumpedPool
from .._tasks import raisable
from ..einfo import ExceptionInfo
from ..exceptions import WorkerLostError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TaskPool"]

logger = get_logger(__name__)

#: Celery 5.5 has only one way to cancel a request.
_TELLS_OF_RETRIES = "emit_retry" in inspect.signature(Request.cancel).parameters

#: Sends the acknowledgements that the event loop would; before 5.7 they wait until it is closed.
_acknowledge = getattr(prefork, "_run_ready_callbacks", None)

#: Where a worker's stack leaves the task.
_LOOP = " in workloop"


class Worker(pool.Worker):
    """What runs in the worker processes."""

    def after_fork(self) -> None:
        """Make the process a worker."""
        # What was inherited is not garbage, and looking at it would copy it, page by page.
        gc.freeze()
        super().after_fork()


class _CeleryPool(pool.Pool):
    """What both pools have in common: how processes begin, and how failures are told."""

    Worker = Worker
    # For about a minute. Processes that load an application take long to come up, and whoever kills some of
    # them meanwhile must not bring the Celery worker down.
    _start_retries = 22

    def _create_worker_process(self, i: int) -> Any:
        signals.worker_before_create_process.send(sender=self)
        # What is garbage now would be so in the child for ever. The old generation is left alone: a pool that
        # replaces its workers often would do nothing else but look at it.
        gc.collect(1)
        return super()._create_worker_process(i)

    def _settle(self, result: Any, info: ExceptionInfo) -> ExceptionInfo:
        """Return the failure of a task in a form that every Celery can store.

        Before 5.7 a task that raises `SystemExit`, or another exception that is no `Exception`, is pending
        for ever where results are stored as JSON: the pool of old told of a lost process then.
        """
        error = raisable(info)
        if isinstance(error, Exception):
            return info
        code = error.code if isinstance(error, SystemExit) else None
        code = code if isinstance(code, int) else int(code is not None or not isinstance(error, SystemExit))
        lost = WorkerLostError(
            f"Worker exited prematurely: exitcode {code} Job: {result._job}.",
            exitcode=code,
            pid=result._worker_pid,
            job=result._job,
            hint=f"the task has raised {type(error).__name__}",
        )
        told = ExceptionInfo((type(lost), lost, None))
        told.traceback = info.traceback
        return told


class BlockingPool(_CeleryPool):
    """The pool of a Celery worker that has no event loop: a thread delivers."""


class HubPool(_CeleryPool, PumpedPool):
    """The pool of a Celery worker that has an event loop."""

    _named = True
    #: The event loop that looks after the pool.
    _hub: Any = None
    #: Requests that Celery has seen to when it told a cold shutdown to go on.
    _seen: frozenset[Any] | None = None

    def register_with_event_loop(self, hub: Any) -> None:
        """Have the event loop look after the pool; it is called anew for each connection to the broker.

        Args:
            hub: The event loop.
        """
        self._hub = hub
        hub.add_reader(self.fileno(), self.pump)

    def flush(self) -> None:
        """Forget the tasks that no worker has begun: the connection that they came by is lost, and they will
        come again.
        """
        self.withdraw()

    def join(self) -> None:
        """Drive the pool until the workers are gone, and what the event loop has to do at certain times.

        In a cold shutdown the tasks are cancelled that Celery has not cancelled itself, because it did not
        know yet that they had begun.
        """
        if state.should_terminate:
            self._seen = frozenset(state.active_requests)
            self.withdraw()
        super().join()

    def _on_pumped(self) -> float | None:
        if self._seen is not None:
            self._cancel_late()
        if self._hub is None:
            return None
        try:
            if _acknowledge is not None:
                _acknowledge(self._hub)
            return float(self._hub.fire_timers())
        except Exception as exc:
            logger.warning("The event loop's timers failed while the pool ends: %r", exc, exc_info=True)
            return 1.0

    def _cancel_late(self) -> None:
        assert self._seen is not None
        late = set(state.active_requests) - self._seen
        self._seen |= late
        for request in late:
            # A task that is acknowledged late goes back to the broker; of others it is told.
            quietly = {"emit_retry": not request.task.acks_late} if _TELLS_OF_RETRIES else {}
            request.cancel(self, **quietly)

    def _on_overdue(self, handle: Any, stack: str | None) -> None:
        if stack:
            text = _of_the_task(stack)
            logger.error("Task %s was here when its time limit passed:\n%s", handle.correlation_id, text)


def _of_the_task(stack: str) -> str:
    """Leave out of a worker's stack how the worker came to be.

    Args:
        stack: The stacks of all threads, each with the innermost call first.
    """
    kept, skipping = [], False
    for line in stack.splitlines():
        if not line.startswith("  "):
            skipping = False
        elif line.endswith(_LOOP):
            skipping = True
        if not skipping:
            kept.append(line)
    return "\n".join(kept)


class TaskPool(prefork.TaskPool):  # type: ignore[misc]
    """Celery's prefork pool, on shared memory."""

    Pool = HubPool
    BlockingPool = BlockingPool
    _pool: Any

    def on_stop(self) -> None:
        """Let the workers finish what they have, and end them.

        While this waits, the pool itself does what the event loop would. Newer Celery has a thread for that,
        which only looks twice a second whether it is over.
        """
        if not isinstance(self._pool, HubPool):
            super().on_stop()
        elif self._pool._state in (pool.RUN, pool.CLOSE):
            self._pool.close()
            self._pool.join()
            self._pool = None

    def _get_info(self) -> Mapping[str, Any]:
        info: dict[str, Any] = super()._get_info()
        figures = pool_figures(self._pool._engine)
        workers = figures["workers"]
        done = [worker["finished"] for worker in workers]
        # As the prefork pool has it, for those who show it.
        info["writes"] = {
            "total": figures["tasks"]["finished"],
            "avg": f"{sum(done) / len(done) if done else 0:.2f}",
            "all": ", ".join(f"{count / (sum(done) or 1):.2f}" for count in done),
            "raw": ", ".join(map(str, done)),
            "strategy": "shared memory",
            "inqueues": {
                "total": len(workers),
                "active": sum(worker["handed"] > 0 for worker in workers),
            },
        }
        info["engine"] = figures
        return info
