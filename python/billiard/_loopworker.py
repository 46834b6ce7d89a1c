"""The life of a worker whose owner talks to it through pipes: the classic messages, and nothing else."""

from __future__ import annotations

import errno
import io
import os
import pickle
import select
import sys
import time
from contextlib import suppress

from . import _billiard, _tasks
from ._loopmessages import ACK, DEATH, READY
from .common import clear_terminate_handler_fired, terminate_handler_fired
from .compat import mem_rss, send_offset
from .einfo import ExceptionInfo
from .exceptions import WorkerLostError
from .reduction import ForkingPickler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

EX_OK = 0
EX_FAILURE = 1
EX_RECYCLE = 0x9B

#: How often, and how many seconds apart, a leaving worker looks whether its messages were taken.
GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = 300
GUARANTEE_MESSAGE_CONSUMPTION_RETRY_INTERVAL = 0.1
#: The first looks come sooner: mostly there is somebody who reads.
_FIRST_LOOK = 0.001
#: Seconds a worker that ends waits for its turn to say so.
_FAREWELL = 1.0
#: Seconds a worker waits for the word that a job may begin.
_PATIENCE = 60.0


class _Leave(SystemExit):
    """The worker is told to leave by its owner, between two jobs."""


class PipeLife:
    """The half of a worker that speaks through pipes."""

    inq: Any
    outq: Any
    synq: Any
    maxtasks: int | None
    max_memory_per_child: float | None
    on_exit: Callable[[int, int], object] | None
    on_ready_counter: Any
    _shutdown: Any
    #: Descriptors in the owner's process, by which it knows this worker; ``None`` without such queues.
    inqW_fd: Any = None
    outqR_fd: Any = None
    synqW_fd: Any = None
    synqR_fd: Any = None
    #: Memory in common with the owner.
    _words: Any = None
    #: The job whose function runs: only then may a soft limit strike.
    _running: int | None = None
    #: Writes messages whole.
    _say: Callable[..., object]
    #: Receive the next job, and the word that it may begin.
    wait_for_job: Callable[[], Any]
    wait_for_syn: Callable[[int], Any]

    def _contribute_pipes(self, obj: Any) -> None:
        """Put on a process object, and on this one, what the owner needs to reach the worker."""
        inq, outq, synq = self.inq, self.outq, self.synq
        for one in (self, obj):
            one.inq, one.outq, one.synq = inq, outq, synq
            one.inqW_fd = inq._writer.fileno()
            one.outqR_fd = outq._reader.fileno()
            one.synqR_fd = synq._reader.fileno() if synq is not None else None
            one.synqW_fd = synq._writer.fileno() if synq is not None else None
        obj._quick_put = inq._writer.send
        obj._quick_get = outq._reader.recv
        obj.send_job_offset = _sender(inq._writer, obj.inqW_fd)
        if synq is None:
            obj._send_syn_offset = None
        else:
            obj.send_syn_offset = _sender(synq._writer, obj.synqW_fd)

    def _make_child_methods(self, loads: Callable[[Any], Any] = pickle.loads) -> None:
        """Make what receives jobs.

        Args:
            loads: Unpickles a message.
        """
        self._say = _speaker(self.outq)
        self.wait_for_job = self._make_recv_method(self.inq, loads=loads)
        if self.synq is not None:
            receive = self._make_recv_method(self.synq, loads=loads)
            self.wait_for_syn = lambda job: self._await_word(receive, job)

    def _make_recv_method(
        self, conn: Any, *, loads: Callable[[Any], Any] = pickle.loads
    ) -> Callable[[], Any]:
        """Make what receives messages from one queue.

        Args:
            conn: The queue.
            loads: Unpickles a message.
        """
        get_payload = conn.get_payload

        def receive() -> Any:
            while True:
                try:
                    payload = get_payload()
                except (EOFError, OSError) as error:
                    if getattr(error, "errno", None) == errno.EINTR:
                        continue
                    raise _Leave(EX_OK) from error
                try:
                    return loads(payload)
                except (Exception, SystemExit) as error:
                    if isinstance(error, SystemExit) and terminate_handler_fired():
                        raise
                    # Whoever has sent it waits for an answer, and would send it to the next worker.
                    return _unreadable(payload, error)

        return receive

    def _await_word(self, receive: Callable[[], Any], job: int) -> bool:
        """Wait for the owner's word on a job. Whether it may begin."""
        readers = [self.synq._reader]
        if not select.select(readers, [], [], _PATIENCE)[0]:
            _tasks.log_error("Pool process waited too long for the word on job %s", job)
            raise _Leave(EX_FAILURE)
        word = receive()
        return bool(word) and word[0] == ACK

    def _live_with_pipes(self) -> None:
        """Be the worker, until there is a reason to leave; then end the process."""
        pid = os.getpid()
        code: Any = None
        failure: BaseException | None = None
        begun = False
        try:
            self._make_child_methods()
            self.after_fork()  # type: ignore[attr-defined]
            self.on_loop_start(pid=pid)  # type: ignore[attr-defined]
            begun = True
            code = self.workloop(pid=pid)  # type: ignore[attr-defined]
        except SystemExit as error:
            if not begun and not terminate_handler_fired():
                raise
            code = EX_OK if error.code is None else error.code
        except Exception as error:
            if not begun:
                raise
            failure = error
            _tasks.log_error("Pool process %r error: %r", self, error)
        self._do_exit(pid, code, failure)  # type: ignore[attr-defined]

    def _close_owners_ends(self) -> None:
        """Close the copies of the ends that are the owner's."""
        for queue, end in ((self.inq, "_writer"), (self.outq, "_reader"), (self.synq, "_writer")):
            connection = getattr(queue, end, None)
            if connection is not None:
                connection.close()

    def _loop_over_pipes(self, now: Callable[[], float], pid: int) -> int:
        """Run jobs until there is a reason to leave. Returns the exit code."""
        code, completed = EX_OK, 0
        maxtasks, limit = self.maxtasks, self.max_memory_per_child
        while maxtasks is None or completed < maxtasks:
            if self._shutdown is not None and self._shutdown.is_set():
                break
            request = self.wait_for_job()
            if request is None:
                return EX_OK
            if not request:
                continue
            job, i, fun, args, kwargs = request[1]
            self._say((ACK, (job, i, now(), pid, self.synqW_fd)))
            if self.synq is not None and not self.wait_for_syn(job):
                continue
            outcome = self._outcome_of(job, fun, args, kwargs)
            self._report(job, i, outcome)
            # Kept, it would live until the next job comes.
            del request, fun, args, kwargs, outcome
            completed += 1
            if limit and (used := mem_rss()) > limit:
                _tasks.memory_limit_passed(int(used), int(limit))
                code = EX_RECYCLE
                break
        else:
            code = EX_RECYCLE
        self._ensure_messages_consumed(completed)
        return code

    def _outcome_of(self, job: int, fun: Callable[..., Any], args: Any, kwargs: Any) -> tuple[bool, Any]:
        """Call a job's function."""
        try:
            self._running = job
            value = fun(*args, **kwargs)
            self._running = None
            value = self.prepare_result(value)  # type: ignore[attr-defined]
        except BaseException as error:
            self._running = None
            if terminate_handler_fired():
                raise
            return False, _told(error, job)
        if terminate_handler_fired():
            # The task has caught it, and lives with that; the next one is not to blame.
            clear_terminate_handler_fired()
        return True, value

    def _is_struck(self) -> bool:
        """Whether the soft limit that is told of now is that of the job which runs."""
        meant = self._words.take_aim() if self._words is not None else None
        return self._running is not None and meant in (None, self._running)

    def _report(self, job: int, i: int | None, outcome: tuple[bool, Any]) -> None:
        """Send what has become of a job."""
        success, value = outcome
        try:
            if not success:
                # What can be read here can be read there: an owner that cannot has nobody to blame it on.
                pickle.loads(ForkingPickler.dumps(value))
            self._say((READY, (job, i, outcome, self.inqW_fd)))
        except OSError:
            raise
        except Exception as error:
            if success:
                told = _tasks.unsendable_result(error, value)
            else:
                text = f"{type(error).__name__}: {error}"
                told = _tasks.MaybeEncodingError(text, str(value.traceback))
            info = ExceptionInfo((type(told), told, error.__traceback__))
            self._say((READY, (job, i, (False, info), self.inqW_fd)))

    def _say_farewell(self, pid: int, exitcode: int) -> None:
        """Tell the owner, if it is still there, that this is the end."""
        # Somebody who does not read what there is must not keep this process from its end.
        with suppress(OSError, ValueError, AttributeError):
            self._say((DEATH, (pid, exitcode)), wait=False)

    def _ensure_messages_consumed(self, completed: int) -> bool:
        """Wait until the owner has taken this worker's messages, or says that it wants no more of it.

        An owner that reads a long message bit by bit must not find its writer gone, and the pipe with others
        of it, in the middle of one.

        Args:
            completed: How many jobs have ended.

        Returns:
            Whether the messages were taken.
        """
        pause = _FIRST_LOOK
        deadline = time.monotonic() + (
            GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT * GUARANTEE_MESSAGE_CONSUMPTION_RETRY_INTERVAL
        )
        while not self._were_consumed(completed):
            if time.monotonic() > deadline:
                return False
            if select.select([self.inq._reader], [], [], pause)[0]:
                # A job that was meant for this worker goes to another one; anything else means the end.
                try:
                    if not self.wait_for_job():
                        return False
                except _Leave:
                    return False
            pause = min(2 * pause, GUARANTEE_MESSAGE_CONSUMPTION_RETRY_INTERVAL)
        return True

    def _were_consumed(self, completed: int) -> bool:
        counter = self.on_ready_counter
        if counter is not None and counter.value < completed:
            return False
        return not unread(self.outq._writer.fileno())


