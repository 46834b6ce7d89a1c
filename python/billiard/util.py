"""Logging, finalizers, fork hooks, and the signal a process gets when its parent dies.

Finalizers and fork hooks are the standard library's own registries, not copies: programs mix both packages,
and their finalizers have to run in one order. They are fetched when they are first asked for, and `logging`
is imported when somebody wants to log: every child that is started afresh imports this module.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterable
    from multiprocessing.util import (  # type: ignore[attr-defined]  # noqa: F401
        Finalize,
        ForkAwareLocal,
        ForkAwareThreadLock,
        _afterfork_counter,
        _afterfork_registry,
        _exit_function,
        _finalizer_counter,
        _finalizer_registry,
        _run_after_forkers,
        _run_finalizers,
        get_temp_dir,
        is_exiting,
        register_after_fork,
    )
    from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]  # noqa: F401
    from typing import Any, TypeVar

    _T = TypeVar("_T")

__all__ = [
    "SUBDEBUG",
    "SUBWARNING",
    "Finalize",
    "ForkAwareLocal",
    "ForkAwareThreadLock",
    "debug",
    "get_logger",
    "get_temp_dir",
    "info",
    "is_exiting",
    "log_to_stderr",
    "register_after_fork",
    "sub_debug",
    "sub_warning",
]

NOTSET = 0
SUBDEBUG = 5
DEBUG = 10
INFO = 20
SUBWARNING = 25
WARNING = 30
ERROR = 40

LOGGER_NAME = "multiprocessing"
DEFAULT_LOGGING_FORMAT = "[%(levelname)s/%(processName)s] %(message)s"

PR_SET_PDEATHSIG = 1
PR_GET_PDEATHSIG = 2

_SHARED = {
    "Finalize",
    "ForkAwareLocal",
    "ForkAwareThreadLock",
    "_afterfork_counter",
    "_afterfork_registry",
    "_exit_function",
    "_finalizer_counter",
    "_finalizer_registry",
    "_run_after_forkers",
    "_run_finalizers",
    "get_temp_dir",
    "is_exiting",
    "register_after_fork",
}

#: The logger once somebody has asked for it. ``None`` keeps the package silent; assigning it is allowed.
_logger: logging.Logger | None = None
_log_to_stderr = False
#: The handler that `log_to_stderr` added.
_stderr_handler: logging.StreamHandler[Any] | None = None

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _SHARED:
            import multiprocessing.util as home
        elif name == "_args_from_interpreter_flags":
            import subprocess as home
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(home, name)
        return value


def _log(level: int, msg: object, args: tuple[object, ...], kwargs: dict[str, Any]) -> None:
    if _logger:
        kwargs.setdefault("stacklevel", 3)
        _logger.log(level, msg, *args, **kwargs)


def sub_debug(msg: object, *args: object, **kwargs: Any) -> None:
    _log(SUBDEBUG, msg, args, kwargs)


def debug(msg: object, *args: object, **kwargs: Any) -> None:
    _log(DEBUG, msg, args, kwargs)


def info(msg: object, *args: object, **kwargs: Any) -> None:
    _log(INFO, msg, args, kwargs)


def sub_warning(msg: object, *args: object, **kwargs: Any) -> None:
    _log(SUBWARNING, msg, args, kwargs)


def warning(msg: object, *args: object, **kwargs: Any) -> None:
    _log(WARNING, msg, args, kwargs)


def error(msg: object, *args: object, **kwargs: Any) -> None:
    _log(ERROR, msg, args, kwargs)


def get_logger() -> logging.Logger:
    """Return the package's logger, which is the standard library's ``multiprocessing`` one.

    Until this has been called once the package logs nothing.
    """
    global _logger
    if not _logger:
        import logging
        from multiprocessing.util import _exit_function  # type: ignore[attr-defined]

        logger = logging.getLogger(LOGGER_NAME)
        logger.propagate = False
        logging.addLevelName(SUBDEBUG, "SUBDEBUG")
        logging.addLevelName(SUBWARNING, "SUBWARNING")
        # Registered again, so that it runs before `logging` shuts down and what it says can still be written.
        atexit.unregister(_exit_function)
        atexit.register(_exit_function)
        _logger = logger
    return _logger


def log_to_stderr(level: int | str | None = None) -> logging.Logger:
    """Log to standard error, in addition to what else is configured.

    Calling it again does not print lines twice; it updates the level and follows a replaced `sys.stderr`.

    Args:
        level: The least level to log; falsy leaves it as it is.

    Returns:
        The package's logger.
    """
    global _log_to_stderr, _stderr_handler
    logger = get_logger()
    if _stderr_handler is not None and _stderr_handler in logger.handlers:
        _stderr_handler.setStream(sys.stderr)
    else:
        import logging

        _stderr_handler = logging.StreamHandler()
        _stderr_handler.setFormatter(logging.Formatter(DEFAULT_LOGGING_FORMAT))
        logger.addHandler(_stderr_handler)
    if level:
        logger.setLevel(level)
    _log_to_stderr = True
    return logger


def _setup_logging_from_environment() -> None:
    """Configure the logger of a child that was started afresh, as its parent asked through the environment.

    ``_MP_FORK_LOGLEVEL_`` is the level, as a number; without it nothing happens. A logger that has a handler
    keeps what it has. Any other gets one, for the file that ``_MP_FORK_LOGFILE_`` names or for the standard
    error that the process was started with, with the format ``_MP_FORK_LOGFORMAT_``; and the attribute
    ``_rudimentary_setup``, by which programs know that nobody has configured it.

    Raises:
        OSError: The file cannot be opened.
        ValueError: The level is not a whole number.

    Source: billiard 4.2.1, in children of ``spawn`` and ``forkserver``.
    """
    level = os.environ.get("_MP_FORK_LOGLEVEL_")
    if not level:
        return
    try:
        number = int(level)
    except ValueError:
        raise ValueError(f"_MP_FORK_LOGLEVEL_ must be a whole number, not {level!r}") from None
    logger = get_logger()
    logger.setLevel(number)
    if logger.handlers:
        return
    import logging

    file = os.environ.get("_MP_FORK_LOGFILE_")
    handler = logging.FileHandler(file) if file else logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(logging.Formatter(os.environ.get("_MP_FORK_LOGFORMAT_") or DEFAULT_LOGGING_FORMAT))
    logger.addHandler(handler)
    logger._rudimentary_setup = True  # type: ignore[attr-defined]


def close_all_fds_except(fds: Iterable[int]) -> None:
    """Close every open descriptor of this process, but for some.

    Args:
        fds: What to leave open.
    """
    from .compat import close_open_fds

    close_open_fds(fds)


def _eintr_retry(func: Callable[..., _T]) -> Callable[..., _T]:
    """Return ``func`` itself: system calls retry by themselves. Kept for its importers."""
    return func


def set_pdeathsig(sig: int) -> None:
    """Have this process get a signal when its parent dies.

    Linux ties this to the *thread* that started the process: when that thread ends, the signal comes as well.
    If the parent is dead already, the signal comes at once.

    Args:
        sig: A signal number or `signal.Signals`; 0 for none.

    Raises:
        OSError: Not a signal, or not possible on this platform.
    """
    from . import process

    number = _signal_number(sig)
    _linux_only()
    from . import _billiard

    _billiard.set_pdeathsig(number)
    kin = process._kin
    if number and kin is not None and kin[0] == os.getpid() and kin[1] != os.getppid():
        os.kill(os.getpid(), number)


def get_pdeathsig() -> int:
    """Return the signal that this process gets when its parent dies, 0 for none.

    Raises:
        OSError: Not possible on this platform.
    """
    _linux_only()
    from . import _billiard

    return _billiard.get_pdeathsig()


def _signal_number(sig: object) -> int:
    if isinstance(sig, signal.Signals):
        return int(sig)
    if isinstance(sig, int) and not isinstance(sig, bool):
        return sig
    raise OSError(f"An error occurred while setting pdeathsig: not a signal: {sig!r}")


def _linux_only() -> None:
    if not sys.platform.startswith("linux"):
        raise OSError("pdeathsig is only supported on Linux")
