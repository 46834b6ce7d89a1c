"""The fork server: a process that is started once, loads what all children need, and is forked for each of
them.

Its children start as fast as forks, but from a process that has no threads and nothing of this one's memory.
"""

from __future__ import annotations

import atexit
import errno
import gc
import io
import os
import pickle
import signal
import sys
import threading
from contextlib import suppress
from functools import partial

from . import _billiard, _child, process, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from multiprocessing.util import Finalize
    from typing import Any

__all__ = [
    "ForkServer",
    "ensure_running",
    "get_inherited_fds",
    "main",
    "set_forkserver_preload",
]

#: More descriptors than that, the server's own included, are refused.
MAXFDS_TO_SEND = 256
_OWN_FDS = 4

#: Whether the kernel hands out process descriptors.
_PIDFD = _billiard.has_pidfd()


def _rights() -> tuple[object, ...]:
    return os.getresuid(), os.getresgid(), os.getgroups()


def _environment() -> dict[bytes, bytes]:
    # COMPAT: private, but asked for every child, and a hundred times faster than to copy it item by item.
    return dict(os.environ._data)  # type: ignore[attr-defined]


class ForkServer:
    """This process's fork server."""

    def __init__(self) -> None:
        self._forget()
        self._preload_modules = ["__main__"]
        self._inherited_fds: list[int] | None = None

    def _forget(self) -> None:
        self._owner = os.getpid()
        # FORK: a lock that another thread held when this process was forked is of no use to it.
        self._lock = threading.RLock()
        self._exit_watch: Finalize[Any] | None = None
        self._zygote: _billiard.Zygote | None = None
        self._child: _billiard.Child | None = None
        self._loaded: list[str] = []
        self._suspects: set[str] = set()
        self._environment: dict[bytes, bytes] = {}
        self._rights = _rights()

    def set_forkserver_preload(self, modules_names: list[str]) -> None:
        """Say what the server loads before it forks; what it has loaded stays loaded.

        Args:
            modules_names: Names of modules. ``"__main__"`` is the program's main module. Modules that cannot
                be imported are left to the children.

        Raises:
            TypeError: It is not a list of strings.
        """
        names = [] if isinstance(modules_names, str) else list(modules_names)
        if isinstance(modules_names, str) or not all(isinstance(name, str) for name in names):
            raise TypeError("module_names must be a list of strings")
        self._preload_modules = names

    def get_inherited_fds(self) -> list[int]:
        """Return the descriptors that were sent along with this process, in order.

        Raises:
            RuntimeError: This process was not started by a fork server.
        """
        if self._inherited_fds is None:
            raise RuntimeError("this process was not started by a fork server")
        return self._inherited_fds

    def ensure_running(self) -> None:
        """Start the server if it does not run, and have it load what it has not loaded."""
        self._running()

    def preload(self, names: Iterable[str]) -> None:
        """Have the server load modules, in addition to what was set; now, if it runs, else when it is
        started.
        """
        self._preload_modules += [name for name in names if name not in self._preload_modules]
        if self._zygote is not None and self._owner == os.getpid():
            self._running()

    def start(self, data: bytes, parent: int | None, fds: list[int]) -> _billiard.Child:
        """Have a child forked.

        Args:
            data: What it is told.
            parent: The process descriptor of this process, where there is one.
            fds: The descriptors it gets.

        Raises:
            OSError: The server cannot be started, or cannot fork.
            ValueError: Too many descriptors.
        """
        if len(fds) + _OWN_FDS >= MAXFDS_TO_SEND:
            raise ValueError("too many fds")
        keep = [*fds] if parent is None else [parent, *fds]
        try:
            return self._running().start(data, keep)
        except BrokenPipeError:
            # It was killed since we looked; nothing was started yet, so a new one can do it.
            pass
        try:
            return self._running().start(data, keep)
        except BrokenPipeError:
            why = f"the fork server ended with exit code {self._reap()} as soon as it was started"
            raise BrokenPipeError(errno.EPIPE, why) from None

    def _running(self) -> _billiard.Zygote:
        if self._owner != os.getpid():
            self._forget()
        with self._lock:
            # Of a process that has given up its rights, no child may have them.
            if self._zygote is None or self._zygote.gone or self._rights != _rights():
                self._start()
            zygote = self._zygote
            assert zygote is not None
            wanted = [name for name in self._preload_modules if name not in self._loaded]
            self._loaded += wanted
        if wanted:
            # Without the lock: it takes as long as the imports, and signal handlers run meanwhile.
            try:
                zygote.load(self._to_load(wanted))
            except (BrokenPipeError, ChildProcessError):
                self._blame(wanted)
                return self._running()
            self._suspects.difference_update(wanted)
        return zygote

    def _blame(self, names: list[str]) -> None:
        """The server has ended while it loaded something.

        Once may be an accident. What has done it twice would end every server.
        """
        from .util import get_logger, warning

        get_logger()
        exitcode, again = self._reap(), self._suspects.issuperset(names)
        what_now = "children will load it" if again else "it is tried once more"
        text = "the fork server ended with exit code %s while it was loading %s; %s"
        warning(text, exitcode, ", ".join(names), what_now)
        if not again:
            self._suspects.update(names)
            return
        self._preload_modules = [name for name in self._preload_modules if name not in names]

    def _start(self) -> None:
        self._reap()
        # Taken before: what another thread changes meanwhile is told to every child.
        self._environment, self._rights = _environment(), _rights()
        ours, theirs = _billiard.packet_pair()
        try:
            parent = _billiard.Parent.own()
            with spawn.beyond_standard(theirs, parent.sentinel) as (control, sentinel):
                command = spawn.get_server_command_line(
                    listener_fd=control, alive_r=sentinel, owner=self._owner
                )
                self._child = spawn.launch(command, (fd for fd in (control, sentinel) if fd is not None))
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._zygote = _billiard.Zygote(ours, self._child)
        self._child.keep()
        self._watch_exit()

    def _watch_exit(self) -> None:
        if self._exit_watch is None or not self._exit_watch.still_active():
            from .util import Finalize

            # After everything that may still start or end a child.
            self._exit_watch = Finalize(self, self._stop, exitpriority=-50)

    def changes(self) -> dict[bytes, bytes | None]:
        """What has changed in this process's environment since the server was started; ``None`` is gone."""
        then, now = self._environment, _environment()
        if then == now or self._zygote is None:
            return {}
        changed: dict[bytes, bytes | None] = dict.fromkeys(then.keys() - now.keys())
        changed.update((name, value) for name, value in now.items() if then.get(name) != value)
        return changed

    def _to_load(self, names: list[str]) -> bytes:
        told = spawn.get_preparation_data("forkserver")
        # A child may be told the key, a server need not be.
        del told["authkey"], told["start_method"]
        return pickle.dumps((names, told))

    def _reap(self) -> int | None:
        """Have the server end. Returns its exit code."""
        zygote, self._zygote = self._zygote, None
        if zygote is not None:
            zygote.dismiss()
        self._loaded = []
        child, self._child = self._child, None
        if child is not None and child.wait(1.0) is None:
            # One that has more rights than we have by now has been sent away, and goes when it can.
            with suppress(PermissionError):
                child.signal(signal.SIGKILL)
                child.wait()
        return child.poll() if child is not None else None

    def _stop(self) -> None:
        """End the server; the next start makes a new one."""
        # A thread that is starting the server while the program ends is not waited for.
        if self._owner == os.getpid() and self._lock.acquire(timeout=1):
            try:
                self._reap()
            finally:
                self._lock.release()


