"""What becomes of the workers of a pool that its owner drives, and of their jobs, when they end."""

from __future__ import annotations

import errno
import time
from typing import Any

from ._freezing import Sparing
from ._hooks import Hooks
from ._loopdesk import Desk
from ._loophandlers import WorkersJoined
from ._loopresults import ApplyResult, failure
from ._loopworker import EX_OK, EX_RECYCLE
from ._service import RUN
from .common import human_status
from .exceptions import RestartFreqExceeded, Terminated
from .util import debug, error, get_logger

#: Seconds after which a thread has dealt with what it had read.
_QUIET = 0.5
#: So many workers in a row may begin no job at the end of a pool.
_FRUITLESS = 5
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
    #: A subclass may collect garbage before it starts a worker: Celery's does, which takes ten times as long.
    _sparing: Sparing
    _putlock: Any
    _worker_handler: Any
    _result_handler: Any
    restart_state: Any
    on_process_down: Any
    #: By process id, the workers that have ended and whose jobs are not seen to, and their exit codes.
    _gone: dict[int | None, tuple[Any, int | None]]
    #: Who deals with the workers of a pool that has no queues of its own.
    _desk: Desk | None = None
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
        if shutdown and not self._pool and not self._start_for_the_rest():
            raise WorkersJoined
        ended = self._take_ended()
        if ended or self._hears_late:
            self._see_to_jobs()
        if not self._hears_late:
            self._gone.clear()
        for process, _ in ended:
            if self.on_process_down is not None:
                if not shutdown:
                    self._process_cleanup_queues(process)
                self.on_process_down(process)
        return [exitcode for _, exitcode in ended]

    def _start_for_the_rest(self) -> bool:
        """Start a worker for the jobs that no worker has, at the end. Tell whether that was done.

        If that has led to nothing a few times, the jobs fail.
        """
        if self._desk is None or not (waiting := self._desk.waiting()):
            return False
        if self._desk.fruitless < _FRUITLESS:
            self._sparing.start(self._create_worker_process, 0)
            return True
        error = RestartFreqExceeded("the pool is closed, and no worker begins what is left")
        for job, i in waiting:
            if (result := self._cache.get(job)) is not None:
                result._set(i, failure(error))
        self._desk.finish()
        return False

    def _take_ended(self) -> list[tuple[Any, int | None]]:
        """Take the workers that have ended off the list. Returns them with their exit codes."""
        ended = []
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
            self._gone[pid] = process, exitcode
            ended.append((process, exitcode))
        return ended

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
        words = getattr(process, "_words", None)
        if words is not None:
            process._last_stack = words.read() if exitcode is not None and exitcode < 0 else None
            words.close()
        if exitcode not in (EX_OK, EX_RECYCLE) and not getattr(process, "_controlled_termination", False):
            get_logger()
            error("Process %r pid:%r exited with %r", process.name, pid, human_status(exitcode))
        self.process_flush_queues(process)
        return pid, exitcode

    def _see_to_jobs(self) -> None:
        """Tell of the jobs of workers that have ended, and settle those that were begun."""
        living = {process.pid for process in self._pool}
        for job in list(self._cache.values()):
            pids = job.worker_pids()
            gone = next((pid for pid in pids if pid not in living), None)
            if gone is not None:
                self._see_to_job(job, gone)
            elif not pids:
                # Handed to a worker that has not begun it.
                for process in (job._write_to, job._scheduled_for):
                    if process is not None and not process._is_alive():
                        self.on_job_process_down(job, process.pid)
                        break

    def _see_to_job(self, job: Any, pid: int) -> None:
        if job._worker_lost is not None:
            return
        self.on_job_process_down(job, pid)
        if job.ready():
            return
        process, exitcode = self._gone.get(pid, (None, None))
        if self._desk is not None and self._desk.deals_with(job._job):
            # Whom a signal handler interrupts with this is just settling it.
            return
        if getattr(process, "_job_terminated", False):
            if isinstance(job, ApplyResult):
                job._set_terminated(exitcode)
            else:
                job._lose(pid, failure(Terminated(-(exitcode or 0), pid=pid, job=job._job)))
        else:
            self.on_job_process_lost(job, pid, _UNKNOWN if exitcode is None else exitcode)

    def _give_up_lost_jobs(self) -> None:
        """Fail the jobs that were left to time: after their time-out, or when there is nothing to read."""
        for job in list(self._cache.values()):
            if job._worker_lost is None or job.ready():
                continue
            since, exitcode = job._worker_lost
            waited = time.monotonic() - since
            if waited > (job._lost_worker_timeout or 0) or (waited > _QUIET and self._is_quiet()):
                self.mark_as_worker_lost(job, exitcode)
                if not job.ready():
                    # A part of it is lost; others may be, later.
                    job._worker_lost = None

    def _is_quiet(self) -> bool:
        """Whether the thread that reads results has read them all."""
        return self._hears_late and self._outqueue is not None and not self._outqueue._reader.poll(0)

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
            self._sparing.start(self._create_worker_process, self._avail_index())

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
