"""What subclasses of a pool may override."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ._loopresults import lost_with_worker


class Hooks:
    """The hooks of a pool; most do nothing."""

    _Process: Any
    _pool: Any
    #: By process id, the workers that have ended and whose jobs are being seen to, and their exit codes.
    _gone: Mapping[Any, tuple[Any, int | None]] = {}
    #: Whether another thread may still be reading what a worker that has ended had to say.
    _hears_late = False

    def _setup_queues(self) -> None:
        """Set the queues that workers get. The engine has channels of its own."""
        self._inqueue: Any = None
        self._outqueue: Any = None
        self._quick_put: Any = None
        self._quick_get: Any = None
        self._poll_result: Any = None

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

    def on_job_process_lost(self, job: Any, pid: int, exitcode: int) -> None:  # noqa: ARG002
        """Called for a job that was lost with its worker; fails it, if that has not been done.

        What the worker had to say was read before, so that there is nothing to wait for; unless a thread of
        the pool's own is about to read it.
        """
        if job.ready():
            return
        if self._hears_late:
            job._worker_lost = job._worker_lost or (time.monotonic(), exitcode)
        else:
            self.mark_as_worker_lost(job, exitcode)

    def mark_as_worker_lost(self, job: Any, exitcode: int) -> None:
        """End a job because its worker has ended.

        Args:
            job: The result.
            exitcode: The exit code of the worker.
        """
        living = {process.pid for process in self._pool}
        for pid in [pid for pid in job.worker_pids() if pid not in living] or [None]:
            process, its_own = self._gone.get(pid, (None, None))
            code = exitcode if its_own is None else its_own
            job._lose(pid, lost_with_worker(job, pid, code, process))

    def on_partial_read(self, job: Any, worker: Any) -> None:
        """Called by owners that have read a message in part when its worker has ended."""

    def send_ack(self, response: int, job: int, i: int | None, fd: int | None) -> None:
        """Tell a worker that waits for it whether it may begin a job. Pools with ``synack`` override it."""

    def on_grow(self, n: int) -> None:
        """Called when the pool has grown."""

    def on_shrink(self, n: int) -> None:
        """Called when the pool has shrunk."""


def is_overridden(pool: Hooks, *names: str) -> bool:
    """Whether a subclass, or the instance, has a hook of its own under one of these names."""
    return any(name in vars(pool) or getattr(type(pool), name) is not getattr(Hooks, name) for name in names)