def _speaker(queue: Any) -> Callable[..., object]:
    """What writes messages to a queue."""
    writer, lock = queue._writer, queue._wlock
    if not isinstance(writer, _billiard.Connection):
        return lambda message, wait=True: queue.put(message)  # noqa: ARG005
    say = _billiard.Mouth(writer.fileno()).say
    if lock is None:
        return say

    def in_turn(message: tuple[Any, ...], wait: bool = True) -> None:
        if not lock.acquire(True, None if wait else _FAREWELL):
            return
        try:
            say(message, wait)
        finally:
            lock.release()

    return in_turn


class _Unreadable:
    """A job's function, when the job cannot be unpickled: raises the reason."""

    def __init__(self, why: BaseException) -> None:
        self._why = why

    def __call__(self) -> None:
        raise self._why


class _Lenient(pickle.Unpickler):
    """Reads the numbers of a job whose other parts cannot be read."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ARG002
        return _Blank

    def persistent_load(self, pid: Any) -> Any:
        return pid


class _Blank:
    """Stands for whatever cannot be had."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG004
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes anything."""

    def __setstate__(self, state: Any) -> None:
        """Takes anything."""

    def append(self, item: Any) -> None:
        """Takes anything."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Takes anything."""


def _unreadable(payload: Any, why: BaseException) -> tuple[int, tuple[Any, ...]]:
    """Make a job that fails of one that cannot be read; raises where not even its number can be had."""
    try:
        kind, (job, i, *_) = _Lenient(io.BytesIO(payload)).load()
    except Exception:
        raise why from None
    return kind, (job, i, _Unreadable(why), (), {})


def unread(pipe: int) -> int:
    """How many bytes are in a pipe."""
    import fcntl
    import termios

    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def _told(error: BaseException, job: int) -> ExceptionInfo:
    """What the owner is told of an exception that is being handled."""
    if isinstance(error, SystemExit):
        # Its owner's owners store errors where there is no room for an exit of the process: COMPAT: the form
        # in which they have always seen it.
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        lost = WorkerLostError(
            f"Worker exited prematurely: exitcode {code} Job: {job}.",
            exitcode=code,
            pid=os.getpid(),
            job=job,
            hint="the task has raised SystemExit",
        )
        return ExceptionInfo((type(lost), lost, error.__traceback__))
    return ExceptionInfo((type(error), error, error.__traceback__))


def _sender(connection: Any, fd: int) -> Callable[[Any, int], int]:
    send = getattr(connection, "send_offset", None)
    if send is not None:
        return send  # type: ignore[no-any-return]
    return lambda buf, offset: send_offset(fd, buf, offset)
