"""What becomes of the workers of a pool that its owner drives, and of their jobs, when they end."""

from __future__ import annotations

import errno
import time
from typing import Any

from ._hooks import Hooks
from ._loophandlers import WorkersJoined
from ._loopworker import EX_OK, EX_RECYCLE
from ._service import RUN
from .common import human_status
from .exceptions import RestartFreqExceeded
from .util import debug, error, get_logger

#: The status of a worker that nobody has seen end.
_UNKNOWN = 255


class Reaping(Hooks):
    """The half of a pool that reaps workers and replaces them, when its owner says so.

    A signal handler may end the pool on top of any of this. So every list is walked in a copy, and what a
    worker's end means is done by whoever takes it off the list.
    """

    _pool: list[Any]
    _poolctrl: dict[int, Any]
    _on_ready_counters: dict[int, Any]
    _cache: Any
    _state: int
    _processes: int
    _putlock: Any
    _worker_handler: Any
    _result_handler: Any
    restart_state: Any
    on_process_down: Any
    #: The worker that is just being started.
    _starting: Any = None

    def _join_exited_workers(self, shutdown: bool = False) -> list[int | None]:
        """Reap the workers that have ended, and see to their jobs.

        Args:
            shutdown: Whether the pool is ending.

        Returns:
            The exit codes.

        Raises:
            WorkersJoined: ``shutdown``, and no worker is left.
        """
        self._give_up_lost_jobs()
        if shutdown and not self._pool:
            raise WorkersJoined
        ended: dict[int | None, Any] = {}
        exitcodes: dict[int | None, int | None] = {}
        for process in reversed(self._pool[:]):
            if not self._has_ended(process):
                continue
            pid, exitcode = self._reap(process)
            try:
                self._pool.remove(process)
            except ValueError:
                continue
            self._poolctrl.pop(pid, None)  # type: ignore[arg-type]
            self._on_ready_counters.pop(pid, None)  # type: ignore[arg-type]
            on_worker_exit = getattr(self._result_handler, "on_worker_exit", None)
            if on_worker_exit is not None:
                on_worker_exit(pid)
            ended[pid], exitcodes[pid] = process, exitcode
        if not ended:
            return []
        self._see_to_jobs(ended, exitcodes)
        for process in ended.values():
            if self.on_process_down is not None:
                if not shutdown:
                    self._process_cleanup_queues(process)
                self.on_process_down(process)
        return list(exitcodes.values())

    def _has_ended(self, process: Any) -> bool:
        if process._popen is None:
            # It could not be started; or its start is what we interrupt.
            return process is not self._starting
        return process.exitcode is not None

    def _reap(self, process: Any) -> tuple[int | None, int | None]:
        """Release a worker that has ended, and take what it has left to say."""
        if process._popen is None:
            self.process_flush_queues(process)
            return None, None
        pid, exitcode = process.pid, process.exitcode
        process.join()
        debug("worker %s has ended with %s", pid, exitcode)
        if exitcode not in (EX_OK, EX_RECYCLE) and not getattr(process, "_controlled_termination", False):
            get_logger()
            error("Process %r pid:%r exited with %r", process.name, pid, human_status(exitcode))
        self.process_flush_queues(process)
        return pid, exitcode

    def _see_to_jobs(self, ended: dict[int | None, Any], exitcodes: dict[int | None, int | None]) -> None:
        """Tell of the jobs of workers that have ended, and settle those that were begun."""
        living = {process.pid for process in self._pool}
        for job in list(self._cache.values()):
            pids = job.worker_pids()
            gone = next((pid for pid in pids if pid not in living), None)
            if gone is not None:
                self.on_job_process_down(job, gone)
                if not job.ready():
                    exitcode = exitcodes.get(gone, _UNKNOWN)
                    if getattr(ended.get(gone), "_job_terminated", False):
                        job._set_terminated(exitcode)
                    else:
                        self.on_job_process_lost(job, gone, _UNKNOWN if exitcode is None else exitcode)
            elif not pids:
                # Handed to a worker that has not begun it.
                for process in (job._write_to, job._scheduled_for):
                    if process is not None and not process._is_alive():
                        self.on_job_process_down(job, process.pid)
                        break

    def _give_up_lost_jobs(self) -> None:
        """Fail the jobs that a hook has left to time, and whose time is over."""
        for job in list(self._cache.values()):
            lost = job._worker_lost
            if lost is not None and not job.ready():
                since, exitcode = lost
                if time.monotonic() - since > (job._lost_worker_timeout or 0):
                    self.mark_as_worker_lost(job, exitcode)

    # --- replacing ---

    def _avail_index(self) -> int:
        """The smallest number that no worker has."""
        taken = {worker.index for worker in self._pool}
        return next(index for index in range(len(taken) + 1) if index not in taken)

    def _create_worker_process(self, i: int) -> Any:
        raise NotImplementedError

    def _repopulate_pool(self, exitcodes: list[int | None]) -> None:
        """Start workers until there are as many as there are to be.

        Args:
            exitcodes: Those of the workers that were just reaped.

        Raises:
            RestartFreqExceeded: Too many have ended badly in too short a time.
        """
        for number in range(self._processes - len(self._pool)):
            if self._state != RUN:
                return
            regular = number < len(exitcodes) and exitcodes[number] in (EX_OK, EX_RECYCLE)
            if not regular:
                self.restart_state.step()
            self._create_worker_process(self._avail_index())

    def _maintain_pool(self) -> None:
        """Reap and replace, once."""
        exitcodes = self._join_exited_workers()
        self._repopulate_pool(exitcodes)
        for _ in exitcodes:
            if self._putlock is not None:
                self._putlock.release()

    def _maintain_driven(self) -> None:
        if self._worker_handler._state != RUN or self._state != RUN:
            return
        try:
            self._maintain_pool()
        except RestartFreqExceeded:
            self.close()  # type: ignore[attr-defined]
            self.join()  # type: ignore[attr-defined]
            raise
        except OSError as failed:
            if failed.errno == errno.ENOMEM:
                raise MemoryError from failed
            raise
