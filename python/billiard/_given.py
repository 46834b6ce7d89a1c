"""What a pool gives each of its workers once, rather than with each task.

The object is pickled when the pool is made, into anonymous memory: the pickle is the first part of a bundle,
the buffers that belong to it (protocol 5) are the others. The memory is sealed, so nobody writes to it any
more. Every worker maps it, unpickles the object once, and has the buffers where they are.
"""

from __future__ import annotations

import pickle
import threading

from . import _billiard, process, util
from ._serializers import pickler_for
from .context import get_spawning_popen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._serializers import Serializer


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

    def __init__(self, given: Any, serializer: Serializer) -> None:
        self._bundle = _billiard.Bundle()
        buffers: list[pickle.PickleBuffer] = []
        pickler = pickler_for(serializer)(self._bundle, 5, buffer_callback=buffers.append)
        try:
            pickler.dump(given)
        except OSError:
            # Of the memory: no object is the culprit.
            raise
        except Exception as error:
            raise _explained(given, error) from error
        for buffer in buffers:
            self._bundle.begin_part()
            with buffer.raw() as raw:
                self._bundle.write(raw)
        self._bundle.seal()
        # FORK: a child that is no worker of this pool would keep the memory for as long as it lives.
        util.register_after_fork(self, _close_where_not_for)

    def open(self) -> Any:
        """Make the object. It keeps the memory mapped; the descriptor is not needed any more.

        Raises:
            Exception: Whatever unpickling it raises.
        """
        pickled, *buffers = self._bundle.open()
        self.close()
        return pickle.loads(pickled, buffers=buffers)

    def close(self) -> None:
        """Let go of the memory here."""
        self._bundle.close()

    def __reduce__(self) -> tuple[Any, ...]:
        popen = get_spawning_popen()
        if popen is None:
            raise RuntimeError("what a pool gives its workers can only be given to its workers")
        return _arrived, (popen.DupFd(popen.duplicate_for_child(self._bundle.fileno())),)


def _arrived(descriptor: Any) -> Parcel:
    parcel = Parcel.__new__(Parcel)
    parcel._bundle = _billiard.Bundle.receive(descriptor.detach())
    return parcel


def _close_where_not_for(parcel: Parcel) -> None:
    if getattr(process.current_process(), "_parcel", None) is not parcel:
        parcel.close()


def _explained(given: Any, error: Exception) -> pickle.PicklingError:
    from ._tasks import culprit

    path, reason = culprit("shared", given, error)
    return pickle.PicklingError(f"cannot give the workers {path}: {type(reason).__name__}: {reason}")


shared.__module__ = "billiard.pool"
