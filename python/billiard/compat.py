"""File descriptors, memory, and other things of the operating system, under the names that users import."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from itertools import zip_longest
from os import closerange, fsdecode, fsencode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeVar

    _T = TypeVar("_T")

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

__all__ = [
    "FILENO_ERRORS",
    "close_open_fds",
    "closerange",
    "fsdecode",
    "fsencode",
    "get_errno",
    "get_fdmax",
    "isblocking",
    "maxrss_to_kb",
    "maybe_fileno",
    "mem_rss",
    "send_offset",
    "setblocking",
    "spawnv_passfds",
    "uniq",
    "zip_longest",
]

#: What asking an object for its descriptor may raise.
FILENO_ERRORS = (AttributeError, ValueError, io.UnsupportedOperation)

_FD_DIR = "/proc/self/fd" if sys.platform.startswith("linux") else "/dev/fd"


def send_offset(fd: int, buf: Any, offset: int) -> int:
    """Write ``buf`` from ``offset`` on to a descriptor, as much as it takes at once.

    Returns:
        How many bytes were written.
    """
    return os.write(fd, memoryview(buf)[offset:])


def maybe_fileno(f: Any) -> int | None:
    """The descriptor of a file, of a number the number itself, ``None`` of anything else."""
    if isinstance(f, int):
        return f
    try:
        number = f.fileno()
    except FILENO_ERRORS:
        return None
    return number if isinstance(number, int) else None


def get_fdmax(default: int | None = None) -> int | None:
    """How many descriptors this process may have, ``default`` if there is no such limit."""
    try:
        limit = os.sysconf("SC_OPEN_MAX")
    except (ValueError, OSError, AttributeError):
        limit = -1
    if limit >= 0:
        return limit
    if resource is None:
        return default
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return default if hard == resource.RLIM_INFINITY else hard


def uniq(it: Iterable[_T]) -> Iterator[_T]:
    """The items of ``it`` without those that came before."""
    seen: set[_T] = set()
    for item in it:
        if item not in seen:
            seen.add(item)
            yield item


def close_open_fds(keep: Iterable[Any] | None = None) -> None:
    """Close every open descriptor of this process.

    Args:
        keep: What to leave open: descriptors, files; ``None`` and objects without a descriptor are skipped.
    """
    kept = {number for number in map(maybe_fileno, keep or ()) if number is not None}
    try:
        numbers = [int(name) for name in os.listdir(_FD_DIR)]
    except (OSError, ValueError):
        _close_all_but(kept)
        return
    # Downwards, so that the standard three go last.
    for number in sorted(set(numbers) - kept, reverse=True):
        with suppress(OSError):
            os.close(number)


def _close_all_but(kept: set[int]) -> None:
    low = 0
    for number in [*sorted(kept), get_fdmax(2048) or 2048]:
        # An empty range from 0 would close everything in some versions of the interpreter.
        if low < number:
            os.closerange(low, number)
        low = max(low, number + 1)


def get_errno(exc: BaseException) -> int:
    """The error number of an exception, 0 if it has none."""
    number: int = getattr(exc, "errno", 0)
    return number


def spawnv_passfds(path: str | bytes, args: Iterable[str | bytes], passfds: Iterable[int]) -> int:
    """Start a program that inherits descriptors 0, 1, 2 and exactly those given.

    Args:
        path: The program.
        args: Its arguments, the name it is called by first.
        passfds: The descriptors.

    Returns:
        The process id. The caller has to wait for it.

    Raises:
        OSError: The program cannot be started.
    """
    from . import _billiard

    environment = [name + b"=" + value for name, value in os.environb.items()]
    child = _billiard.spawn(
        fsencode(path), [fsencode(arg) for arg in args], environment, sorted(set(passfds))
    )
    pid = child.pid
    child.keep()
    return pid


def isblocking(handle: Any) -> bool:
    """Whether reads and writes of a descriptor, or of an object with one, wait."""
    return os.get_blocking(_fileno(handle))


def setblocking(handle: Any, blocking: bool) -> None:
    """Make reads and writes of a descriptor, or of an object with one, wait or not."""
    os.set_blocking(_fileno(handle), bool(blocking))


def _fileno(handle: Any) -> int:
    fileno: Callable[[], int] | None = getattr(handle, "fileno", None)
    return handle if fileno is None else fileno()


def maxrss_to_kb(v: int) -> float:
    """The kernel's ``ru_maxrss`` in KiB."""
    return v / 1024.0 if sys.platform == "darwin" else v


def mem_rss() -> float:
    """The resident memory of this process now, in KiB.

    Source: billiard 4.2.1 ``mem_rss``. Different here: the current size, not the largest ever, where the
    system tells it.

    Raises:
        ImportError: This platform does not tell.
    """
    if sys.platform.startswith("linux"):
        from . import _billiard

        try:
            return float(_billiard.mem_rss())
        except OSError as error:
            # Without /proc, as in some containers, the largest ever is better than nothing.
            if error.errno not in (errno.ENOENT, errno.EACCES):
                raise
    if resource is None:
        raise ImportError(f"this platform ({sys.platform}) does not tell the memory use of a process")
    return maxrss_to_kb(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
