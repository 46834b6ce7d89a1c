"""Small things that all parts of the package share: signals, exit statuses, restart limits."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from contextlib import suppress
from io import BytesIO
from time import monotonic

from .exceptions import RestartFreqExceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

#: Exit status of a process that was told to terminate again and again while it cleaned up ("internal software
#: error").
EX_SOFTWARE = 70

pickle_load = pickle.load

#: Number of each signal -> its name.
SIGMAP: dict[int, str] = {member.value: member.name for member in signal.Signals}

#: Name of the signal that takes the place of SIGTERM, from the environment variable of the same name.
REMAP_SIGTERM: str | None = os.environ.get("REMAP_SIGTERM") or None

TERM_SIGNAME: str = REMAP_SIGTERM or "SIGTERM"
#: The signal that tells a process to terminate.
TERM_SIGNAL: signal.Signals = getattr(signal, TERM_SIGNAME)

#: What a worker answers with a clean exit, when its owner looks after other signals itself.
TERMSIGS_DEFAULT = {"SIGHUP", "SIGQUIT", TERM_SIGNAME, "SIGUSR1"}

#: What a worker answers with a clean exit, when it is on its own.
TERMSIGS_FULL = {
    "SIGHUP",
    "SIGQUIT",
    "SIGTRAP",
    "SIGABRT",
    "SIGEMT",
    "SIGSYS",
    "SIGPIPE",
    "SIGALRM",
    TERM_SIGNAME,
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGUSR1",
    "SIGUSR2",
}

#: Ignored in workers: SIGTERM, when another signal has its role.
TERMSIGS_IGNORE = {"SIGTERM"} if REMAP_SIGTERM else set()
#: Handled in workers even where it was ignored.
TERMSIGS_FORCE = {"SIGQUIT"} if REMAP_SIGTERM else set()

#: Whether this process has been told to terminate. A list, so that a reader sees the change.
_should_have_exited = [False]
_told_again = 0


def human_status(status: int | None) -> str:
    """Say in words how a process ended.

    Args:
        status: An exit code; negative for the signal that killed it.
    """
    if status is not None and status < 0:
        name = SIGMAP.get(-status)
        return f"signal {-status} ({name})" if name else f"signal {-status}"
    return f"exitcode {status}"


def pickle_loads(s: Any, load: Callable[[BytesIO], Any] = pickle_load) -> Any:
    """Unpickle from anything with the buffer interface."""
    return load(BytesIO(s))


def maybe_setsignal(signum: int, handler: Any) -> None:
    """Install a signal handler where that is possible: not every signal, platform and thread allows it."""
    with suppress(OSError, AttributeError, ValueError, RuntimeError):
        signal.signal(signum, handler)


def signum(sig: str) -> int | None:
    """The number of the signal called ``sig``, or ``None`` where there is no such signal."""
    return getattr(signal, sig, None)


def terminate_handler_fired() -> bool:
    """Whether this process has been told to terminate by a signal."""
    return _should_have_exited[0]


def clear_terminate_handler_fired() -> None:
    """Forget that the process was told to terminate, as a freshly forked one must."""
    global _told_again
    _should_have_exited[0] = False
    _told_again = 0


def _shutdown_cleanup(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """Leave in an orderly way when told to terminate.

    The exit starts with the first signal. The second one lets it finish, since whoever sent it may simply not
    know of the first. The third one means it.
    """
    global _told_again
    if not _should_have_exited[0]:
        _should_have_exited[0] = True
        sys.exit(-(256 - signum))
    else:
        _told_again += 1
        if _told_again > 1:
            os._exit(EX_SOFTWARE)


def _should_override_term_signal(sig: str, current: Any) -> bool:
    return sig in TERMSIGS_FORCE or (current is not None and current != signal.SIG_IGN)


def reset_signals(handler: Any = _shutdown_cleanup, full: bool = False) -> None:
    """Take over the signals that end a process; those that are ignored stay ignored.

    Args:
        handler: What to install.
        full: True for all of them, False for those of a process whose owner handles the rest.
    """
    for name in TERMSIGS_FULL if full else TERMSIGS_DEFAULT:
        number = signum(name)
        if number is not None and _should_override_term_signal(name, signal.getsignal(number)):
            maybe_setsignal(number, handler)
    for name in TERMSIGS_IGNORE:
        number = signum(name)
        if number is not None:
            maybe_setsignal(number, signal.SIG_IGN)


class restart_state:
    """Counts restarts and refuses too many of them in too short a time.

    Args:
        maxR: How many restarts are allowed in one window; falsy for any number.
        maxT: Length of the window, in seconds.

    Attributes:
        R: Restarts so far in this window. May be assigned: a worker that accepts a job proves that starting
            works.
        T: When the window began, on the monotonic clock; ``None`` before the first restart.
    """

    RestartFreqExceeded = RestartFreqExceeded

    def __init__(self, maxR: int | None, maxT: float) -> None:
        self.maxR = maxR
        self.maxT = maxT
        self.R = 0
        self.T: float | None = None

    def step(self, now: float | None = None) -> None:
        """Count one restart.

        Args:
            now: The time in seconds; the default is the monotonic clock's.

        Raises:
            RestartFreqExceeded: The window has had its ``maxR`` restarts. Counting starts again.
        """
        now = monotonic() if now is None else now
        if self.T and now - self.T >= self.maxT:
            self.T, self.R = now, 0
        elif self.maxR and self.maxR <= self.R:
            spent, self.R = self.R, 0
            raise self.RestartFreqExceeded(f"{spent!r} in {self.maxT!r}s")
        if self.T is None:
            self.T = now
        self.R += 1
