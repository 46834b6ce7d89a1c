"""How a pool that its owner drives deals with its workers, if it has no queues of its own.

Each worker has a pair of pipes and one job at a time, so that whoever is killed in the middle of a message
harms nobody else, and it is known which job it had.
"""

from __future__ import annotations

import pickle
import select
import time
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import Any

from . import _billiard, util
from ._loopmessages import ACK, DEATH, READY
from ._loopworker import EX_OK, EX_RECYCLE, unread
from .einfo import ExceptionInfo
from .queues import _SimpleQueue
from .reduction import ForkingPickler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: So many workers a job may see end before it has begun: one that cannot be read may be what ends them.
_TRIES = 3
#: So many messages are taken between two looks at who else has something to say, or room.
_AT_A_STRETCH = 64
#: Seconds after which a process whose pipes have ended can be reaped, mostly.
_SOON = 0.002


class _Task:
    """A job on its way to a worker.

    Args:
        key: The number of the job, and its place in a map.
        body: What the worker is told, pickled.
    """

    __slots__ = ("begun", "key", "message", "tries")

    def __init__(self, key: tuple[int, int | None], body: bytes) -> None:
        self.key = key
        self.message = _framed(body)
        #: How many workers have ended with it, and whether the one that has it has begun.
        self.tries = 0
        self.begun = False


class _Seat:
    """A worker, seen from the desk.

    Args:
        process: Its process object.
        left: How many jobs it takes; ``None`` for any number.
    """

    def __init__(self, process: Any, left: int | None) -> None:
        self.process = process
        self.writer, self.reader = process.inq._writer, process.outq._reader
        self.theirs = process.inq._reader, process.outq._writer
        self.outlet = _billiard.Outlet(process.inqW_fd)
        self.inlet = _billiard.Inlet(process.outqR_fd)
        #: What it has said and nobody has dealt with, pickled: one message at most.
        self.inbox: deque[bytes] = deque()
        self.left = left
        self.is_leaving = False
        #: Whether the desk is told when there is room in the pipe, and when there is something to read.
        self.waits_for_room = False
        self.is_heard = True

    @property
    def task(self) -> _Task | None:
        """What it was given and has not finished."""
        return self.outlet.task

    def is_free(self) -> bool:
        return (
            self.outlet.task is None
            and self.left != 0
            and not self.is_leaving
            and not getattr(self.process, "_controlled_termination", False)
        )


