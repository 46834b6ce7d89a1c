"""The life of a child process: settling in, running, winding up."""

from __future__ import annotations

import atexit
import io
import itertools
import multiprocessing.process as _mproc
import os
import signal
import sys
import threading
from contextlib import suppress

from . import context, process, util

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._parent import ParentProcess
    from .process import BaseProcess


class _Nothing(io.RawIOBase):
    """A file with nothing in it. It gets a descriptor when somebody asks for that."""

    name = os.devnull
    mode = "rb"
    _fd: int | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:  # noqa: ARG002
        return 0

    def fileno(self) -> int:
        if self._fd is None:
            self._fd = os.open(os.devnull, os.O_RDONLY)
        return self._fd


_empty_stdin: io.TextIOWrapper | None = None


def before_fork() -> None:
    """Make in the parent what its children need: it costs them more than all the rest of their start."""
    global _empty_stdin
    if _empty_stdin is None or _empty_stdin.closed:
        _empty_stdin = io.TextIOWrapper(io.BufferedReader(_Nothing()), encoding="utf-8")


def replace_stdin() -> None:
    """Give the process an empty standard input: it must not take the parent's.

    COMPAT: descriptor 0 stays what it is. Debuggers in children, and others who know what they do, open it.
    """
    if sys.stdin is not None:
        before_fork()
        sys.stdin = _empty_stdin


def bootstrap(obj: BaseProcess, parent: ParentProcess | None) -> int:
    """Be the child: settle in, run, wind up.

    Args:
        obj: The process object that describes this process.
        parent: Who has started it; this process does not outlive it.

    Returns:
        The exit code; the caller leaves with it.
    """
    code, interrupted = 1, False
    try:
        _settle_in(obj, parent)
        if util._logger:
            util.info("child process %s calling self.run()", obj.pid)
        try:
            obj.run()
            code = 0
        except BaseException as error:  # whatever it is, it must not keep the process from winding up
            # Told at once: what is waited for next may never end.
            code = outcome_of(error, obj.name)
            interrupted = isinstance(error, KeyboardInterrupt)
        _wind_up()
    except BaseException as error:  # the last frame of the process: whatever it is, it ends here
        code = outcome_of(error, obj.name)
        interrupted = isinstance(error, KeyboardInterrupt)
    finally:
        if util._logger:
            util.info("process %s exiting with exitcode %d", obj.pid, code)
        process._maybe_flush(sys.stdout)
        process._maybe_flush(sys.stderr)
        if interrupted and obj._ends_by_interrupts:
            end_by_interrupt()
    return code


def end_by_interrupt() -> None:
    """End as a process that does not handle interrupts, so that the exit status says why."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.raise_signal(signal.SIGINT)


def outcome_of(error: BaseException, name: str, words: int | None = None) -> int:
    """Tell of the exception that ends this process, if there is anything to tell. Returns the exit code.

    Args:
        error: The exception, which is being handled.
        name: The process's name.
        words: A descriptor to tell a crash to, for a process whose owner passes it on.
    """
    if isinstance(error, SystemExit):
        if words is not None:
            # Whoever passes it on waits for this process to begin, and must not take that for a regular end.
            _report_crash(name, words)
            return 1
        return _exit_code_of(error)
    # Whoever has pressed the keys of an interrupt meant the whole program, and the parent says so.
    if not isinstance(error, KeyboardInterrupt):
        _report_crash(name, words)
    return 1


def _settle_in(obj: BaseProcess, parent: ParentProcess | None) -> None:
    """Turn a copy of another process into a process of its own.

    The interpreter's own hooks have by now given `logging` fresh locks and `random` a fresh state. Every
    object that is touched here costs a page of memory and the time to copy it, so what is as it should be is
    left alone.
    """
    if obj._start_method is not None:
        context._force_start_method(obj._start_method)
    process._process_counter = itertools.count(1)
    replace_stdin()
    process._current_process = _mproc._current_process = obj  # type: ignore[attr-defined]
    process._parent_process = _mproc._parent_process = parent  # type: ignore[attr-defined]
    # What the standard library knows of children are the parent's. At its exit it would end them.
    if _mproc._children:  # type: ignore[attr-defined]
        _mproc._children = set()  # type: ignore[attr-defined]
    # A process that has not loaded it has registered nothing there.
    shared: Any = sys.modules.get("multiprocessing.util")
    if shared is not None:
        # A process forked while its parent was exiting is not exiting itself.
        if shared._exiting:
            shared._exiting = False
        if shared._finalizer_registry:
            shared._finalizer_registry.clear()
        if shared._afterfork_registry:
            shared._run_after_forkers()
    if parent is not None and not parent._watched:
        parent._handle.watch(may_live=not obj.daemon)


def _wind_up() -> None:
    """What the interpreter does at its regular end, which a child does not reach: threads first, then
    finalizers, then what was registered with `atexit`.
    """
    # COMPAT: private, but the only way to wait for threads that start others, and what the standard library
    # calls too.
    if threading.active_count() > 1 or threading._threading_atexits:  # type: ignore[attr-defined]
        threading._shutdown()  # type: ignore[attr-defined]
    shared: Any = sys.modules.get("multiprocessing.util")
    if shared is not None and (shared._finalizer_registry or util._logger or _mproc._children):  # type: ignore[attr-defined]
        shared._exit_function()
    if atexit._ncallbacks():
        atexit._run_exitfuncs()


def _exit_code_of(error: SystemExit) -> int:
    """The exit code that a `SystemExit` asks for; text goes to standard error."""
    code = error.code
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    _say(lambda: f"{code}\n")
    return 1


def _report_crash(name: str, words: int | None) -> None:
    """Tell of the exception that ends this process: to the logger where that goes elsewhere, and to standard
    error.
    """
    import traceback

    if words is not None:
        os.write(words, traceback.format_exc().encode(errors="backslashreplace"))
        return
    logger = util._logger
    if logger is not None and logger.handlers and not util._log_to_stderr:
        util.error("Process %s", name, exc_info=True)
    # What was printed before it happened comes before it; and it comes in one piece, so that it does not mix
    # with what others have to say.
    process._maybe_flush(sys.stdout)
    _say(lambda: f"Process {name}:\n{traceback.format_exc()}")


def _say(text: Callable[[], str]) -> None:
    """Write to standard error, if there is one that works: what comes next must not depend on it."""
    with suppress(Exception):
        sys.stderr.write(text())
        sys.stderr.flush()
