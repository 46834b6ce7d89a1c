"""What runs the jobs of a pool of threads.

It has the interface of the engine that runs processes, as far as a pool's methods use it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from . import _tasks
from ._threadresults import ThreadMapResult, ThreadResult, clipped, described
from ._threadstream import Feeder, Stream, ThreadIterator, ThreadUnorderedIterator
from ._threadworker import Call, Chunk, Task, Worker
from .einfo import ExceptionInfo

RUNNING = "running"
DRAINING = "draining"
TERMINATING = "terminating"
BROKEN = "broken"

#: What a caller is told who comes too late.
_OVER = {DRAINING: "pool is closed", TERMINATING: "pool is terminated", BROKEN: "pool is broken"}


class ThreadEngine:
    """Queues of tasks and events, and the threads that run the tasks.

    Nothing here waits while the lock is held, and whoever has it may take it again: signal handlers and
    finalizers may come in between at any moment, and end the pool. They may not wait for it then.

    Args:
        initializer: Called in each thread before its first task, with ``initargs``.
        initargs: See there.

    Attributes:
        lock: Guards what follows, and the states of jobs and streams.
        pid: The process that made the engine.
        tasks: What is to be run. ``None`` sends one thread home.
        events: What the pool is to hear of, each with the pool. ``None`` is the end.
        workers: Those who have not left.
    """

    def __init__(self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
        self.lock = threading.RLock()
        self.pid = os.getpid()
        self.tasks: SimpleQueue[Task | None] = SimpleQueue()
        self.events: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()
        self.workers: list[Worker] = []
        self._initializer, self._initargs = initializer, initargs
        self._phase = RUNNING
        self._jobs: dict[int, ThreadResult] = {}
        self._streams: dict[int, Stream] = {}
        #: Threads that are about to end.
        self._leaving: list[threading.Thread] = []
        #: How many threads there are to be, and how many there were.
        self._wanted = self._numbered = 0
        self._start_error: BaseException | None = None

    # --- what it is doing ---

    def phase(self) -> str:
        """``"running"``, ``"draining"``, ``"terminating"`` or ``"broken"``."""
        return self._phase

    def is_running(self) -> bool:
        """Whether work is accepted."""
        return self._phase == RUNNING

    def is_working(self) -> bool:
        """Whether what was accepted is run."""
        return self._phase in (RUNNING, DRAINING)

    def handles(self) -> list[ThreadResult]:
        """Results of all jobs that have not ended."""
        with self.lock:
            return list(self._jobs.values())

    def load(self) -> tuple[int, int]:
        """Tasks that have not ended, and how many of them no thread has been given."""
        waiting = self.tasks.qsize()
        return sum(worker.is_busy for worker in list(self.workers)) + waiting, waiting

    def has_work(self) -> bool:
        """Whether there are tasks that no thread has been given, or will be."""
        return not self.tasks.empty() or bool(self._streams)

    def is_copy(self) -> bool:
        """Whether this is a forked copy of the process.

        There are no threads in it, and a lock that one of them had is taken for ever.
        """
        return os.getpid() != self.pid

    def refuse_copies(self) -> None:
        """Raise an error in a forked copy of the process.

        Raises:
            RuntimeError: It is a copy.
        """
        if self.is_copy():
            raise RuntimeError(
                "this pool belongs to the process that made it; make a pool of your own in a forked child"
            )

    def is_inside(self) -> bool:
        """Whether the calling thread has the lock, so that nobody who needs it can be waited for."""
        # Conditions ask the same; there is no public way to.
        return self.lock._is_owned()  # type: ignore[attr-defined, no-any-return]

    def refuse_to_wait(self) -> None:
        """Raise an error if what the caller is going to wait for cannot happen.

        Raises:
            RuntimeError: There are no threads here, or they may be waiting for us.
        """
        self.refuse_copies()
        if self.is_inside():
            raise RuntimeError(
                "cannot wait for a pool in a signal handler or finalizer that has interrupted its methods"
            )

    def refuse_if_over(self) -> None:
        """Raise an error if no work is accepted.

        Raises:
            ValueError: The pool was closed or terminated, or is broken.
        """
        if self._phase != RUNNING:
            raise ValueError(_OVER[self._phase])

    # --- work ---

    def submit(
        self,
        pool: Any,
        function: Callable[..., Any],
        args: Any,
        kwargs: Any,
        callback: Any,
        error_callback: Any,
        accept_callback: Any,
        timeout_callback: Any,
        soft_timeout: float | None,
        timeout: float | None,
        lost_worker_timeout: float | None,  # noqa: ARG002
        callbacks_propagate: Any,
        correlation_id: Any,
        slot: bool,
        tell: bool,
    ) -> ThreadResult:
        """Submit one call."""
        self._look_at_call(soft_timeout, timeout)
        result = ThreadResult(
            self,
            pool,
            function,
            callback=callback,
            error_callback=error_callback,
            accept_callback=accept_callback,
            timeout_callback=timeout_callback,
            callbacks_propagate=callbacks_propagate,
            correlation_id=correlation_id,
            slot=slot,
            tell=tell,
        )
        self._accept(result, [Call(result, function, tuple(args), dict(kwargs))])
        return result

    def submit_map(
        self,
        pool: Any,
        function: Callable[..., Any],
        items: list[Any],
        chunk: int,
        star: bool,
        callback: Any,
        error_callback: Any,
        soft_timeout: float | None,
        timeout: float | None,
        lost_worker_timeout: float | None,  # noqa: ARG002
        tell: bool,
    ) -> ThreadMapResult:
        """Submit one call for each item of a list, in chunks."""
        self._look_at_call(soft_timeout, timeout)
        result = ThreadMapResult(
            self,
            pool,
            function,
            len(items),
            chunk,
            callback=callback,
            error_callback=error_callback,
            tell=tell,
        )
        chunks = enumerate(items[start : start + chunk] for start in range(0, len(items), chunk))
        if items:
            self._accept(result, [Chunk(result, part, function, some, star) for part, some in chunks])
        return result

    def submit_stream(
        self,
        pool: Any,
        function: Callable[..., Any],
        inputs: Iterator[Any],
        chunk: int,
        window: int,
        ordered: bool,
        soft_timeout: float | None,
        timeout: float | None,
        lost_worker_timeout: float | None,
    ) -> tuple[ThreadIterator, Feeder]:
        """Open a stream: an iterator over results, and the feeder that takes the inputs."""
        self._look_at_call(soft_timeout, timeout)
        stream = Stream(self, pool, function, window, ordered)
        kind = ThreadIterator if ordered else ThreadUnorderedIterator
        iterator, feeder = kind(stream, lost_worker_timeout), Feeder(stream, inputs, chunk)
        with self.lock:
            # First it is noted, then the pool is looked at: see `_accept`.
            self._streams[stream.number] = stream
            try:
                self.refuse_if_over()
            except ValueError:
                self.note_fed(stream)
                raise
        return iterator, feeder

    def _look_at_call(self, soft_timeout: float | None, timeout: float | None) -> None:
        self.refuse_copies()
        self.refuse_if_over()
        for name, limit in (("soft_timeout", soft_timeout), ("timeout", timeout)):
            if limit:
                raise ValueError(
                    f"{name}={limit!r}: time limits cannot be enforced on threads; use a pool of processes"
                )

    def _accept(self, job: ThreadResult, tasks: Sequence[Task]) -> None:
        with self.lock:
            self.refuse_if_over()
            self._jobs[job._job] = job
            try:
                for task in tasks:
                    self.tasks.put(task)
                # A signal handler may have ended the pool on this thread, between two of these lines.
                self.refuse_if_over()
            except BaseException:
                self.forget(job)
                raise

    def feed(self, stream: Stream, items: list[Any]) -> None:
        """Submit a part of a stream."""
        self.tasks.put(Chunk(stream, stream.count_part(), stream.function, items))

    def note_fed(self, stream: Stream, feeder: threading.Thread | None = None) -> None:
        """A stream has no further inputs, and the thread that has fed it ends."""
        if self.is_copy():
            return
        with self.lock:
            if feeder is not None:
                self._note_leaving(feeder)
            stream.finish()
            if self._phase == DRAINING:
                self._dismiss_if_fed()
        self.forget_if_over(stream)

    def forget(self, job: ThreadResult) -> None:
        """A job has ended, or nobody will ask for it."""
        self._jobs.pop(job._job, None)

    def forget_if_over(self, stream: Stream) -> None:
        """A stream may have ended."""
        if stream.is_over():
            with self.lock:
                self._streams.pop(stream.number, None)
                # The pool may go with this reference, which is why it outlives the lock.
                pool, stream.pool = stream.pool, None
            del pool

    def tell(self, pool: Any, *event: Any) -> None:
        """Let a pool hear of something."""
        self.events.put((pool, *event))

    # --- threads ---

    def hire(self, make_thread: Callable[..., threading.Thread]) -> None:
        """Start one more thread.

        Args:
            make_thread: Makes it, of a ``target``.

        Raises:
            ValueError: No work is accepted.
            RuntimeError: The system cannot start another thread.
        """
        with self.lock:
            self.refuse_if_over()
            worker = Worker(self, self._initializer, self._initargs)
            worker.thread = thread = make_thread(target=worker)
            self._numbered += 1
            thread.name = f"ThreadPoolWorker-{self._numbered}"
            # Nothing can end a task that does not return; it must not keep the program from its end.
            thread.daemon = True
            self.workers.append(worker)
            try:
                thread.start()
            except BaseException:
                # It may run nevertheless, if a signal handler has raised.
                self.workers.remove(worker)
                raise
            self._wanted += 1

    def is_hired(self, worker: Worker) -> bool:
        """Whether `hire` has come to its end."""
        with self.lock:
            return worker in self.workers

    def shrink(self, n: int) -> None:
        """Send ``n`` idle threads home, all or none.

        Raises:
            ValueError: There are not so many idle threads, or no work is accepted.
        """
        with self.lock:
            self.refuse_if_over()
            # Those who are to leave may not have heard of it, or be on their way.
            leaving = len(self.workers) - self._wanted
            idle = sum(not worker.is_busy for worker in self.workers) - max(leaving, self.tasks.qsize())
            if n > max(idle, 0):
                raise ValueError("Can't shrink pool. All processes busy!")
            self._wanted -= n
            for _ in range(n):
                self.tasks.put(None)

    def note_left(self, worker: Worker) -> None:
        """A thread runs no further tasks, and ends."""
        with self.lock:
            self.workers.remove(worker)
            self._note_leaving(worker.thread)
            if not self.workers and self._phase != RUNNING:
                self.events.put(None)

    def _note_leaving(self, thread: threading.Thread) -> None:
        self._leaving = [*filter(threading.Thread.is_alive, self._leaving), thread]

    # --- the end ---

    def close(self) -> None:
        """Accept nothing more; finish what was accepted."""
        with self.lock:
            if self._phase == RUNNING:
                self._phase = DRAINING
                for stream in list(self._streams.values()):
                    stream.nudge()
                self._dismiss_if_fed()

    def terminate(self) -> None:
        """End everything that can be ended. What runs goes on, and its result is dropped."""
        with self.lock:
            if self._phase != BROKEN:
                self._phase = TERMINATING
            self._end_all(lambda number: _tasks.terminated(number, None, None, None, None, None))
            # Not only when the last thread has left: that may take a task's time.
            self.events.put(None)

    def give_up(self, error: BaseException) -> None:
        """A thread could not be prepared, nor can others be."""
        with self.lock:
            if not self.is_working():
                return
            self._phase, self._start_error = BROKEN, clipped(error)
            self._end_all(lambda _: described(self.why_broken()))
        _tasks.log_error("Pool thread could not be initialized: %r", error)

    def why_broken(self) -> BaseException:
        """The error of a broken pool's jobs and callers."""
        error = _tasks.broken_pool(None)
        error.__cause__ = self._start_error
        return error

    def _end_all(self, why: Callable[[int], ExceptionInfo]) -> None:
        for job in list(self._jobs.values()):
            job.settle(False, why(job._job))
        for stream in list(self._streams.values()):
            stream.cut(why(stream.number))
            self.forget_if_over(stream)
        try:
            while True:
                self.tasks.get_nowait()
        except Empty:
            self._dismiss()

    def _dismiss_if_fed(self) -> None:
        if all(stream.is_fed for stream in self._streams.values()):
            self._dismiss()

    def _dismiss(self) -> None:
        """Send all threads home, once they have done what was accepted."""
        for _ in self.workers:
            self.tasks.put(None)
        if not self.workers:
            self.events.put(None)

    def join(self) -> None:
        """Wait until all threads have ended, but for the calling one."""
        self.refuse_to_wait()
        while threads := self._others(lambda _: True):
            for thread in threads:
                thread.join()

    def join_idle(self) -> None:
        """Wait until all threads have ended that run no task, when nothing is run any more."""
        for thread in self._others(lambda worker: not worker.is_busy):
            thread.join()

    def _others(self, chosen: Callable[[Worker], bool]) -> list[threading.Thread]:
        with self.lock:
            threads = [worker.thread for worker in self.workers if chosen(worker)] + self._leaving
        return [it for it in threads if it is not threading.current_thread() and it.is_alive()]
