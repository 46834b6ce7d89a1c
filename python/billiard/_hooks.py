"""What subclasses of a pool may override."""

from __future__ import annotations

from typing import Any


class Hooks:
    """The hooks of a pool; most do nothing."""

    _Process: Any

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


def is_overridden(pool: Hooks, *names: str) -> bool:
    """Whether a subclass, or the instance, has a hook of its own under one of these names."""
    return any(name in vars(pool) or getattr(type(pool), name) is not getattr(Hooks, name) for name in names)
