"""The process that runs tasks."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import time

from . import _billiard, _tasks
from ._given import begin_process
from ._loopworker import EX_FAILURE, EX_OK, EX_RECYCLE, PipeLife
from ._serializers import packed, pickler_for
from .common import (
    _should_have_exited,
    _shutdown_cleanup,
    clear_terminate_handler_fired,
    reset_signals,
    terminate_handler_fired,
)
from .context import get_spawning_popen
from .exceptions import SoftTimeLimitExceeded
from .reduction import register

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType
    from typing import Any

    from ._given import Parcel
    from ._serializers import Serializer

SIG_SOFT_TIMEOUT = signal.SIGUSR1
#: Makes a worker write down where it is. A real-time signal, since the others belong to programs.
SIG_INSPECT = signal.SIGRTMAX - 3


def soft_timeout_sighandler(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """Interrupt whatever runs, as a soft time limit does."""
    raise SoftTimeLimitExceeded()


class _ReadyCounter:
    """How many of a worker's jobs have been finished."""

    def __init__(self, runtime: _billiard.Runtime) -> None:
        self._runtime = runtime

    @property
    def value(self) -> int:
        return self._runtime.completed


class Worker(PipeLife):
    """What runs in a worker process: an object that is called there, once.

    It has a seat in its pool's engine; or queues that its owner has made, and speaks the classic messages.

    Args:
        inq: Where jobs come from.
        outq: Where results go.
        synq: Where the parent confirms that a job may begin.
        initializer: Called with ``initargs`` before the first job, and before signal handlers are installed.
        initargs: See there.
        maxtasks: Leave after so many jobs.
        sentinel: An event; leave between two jobs once it is set.
        on_exit: Called with the process id and the exit code just before the process ends.
        sigprotection: Take over all signals that end a process, rather than the few that the owner uses.
        wrap_exception: Send exceptions with their tracebacks.
        max_memory_per_child: Leave after a job if more than so many KiB are resident.
        on_ready_counter: Counts the results that the parent has seen.
    """

    def __init__(
        self,
        inq: Any,
        outq: Any,
        synq: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: Any = (),
        maxtasks: int | None = None,
        sentinel: Any = None,
        on_exit: Callable[[int, int], object] | None = None,
        sigprotection: bool = True,
        wrap_exception: bool = True,
        max_memory_per_child: float | None = None,
        on_ready_counter: Any = None,
    ) -> None:
        if maxtasks is not None and (type(maxtasks) is not int or maxtasks < 1):
            raise ValueError(f"maxtasksperchild must be a positive int or None, not {maxtasks!r}")
        self.initializer = initializer
        self.initargs = initargs
        self.maxtasks = maxtasks
        self.max_memory_per_child = max_memory_per_child
        self.on_exit = on_exit
        self.sigprotection = sigprotection
        self.inq, self.outq, self.synq = inq, outq, synq
        self.wrap_exception = wrap_exception
        self._shutdown = sentinel
        self.on_ready_counter = on_ready_counter
        self._leaving = False
        self._seat: _billiard.Seat | None = None
        self._runtime: _billiard.Runtime | None = None
        self._preload: Sequence[str] = ()
        self._environment: Mapping[bytes, bytes] = {}
        self._serializer: Serializer = None
        self._parcel: Parcel | None = None

    def contribute_to_object(self, obj: Any) -> Any:
        """Put on a process object what its owner needs to reach this worker."""
        if self._seat is None and self.inq is not None:
            self._contribute_pipes(obj)
        else:
            obj.inq, obj.outq, obj.synq = self.inq, self.outq, self.synq
        return obj

    def __reduce__(self) -> tuple[Any, ...]:
        by = self._serializer
        arguments = (
            self.inq,
            self.outq,
            self.synq,
            packed(by, self.initializer),
            packed(by, self.initargs or None) or (),
            self.maxtasks,
            self._shutdown,
            packed(by, self.on_exit),
            self.sigprotection,
            self.wrap_exception,
            self.max_memory_per_child,
            self.on_ready_counter,
        )
        # The seat comes last: until it is taken, what goes wrong can be told through one of its descriptors.
        names = (
            "_preload",
            "_environment",
            "_serializer",
            "_parcel",
            "_words",
            "inqW_fd",
            "synqW_fd",
            "_seat",
        )
        given = {name: getattr(self, name) for name in names}
        return type(self), arguments, given

    def __call__(self) -> None:
        """Be the worker, until there is a reason to leave; then end the process."""
        if self._seat is None and self.inq is not None:
            self._live_with_pipes()
            return
        pid = os.getpid()
        code: Any = None
        failure: BaseException | None = None
        try:
            self._take_seat()
            self._get_ready(pid)
            assert self._runtime is not None
            self._runtime.up()
            code = self.workloop(pid=pid)
        except SystemExit as error:
            code = EX_OK if error.code is None else error.code
        except Exception as error:
            failure = error
            if self._seat is not None:
                self._seat.note(_tasks.stack_of(error))
            _tasks.log_error("Pool process %r error: %r", self, error)
        self._do_exit(pid, code, failure)

    def _take_seat(self) -> None:
        if self._seat is None:
            raise RuntimeError("a worker is started by its pool")
        pickler = _tasks.worker_pickler = pickler_for(self._serializer)
        self._runtime = self._seat.take(pickler)
        self.on_ready_counter = _ReadyCounter(self._runtime)
        # What the interpreter was doing when it crashed, or when a limit passed, is told to the parent.
        faulthandler.disable()
        faulthandler.enable(file=self._seat.notebook, all_threads=True)
        faulthandler.register(SIG_INSPECT, file=self._seat.notebook, all_threads=True, chain=False)

    def _get_ready(self, pid: int) -> None:
        try:
            self.after_fork()
            self.on_loop_start(pid=pid)
        except (SystemExit, KeyboardInterrupt) as error:
            # A worker that leaves before it begins, for whatever reason: if all do, the pool has to say why.
            if self._seat is not None and not terminate_handler_fired():
                self._seat.note(_tasks.stack_of(error))
            raise

    def after_fork(self) -> None:
        """Make the process a worker: run the initializer, then take over the signals."""
        clear_terminate_handler_fired()
        os.environb.update(self._environment)
        for module in self._preload:
            __import__(module)
        begin_process(self._parcel)
        if self._seat is None:
            self._close_owners_ends()
        if self.initializer is not None:
            self.initializer(*self.initargs)
        # The crash handler comes after those of the signals and calls them: an abort is told too.
        words = self._seat.notebook if self._seat is not None else self._words
        if words is not None:
            faulthandler.disable()
        reset_signals(self._on_terminate, full=self.sigprotection)
        if words is not None:
            faulthandler.enable(file=words, all_threads=True)
        signal.signal(SIG_SOFT_TIMEOUT, self._on_soft_timeout)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _on_terminate(self, signum: int, frame: FrameType | None) -> None:
        if self._leaving and not terminate_handler_fired():
            # It is on its way, and what there is to clean up is cleaned up first.
            _should_have_exited[0] = True
            return
        if self._runtime is not None:
            self._runtime.note_end()
        _shutdown_cleanup(signum, frame)

    def _on_soft_timeout(self, signum: int, frame: FrameType | None) -> None:
        # A limit that passed just as its task ended must not hit the next one.
        if self._is_struck() if self._runtime is None else self._runtime.soft_limit_is_due():
            soft_timeout_sighandler(signum, frame)

    def on_loop_start(self, pid: int) -> None:
        """Called when the worker is ready for jobs, and before the pool knows it: if it raises, the worker
        has not begun.
        """

    def prepare_result(self, result: Any) -> Any:
        """Called with what a task returned; returns what is sent."""
        return result

    def workloop(self, debug: Any = None, now: Any = time.monotonic, pid: int | None = None) -> int:  # noqa: ARG002
        """Run tasks until there is a reason to leave.

        Args:
            debug: Ignored.
            now: The clock that is read when a job begins.
            pid: The process id.

        Returns:
            The exit code.
        """
        if self._runtime is None:
            return self._loop_over_pipes(now, pid or os.getpid())
        limit = self.max_memory_per_child
        done = self._runtime.serve(
            max_tasks=self.maxtasks,
            memory_limit=None if limit is None else int(limit),
            prepare=None if type(self).prepare_result is Worker.prepare_result else self.prepare_result,
        )
        return EX_RECYCLE if done else EX_OK

    def _do_exit(self, pid: int, exitcode: Any, exc: BaseException | None = None) -> None:
        told_to = terminate_handler_fired()
        self._leaving = True
        if exitcode is None:
            exitcode = EX_FAILURE if exc is not None else EX_OK
        elif not isinstance(exitcode, int):
            exitcode = EX_FAILURE
        try:
            if self.on_exit is not None:
                self.on_exit(pid, exitcode)
            if self._seat is None:
                self._say_farewell(pid, exitcode)
            _flush_streams()
        finally:
            if told_to and exitcode < 0:
                _end_by_signal(exitcode + 256)
            os._exit(exitcode & 0xFF)


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.flush()


def _end_by_signal(signum: int) -> None:
    """End as if there had been no handler, so that the exit status names the signal."""
    try:
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
    except (OSError, ValueError):
        pass


def _reduce_seat(seat: _billiard.Seat) -> tuple[Any, ...]:
    popen = get_spawning_popen()
    if popen is None:
        raise RuntimeError("a worker's place in its pool can only be given to the worker")
    descriptors = [popen.DupFd(popen.duplicate_for_child(fd)) for fd in seat.shared()]
    return _rebuild_seat, (*seat.described(), descriptors)


def _rebuild_seat(number: int, generation: int, spin: bool, descriptors: list[Any]) -> _billiard.Seat:
    return _billiard.Seat.received(number, generation, spin, [one.detach() for one in descriptors])


register(_billiard.Seat, _reduce_seat)

for _public in (Worker, soft_timeout_sighandler):
    _public.__module__ = "billiard.pool"
