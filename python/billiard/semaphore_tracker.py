"""The names of the original's semaphore tracker, for those who call them.

The original needs a process that outlives the others and unlinks the semaphores they leave behind, because a
semaphore there is a name in the file system. Nothing of this package has a name: what processes share is
memory that is gone with the last of them, however they end. So there is nothing to track, and no tracker.

What others register is therefore checked and forgotten. A promise to unlink it could not be kept by a process
that may be killed as well.
"""

from __future__ import annotations

import os
import threading

__all__ = ["ensure_running", "register", "unregister"]

_LONGEST_NAME = 512


class SemaphoreTracker:
    """What stands in for the tracker.

    Attributes:
        _fd: What `getfd` answers; ``None`` until somebody asks.

    Source: billiard 4.2.1 ``SemaphoreTracker``. Different here: no process is started, nothing is remembered.
    """

    def __init__(self) -> None:
        self._fd: int | None = None
        self._renew_lock()

    def _renew_lock(self) -> None:
        # FORK: another thread of the parent may have held it.
        self._lock = threading.Lock()

    def getfd(self) -> int:
        """Return a descriptor to which the tracker's commands can be written, and that children may inherit.

        It leads to ``/dev/null``. It is opened when it is first asked for, stays open, and is the same every
        time.

        Raises:
            OSError: No descriptor is left.
        """
        with self._lock:
            if self._fd is None:
                self._fd = os.open(os.devnull, os.O_WRONLY)
            return self._fd

    def ensure_running(self) -> None:
        """Have `_fd` set. There is nothing to start."""
        self.getfd()

    def register(self, name: str) -> None:
        """Check the name of a semaphore that should be unlinked one day, and forget it.

        Args:
            name: ASCII, at most 512 characters.

        Raises:
            ValueError: Not such a name.
        """
        _check(name)

    def unregister(self, name: str) -> None:
        """Check the name of a semaphore that was unlinked.

        Raises:
            ValueError: Not a name that could have been registered.
        """
        _check(name)


def _check(name: str) -> None:
    if not name.isascii():
        raise ValueError(f"name is not ASCII: {name!r}")
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"name too long: {len(name)} characters, at most {_LONGEST_NAME}")


_semaphore_tracker = SemaphoreTracker()
ensure_running = _semaphore_tracker.ensure_running
register = _semaphore_tracker.register
unregister = _semaphore_tracker.unregister
getfd = _semaphore_tracker.getfd

os.register_at_fork(after_in_child=_semaphore_tracker._renew_lock)


def main(fd: int) -> None:
    """Be the tracker: read commands until everybody who could write some is gone. They have no effect.

    Args:
        fd: The reading end of a pipe. It is closed in the end.
    """
    with open(fd, "rb", buffering=0) as commands:
        while commands.read(4096):
            pass
