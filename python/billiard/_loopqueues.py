"""The queues that all workers of a pool share which its owner drives, seen from the owner."""

from __future__ import annotations

import select
from collections import deque

from ._billiard import Connection
from .compat import setblocking
from .reduction import ForkingPickler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Inlet:
    """Writes tasks to the workers, and listens to them while there is no room: those that wait for somebody
    to read their results read no tasks.

    Args:
        writer: Where tasks are written to; it is put into non-blocking mode.
        reader: Where results come from.
        listen: Called when there are some. It may put more tasks.
    """

    def __init__(self, writer: Connection, reader: Connection, listen: Callable[[], object]) -> None:
        setblocking(writer, False)
        self._writer, self._reader, self._listen = writer, reader, listen
        self._waiting: deque[bytes] = deque()
        self._busy = False

    def put(self, task: Any) -> None:
        """Write a task; or leave it to whoever is just writing one, and listening meanwhile.

        Args:
            task: Anything that can be pickled; what pickling raises is raised, and nothing is put.
        """
        body = bytes(ForkingPickler.dumps(task))
        self._waiting.append(_head(len(body)) + body)
        if self._busy:
            return
        self._busy = True
        try:
            while self._waiting:
                self._write(self._waiting.popleft())
        finally:
            self._busy = False

    def _write(self, message: bytes) -> None:
        sent = 0
        try:
            while sent < len(message):
                try:
                    sent += self._writer.send_offset(message, sent)
                except BlockingIOError:
                    self._wait()
        finally:
            # A signal handler's exception: what was begun is finished with the next task.
            if 0 < sent < len(message):
                self._waiting.appendleft(message[sent:])

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._writer, select.POLLOUT)
        poll.register(self._reader, select.POLLIN)
        if self._reader.fileno() in dict(poll.poll()):
            self._listen()


def _head(size: int) -> bytes:
    """What goes ahead of a message of so many bytes."""
    return size.to_bytes(4, "big") if size < 2**31 else b"\xff\xff\xff\xff" + size.to_bytes(8, "big")