_forkserver = ForkServer()
ensure_running = _forkserver.ensure_running
get_inherited_fds = _forkserver.get_inherited_fds
set_forkserver_preload = _forkserver.set_forkserver_preload


# --- the server's own process ---


def main(
    listener_fd: int,
    alive_r: int | None,
    preload: list[str],
    main_path: str | None = None,
    sys_path: list[str] | None = None,
    *,
    owner: int | None = None,
) -> None:
    """Be the fork server, until the process that it serves is gone. Does not return.

    Args:
        listener_fd: The server's end of the socket to that process.
        alive_r: The process descriptor of that process.
        preload: What to load first.
        main_path: The file of the program's main module, for ``"__main__"`` in ``preload``.
        sys_path: Where modules are looked for.
        owner: The process id of that process; the default is whoever has started this one.
    """
    told: dict[str, Any] = {} if sys_path is None else {"sys_path": sys_path}
    if main_path is not None:
        told["init_main_from_path"] = main_path
    # Ctrl-C is for the program, and a server that is gone would only be missed. How children end is not to be
    # lost to a program that does not want to know.
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN) or signal.default_int_handler
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code = 1
    try:
        # What is loaded must not take the program's input.
        _child.before_fork()
        _child.replace_stdin()
        # While it loads something, the server would not notice that its owner has ended. The thread that does
        # has nothing that a fork could catch half-way.
        parent = _billiard.Parent(owner or os.getppid(), None if alive_r is None else os.dup(alive_r))
        parent.watch(may_live=False)
        server = _billiard.ZygoteServer(listener_fd, parent.pid, alive_r)
        load(preload, told)
        code = _serve(server, parent, interrupt)
    except BaseException as error:  # the last frame of the process
        code = _child.outcome_of(error, "forkserver")
    finally:
        os._exit(code)


