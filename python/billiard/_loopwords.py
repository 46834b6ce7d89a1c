"""Memory that a driven pool has in common with a worker: for what pipes cannot carry."""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress

from . import reduction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: As much is read of what a worker says, in bytes.
_MOST = 64 * 1024
#: Behind it, the job that a soft limit is meant for, and how it is written: from 1 on, 0 is none.
_AIM = _MOST
_NUMBER = struct.Struct("=q")
_NONE = _NUMBER.pack(0)


class LastWords:
    """Memory that a worker's crash handler writes the stack to, and that its owner reads. The other way, the
    owner writes which job a soft limit is meant for, since a signal only says that there is one.

    Raises:
        OSError: No memory or descriptor is left.
    """

    _fd = -1

    def __init__(self) -> None:
        fd = os.memfd_create("billiard-words", os.MFD_CLOEXEC)
        try:
            # Whoever closes and opens the standard streams is not to find it there.
            self._fd = int(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3))
        finally:
            os.close(fd)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def read(self) -> str | None:
        """Return what was written; ``None`` if that is nothing."""
        with suppress(OSError):
            said, _, _ = os.pread(self._fd, _MOST, 0).partition(b"\0")
            return said.decode(errors="replace").rstrip() or None
        return None

    def aim(self, job: int) -> None:
        """Note which job the next soft limit is meant for."""
        with suppress(OSError):
            os.pwrite(self._fd, _NUMBER.pack(job + 1), _AIM)

    def take_aim(self) -> int | None:
        """Return the job that a soft limit is meant for, once; ``None`` for whichever runs."""
        with suppress(OSError):
            noted = os.pread(self._fd, _NUMBER.size, _AIM)
            if noted not in (b"", _NONE):
                os.pwrite(self._fd, _NONE, _AIM)
                return int(_NUMBER.unpack(noted)[0]) - 1
        return None

    def close(self) -> None:
        """Let go of the memory here."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _given, (reduction.DupFd(self._fd),)


def _given(descriptor: Any) -> LastWords:
    """What a worker that is not forked is given."""
    words = LastWords.__new__(LastWords)
    words._fd = descriptor.detach()
    return words


def last_words() -> LastWords | None:
    """Make room for the last words of a worker; it does without where there is none."""
    with suppress(OSError):
        return LastWords()
    return None
