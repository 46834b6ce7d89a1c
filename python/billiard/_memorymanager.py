"""The manager of shared memory: what it has made is gone when it is.

Nobody keeps a list that could be lost. The names of all that is made for one manager begin alike, with what
its server has drawn by lot, and whoever sees it end removes the names that begin so: the process that has
started it, its server, or both. The server is the keeper of the names besides: if both were
killed, they go with the next process that passes by.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from . import _billiard
from ._objectserver import Server
from ._proxies import State
from .managers import BaseManager
from .shared_memory import ShareableList, SharedMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

    from . import shared_memory


class _State(State):
    """Tells the one that shuts the manager down how the names begin; nothing before it has started."""

    __slots__ = ["prefix"]

    prefix: str | None


class SharedMemoryServer(Server):
    """The server of a `SharedMemoryManager`."""

    public = [*Server.public, "memory_prefix"]  # noqa: RUF012

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._prefix = f"psm_{secrets.token_hex(8)}_"

    def memory_prefix(self, c: Any) -> tuple[str, int]:  # noqa: ARG002
        """How the names of its memory begin, and the server's process id."""
        return self._prefix, os.getpid()

    def serve_forever(self) -> None:
        """Serve, then remove the names that are left."""
        # It comes, too, when the process that has started the server was killed.
        with suppress(ValueError):
            if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
                signal.signal(signal.SIGTERM, _leave)
        try:
            super().serve_forever()
        finally:
            _billiard.named_remove_all(self._prefix)


def _leave(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
    sys.exit(0)


class SharedMemoryManager(BaseManager):
    """Makes shared memory with names, which are gone when the manager is shut down, however that comes about.

    Whoever has the memory open then keeps it; nobody can open it any more. The arguments are those of
    `BaseManager`.

    Source: CPython ``multiprocessing.managers.SharedMemoryManager``. Different here: what it has made goes
    also if its server, or the process that has started it, was killed.
    """

    _Server: type[Server] = SharedMemoryServer

    _state: _State

    def __init__(self, *args: Any, **kwds: Any) -> None:
        super().__init__(*args, **kwds)
        self._state = _State()
        self._state.value, self._state.prefix = State.INITIAL, None

    def start(self, initializer: Callable[..., object] | None = None, initargs: Iterable[Any] = ()) -> None:
        """Start the server, in a process of its own: see `BaseManager.start`."""
        super().start(initializer, initargs)
        try:
            self._state.prefix, _ = self._told()
        except BaseException:
            self.shutdown()
            raise

    def SharedMemory(self, size: int) -> shared_memory.SharedMemory:
        """Make shared memory.

        Args:
            size: How many bytes.

        Raises:
            AssertionError: The manager is not started, or shut down.
            OSError: No memory or descriptor is left, or the server is gone.
            ValueError: There must be at least one byte.
        """
        prefix, server = self._told()
        if size < 1:
            raise ValueError(f"shared memory is made of at least 1 byte, not {size}")
        memory = SharedMemory._kept_by(server, prefix + secrets.token_hex(8), size)
        self._confirm(memory)
        return memory

    def ShareableList(self, sequence: Iterable[Any]) -> shared_memory.ShareableList:
        """Make a list in shared memory.

        Args:
            sequence: The items: see `billiard.shared_memory.ShareableList`.

        Raises:
            AssertionError: The manager is not started, or shut down.
            OSError: No memory or descriptor is left, or the server is gone.
            ValueError: An item is of another type.
        """
        prefix, server = self._told()
        made = ShareableList._kept_by(server, prefix + secrets.token_hex(8), sequence)
        self._confirm(made.shm)
        return made

    def _told(self) -> tuple[str, int]:
        if self._state.value != State.STARTED:
            raise AssertionError(
                "server not yet started" if self._state.value == State.INITIAL else "shut down"
            )
        return self._ask("memory_prefix")  # type: ignore[no-any-return]

    def _confirm(self, memory: shared_memory.SharedMemory) -> None:
        """Make sure that the server is there, and will see the name when it ends."""
        try:
            self._told()
        except BaseException:
            _billiard.named_remove_all(memory.name)
            memory.close()
            raise

    @staticmethod
    def _finalize_manager(process: Any, address: Any, authkey: bytes, state: Any, _Client: Any) -> None:
        try:
            BaseManager._finalize_manager(process, address, authkey, state, _Client)
        finally:
            if state.prefix is not None:
                _billiard.named_remove_all(state.prefix)


for _public in (SharedMemoryManager, SharedMemoryServer):
    _public.__module__ = "billiard.managers"