class Desk:
    """Gives each worker one job after the other, and hears what they say. Never waits for a worker.

    It is in the place of both queues: what is put goes to workers, what is got comes from them. Its
    descriptor is readable when there is something to do.

    A signal handler may put, join or terminate on top of all of this. So a job is either among those that
    wait or in one outlet, and whatever is done here finds everything as it is and not as it was.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        #: By the descriptors that jobs are written to, and those that messages are read from.
        self._seats: dict[int, _Seat] = {}
        self._heard: dict[int, _Seat] = {}
        #: Jobs that nobody has. If there are any, nobody is free.
        self._waiting: deque[_Task] = deque()
        #: Whose pipes may have more messages; and those that were only looked at.
        self._talking: deque[_Seat] = deque()
        self._said: deque[Any] = deque()
        #: Results that somebody is just dealing with.
        self._in_hand: set[tuple[int, int | None]] = set()
        self._since_look = 0
        #: Whether somebody has ended whom nobody has reaped.
        self._has_lost_one = False
        #: How many workers have come since one has begun a job.
        self.fruitless = 0
        self._is_ending = False
        self._is_stopped = False
        self._is_finished = False
        # A child has nothing to say to the others.
        util.register_after_fork(self, Desk._abandon)

    # --- workers ---

    @staticmethod
    def queues() -> tuple[Any, Any, None]:
        """Make the queues of a worker."""
        return _SimpleQueue(wnonblock=True), _SimpleQueue(rnonblock=True), None

    def seat(self, process: Any, most: int | None) -> None:
        """Take in a worker that is about to be started.

        Args:
            process: Its process object, which has the queues.
            most: How many jobs it takes; ``None`` for any number.
        """
        seat = _Seat(process, most)
        self._seats[process.inqW_fd] = self._heard[process.outqR_fd] = seat
        # A signal handler may have ended the pool on top of whoever starts this one.
        with suppress(ValueError):
            self._epoll.register(seat.reader, select.EPOLLIN)

    def started(self, process: Any) -> None:
        """Close what only the worker needs, and give it something to do."""
        seat = self._seats.get(process.inqW_fd)
        if seat is not None and seat.process is process:
            for end in seat.theirs:
                end.close()
        self.fruitless += 1
        self._hand_out()

    def leave(self, process: Any) -> tuple[int, int | None] | None:
        """A worker has ended, and what it has said is read. Somebody else gets the job that it did not begin.

        Returns:
            The job, and its place in it, that too many workers have ended with: nobody gets it any more.
        """
        seat = self._seats.get(process.inqW_fd)
        # Its numbers may be those of another one by now.
        if seat is None or seat.process is not process:
            return None
        del self._seats[process.inqW_fd]
        seat.is_leaving = True
        task, given_up = seat.task, None
        if task is not None and not task.begun:
            task.tries += _has_read_all(seat)
            if task.tries < _TRIES:
                seat.outlet.give_back(self._waiting)
            else:
                given_up = task.key
        self._close(seat)
        self._has_lost_one = not all(other.is_heard for other in list(self._seats.values()))
        self._hand_out()
        return given_up

    def _close(self, seat: _Seat) -> None:
        seat.outlet.close()
        self._listen_for_room(seat)
        self._deafen(seat)
        seat.inlet.close()
        for queue in (seat.process.inq, seat.process.outq):
            queue.close()

    def _listen_for_room(self, seat: _Seat) -> None:
        """Be told when there is room for what is left of a job, and not when nothing is.

        Something may happen on top of this at any point: it is registered too often rather than not at all.
        """
        if not seat.outlet.waits:
            if not seat.waits_for_room:
                return
            seat.waits_for_room = False
            with suppress(OSError, ValueError):
                self._epoll.unregister(seat.writer)
        if seat.outlet.waits:
            seat.waits_for_room = True
            with suppress(OSError, ValueError):
                self._epoll.register(seat.writer, select.EPOLLOUT)

    def _deafen(self, seat: _Seat) -> None:
        if not seat.is_heard:
            return
        seat.is_heard = False
        with suppress(OSError, ValueError):
            self._heard.pop(seat.reader.fileno(), None)
            self._epoll.unregister(seat.reader)

    # --- jobs ---

    def put(self, task: Any) -> None:
        """Have a worker run a job. ``None``: there will be no more, and the workers leave after the last one.

        Args:
            task: A message that can be pickled; what pickling raises is raised, and nothing is put.
        """
        if task is None:
            self._is_ending = True
            self._hand_out()
            return
        job = _Task(task[1][:2], bytes(ForkingPickler.dumps(task)))
        try:
            self._waiting.append(job)
            self._hand_out()
        except BaseException:
            with suppress(ValueError):
                self._waiting.remove(job)
            raise

    def waiting(self) -> list[tuple[int, int | None]]:
        """Return the jobs that no worker has, and their places in them."""
        return [task.key for task in list(self._waiting)]

    def has_workers(self) -> bool:
        """Tell whether there is anybody to hear."""
        return bool(self._seats)

    def deals_with(self, job: int) -> bool:
        """Tell whether a result of a job is just being dealt with."""
        return any(key[0] == job for key in list(self._in_hand))

    def finish(self) -> None:
        """Nobody wants to hear of what is not done: forget what waits, and have the workers leave."""
        self._is_ending = self._is_finished = True
        self._waiting.clear()
        self._hand_out()

    def stop(self) -> None:
        """Take back the jobs that no worker has. No worker is given any more."""
        self._is_stopped = True
        self._waiting.clear()

    def _hand_out(self) -> None:
        """Give what waits to whoever has nothing to do; at the end, have them leave."""
        for seat in list(self._seats.values()):
            self._offer(seat)
        if not self._is_ending or self._is_stopped:
            return
        if not self._is_finished and (self._waiting or self._may_come_back()):
            return
        for seat in list(self._seats.values()):
            # Also those that are at work: nothing that they have can come back.
            seat.outlet.end(_LAST)
            self._listen_for_room(seat)

    def _offer(self, seat: _Seat) -> None:
        """Give a worker something to do, if it has nothing, or what is left of what it was given."""
        if seat.is_free() and not self._is_stopped:
            seat.outlet.take(self._waiting)
        self._listen_for_room(seat)

    def _may_come_back(self) -> bool:
        """Whether a worker has a job that it may end without having begun."""
        tasks = [seat.task for seat in list(self._seats.values()) if not seat.is_leaving]
        return any(task is not None and not task.begun for task in tasks)

    # --- messages ---

    @property
    def _reader(self) -> Desk:
        return self

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to do."""
        return self._epoll.fileno()

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Wait until there is a message, for so many seconds at most. Tell whether there is one."""
        there, message = self.take(timeout)
        if there:
            self._said.appendleft(message)
        return there

    def get(self) -> Any:
        """Wait for a message."""
        return self.take(None)[1]

    def recv(self) -> Any:
        """Take a message, if there is one.

        Raises:
            BlockingIOError: There is none now.
        """
        there, message = self.take()
        if not there:
            raise BlockingIOError("no worker says anything now")
        return message

    def take(self, timeout: float | None = 0.0) -> tuple[bool, Any]:
        """Take a message, and do what is due.

        Args:
            timeout: Seconds to wait for one, or for the end of a worker; ``None`` for as long as it takes.

        Returns:
            Whether there was one, and the message.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            # A signal handler may take something on top of this.
            with suppress(IndexError):
                return True, self._said.popleft()
            with suppress(IndexError):
                while self._since_look < _AT_A_STRETCH:
                    seat = self._talking.popleft()
                    there, message = self._listen(seat)
                    if there:
                        self._since_look += 1
                        self._talking.append(seat)
                        return True, message
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if left is not None and self._has_lost_one:
                # It is to be reaped, rather than waited for; that it has ended may not be known yet.
                left = min(left, _SOON)
            if not self._look(0.0 if self._talking else left) and left is not None and left <= _SOON:
                return False, None

    def _look(self, timeout: float | None) -> bool:
        """Wait for readers and writers. Tell whether somebody may have something to say."""
        self._since_look = 0
        if self._waiting:
            # A signal handler that raises may have kept them from being handed out.
            self._hand_out()
        left_over = [seat for seat in list(self._seats.values()) if seat.inbox]
        if left_over:
            self._talking.extend(left_over)
            timeout = 0.0
        try:
            found = self._epoll.poll(timeout)
        except ValueError:
            raise OSError("the pool has ended") from None
        for number, _ in found:
            if (seat := self._heard.get(number)) is not None:
                self._talking.append(seat)
            elif (seat := self._seats.get(number)) is not None:
                seat.outlet.flush()
                seat.waits_for_room = True
                self._listen_for_room(seat)
        return bool(self._talking)

    def _listen(self, seat: _Seat) -> tuple[bool, Any]:
        """Take a message of a worker, if all of it is there. It stays in the inbox until it is dealt with."""
        try:
            if not seat.inbox:
                # One call, into which no signal handler comes.
                seat.inbox.extend(islice(iter(seat.inlet.take, None), 1))
        except EOFError:
            self._deafen(seat)
            self._has_lost_one = True
        except (OSError, MemoryError) as error:
            # Nobody can hear it any more, and it would wait for that.
            util.info("cannot hear %s: %r", seat.process.name, error)
            self._deafen(seat)
            seat.process.kill()
        try:
            payload = seat.inbox[0]
        except IndexError:
            return False, None
        message = self._read(seat, payload)
        if not (isinstance(message, tuple) and message[:1] in ((ACK,), (READY,), (DEATH,))):
            # Nobody here knows when it is dealt with.
            seat.inbox.clear()
        return True, message

    def _read(self, seat: _Seat, payload: bytes) -> Any:
        try:
            return pickle.loads(payload)
        except Exception as error:
            try:
                pickle.loads(payload)
            except Exception as again:
                # Only a result can be such.
                info = ExceptionInfo((type(again), again, again.__traceback__))
                key = seat.task.key if seat.task is not None else (-1, None)
                return READY, (*key, (False, info), seat.process.inqW_fd)
            # It was a signal handler's.
            raise error from None

    def listen_in(self, handlers: dict[int, Callable[..., object]]) -> None:
        """Hear of messages before those who handle them.

        Args:
            handlers: By kind, who handles messages; the desk puts itself in front, and lets nothing through a
                second time.
        """
        acknowledge, end, bid_farewell = handlers[ACK], handlers[READY], handlers[DEATH]

        def on_ack(job: int, i: int | None, *args: Any) -> None:
            if self._begins(job, i):
                acknowledge(job, i, *args)

        def on_ready(job: int, i: int | None, *args: Any) -> None:
            try:
                if self._ends(job, i):
                    end(job, i, *args)
            finally:
                self._in_hand.discard((job, i))

        def on_death(pid: int, *args: Any) -> None:
            self._leaves(pid)
            bid_farewell(pid, *args)

        handlers[ACK], handlers[READY], handlers[DEATH] = on_ack, on_ready, on_death

    def _with(self, job: int, i: int | None) -> _Seat | None:
        """Find who has a job."""
        for seat in list(self._seats.values()):
            task = seat.task
            if task is not None and task.key == (job, i):
                return seat
        return None

    def _begins(self, job: int, i: int | None) -> bool:
        seat = self._with(job, i)
        task = None if seat is None else seat.task
        if seat is None or task is None or task.key != (job, i) or task.begun:
            return False
        task.begun = True
        seat.inbox.clear()
        # It never comes back, and may be large.
        task.message = b""
        self.fruitless = 0
        if self._is_ending:
            self._hand_out()
        return True

    def _ends(self, job: int, i: int | None) -> bool:
        seat = self._with(job, i)
        if seat is None or (job, i) in self._in_hand:
            return False
        self._in_hand.add((job, i))
        if seat.left is not None:
            seat.left -= 1
        seat.inbox.clear()
        seat.outlet.release()
        self._offer(seat)
        if self._is_ending:
            self._hand_out()
        return True

    def _leaves(self, pid: int) -> None:
        for seat in list(self._seats.values()):
            if seat.process.pid == pid:
                seat.is_leaving = True
                seat.inbox.clear()

    # --- the end ---

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._epoll.closed

    def close(self) -> None:
        """Close all pipes. Doing so again does nothing."""
        self.stop()
        for number in list(self._seats):
            seat = self._seats.pop(number, None)
            if seat is not None:
                self._close(seat)
        self._epoll.close()

    def _abandon(self) -> None:
        """Close the copies of all descriptors, in a forked child: the set is the owner's."""
        self.stop()
        for seat in self._seats.values():
            for end in (seat.outlet, seat.inlet, seat.writer, seat.reader):
                end.close()
        self._epoll.close()


def _has_read_all(seat: _Seat) -> bool:
    """Whether a worker that has ended without beginning its job may have ended because of it."""
    if getattr(seat.process, "_controlled_termination", False):
        return False
    if seat.process._popen is None or seat.process.exitcode in (EX_OK, EX_RECYCLE):
        return False
    with suppress(OSError):
        return not seat.outlet.waits and not unread(seat.writer.fileno())
    return False


def _framed(body: bytes) -> bytes:
    """A message with its length in front."""
    size = len(body)
    head = size.to_bytes(4, "big") if size < 2**31 else b"\xff\xff\xff\xff" + size.to_bytes(8, "big")
    return head + body


#: Has a worker leave.
_LAST = _framed(bytes(ForkingPickler.dumps(None)))
