"""Processes as objects."""

from __future__ import annotations

import itertools
import multiprocessing.process as _mproc
import os
import signal
from _weakrefset import WeakSet
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from multiprocessing.util import Finalize
    from typing import Any

    from ._parent import ParentProcess
    from ._serializers import Serializer

__all__ = ["BaseProcess", "Process", "active_children", "current_process", "parent_process"]

try:
    #: Where the program was started; what is relative in ``sys.path`` is relative to it.
    ORIGINAL_DIR: str | None = os.path.abspath(os.getcwd())
except OSError:
    ORIGINAL_DIR = None


def current_process() -> BaseProcess:
    """Return the object that represents this process."""
    return _current_process


def parent_process() -> ParentProcess | None:
    """Return the object that represents the process that started this one.

    Returns:
        ``None`` in the main process.
    """
    return _parent_process


def _set_current_process(process: BaseProcess) -> None:
    global _current_process
    _current_process = process
    # `logging` and others ask the standard library who they are.
    _mproc._current_process = process  # type: ignore[attr-defined]


def _settle_children() -> None:
    """See that the children that this process knows are its own: a copy made by whatever kind of fork has
    none yet.
    """
    global _children_of
    if _children_of != os.getpid():
        _children.clear()
        _children_of = os.getpid()


def _cleanup() -> None:
    """Forget the children that have ended."""
    _settle_children()
    for process in list(_children):
        popen = process._popen
        if popen is not None and popen.poll() is not None:
            _children.discard(process)


def active_children(_cleanup: Callable[[], None] = _cleanup) -> list[BaseProcess]:
    """Return the children of this process that still run. Reaps those that do not."""
    _cleanup()
    return list(_children)


