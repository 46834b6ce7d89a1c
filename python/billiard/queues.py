"""Queues between processes.

`Queue` and `JoinableQueue` are in shared memory: an object that was put is there, whatever becomes of the
process that put it, and no process can take anything from the others by being killed. `SimpleQueue` is a pipe
with the framing of connections, for those who wait on descriptors.
"""

from __future__ import annotations

import io
import os
from collections import deque
from queue import Empty, Full  # noqa: F401 - others import them from here

from . import _billiard, context, reduction
from ._serializers import pickler_for, refused_by
from ._timeouts import refuse_nan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._serializers import Serializer
    from .context import BaseContext

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]

_ForkingPickler = reduction.ForkingPickler

#: As many objects as a queue holds that nobody has limited.
_UNLIMITED = 2**31 - 1
#: More than there can be.
_MOST_BYTES = 2**62


class _Readable:
    """What to wait on for an object: the reading end that a queue of pipes has."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def fileno(self) -> int:
        """Return the descriptor, which is readable while there is an object in the queue."""
        return self._queue.fileno()

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Tell whether there is an object, after waiting for one.

        Args:
            timeout: Seconds to wait; ``None`` for as long as it takes, 0 and less not at all.

        Raises:
            ValueError: The timeout is nan.
        """
        import select

        refuse_nan(timeout)
        if not self._queue.empty() or (timeout is not None and timeout <= 0):
            return not self._queue.empty()
        return bool(select.select([self.fileno()], [], [], timeout)[0])


