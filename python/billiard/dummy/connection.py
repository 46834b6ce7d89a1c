"""Connections between threads of one process.

What is sent is handed over as it is: it is not copied, and need not be picklable.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from typing import Any

from .._timeouts import bounded

__all__ = ["Client", "Listener", "Pipe"]

#: The kinds of addresses: there is one, which has no name.
families = [None]


class _Line:
    """A queue that can be closed at either end.

    Args:
        room: How many items may wait in it; ``None`` for any number.
    """

    def __init__(self, room: int | None = None) -> None:
        self._items: deque[Any] = deque()
        self._room = room
        self._finished = False
        self._abandoned = False
        # Its lock can be taken again by the thread that has it: a collection may close an end at any moment.
        self._changed = threading.Condition(threading.RLock())

    def put(self, item: Any) -> bool:
        """Add an item, as soon as there is room. False: nobody will take it."""
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or self._has_room())
            if self._abandoned:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def get(self) -> Any:
        """Wait for the next item, and take it.

        Raises:
            EOFError: There will be no more.
            OSError: This end was closed meanwhile.
        """
        with self._changed:
            self._changed.wait_for(self._is_readable)
            if self._abandoned:
                raise OSError("handle is closed")
            if not self._items:
                raise EOFError
            self._changed.notify_all()
            return self._items.popleft()

    def poll(self, timeout: float | None) -> bool:
        """Wait until `get` would not wait. False: it still would."""
        timeout = bounded(timeout)
        with self._changed:
            return self._changed.wait_for(self._is_readable, timeout)

    def finish(self) -> None:
        """Nothing more will be put."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def abandon(self) -> list[Any]:
        """Nothing more will be taken. Returns what nobody has taken."""
        with self._changed:
            self._abandoned = True
            left, self._items = list(self._items), deque()
            self._changed.notify_all()
            return left

    def _has_room(self) -> bool:
        return self._room is None or len(self._items) < self._room

    def _is_readable(self) -> bool:
        return bool(self._items) or self._finished or self._abandoned


