"""What a pool gives each of its workers once, rather than with each task.

The object is pickled when the pool is made, into anonymous memory: the pickle, then the buffers that belong
to it (protocol 5), then a table of where they are. The memory is sealed, so nobody writes to it any more.
Every worker maps it, unpickles the object once, and has the buffers where they are.
"""

from __future__ import annotations

import array
import errno
import fcntl
import mmap
import os
import pickle
import threading

from . import process, util
from ._serializers import pickler_for
from .context import get_spawning_popen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._serializers import Serializer

#: Buffers begin at multiples of this, which suits every processor's vector instructions.
_ALIGNMENT = 64
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_MFD_NOEXEC_SEAL = 8
#: At most so much is written by one system call, so that Ctrl-C does not wait for all of it.
_AT_ONCE = 64 << 20


class _Here(threading.local):
    """What a pool of threads has given this thread, in a tuple: `None` may be given too."""

    given: tuple[Any, ...] = ()


_here = _Here()
#: What a pool has given this process, likewise.
_process_wide: tuple[Any, ...] = ()


def shared() -> Any:
    """Return what the pool has given its workers as ``shared``.

    It is for tasks and initializers. In a worker process it is always the same object, which was unpickled
    when the worker began; its buffers (numpy arrays and the like) are read-only views of memory that all
    workers have in common. In a pool of threads it is the object itself.

    Raises:
        RuntimeError: This is no worker, or its pool was made without ``shared``.
    """
    given = _here.given or _process_wide
    if not given:
        raise RuntimeError(
            "there is no shared object here: give one to the pool, Pool(shared=...), and ask in its tasks"
        )
    return given[0]


def begin_thread(given: Any) -> None:
    """Let `shared` return an object in this thread."""
    _here.given = (given,)


def begin_process(parcel: Parcel | None) -> None:
    """Let `shared` return in this process, and all its threads, what the pool has given; or nothing.

    Raises:
        Exception: Whatever unpickling it raises.
    """
    global _process_wide
    # FORK: what was given to the parent, or to the thread that has forked, was not given to this one.
    _here.given = ()
    _process_wide = ()
    if parcel is not None:
        _process_wide = (parcel.open(),)


class Parcel:
    """An object in anonymous shared memory, from which it can be made again.

    Args:
        given: The object.
        serializer: See `billiard.pool.Pool`.

    Raises:
        OSError: There is no room for it, or no descriptor left.
        pickle.PicklingError: A part of it cannot be pickled; the text says which.
    """

    _fd = -1

    def __init__(self, given: Any, serializer: Serializer) -> None:
        self._fd = _anonymous()
        try:
            self._pack(given, serializer)
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            self.close()
            raise
        # FORK: a child that is no worker of this pool would keep the memory for as long as it lives.
        util.register_after_fork(self, _close_where_not_for)

    def _pack(self, given: Any, serializer: Serializer) -> None:
        buffers: list[pickle.PickleBuffer] = []
        with os.fdopen(os.dup(self._fd), "wb") as file:
            pickler = pickler_for(serializer)(file, 5, buffer_callback=buffers.append)
            try:
                pickler.dump(given)
            except OSError:
                # Of the memory: no object is the culprit.
                raise
            except Exception as error:
                raise _explained(given, error) from error
        self._pickled = end = os.fstat(self._fd).st_size
        table = array.array("Q")
        for buffer in buffers:
            start = -(-end // _ALIGNMENT) * _ALIGNMENT
            with buffer.raw() as raw:
                end = self._write(raw, start)
            table.extend((start, end))
        self._table, self._count = end, len(buffers)
        self._write(memoryview(table.tobytes()), end)

    def _write(self, raw: memoryview, at: int) -> int:
        """Write bytes to their place, and answer where they end."""
        done = 0
        while done < len(raw):
            done += os.pwrite(self._fd, raw[done : done + _AT_ONCE], at + done)
        return at + done

    def open(self) -> Any:
        """Make the object. It keeps the memory mapped; the descriptor is not needed any more.

        Raises:
            Exception: Whatever unpickling it raises.
        """
        # KERNEL: shared mappings of what is sealed against writing are refused before 6.7, private ones
        # never. Nobody writes, so the pages are the same.
        mapped = memoryview(mmap.mmap(self._fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ))
        self.close()
        table = array.array("Q", bytes(mapped[self._table : self._table + 16 * self._count]))
        buffers = (mapped[table[i] : table[i + 1]] for i in range(0, len(table), 2))
        return pickle.loads(mapped[: self._pickled], buffers=buffers)

    def close(self) -> None:
        """Let go of the memory here."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        popen = get_spawning_popen()
        if popen is None:
            raise RuntimeError("what a pool gives its workers can only be given to its workers")
        descriptor = popen.DupFd(popen.duplicate_for_child(self._fd))
        return _arrived, (descriptor, self._pickled, self._table, self._count)


def _arrived(descriptor: Any, pickled: int, table: int, count: int) -> Parcel:
    parcel = Parcel.__new__(Parcel)
    parcel._fd = descriptor.detach()
    parcel._pickled, parcel._table, parcel._count = pickled, table, count
    return parcel


def _close_where_not_for(parcel: Parcel) -> None:
    if getattr(process.current_process(), "_parcel", None) is not parcel:
        parcel.close()


def _anonymous() -> int:
    """Make anonymous memory that can be sealed; its descriptor is none of the standard streams'."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        # KERNEL: since 6.3; before, EINVAL.
        fd = os.memfd_create("billiard-shared", flags | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create("billiard-shared", flags)
    try:
        return int(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3))
    finally:
        os.close(fd)


def _explained(given: Any, error: Exception) -> pickle.PicklingError:
    from ._tasks import culprit

    path, reason = culprit("shared", given, error)
    return pickle.PicklingError(f"cannot give the workers {path}: {type(reason).__name__}: {reason}")


shared.__module__ = "billiard.pool"
