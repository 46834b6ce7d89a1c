"""The results of a map, one by one, in a pool that its owner drives."""

from __future__ import annotations

import threading
import time
from collections import deque

from . import _billiard, _tasks
from ._loopresults import Either, failure, job_counter
from ._timeouts import bounded
from .exceptions import TimeoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping
    from typing import Any

    from ._loopresults import Outcome
    from .exceptions import Terminated


class IMapIterator(metaclass=Either):
    """The results of a map, one by one, in the order of the input.

    Args:
        cache: The jobs that have not ended, by number.
        lost_worker_timeout: See `ApplyResult`.
    """

    _native = _billiard.IMapIterator
    _worker_lost: tuple[float, int] | None = None
    _write_to: Any = None
    _scheduled_for: Any = None
    _accepted = False
    _timeout = _soft_timeout = None

    def __init__(self, cache: MutableMapping[int, Any], lost_worker_timeout: float = 10.0) -> None:
        self._cond = threading.Condition()
        self._job = next(job_counter)
        self._cache = cache
        self._items: deque[Outcome] = deque()
        self._index = 0
        self._length: int | None = None
        self._ready = False
        self._unsorted: dict[int, Outcome] = {}
        #: By number, the workers of the items that have begun and not ended.
        self._begun: dict[int | None, int] = {}
        #: The numbers of those that were lost with theirs.
        self._lost: set[int | None] = set()
        self._lost_worker_timeout = lost_worker_timeout
        cache[self._job] = self

    def __iter__(self) -> IMapIterator:
        return self

    def next(self, timeout: float | None = None) -> Any:
        """Wait for the next result, while another thread drives the pool, and return it.

        Args:
            timeout: Seconds to wait; ``None`` waits for ever.

        Raises:
            StopIteration: There are no more.
            multiprocessing.TimeoutError: There is none after ``timeout`` seconds.
            Exception: What the task raised.
        """
        limit = bounded(timeout)
        deadline = None if limit is None else time.monotonic() + limit
        with self._cond:
            while not self._items:
                if self._index == self._length:
                    self._ready = True
                    raise StopIteration
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError
                self._cond.wait(left)
            success, value = self._items.popleft()
        if success:
            return value
        raise _tasks.raisable_in_iteration(value)

    __next__ = next

    def _set(self, i: int | None, obj: Outcome) -> None:
        """Take a result. Without a number it is an error, and stands in the next place."""
        with self._cond:
            self._begun.pop(i, None)
            if i in self._lost:
                return
            if i is not None and i != self._index:
                self._unsorted[i] = obj
                return
            self._append(obj)
            while self._index in self._unsorted:
                self._append(self._unsorted.pop(self._index))

    def _append(self, obj: Outcome) -> None:
        self._items.append(obj)
        self._index += 1
        self._cond.notify()
        if self._index == self._length:
            self._cache.pop(self._job, None)

    def _set_length(self, length: int) -> None:
        """Note how many results there will be."""
        with self._cond:
            self._length = length
            if self._index == length:
                self._cond.notify()
                self._cache.pop(self._job, None)

    def discard(self) -> None:
        """Let go of the job: nobody will ask for more of it."""
        self._cache.pop(self._job, None)

    def _ack(self, i: int | None, time_accepted: float, pid: int, *args: Any) -> None:  # noqa: ARG002
        """Note that a worker has begun an item."""
        self._begun[i] = pid

    def _lose(self, pid: int | None, outcome: Outcome) -> None:
        """End the items that a worker had begun. ``None`` is nobody's number."""
        for i, owner in list(self._begun.items()):
            if pid == owner:
                self._set(i, outcome)
                self._lost.add(i)

    def _give_up(self, why: Terminated, tell: bool) -> None:  # noqa: ARG002
        """End with the pool: what has not come raises an error."""
        with self._cond:
            self._append(failure(why))
            self._length = self._index
            self._unsorted.clear()
        self._cache.pop(self._job, None)

    def ready(self) -> bool:
        """Tell whether the end has been reached."""
        return self._ready

    def worker_pids(self) -> list[int]:
        """Process ids of the workers that have begun items which have not ended."""
        return list(dict.fromkeys(self._begun.values()))


class IMapUnorderedIterator(IMapIterator):
    """The results of a map, one by one, as they are ready."""

    _native = _billiard.IMapUnorderedIterator

    def _set(self, i: int | None, obj: Outcome) -> None:
        """Take a result."""
        with self._cond:
            self._begun.pop(i, None)
            if i not in self._lost:
                self._append(obj)


def flattened(results: IMapIterator) -> Iterable[Any]:
    """The items of chunks, one by one."""
    for chunk in results:
        yield from chunk


for _public in (IMapIterator, IMapUnorderedIterator):
    _public.__module__ = "billiard.pool"
