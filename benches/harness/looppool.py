"""A pool that its owner drives, as task queues with an event loop of their own do it.

Each worker has a pipe for jobs and a pipe for what it says; one thread watches all of them. It is small, but
everything is there: jobs are written bit by bit, to workers that have nothing to do; a job whose worker has
died before it began is given to another one; the pipes of a dead worker that had a job are thrown away.

It runs on this project's package and on the original.
"""

from __future__ import annotations

import errno
import os
import pickle
import select
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from billiard.compat import setblocking
from billiard.pool import RUN, Pool, ResultHandler, Worker, WorkersJoined
from billiard.queues import _SimpleQueue

UP = 15
LATER = (errno.EAGAIN, errno.EINTR)


class LoopWorker(Worker):
    """A worker that says when it is ready."""

    def on_loop_start(self, pid: int) -> None:
        self.outq.put((UP, (pid,)))


class LoopResultHandler(ResultHandler):
    """Knows one more message, and drains the pipes of all workers at the end."""

    def __init__(self, *args: Any, drain: Callable[[ResultHandler], None], up: Any, **kwargs: Any) -> None:
        self._drain = drain
        super().__init__(*args, **kwargs)
        self.state_handlers[UP] = up

    def on_stop_not_started(self) -> None:
        self._drain(self)


