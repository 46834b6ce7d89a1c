"""The exceptions of the package.

Four of them are the standard library's own classes, so that one ``except`` catches both packages' errors. The
others are ours; their module and names are stored in result backends and must stay as they are.
"""

from __future__ import annotations

import signal as _signal
from multiprocessing import AuthenticationError, BufferTooShort, ProcessError, TimeoutError

__all__ = [
    "AuthenticationError",
    "BufferTooShort",
    "CoroStop",
    "HandshakeError",
    "ProcessError",
    "RestartFreqExceeded",
    "SoftTimeLimitExceeded",
    "Terminated",
    "TimeLimitExceeded",
    "TimeoutError",
    "WorkerLostError",
]


class _Detailed(Exception):
    """An exception whose constructor takes what is known about the case by keyword.

    Only what is known becomes an instance attribute: it travels with a pickle, and the rest stays the class's
    ``None``.
    """

    def _tell(self, **details: object) -> None:
        for name, value in details.items():
            if value is not None:
                setattr(self, name, value)


class _JobEnded(_Detailed):
    """Why a job has ended without its doing, and what is known about its worker."""

    pid: int | None = None
    job: int | None = None
    last_stack: str | None = None

    def __init__(
        self,
        *args: object,
        pid: int | None = None,
        job: int | None = None,
        last_stack: str | None = None,
    ) -> None:
        super().__init__(*args)
        self._tell(pid=pid, job=job, last_stack=last_stack)


class TimeLimitExceeded(_JobEnded):
    """The hard time limit of a job has passed, and its worker was killed.

    Attributes:
        pid: Process id of the worker, if known.
        job: Number of the job, if known.
        last_stack: Text of the worker's stack when the limit passed, if it could be taken.
    """

    def __str__(self) -> str:
        return f"TimeLimitExceeded{self.args!r}"


class SoftTimeLimitExceeded(Exception):
    """The soft time limit has passed. Raised inside the task, which may catch it to clean up."""

    def __str__(self) -> str:
        return f"SoftTimeLimitExceeded{self.args!r}"


class WorkerLostError(_Detailed):
    """The worker ended while it ran the job, so the job has no result.

    The message says what is known in words. The attributes say the same to programs; what is not known is
    ``None``.

    Attributes:
        exitcode: Exit code of the worker, negated signal number if a signal killed it, 255 if nobody knows.
        signal: The signal that killed it.
        signal_name: The name of that signal, such as ``SIGKILL``.
        pid: Process id of the worker.
        worker_name: Name of the worker process.
        job: Number of the job. ``task_id`` is another name for it.
        func_name: Name of the function that it ran.
        runtime: Seconds the job had been running.
        last_stack: Text of the worker's stack at its end, if it could be taken.
        rss_peak: The most resident memory the worker was seen with, in KiB.
        oom_killed: Whether the kernel killed it for memory, where the kernel counts that.
        hint: What is likely, and what can be done.
    """

    exitcode: int | None = None
    signal: int | None = None
    signal_name: str | None = None
    pid: int | None = None
    worker_name: str | None = None
    job: int | None = None
    func_name: str | None = None
    runtime: float | None = None
    last_stack: str | None = None
    rss_peak: int | None = None
    oom_killed: bool | None = None
    hint: str | None = None

    def __init__(
        self,
        *args: object,
        exitcode: int | None = None,
        signal: int | None = None,
        signal_name: str | None = None,
        pid: int | None = None,
        worker_name: str | None = None,
        job: int | None = None,
        func_name: str | None = None,
        runtime: float | None = None,
        last_stack: str | None = None,
        rss_peak: int | None = None,
        oom_killed: bool | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(*args)
        if signal is None and exitcode is not None and exitcode < 0:
            signal = -exitcode
        if signal_name is None and signal is not None:
            signal_name = _name_of(signal)
        self._tell(
            exitcode=exitcode,
            signal=signal,
            signal_name=signal_name,
            pid=pid,
            worker_name=worker_name,
            job=job,
            func_name=func_name,
            runtime=runtime,
            last_stack=last_stack,
            rss_peak=rss_peak,
            oom_killed=oom_killed,
            hint=hint,
        )

    @property
    def task_id(self) -> int | None:
        """The job's number, under the name that task queues use."""
        return self.job


class Terminated(_JobEnded):
    """The worker was terminated on request while it ran the job, or the pool was, before the job could run.

    Attributes:
        pid: Process id of the worker, if known.
        job: Number of the job, if known.
        last_stack: Text of the worker's stack at its end, if it could be taken.
    """


class RestartFreqExceeded(Exception):
    """Workers ended abnormally too often in too short a time; the pool does not go on replacing them."""


class HandshakeError(AuthenticationError, AssertionError):
    """The peer does not know how to prove that it holds the key, or does not ask for a proof.

    The original asserts that it does; hence the second base.
    """


class CoroStop(Exception):
    """Ends the loop of a pool's handler for good, where ``StopIteration`` would restart it."""


def _name_of(signal: int) -> str | None:
    try:
        return _signal.Signals(signal).name
    except ValueError:
        return None
