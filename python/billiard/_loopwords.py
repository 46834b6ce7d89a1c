"""What a worker of a driven pool has to say when it crashes, and can say nothing any more."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

#: As much of it is read, in bytes.
_MOST = 64 * 1024


class LastWords:
    """Memory that a worker's crash handler writes the stack to, and that its owner reads.

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
            return os.pread(self._fd, _MOST, 0).decode(errors="replace").rstrip() or None
        return None

    def close(self) -> None:
        """Let go of the memory here."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


def last_words() -> LastWords | None:
    """Make room for the last words of a worker; it does without where there is none."""
    with suppress(OSError):
        return LastWords()
    return None