class Queue(_billiard.MessageQueue):
    """A queue of objects for any number of processes and threads.

    What is put is pickled at once, and is in the queue when ``put`` returns: a process may end right after.
    Objects that one process has put come out in that order. Each comes out once: a process that is killed in
    the middle of ``get`` has either got it, or leaves it to the others.

    It is given to children as an argument of theirs; a forked child may use the one it has inherited.

    Args:
        maxsize: How many objects it holds; 0 and less for as many as there is memory for.
        ctx: The context that it belongs to, whose serializer it uses.
        maxbytes: Nothing more is put while what is in the queue takes so many bytes: each object as many as
            its pickle has, and up to 15 for the queue itself. So the queue never takes more memory than that
            and its last object. ``None``, the default, for no bound.

    Raises:
        OSError: No memory or descriptor is left.
        TypeError: There is no ``ctx``; use the ``Queue`` of a context.
        ValueError: ``maxbytes`` is less than 1.

    Source: billiard 4.2.1 ``Queue``. Different here: there is no thread that pickles later; what cannot be
    pickled raises in ``put``; nothing that was put is lost when its process ends or closes the queue.
    """

    #: COMPAT: set by those who do not want to hear of a reader that is gone. There is nothing to hear of.
    _ignore_epipe = False

    def __init__(self, maxsize: int = 0, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        if "ctx" not in kwargs:
            raise TypeError(f"missing 1 required keyword-only argument: 'ctx' of {type(self).__name__}")
        maxbytes = kwargs.get("maxbytes")
        if maxbytes is not None and maxbytes < 1:
            raise ValueError(f"maxbytes must be at least 1 or None, not {maxbytes!r}")
        self._maxsize = min(maxsize, _UNLIMITED) if maxsize > 0 else _UNLIMITED
        self._opid = os.getpid()
        self._joincancelled = False
        self._make(self._maxsize, None if maxbytes is None else min(maxbytes, _MOST_BYTES))
        self._send_by(getattr(kwargs["ctx"], "_serializer", None))

    def __getstate__(self) -> tuple[Any, ...]:
        context.assert_spawning(self)
        memory, bell = map(reduction.DupFd, self._descriptors())
        return self._ignore_epipe, self._maxsize, memory, bell, self._opid, self._serializer

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._ignore_epipe, self._maxsize, memory, bell, self._opid, serializer = state
        self._joincancelled = False
        self._take(memory.detach(), bell.detach())
        self._send_by(serializer)

    def _send_by(self, serializer: Serializer) -> None:
        self._serializer = serializer
        if serializer is not None and serializer != "pickle":
            # A pair of functions of the program's own is to see every object.
            self._pickle_by(pickler_for(serializer), isinstance(serializer, str))

    #: COMPAT: of the thread that the original has; there is none.
    _thread = _jointhread = None

    @property
    def _reader(self) -> _Readable:
        return _Readable(self)

    @property
    def _poll(self) -> Callable[[float | None], bool]:
        return self._reader.poll

    @property
    def _buffer(self) -> deque[Any]:
        """COMPAT: what was put and is not in the queue yet, which is nothing."""
        return deque()

    def close(self) -> None:
        """Note that this process will not use the queue any more. What it has put stays in the queue.

        Afterwards ``put`` and ``get`` raise `ValueError` in this process. Closing again does nothing.
        """
        self._close()

    def join_thread(self) -> None:
        """Return: what was put is in the queue already.

        Raises:
            ValueError: The queue is not closed.
        """
        if not self._closed:
            raise ValueError(f"Queue {self!r} not closed")

    def cancel_join_thread(self) -> None:
        """Do nothing: a process that ends does not wait for what it has put."""
        self._joincancelled = True

    @staticmethod
    def _on_queue_feeder_error(e: Exception, obj: object) -> None:  # noqa: ARG004
        """Deal with an object that cannot be pickled, and that is not put. Subclasses may do otherwise.

        Args:
            e: Why it cannot be pickled.
            obj: The object.

        Raises:
            Exception: The error; ``put`` lets it through.
        """
        raise e


class JoinableQueue(Queue):
    """A queue that knows how many of its objects have not been dealt with.

    Args:
        maxsize: How many objects it holds; 0 and less for as many as there is memory for.
        ctx: The context that it belongs to.
        maxbytes: As for `Queue`.

    Source: billiard 4.2.1 ``JoinableQueue``. Different here: ``task_done`` and ``join`` do not depend on the
    life of those who call them either.
    """

    # The methods themselves, so that no call goes through Python.
    task_done = _billiard.MessageQueue._task_done
    join = _billiard.MessageQueue._join


class _SimpleQueue:
    """A pipe for objects, without locks: for one process that puts and one that gets.

    Args:
        rnonblock: True for an end to read from that raises `BlockingIOError` rather than waits.
        wnonblock: The same for the end to write to.
        ctx: The context that it belongs to, whose serializer it uses.
    """

    def __init__(
        self,
        rnonblock: bool = False,
        wnonblock: bool = False,
        ctx: BaseContext | None = None,
    ) -> None:
        from .connection import Pipe

        self._reader: Any
        self._writer: Any
        self._reader, self._writer = Pipe(duplex=False, rnonblock=rnonblock, wnonblock=wnonblock)
        self._rlock: Any = None
        self._wlock: Any = None
        self._serializer: Serializer = getattr(ctx, "_serializer", None)

    @property
    def _poll(self) -> Any:
        return self._reader.poll

    def empty(self) -> bool:
        """Tell whether there is nothing to get now. At the end of the pipe there is: the news of it."""
        return not self._poll()

    def __getstate__(self) -> tuple[Any, ...]:
        context.assert_spawning(self)
        state = (self._reader, self._writer, self._rlock, self._wlock)
        return state if self._serializer is None else (*state, self._serializer)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._reader, self._writer, self._rlock, self._wlock, *serializer = state
        self._serializer = serializer[0] if serializer else None

    def get_payload(self) -> bytes:
        """Get the bytes of one message.

        Raises:
            EOFError: Nobody has the other end any more.
        """
        return self._reader.recv_bytes()  # type: ignore[no-any-return]

    def send_payload(self, value: Any) -> None:
        """Send bytes as one message.

        Args:
            value: Any object with contiguous memory.

        Raises:
            BrokenPipeError: Nobody has the other end any more.
        """
        self._writer.send_bytes(value)

    def get(self) -> Any:
        """Get an object; waits for one unless the end to read from is non-blocking.

        Raises:
            EOFError: Nobody has the other end any more.
        """
        return _ForkingPickler.loads(self.get_payload())

    def put(self, obj: Any) -> None:
        """Put an object; waits while the pipe is full unless the end to write to is non-blocking.

        Args:
            obj: Anything that can be pickled; what pickling raises is raised, and nothing is put.
        """
        self.send_payload(self._pickled(obj))

    def _pickled(self, obj: Any) -> Any:
        if self._serializer is None or self._serializer == "pickle":
            return _ForkingPickler.dumps(obj)
        pickled = io.BytesIO()
        try:
            pickler_for(self._serializer)(pickled, None).dump(obj)
        except Exception as error:
            raise refused_by(error)[0] from None
        return pickled.getbuffer()

    def close(self) -> None:
        """Close both ends in this process; any other use is an `AttributeError` from then on."""
        for end in (self._reader, self._writer):
            if end is not None:
                end.close()
        self._reader = self._writer = None


class SimpleQueue(_SimpleQueue):
    """A pipe for objects that any number of processes may share.

    Args:
        ctx: The context that it belongs to, whose locks it uses.

    Raises:
        TypeError: There is no ``ctx``; use the ``SimpleQueue`` of a context.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        try:
            ctx = kwargs["ctx"]
        except KeyError:
            raise TypeError("missing 1 required keyword-only argument: 'ctx' of SimpleQueue") from None
        super().__init__(ctx=ctx)
        self._rlock = ctx.Lock()
        self._wlock = ctx.Lock()

    def get_payload(self) -> bytes:
        """Get the bytes of one message; one process at a time waits for it.

        Raises:
            EOFError: Nobody has the other end any more.
        """
        with self._rlock:
            return super().get_payload()

    def send_payload(self, value: Any) -> None:
        """Send bytes as one message, in one piece.

        Args:
            value: Any object with contiguous memory.

        Raises:
            BrokenPipeError: Nobody has the other end any more.
        """
        with self._wlock:
            super().send_payload(value)
