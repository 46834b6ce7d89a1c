"""The workers of a pool that has an engine: started and reaped when it says so."""

from __future__ import annotations

import signal

from ._events import Events
from ._freezing import frozen
from ._loopworker import EX_OK, EX_RECYCLE
from .common import human_status
from .util import error, get_logger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from . import _billiard
    from ._given import Parcel

#: An interrupt ends a worker only before it has begun, and whoever has sent it wanted that.
_EXPECTED_EXITS = (EX_OK, EX_RECYCLE, -signal.SIGINT)


class EngineWorkers(Events):
    """The half of a pool that starts and reaps the workers of its engine."""

    _engine: _billiard.Engine
    _processes: int
    _closed: list[bool]
    _parcel: Parcel | None
    _freeze: bool
    _terminate: Any
    terminate: Callable[[], None]
    _worker_process: Callable[..., Any]
    _create_worker_process: Callable[[int], Any]
    _avail_index: Callable[[], int]
    on_process_up: Callable[[Any], object] | None
    on_process_down: Callable[[Any], object] | None
    #: The seat of the worker that is being started.
    _seat: _billiard.Seat | None = None

    def _begin(self) -> None:
        """Start the first workers, then the threads."""
        try:
            for _ in range(self._processes):
                event = self._engine.next_event(0)
                if event is None:
                    break
                self._handle(event)
        except BaseException:
            self._abandon()
            raise
        try:
            self._engine.run()
            self._worker_handler.start()
        except BaseException:
            # No room for a thread, or a signal handler has raised. The thread may run all the same; then it
            # finds out that the pool is over.
            self.terminate()
            raise

    def _open_books(self) -> None:
        """Begin to keep account of the workers."""
        self._pool: list[Any] = []
        self._by_seat: dict[tuple[int, int], Any] = {}
        self._poolctrl: dict[int, Any] = {}
        self._on_ready_counters: dict[int, Any] = {}
        self._exits = 0

    def _abandon(self) -> None:
        """Take back a construction that has failed half-way."""
        self._closed[0] = True
        self._terminate.cancel()
        if self._parcel is not None:
            self._parcel.close()
        for process in self._pool:
            # There is none yet where the start of one was interrupted.
            if process._popen is not None:
                process.kill()
                process.join()

    def _create_engine_worker(self, i: int) -> Any:
        queues = self.get_process_queues()
        process = self._worker_process(queues)
        process._ends_by_interrupts = True
        # What goes wrong before the worker can say so is told to the pool, rather than to standard error.
        process._notebook = self._seat.notebook if self._seat is not None else None
        self._pool.append(process)
        self._process_register_queues(process, queues)
        process.name = process.name.replace("Process", "PoolWorker")
        process.daemon = True
        process.index = i
        try:
            with frozen(self._freeze):
                process.start()
        except BaseException:
            self._pool.remove(process)
            raise
        finally:
            # The worker has it; kept here, its descriptors would be inherited by the next one.
            process._target._seat = None
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
            and self._engine.phase() != "terminating"
        ):
            get_logger()
            error("Process %r pid:%r exited with %r", process.name, pid, human_status(exitcode))
        self._call(self.process_flush_queues, process)
        self._pool.remove(process)
        self._call(self._process_cleanup_queues, process)
        self._call(self.on_process_down, process)
