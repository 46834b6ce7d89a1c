"""A pool for Celery on this package's own engine.

Choose it with Celery's setting for pools of others::

    CELERY_CUSTOM_WORKER_POOL=billiard.contrib.celery:TaskPool celery -A app worker -P custom

Tasks go to the workers through shared memory, and the worker's event loop watches one descriptor for
everything that comes back. Signals, process initializers, time limits, remote control and acknowledgements
are those of Celery's prefork pool, of which this is a subclass.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.concurrency import prefork
from celery.utils.log import get_logger

from .._driven import DrivenPool
from ..pool import Pool

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TaskPool"]

logger = get_logger(__name__)


class _Forking(Pool):
    """What both pools do before they make a process."""

    def _create_worker_process(self, i: int) -> Any:
        signals.worker_before_create_process.send(sender=self)
        # What is garbage now would be copied, page by page, when the child collects it. The old generation is
        # left alone: a pool that replaces its workers often would do nothing else.
        gc.collect(1)
        return super()._create_worker_process(i)


class BlockingPool(_Forking):
    """The pool of a worker that has no event loop: a thread delivers."""


class HubPool(_Forking, DrivenPool):
    """The pool of a worker that has an event loop."""

    def register_with_event_loop(self, hub: Any) -> None:
        """Have the event loop look after the pool, also again after it was reset.

        Args:
            hub: The event loop.
        """
        hub.add_reader(self.fileno(), self.pump)

    def flush(self) -> None:
        """Forget the tasks that no worker has begun: the connection over which they came is lost, and they
        will come again.
        """
        self.withdraw()

    def _on_overdue(self, handle: Any, stack: str | None) -> None:
        if stack:
            logger.error("Task %s was here when its time limit passed:\n%s", handle.correlation_id, stack)


class TaskPool(prefork.TaskPool):  # type: ignore[misc]
    """Celery's prefork pool, on shared memory."""

    Pool = HubPool
    BlockingPool = BlockingPool

    def _get_info(self) -> Mapping[str, Any]:
        info: dict[str, Any] = super()._get_info()
        return info