class Connection:
    """One end of a connection between threads. Closed when it is collected, and at the end of a ``with``.

    Args:
        _in: What is received; ``None`` if nothing ever is.
        _out: What is sent, likewise.

    Source: billiard 4.2.1 ``dummy.connection.Connection``. Different here: an end can be closed, which the
    other end notices, and a one-way pipe goes one way, both as with processes.
    """

    # Also of one whose constructor was called the wrong way, and that is collected all the same.
    _in: _Line | None = None
    _out: _Line | None = None
    _closed = False

    def __init__(self, _in: _Line | None, _out: _Line | None) -> None:
        self._in = _in
        self._out = _out

    @property
    def closed(self) -> bool:
        """Whether this end was closed."""
        return self._closed

    @property
    def readable(self) -> bool:
        """Whether this end receives."""
        return self._in is not None

    @property
    def writable(self) -> bool:
        """Whether this end sends."""
        return self._out is not None

    def send(self, obj: Any) -> None:
        """Hand an object to the other end.

        Raises:
            BrokenPipeError: The other end was closed.
            OSError: This end was closed, or only receives.
        """
        if not self._writer().put(obj):
            raise BrokenPipeError(errno.EPIPE, "the other end is closed")

    def recv(self) -> Any:
        """Wait for an object, and return it.

        Raises:
            EOFError: There is nothing left, and the other end was closed.
            OSError: This end was closed, or only sends.
        """
        return self._reader().get()

    def send_bytes(self, buf: Any, offset: int = 0, size: int | None = None) -> None:
        """Send a copy of bytes.

        Args:
            buf: A contiguous buffer.
            offset: Its first byte that is sent.
            size: How many bytes are sent; the default is all that follow.

        Raises:
            ValueError: There are no such bytes in ``buf``.
            BrokenPipeError: The other end was closed.
            OSError: This end was closed, or only receives.
        """
        self._writer()
        view = memoryview(buf).cast("B")
        if offset < 0:
            raise ValueError("offset is negative")
        if size is not None and size < 0:
            raise ValueError("size is negative")
        if len(view) < offset + (size or 0):
            raise ValueError(f"buffer length < offset{'' if size is None else ' + size'}")
        self.send(bytes(view[offset:] if size is None else view[offset : offset + size]))

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """Wait for bytes, and return them.

        Args:
            maxlength: The most bytes that are acceptable; the default is any number.

        Raises:
            EOFError: There is nothing left, and the other end was closed.
            OSError: This end was closed, or only sends, or there are more bytes than acceptable.
            TypeError: The other end has sent an object.
            ValueError: ``maxlength`` is negative.
        """
        reader = self._reader()
        if maxlength is not None and maxlength < 0:
            raise ValueError("negative maxlength")
        message = reader.get()
        if not isinstance(message, bytes):
            raise TypeError(f"expected bytes, but the other end has sent {type(message).__name__}")
        if maxlength is not None and len(message) > maxlength:
            raise OSError("bad message length")
        return message

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Tell whether `recv` would find something.

        Args:
            timeout: Seconds to wait, 0 to look and return, ``None`` to wait for ever. Negative means 0.

        Returns:
            True when there is something. True too when the other end is closed: `recv` will raise `EOFError`.

        Raises:
            OSError: This end was closed, or only sends.
        """
        found = self._reader().poll(timeout)
        # It may have been closed meanwhile.
        self._reader()
        return found

    def close(self) -> None:
        """Close this end. What it has sent can still be received; what it has not received is lost."""
        self._closed = True
        if self._out is not None:
            self._out.finish()
        if self._in is not None:
            self._in.abandon()

    def _reader(self) -> _Line:
        if self._closed:
            raise OSError("handle is closed")
        if self._in is None:
            raise OSError("connection is write-only")
        return self._in

    def _writer(self) -> _Line:
        if self._closed:
            raise OSError("handle is closed")
        if self._out is None:
            raise OSError("connection is read-only")
        return self._out

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class Listener:
    """Where threads of this process connect. Closed when it is collected, and at the end of a ``with``.

    Args:
        address: Ignored: see `address`.
        family: Ignored.
        backlog: How many clients may have connected and not been accepted; the next one waits. 0 or less:
            any number.

    Source: billiard 4.2.1 ``dummy.connection.Listener``. Different here: closing it refuses clients that wait
    and that come later, and wakes whoever accepts.
    """

    def __init__(self, address: object = None, family: object = None, backlog: int = 1) -> None:  # noqa: ARG002
        self._backlog_queue = _Line(backlog if backlog > 0 else None)

    @property
    def address(self) -> Any:
        """What `Client` takes. It has no other use."""
        return self._backlog_queue

    def accept(self) -> Connection:
        """Wait for a client, and return the connection to it.

        Raises:
            OSError: The listener was closed.
        """
        try:
            connection: Connection = self._backlog_queue.get()
        except OSError:
            raise OSError("listener is closed") from None
        return connection

    def close(self) -> None:
        """Accept nobody any more. Who was not accepted finds the connection closed."""
        for connection in self._backlog_queue.abandon():
            connection.close()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_backlog_queue"):
            self.close()


def Client(address: Any) -> Connection:
    """Connect to a listener.

    Args:
        address: Its `Listener.address`.

    Raises:
        ConnectionRefusedError: The listener was closed.
        TypeError: ``address`` is none.
    """
    if not isinstance(address, _Line):
        raise TypeError(f"expected the address of a listener in this process, not {type(address).__name__}")
    here, there = Pipe()
    if not address.put(there):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "the listener is closed")
    return here


def Pipe(duplex: bool = True) -> tuple[Connection, Connection]:
    """Return two connections to each other.

    Args:
        duplex: False for one way: the first then only receives, the second only sends.
    """
    one, other = _Line(), _Line() if duplex else None
    return Connection(one, other), Connection(other, one)