class LoopPool(Pool):
    """A pool that is driven by calls of `step`.

    Attributes:
        told: What hooks were called, in order, where somebody looks.
    """

    Worker = LoopWorker
    ResultHandler = LoopResultHandler

    def __init__(self, processes: int, **options: Any) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.outbound: deque[Any] = deque()
        #: Queues that no worker has; and of each worker's in-queue the process object.
        self.spare: list[tuple[Any, Any, Any]] = []
        self.by_in: dict[int, Any] = {}
        self.by_out: dict[int, Any] = {}
        self.by_sentinel: dict[int, Any] = {}
        self.idle: deque[Any] = deque()
        self.writers: dict[int, Iterator[None]] = {}
        self.timers: dict[int, list[Any]] = {}
        self.epoll = select.epoll()
        super().__init__(processes, threads=False, **options)
        self.on_process_up, self.on_process_down = self.hear_up, self.hear_down
        self.on_timeout_set, self.on_timeout_cancel = self.arm, self.disarm
        self._quick_put = self.enqueue
        for process in self._pool:
            self.hear_up(process)

    # --- queues and workers ---

    def _setup_queues(self) -> None:
        self._inqueue = self._outqueue = None
        self._quick_put = self._quick_get = self._poll_result = None

    def get_process_queues(self) -> tuple[Any, Any, Any]:
        if not self.spare:
            synq = _SimpleQueue(wnonblock=True) if self.synack else None
            self.spare.append((_SimpleQueue(wnonblock=True), _SimpleQueue(rnonblock=True), synq))
        return self.spare[-1]

    def _process_register_queues(self, worker: Any, queues: tuple[Any, Any, Any]) -> None:
        self.spare.remove(queues)
        self.by_in[worker.inqW_fd] = worker
        worker.had_job = False

    def create_result_handler(self, **kwargs: Any) -> Any:
        return super().create_result_handler(drain=self.drain, up=self.on_up, **kwargs)

    def hear_up(self, process: Any) -> None:
        self.by_out[process.outqR_fd] = process
        process.loop_sentinel = os.dup(process._popen.sentinel)
        self.by_sentinel[process.loop_sentinel] = process
        self.epoll.register(process.outqR_fd, select.EPOLLIN)
        self.epoll.register(process.loop_sentinel, select.EPOLLIN)

    def on_up(self, pid: int) -> None:
        self.idle.append(next(process for process in self._pool if process.pid == pid))
        self.dispatch()

    def process_flush_queues(self, worker: Any) -> None:
        self.told.append(("flush", worker.pid))
        reader = worker.outq._reader
        while not reader.closed and reader.poll(0):
            try:
                self._result_handler.on_state_change(reader.recv())
            except (OSError, EOFError):
                break

    def hear_down(self, process: Any) -> None:
        self.told.append(("down", process.pid))
        self.forget(process)

    def forget(self, process: Any) -> None:
        if self.by_sentinel.pop(process.loop_sentinel, None) is None:
            return
        self.epoll.unregister(process.loop_sentinel)
        os.close(process.loop_sentinel)
        self.by_out.pop(process.outqR_fd)
        self.epoll.unregister(process.outqR_fd)
        if process.inqW_fd in self.writers:
            self.epoll.unregister(process.inqW_fd)
            del self.writers[process.inqW_fd]
        del self.by_in[process.inqW_fd]
        if process in self.idle:
            self.idle.remove(process)
        queues = process.inq, process.outq, process.synq
        if process.had_job:
            for one in queues:
                if one is not None:
                    one.close()
        else:
            self.spare.append(queues)

    # --- jobs ---

    def enqueue(self, task: Any) -> None:
        job = self._cache[task[1][0]]
        body = pickle.dumps(task, protocol=pickle.HIGHEST_PROTOCOL)
        job._payload = len(body).to_bytes(4, "big") + body
        self.outbound.append(job)
        self.dispatch()

    def dispatch(self) -> None:
        while self.outbound and self.idle:
            job, process = self.outbound.popleft(), self.idle.popleft()
            if job._cancelled and not self.synack:
                self.idle.append(process)
                continue
            job._scheduled_for = job._write_to = process
            process.had_job = True
            sent = self.send(process, job._payload)
            if sent < len(job._payload):
                self.writers[process.inqW_fd] = writer = self.write(process, job, sent)
                next(writer)
                self.epoll.register(process.inqW_fd, select.EPOLLOUT)

    def send(self, process: Any, payload: Any) -> int:
        try:
            return int(process.send_job_offset(payload, 0))
        except OSError as error:
            if error.errno not in LATER:
                raise
            return 0

    def write(self, process: Any, job: Any, sent: int) -> Iterator[None]:
        """Write the rest of a job, bit by bit."""
        while sent < len(job._payload):
            yield
            sent += self.send(process, job._payload[sent:])

    def on_job_ready(self, job: int, i: int | None, obj: Any, inqW_fd: int | None) -> None:  # noqa: ARG002
        process = self.by_in.get(inqW_fd)
        if process is not None:
            process.had_job = False
            self.idle.append(process)
            self.dispatch()

    def on_job_process_down(self, job: Any, pid_gone: int) -> None:
        self.told.append(("job down", job._job, pid_gone))
        if not job._accepted:
            job._write_to = job._scheduled_for = None
            self.outbound.appendleft(job)

    def on_job_process_lost(self, job: Any, pid: int, exitcode: int) -> None:
        self.told.append(("job lost", job._job, pid, exitcode))
        self.mark_as_worker_lost(job, exitcode)

    def send_ack(self, response: int, pid: int, job: int, fd: int) -> None:  # noqa: ARG002
        process = next(process for process in self._pool if process.pid == pid)
        body = pickle.dumps((response, (0,)))
        process.send_syn_offset(len(body).to_bytes(4, "big") + body, 0)
        if response:
            self.on_job_ready(job, None, None, process.inqW_fd)

    # --- time limits ---

    def arm(self, job: Any, soft: float | None, hard: float | None) -> None:
        now = time.monotonic()
        due = [(now + limit, act) for limit, act in ((soft, "soft"), (hard, "hard")) if limit]
        if due:
            self.timers[job._job] = [job, *sorted(due)]

    def disarm(self, job: Any) -> None:
        self.timers.pop(job._job, None)

    def fire(self) -> None:
        for entry in list(self.timers.values()):
            job = entry[0]
            while len(entry) > 1 and entry[1][0] <= time.monotonic():
                _, act = entry.pop(1)
                handler = self._timeout_handler
                (handler.on_soft_timeout if act == "soft" else handler.on_hard_timeout)(job)

    # --- the loop ---

    def step(self, timeout: float = 0.05) -> None:
        """Wait for something to happen, and do what has to be done."""
        for fd, _ in self.epoll.poll(timeout):
            if fd in self.by_out:
                self.read(fd)
            elif fd in self.writers:
                if next(self.writers[fd], self) is self:
                    self.epoll.unregister(fd)
                    del self.writers[fd]
            elif fd in self.by_sentinel:
                self.maintain_pool()
                self.dispatch()
        if self.timers:
            self.fire()

    def read(self, fd: int) -> None:
        """Read a message, waiting for the rest of one that has begun to arrive."""
        try:
            head = os.read(fd, 4)
        except BlockingIOError:
            return
        if not head:
            self.epoll.modify(fd, 0)
            return
        try:
            size = int.from_bytes(self.receive(fd, 4, head), "big")
            message = self.receive(fd, size, b"")
        except EOFError:
            return
        self._result_handler.on_state_change(pickle.loads(message))

    def receive(self, fd: int, size: int, data: bytes) -> bytes:
        while len(data) < size:
            try:
                more = os.read(fd, size - len(data))
            except BlockingIOError:
                # Its writer may be killed in the middle of it.
                if fd not in select.select([fd, self.by_out[fd].loop_sentinel], [], [])[0]:
                    raise EOFError(f"{len(data)} of {size} bytes") from None
                continue
            data += more
        return data

    def run_until(self, done: Callable[[], Any], limit: float = 30.0) -> None:
        """Drive the pool until something is true."""
        deadline = time.monotonic() + limit
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {limit} s")
            self.step()

    # --- the end ---

    @staticmethod
    def _stop_task_handler(task_handler: Any) -> None:
        for process in task_handler.pool:
            if process._is_alive():
                setblocking(process.inq._writer, True)
                process.inq.put(None)

    def drain(self, handler: Any) -> None:
        while self._cache and handler._state == RUN:
            for process in list(self._pool):
                reader = process.outq._reader
                if not reader.closed and reader.poll(0.001):
                    setblocking(reader, True)
                    try:
                        handler.on_state_change(reader.recv())
                    except (OSError, EOFError):
                        continue
                    finally:
                        setblocking(reader, False)
            if self.check_timeouts is not None:
                self.check_timeouts()
            try:
                self._join_exited_workers(shutdown=True)
            except WorkersJoined:
                return

    @classmethod
    def _set_result_sentinel(cls, outqueue: Any, pool: Any) -> None:
        """There is no thread to tell."""

    def _help_stuff_finish_args(self) -> tuple[Any, ...]:
        return (self._pool,)

    @classmethod
    def _help_stuff_finish(cls, pool: Any) -> None:
        """Nothing stands in the way of the workers."""

    def release(self) -> None:
        """Close what is the loop's own, once the pool has ended."""
        for process in list(self.by_sentinel.values()):
            process.had_job = True
            self.forget(process)
        for queues in self.spare:
            for one in queues:
                if one is not None:
                    one.close()
        self.epoll.close()
