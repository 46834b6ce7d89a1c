"""The names of shared memory: files in memory, and who removes them.

A file says in its time of last access, which means nothing else for such a file, that it was made here,
and which process is its *keeper*: the parent of the one that has made it, or that one itself if it has no
parent of this package, or the server of a `SharedMemoryManager`. Whoever has it open holds a shared lock
on it, which the kernel takes away with the last copy of the descriptor and the last mapping, however that
ended. So a file whose keeper is over, and on which nobody has a lock, is removed by whoever passes by: a
process that uses this module, or that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import threading

from . import process, util

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_FOLDER = "/dev/shm"
#: Above the keeper's start time, in the seconds of the time of last access.
_MARK = int.from_bytes(b"bil", "big")
_SECOND = 10**9
_PID_BITS = 22
_STARTED = 2**32 - 1

#: The process that has promised to look once more when it ends.
_leaving = 0


def _path(name: str) -> str:
    if not name or "/" in name or name in (".", ".."):
        raise ValueError(f"{name!r} is no name of shared memory: it is a file's name, without slashes")
    return f"{_FOLDER}/{name}"


def _start_of(pid: int) -> int | None:
    """The tick at which a process began; ``None`` if it is over."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19]) & _STARTED


def _space() -> int:
    """Something of the namespace in which process ids are counted here."""
    return os.stat("/proc/self/ns/pid").st_ino % 128


def _mark_of(pid: int) -> int | None:
    """What the files say whose keeper is this process."""
    started = _start_of(pid)
    if started is None:
        return None
    return (_MARK << 32 | started) * _SECOND + (_space() << _PID_BITS | pid)


class _Choice(threading.local):
    keeper: int | None = None


_choice = _Choice()


@contextlib.contextmanager
def kept_by(pid: int) -> Iterator[None]:
    """Let a process be the keeper of what is made meanwhile in this thread."""
    _choice.keeper = pid
    try:
        yield
    finally:
        _choice.keeper = None


def _keeper() -> int:
    if _choice.keeper is not None:
        return _choice.keeper
    parent = process.parent_process()
    return os.getpid() if parent is None or parent.pid is None else parent.pid


def _is_kept(mark: int, leaving: bool) -> bool:
    """Whether a file's keeper still is, or is nobody that is known here."""
    seconds, rest = divmod(mark, _SECOND)
    if seconds >> 32 != _MARK or rest >> _PID_BITS != _space():
        return True
    pid = rest & (2**_PID_BITS - 1)
    if leaving and pid == os.getpid():
        return False
    return _start_of(pid) == seconds & _STARTED


def create(name: str, size: int, tracked: bool) -> int:
    """Make a file of zeros, and answer its descriptor, which says that it is in use.

    Raises:
        FileExistsError: There is one of that name.
        OSError: There is no memory.
    """
    path = _path(name)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        # Before it is marked: from then on, what nobody has locked may go.
        fcntl.flock(fd, fcntl.LOCK_SH)
        os.posix_fallocate(fd, 0, size)
        mark = (_mark_of(_keeper()) or _mark_of(os.getpid())) if tracked else None
        if mark is not None:
            os.utime(fd, ns=(mark, os.fstat(fd).st_mtime_ns))
    except BaseException:
        os.unlink(path)
        os.close(fd)
        raise
    _look_when_leaving()
    return fd


def use(name: str) -> int:
    """Open a file, and answer its descriptor, which says that it is in use.

    Raises:
        FileNotFoundError: There is none of that name.
        OSError: It may not be opened.
    """
    path = _path(name)
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        if os.fstat(fd).st_nlink == 0:
            raise FileNotFoundError(2, os.strerror(2), name)
    except BaseException:
        os.close(fd)
        raise
    _look_when_leaving()
    return fd


def remove(name: str) -> None:
    """Remove a name.

    Raises:
        FileNotFoundError: There is none.
    """
    os.unlink(_path(name))


def remove_all(prefix: str) -> None:
    """Remove the names that begin so, whoever uses the memory."""
    with contextlib.suppress(OSError), os.scandir(_FOLDER) as entries:
        for entry in entries:
            if entry.name.startswith(prefix):
                # One that is gone meanwhile.
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def sweep(leaving: bool = False) -> None:
    """Remove the names that nobody needs any more."""
    with contextlib.suppress(OSError), os.scandir(_FOLDER) as entries:
        for entry in entries:
            # One that is gone meanwhile, or not ours to look at, is nobody's concern here.
            with contextlib.suppress(OSError):
                _sweep_one(entry, leaving)


def _sweep_one(entry: os.DirEntry[str], leaving: bool) -> None:
    told = entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(told.st_mode) or told.st_uid != os.geteuid():
        return
    if _is_kept(told.st_atime_ns, leaving):
        return
    fd = os.open(entry.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # Refused while anybody has it open. Who comes now waits for this lock, then finds that it is gone.
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        now = os.stat(entry.path, follow_symlinks=False)
        if (now.st_dev, now.st_ino) == (told.st_dev, told.st_ino):
            os.unlink(entry.path)
    finally:
        os.close(fd)


def _look_when_leaving() -> None:
    global _leaving
    if _leaving != os.getpid():
        _leaving = os.getpid()
        # After those that join the children.
        util.Finalize(None, _leave, exitpriority=-100)


def _leave(*_: Any) -> None:
    from . import shared_memory

    shared_memory._give_up()
    sweep(leaving=True)