class BaseProcess:
    """A process, started or not. What it runs in the child is `run`.

    Args:
        group: Must be ``None``.
        target: What `run` calls.
        name: The name; the default is the class name and a number.
        args: Positional arguments of ``target``.
        kwargs: Keyword arguments of ``target``.
        daemon: Whether the process is terminated, rather than waited for, when this one exits; ``None``
            inherits.
        serializer: How the object is sent to a child that is not a copy of this process: ``"pickle"``,
            ``"cloudpickle"``, or a pair of functions; ``None`` is pickle.
        **_kw: Ignored, since programs rely on it.

    Raises:
        AssertionError: ``group`` is not ``None``.

    Source: billiard 4.2.1 ``BaseProcess``. Different here: exit codes are the interpreter's; at exit of the
    parent daemons are terminated and the others joined; a child waits for its own threads.
    """

    _start_method: str | None = None
    _serializer: Serializer = None
    # Whether the exit status tells of an interrupt that nobody has handled; otherwise it is 1.
    _ends_by_interrupts = False

    def _Popen(self, process_obj: BaseProcess) -> Any:
        raise NotImplementedError(
            "BaseProcess has no start method: use billiard.Process or the Process of a context"
        )

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] = {},
        daemon: bool | None = None,
        *,
        serializer: Serializer = None,
        **_kw: Any,
    ) -> None:
        if group is not None:
            raise AssertionError("group argument must be None for now")
        parent = _current_process
        self._identity: tuple[int, ...] = (*parent._identity, next(_process_counter))
        self._config: dict[str, Any] = parent._config.copy()
        self._parent_pid: int | None = os.getpid()
        self._popen: Any = None
        self._closed = False
        self._target = target
        self._args = tuple(args)
        self._kwargs = dict(kwargs)
        self._name = name or f"{type(self).__name__}-{':'.join(map(str, self._identity))}"
        if daemon is not None:
            self.daemon = daemon
        self._controlled_termination = False
        if serializer is not None:
            self._serializer = serializer
        _dangling.add(self)

    def _check_closed(self) -> None:
        if self._closed:
            raise ValueError("process object is closed")

    def _check_mine(self, verb: str) -> None:
        if self._parent_pid != os.getpid():
            raise AssertionError(f"can only {verb} a child process")

    def run(self) -> None:
        """What the child does: call the target. Subclasses may override it."""
        if self._target:
            self._target(*self._args, **self._kwargs)

    def start(self) -> None:
        """Start the process.

        Raises:
            AssertionError: It was started before, or the object was made in another process.
            OSError: The system cannot start another process.
        """
        self._check_closed()
        if self._popen is not None:
            raise AssertionError("cannot start a process twice")
        if self._parent_pid != os.getpid():
            raise AssertionError("can only start a process object created by current process")
        _cleanup()
        _watch_exit()
        try:
            self._popen = self._Popen(self)
            self._sentinel = self._popen.sentinel
            _children.add(self)
        except BaseException:
            # A signal handler may raise anywhere: then the child, if there is one, goes with its handle.
            self._popen = None
            _children.discard(self)
            raise
        # COMPAT: what a program puts in the place of `_Popen` need not know of this.
        keep = getattr(self._popen, "_keep", None)
        if keep is not None:
            keep()

    def close(self) -> None:
        """Release what belongs to the object. It cannot be used afterwards; closing it again does nothing.

        Raises:
            ValueError: The process still runs.
        """
        if self._closed:
            return
        if self._popen is not None:
            if self._popen.poll() is None:
                raise ValueError(
                    "cannot close a process while it is still running; join() or terminate() it first"
                )
            self._popen.close()
            self._popen = None
            _children.discard(self)
        self._closed = True

    def terminate(self) -> None:
        """Ask the process to end, with the signal `billiard.common.TERM_SIGNAL`. Nothing happens if it has
        ended.

        Raises:
            ValueError: It was not started, or the object is closed.
            OSError: The signal is not permitted.
        """
        self._started().terminate()

    def terminate_controlled(self) -> None:
        """Like `terminate`, and note that the end is no accident."""
        self._controlled_termination = True
        self.terminate()

    def kill(self) -> None:
        """End the process at once, with SIGKILL. Nothing happens if it has ended.

        Raises:
            ValueError: It was not started, or the object is closed.
            OSError: The signal is not permitted.
        """
        self._started().kill()

    def interrupt(self) -> None:
        """Interrupt the process as Ctrl-C does, with SIGINT. Nothing happens if it has ended.

        Raises:
            ValueError: It was not started, or the object is closed.
            OSError: The signal is not permitted.
        """
        self._started().interrupt()

    def _started(self) -> Any:
        self._check_closed()
        if self._popen is None:
            raise ValueError("process not started")
        return self._popen

    def join(self, timeout: float | None = None) -> None:
        """Wait until the process has ended.

        Args:
            timeout: Seconds to wait; ``None`` waits for ever, 0 and less only look.

        Raises:
            AssertionError: It was not started, or by another process.
            ValueError: The object is closed.
        """
        self._check_closed()
        self._check_mine("join")
        if self._popen is None:
            raise AssertionError("can only join a started process")
        if self._popen.wait(timeout) is not None:
            _children.discard(self)
            self._popen.close()

    def is_alive(self) -> bool:
        """Tell whether the process runs.

        Raises:
            AssertionError: It is another process's child.
            ValueError: The object is closed.
        """
        self._check_closed()
        if self is _current_process:
            return True
        self._check_mine("test")
        return self._is_alive()

    def _is_alive(self) -> bool:
        if self is _current_process:
            return True
        popen = self._popen
        if popen is None:
            return False
        popen.poll()
        return popen.returncode is None

    @property
    def name(self) -> str:
        """The name; it serves to tell processes apart for people."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        if not isinstance(name, str):
            raise AssertionError("name must be a string")
        self._name = name

    @property
    def daemon(self) -> bool:
        """Whether the process is terminated when its parent exits. Can be set until it is started."""
        return bool(self._config.get("daemon", False))

    @daemon.setter
    def daemon(self, daemonic: bool) -> None:
        if self._popen is not None:
            raise AssertionError("process has already started")
        self._config["daemon"] = daemonic

    @property
    def authkey(self) -> bytes:
        """The key with which connections to this process are proved."""
        return self._config["authkey"]  # type: ignore[no-any-return]

    @authkey.setter
    def authkey(self, authkey: bytes) -> None:
        self._config["authkey"] = AuthenticationString(authkey)

    @property
    def exitcode(self) -> int | None:
        """The exit code; the negated number of the signal that ended it; ``None`` before it has ended.

        255 if another part of the program took the status away.
        """
        self._check_closed()
        if self._popen is None:
            return None
        return self._popen.poll()  # type: ignore[no-any-return]

    @property
    def ident(self) -> int | None:
        """The process id; ``None`` before the start."""
        self._check_closed()
        if self is _current_process:
            return os.getpid()
        return self._popen.pid if self._popen is not None else None

    pid = ident

    @property
    def sentinel(self) -> int:
        """A descriptor that becomes readable when the process ends. It is closed when the process has been
        joined.

        Raises:
            ValueError: The process was not started, or has been joined already.
        """
        self._check_closed()
        if self._popen is None:
            raise ValueError("process not started")
        if self._popen.sentinel is None:
            raise ValueError("process has ended and was joined; its sentinel is closed")
        return self._popen.sentinel  # type: ignore[no-any-return]

    @property
    def _counter(self) -> itertools.count[int]:
        return _process_counter

    @property
    def _children(self) -> set[BaseProcess]:
        _settle_children()
        return _children

    @property
    def _authkey(self) -> bytes:
        return self.authkey

    @property
    def _daemonic(self) -> bool:
        return self.daemon

    @property
    def _tempdir(self) -> str | None:
        return self._config.get("tempdir")

    def __repr__(self) -> str:
        status = self._status()
        return f"<{type(self).__name__}({self._name}, {status}{' daemon' if self.daemon else ''})>"

    def _status(self) -> str:
        if self is _current_process:
            return "started"
        if self._closed:
            return "closed"
        if self._parent_pid != os.getpid():
            return "unknown"
        if self._popen is None:
            return "initial"
        exitcode = self._popen.poll()
        if exitcode is None:
            return "started"
        return f"stopped[{_exitcode_to_name.get(exitcode, exitcode)}]" if exitcode else "stopped"

    def _bootstrap(self, *, parent: ParentProcess | None = None) -> int:
        """Be the child. Returns the exit code; the caller leaves with it."""
        from . import _child

        return _child.bootstrap(self, parent)


def _maybe_flush(f: Any) -> None:
    """Flush a standard stream. It may be missing, closed, or lead to somebody who is gone."""
    with suppress(AttributeError, ValueError, OSError):
        f.flush()


class AuthenticationString(bytes):
    """A key that refuses to be pickled, except into a child that is being started."""

    def __reduce__(self) -> tuple[Any, ...]:
        from .context import get_spawning_popen

        if get_spawning_popen() is None:
            raise TypeError("Pickling an AuthenticationString object is disallowed for security reasons")
        return AuthenticationString, (bytes(self),)


class _MainProcess(BaseProcess):
    """The process that the user started."""

    def __init__(self) -> None:
        self._identity = ()
        self._name = "MainProcess"
        self._parent_pid = None
        self._popen = None
        self._closed = False
        self._config = {"authkey": AuthenticationString(os.urandom(32)), "semprefix": "/mp"}

    def close(self) -> None:
        """Do nothing: the main process has nothing to release."""


#: An alias of the base class, which cannot be started; the one to use is `billiard.Process`.
Process = BaseProcess

_current_process: BaseProcess = _MainProcess()
_parent_process: ParentProcess | None = None
_process_counter = itertools.count(1)
_children: set[BaseProcess] = set()
#: Whose children these are: the process id.
_children_of: int | None = None
_dangling: WeakSet[BaseProcess] = WeakSet()
#: This process, and the one that the kernel calls its parent, at the start; ``None`` in one that we did not
#: start.
_kin: tuple[int, int] | None = None
_exit_watch: Finalize[Any] | None = None
#: In which process `_exit_watch` was made.
_exit_watch_of: int | None = None

#: Negated signal number -> name.
_exitcode_to_name = {-member.value: member.name for member in signal.Signals}


def _watch_exit() -> None:
    """Have this process end its children at its own exit, whichever way it was started itself."""
    global _exit_watch, _exit_watch_of
    # A copy of this process gets its own: a finalizer does nothing in a process that has not made it.
    if _exit_watch is None or _exit_watch_of != os.getpid() or not _exit_watch.still_active():
        from .util import Finalize

        _exit_watch_of = os.getpid()
        # After what still works with children (pools, managers: 0 and above), before what merely tidies up.
        _exit_watch = Finalize(None, _end_children, exitpriority=-1)


def _end_children() -> None:
    """Terminate the daemons, wait for the others."""
    from . import util

    for process in active_children():
        if process.daemon:
            util.info("calling terminate() for daemon %s", process.name)
            process.terminate()
    for process in active_children():
        util.info("calling join() for process %s", process.name)
        process.join()
