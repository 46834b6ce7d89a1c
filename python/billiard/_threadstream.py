"""`imap` on threads: results one by one, inputs as they are needed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ._threadresults import failure, next_number, raise_failure
from ._timeouts import bounded
from ._views import Cache
from .exceptions import TimeoutError

if TYPE_CHECKING:
    from ._threadengine import ThreadEngine
    from .einfo import ExceptionInfo


class Stream:
    """A flow of inputs and results. Its iterator, its feeder and its tasks share it.

    Args:
        engine: What runs the tasks.
        pool: Kept alive until all results are there.
        function: What is called with each item.
        window: How many parts may be on their way, or done and not taken.
        ordered: Whether results come in the order of the inputs.
    """

    def __init__(
        self, engine: ThreadEngine, pool: Any, function: Callable[..., Any], window: int, ordered: bool
    ) -> None:
        self.number = next_number()
        self.engine = engine
        self.pool = pool
        self.function = function
        #: There will be no further inputs.
        self.is_fed = False
        self._window = window
        self._ordered = ordered
        self._changed = threading.Condition(engine.lock)
        #: How many parts were submitted, are being run, have ended, and were taken.
        self._fed = self._running = self._ended = self._taken = 0
        self._outcomes: dict[int, tuple[bool, Any]] = {}
        #: Values of a part that were not handed out.
        self._left: deque[Any] = deque()
        self._abandoned = False
        self._is_cut = False
        #: Why, until somebody was told.
        self._why_cut: ExceptionInfo | None = None

    # --- for the iterator ---

    def next(self, timeout: float | None) -> Any:
        """Wait for the next result, and take it."""
        self.engine.refuse_to_wait()
        with self._changed:
            if not self._changed.wait_for(self._can_step, bounded(timeout)):
                raise TimeoutError
            if not self._left:
                self._open_next_part()
            return self._left.popleft()

    def _can_step(self) -> bool:
        return bool(self._left) or self._taken in self._outcomes or self.is_over()

    def _open_next_part(self) -> None:
        if self._taken in self._outcomes:
            success, value = self._outcomes.pop(self._taken)
            self._taken += 1
            self._changed.notify_all()
        elif self._why_cut is not None:
            success, value, self._why_cut = False, self._why_cut, None
        else:
            raise StopIteration
        try:
            if not success:
                raise_failure(value)
            self._left.extend(value)
        finally:
            del value

    def abandon(self) -> None:
        """Nobody wants further results."""
        if self.engine.is_copy():
            return
        with self._changed:
            self._abandoned = True
            # What they hold goes when the lock is not held any more.
            dropped, self._outcomes = self._outcomes, {}
            self._changed.notify_all()
        del dropped

    def is_over(self) -> bool:
        """Whether there will be no further results."""
        return self._is_cut or (self.is_fed and self._ended == self._fed)

    def is_exhausted(self) -> bool:
        """Whether there will be none, and all were taken."""
        with self._changed:
            waiting = bool(self._left) or self._taken in self._outcomes or self._why_cut is not None
            return self.is_over() and not waiting

    def is_running(self) -> bool:
        """Whether a thread is busy with it."""
        return self._running > 0

    def length(self) -> int | None:
        """How many parts there are, once that is known."""
        return self._fed if self.is_fed else None

    # --- for the feeder ---

    def wait_for_room(self) -> bool:
        """Wait until further inputs may be taken. False: they are not wanted."""
        with self._changed:
            self._changed.wait_for(self._has_room)
            return not self._abandoned and not self._is_cut

    def _has_room(self) -> bool:
        if self._abandoned or self._is_cut or self._fed - self._taken < self._window:
            return True
        # A closed pool finishes what was accepted, whether somebody takes results meanwhile or not.
        return not self.engine.is_running()

    def count_part(self) -> int:
        """Count one more part, and return its number."""
        with self._changed:
            self._fed += 1
            return self._fed - 1

    def finish(self) -> None:
        """There are no further inputs."""
        with self._changed:
            self.is_fed = True
            self._changed.notify_all()

    # --- for tasks and the engine ---

    def begin(self) -> None:
        """A thread begins a part."""
        with self._changed:
            self._running += 1

    def end_part(self, part: int, success: bool, value: Any) -> None:
        """A thread has ended a part."""
        with self._changed:
            self._running -= 1
        self.settle(part, success, value)

    def settle(self, part: int, success: bool, value: Any) -> None:
        """Note the outcome of a part."""
        with self._changed:
            if not self._abandoned and not self._is_cut:
                self._outcomes[part if self._ordered else self._ended] = success, value
            self._ended += 1
            self._changed.notify_all()
        self.engine.forget_if_over(self)

    def nudge(self) -> None:
        """Let the feeder look again whether the pool runs."""
        with self._changed:
            self._changed.notify_all()

    def cut(self, why: ExceptionInfo) -> None:
        """The pool has ended, so the results end with what is there, and with the reason."""
        with self._changed:
            self._is_cut, self._why_cut = True, why
            self._changed.notify_all()


class Feeder:
    """Takes inputs and submits them, as the consumer makes room. Runs in a thread of its own.

    Args:
        stream: Where they go.
        inputs: The inputs.
        chunk: How many make a part.
    """

    def __init__(self, stream: Stream, inputs: Iterator[Any], chunk: int) -> None:
        self._stream = stream
        self._inputs = inputs
        self._chunk = chunk

    def run(self) -> None:
        """Feed the stream until the inputs end, raise, or nobody wants them."""
        stream = self._stream
        try:
            while stream.wait_for_room() and self._feed_part():
                pass
        finally:
            stream.engine.note_fed(stream, threading.current_thread())

    def _feed_part(self) -> bool:
        """Submit the next part. False: it was the last."""
        stream = self._stream
        items, error, more = self._next_items()
        if items:
            stream.engine.feed(stream, items)
        if error is not None:
            stream.settle(stream.count_part(), False, error)
        # What was raised knows this frame: it must not lead back to the exception.
        del error
        return more

    def _next_items(self) -> tuple[list[Any], ExceptionInfo | None, bool]:
        """Inputs for a part; what they raised after those; whether there may be more."""
        items: list[Any] = []
        try:
            while len(items) < self._chunk:
                items.append(next(self._inputs))
        except StopIteration:
            return items, None, False
        except BaseException as exc:
            return items, failure(exc), False
        return items, None, True

    def __del__(self) -> None:
        # Of one whose thread could not be started.
        self._stream.engine.note_fed(self._stream)


class ThreadIterator:
    """Results of `ThreadPool.imap`, in the order of the inputs.

    It has the interface of `billiard.pool.IMapIterator`.

    Args:
        stream: Where the results are.
        lost_worker_timeout: Kept.
    """

    _worker_lost = None

    def __init__(self, stream: Stream, lost_worker_timeout: float | None) -> None:
        self._stream = stream
        self._lost_worker_timeout = lost_worker_timeout

    def __iter__(self) -> ThreadIterator:
        return self

    def __next__(self) -> Any:
        return self._stream.next(None)

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result.

        Args:
            timeout: Seconds to wait; ``None`` waits for ever.

        Raises:
            StopIteration: There are no further results.
            multiprocessing.TimeoutError: There is none after ``timeout`` seconds; it can be asked for again.
            Exception: What the task, or the input, raised at this position. The iteration can go on after it.
        """
        return self._stream.next(timeout)

    def ready(self) -> bool:
        """Whether every result is there and was taken."""
        return self._stream.is_exhausted()

    def worker_pids(self) -> list[int]:
        """The id of this process, while a thread is busy with a part."""
        return [self._stream.engine.pid] if self._stream.is_running() else []

    @property
    def _job(self) -> int:
        return self._stream.number

    @property
    def _cache(self) -> Cache:
        return Cache(self._stream.engine)  # type: ignore[arg-type]

    @property
    def _ready(self) -> bool:
        return self.ready()

    @property
    def _length(self) -> int | None:
        return self._stream.length()

    def __del__(self) -> None:
        self._stream.abandon()


class ThreadUnorderedIterator(ThreadIterator):
    """Results of `ThreadPool.imap_unordered`, as they are ready."""