def _serve(server: _billiard.ZygoteServer, parent: _billiard.Parent, interrupt: Any) -> int:
    while (order := server.next()) is not None:
        kind, number, data, fds = order
        if kind == "load":
            load(*pickle.loads(data))
            server.loaded(number)
            continue
        # It may be large, and a child that holds it holds it for its life.
        stream = io.BytesIO(data)
        del order, data
        try:
            # The handle is not kept: the next child would inherit its descriptor.
            child = _billiard.fork(partial(_be_child, server, number, parent, interrupt, stream, fds), _PIDFD)
        except OSError as error:
            server.failed(number, error.errno or errno.EAGAIN)
        else:
            child.keep()
            server.born(number, child.pid)
            del child
        for fd in fds:
            os.close(fd)
    return 0


def _be_child(
    server: _billiard.ZygoteServer,
    number: int,
    parent: _billiard.Parent,
    interrupt: Any,
    stream: io.BytesIO,
    fds: list[int],
) -> int:
    signal.signal(signal.SIGINT, interrupt)
    # What was registered in the server is not for the end of its children.
    atexit._clear()
    if not server.introduce(number):
        return 1
    if parent.sentinel is not None:
        # FORK: it was opened by the server, so the object does not close it here.
        os.close(parent.sentinel)
    process._kin = os.getpid(), os.getppid()
    handle = _billiard.Parent(parent.pid, fds.pop(0) if _PIDFD else None)
    _forkserver._inherited_fds = fds
    with stream:
        obj, told = spawn.receive(stream, handle)
    return obj if isinstance(obj, int) else spawn.run(obj, told, handle)


def load(names: list[str], told: dict[str, Any]) -> None:
    """Load modules in this process, so that its forks have them.

    Args:
        names: Their names. What cannot be imported is left to the children, who then say why.
        told: What `spawn.get_preparation_data` has told of the process that children are started for.
    """
    current = process.current_process()
    where = {name: told.pop(name, None) for name in ("init_main_from_name", "init_main_from_path")}
    if "__main__" in names:
        told.update({name: value for name, value in where.items() if value is not None})
    current._inheriting = True  # type: ignore[attr-defined]
    try:
        _quietly(spawn.prepare, told)
        for name in names:
            if name != "__main__":
                _quietly(__import__, name)
    finally:
        del current._inheriting  # type: ignore[attr-defined]
        # What they have printed would be printed by every child again.
        process._maybe_flush(sys.stdout)
        process._maybe_flush(sys.stderr)
    _child.before_fork()
    # What is there now is shared by all children for as long as nobody writes to it, the garbage collector
    # included.
    gc.collect()
    gc.freeze()


def _quietly(call: Any, *args: Any) -> None:
    # An exit as well: the server has to go on.
    with suppress(BaseException):
        call(*args)
