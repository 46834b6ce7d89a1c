"""Starting children as fresh interpreters: what they are told, and what they do first.

A fork server is such a fresh interpreter too, and its children are told the same.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import sys
import types
from contextlib import contextmanager

from . import _billiard, _child, popen_fork, process, util
from ._parent import ParentProcess
from .context import _default_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

__all__ = [
    "_main",
    "freeze_support",
    "get_command_line",
    "get_executable",
    "get_preparation_data",
    "get_start_method",
    "import_main_path",
    "is_forking",
    "old_main_modules",
    "prepare",
    "set_executable",
    "set_start_method",
    "spawn_main",
]

#: The argument by which a child of a frozen program knows itself.
_CHILD_FLAG = "--billiard-fork"
#: The first descriptor that is none of the standard ones.
_FIRST_OTHER = 3

get_start_method = _default_context.get_start_method
set_start_method = _default_context.set_start_method

_python_exe: str | bytes = sys.executable

#: Main modules that were replaced by the one that children import, so that what they define stays alive.
old_main_modules: list[types.ModuleType] = []


def set_executable(exe: str | bytes | os.PathLike[str]) -> None:
    """Set the program that children are started with; the default is the running interpreter.

    Args:
        exe: Its path.
    """
    global _python_exe
    _python_exe = os.fspath(exe)


def get_executable() -> str | bytes:
    """Return the program that children are started with."""
    return _python_exe


# --- the command line ---


def is_forking(argv: Sequence[str]) -> bool:
    """Tell whether a command line is that of a child of a frozen program."""
    return list(argv[1:2]) == [_CHILD_FLAG]


def freeze_support() -> None:
    """Be the child, if this process is one that a frozen program has started. Then it does not return.

    A frozen program calls this first thing in its main block. Elsewhere it does nothing.

    Source: billiard 4.2.1 ``freeze_support``. Different here: it works on every platform, for fork
    servers too.
    """
    if not is_forking(sys.argv):
        return
    words = dict(word.split("=", 1) for word in sys.argv[2:])
    told: dict[str, Any] = {name: None if value == "None" else int(value) for name, value in words.items()}
    if "listener_fd" in told:
        from .forkserver import main

        main(preload=[], **told)
    spawn_main(**told)


def is_frozen() -> bool:
    """Tell whether this is a program that brings its own interpreter: its children are further runs of it."""
    return bool(getattr(sys, "frozen", False))


def get_command_line(**kwds: object) -> list[str]:
    """Return the command line of a child.

    Args:
        **kwds: What `spawn_main` is to be called with.
    """
    if is_frozen():
        return _frozen_command_line(kwds)
    call = ", ".join(f"{name}={value!r}" for name, value in kwds.items())
    return _interpreter_command_line(f"from billiard.spawn import spawn_main; spawn_main({call})")


def get_server_command_line(**kwds: object) -> list[str]:
    """Return the command line of a fork server.

    Args:
        **kwds: What `forkserver.main` is to be called with, besides ``preload``.
    """
    if is_frozen():
        return _frozen_command_line(kwds)
    call = ", ".join(f"{name}={value!r}" for name, value in kwds.items())
    return _interpreter_command_line(f"from billiard.forkserver import main; main(preload=[], {call})")


def _frozen_command_line(kwds: dict[str, object]) -> list[str]:
    return [os.fsdecode(_python_exe), _CHILD_FLAG, *(f"{name}={value!r}" for name, value in kwds.items())]


def _interpreter_command_line(source: str) -> list[str]:
    from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]

    return [os.fsdecode(_python_exe), *_args_from_interpreter_flags(), "-c", source, _CHILD_FLAG]


def launch(command: list[str], keep: Iterable[int]) -> _billiard.Child:
    """Start a child that is a fresh interpreter.

    Args:
        command: Its command line.
        keep: The descriptors that it inherits besides the standard ones.

    Raises:
        OSError: It cannot be started.
    """
    told = {b"MULTIPROCESSING_FORKING_DISABLE": b"1"}
    environment = [name + b"=" + value for name, value in {**os.environb, **told}.items()]
    words = [os.fsencode(word) for word in command]
    try:
        kept = sorted(set(keep))
        return _billiard.spawn(words[0], words, environment, kept, for_children=True, pidfd=popen_fork._PIDFD)
    except OSError as error:
        error.filename = command[0]
        raise


@contextmanager
def beyond_standard(*fds: int | None) -> Iterator[list[int | None]]:
    """Lend descriptors under numbers that are not those of standard streams.

    Where this process has closed one of its standard descriptors, what is opened next gets the number, and a
    child that inherits it would read or write it as that stream.

    Args:
        *fds: The descriptors.

    Yields:
        Numbers for them, in order.
    """
    lent, copies = list(fds), []
    try:
        for place, fd in enumerate(fds):
            if fd is not None and fd < _FIRST_OTHER:
                import fcntl

                copies.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_OTHER))
                lent[place] = copies[-1]
        yield lent
    finally:
        for copy in copies:
            os.close(copy)


# --- what a child is told ---


def get_preparation_data(name: str) -> dict[str, Any]:
    """Return what a child has to know before its process object can be unpickled.

    Args:
        name: The child's name.

    Raises:
        RuntimeError: This process is a child itself that is still importing its main module.
    """
    _check_not_importing_main()
    current = process.current_process()
    told: dict[str, Any] = {
        "log_to_stderr": util._log_to_stderr,
        "authkey": current.authkey,
        "parent_name": current.name,
    }
    if util._logger is not None:
        told["log_level"] = util._logger.getEffectiveLevel()
    told.update(
        name=name,
        sys_path=[process.ORIGINAL_DIR or entry if entry == "" else entry for entry in sys.path],
        sys_argv=sys.argv,
        orig_dir=process.ORIGINAL_DIR,
        dir=_current_directory(),
        start_method=_default_context.get_start_method(),
    )
    told.update(main_module())
    return told


def _current_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        # Somebody has removed it; the child starts where it is then.
        return None


def main_module() -> dict[str, str]:
    """Where a child finds this program's main module: by name or by path; nowhere, if it was typed in, or if
    the child is another run of the program.
    """
    if is_frozen():
        return {}
    main = sys.modules.get("__main__")
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        return {"init_main_from_name": name}
    path = getattr(main, "__file__", None)
    if path is None:
        return {}
    if not os.path.isabs(path) and process.ORIGINAL_DIR is not None:
        path = os.path.join(process.ORIGINAL_DIR, path)
    # An interactive session may claim a file that there is not.
    return {"init_main_from_path": os.path.normpath(path)} if os.path.exists(path) else {}


def _check_not_importing_main() -> None:
    if getattr(process.current_process(), "_inheriting", False):
        raise RuntimeError(
            "a process was to be started while this one, which is a child itself, is still importing the "
            "main module. The program starts processes whenever it is imported: put that into a main "
            "block,\n\n"
            '    if __name__ == "__main__":\n'
            "        freeze_support()  # only in programs that are frozen\n"
            "        ...\n"
        )


# --- the child ---


def spawn_main(
    pipe_handle: int,
    parent_pid: int | None = None,
    tracker_fd: int | None = None,  # noqa: ARG001
    *,
    parent_fd: int | None = None,
) -> None:
    """Be a child that was started as a fresh interpreter. Does not return.

    Args:
        pipe_handle: The descriptor to read from what to do.
        parent_pid: The parent's process id; this process does not outlive it.
        tracker_fd: Accepted; there is nothing to track.
        parent_fd: The parent's process descriptor.
    """
    code = 1
    try:
        parent = None
        if parent_pid is not None:
            process._kin = os.getpid(), parent_pid
            parent = _billiard.Parent(parent_pid, parent_fd)
        code = _main(pipe_handle, parent=parent)
    finally:
        # As after a fork: nothing of the interpreter's own end is waited for.
        process._maybe_flush(sys.stdout)
        process._maybe_flush(sys.stderr)
        os._exit(code)


def _main(fd: int, *, parent: _billiard.Parent | None = None) -> int:
    """Read from a descriptor what to do, and do it. Returns the exit code."""
    _child.before_fork()
    # What the main module reads when it is imported must not be the parent's either.
    _child.replace_stdin()
    with open(fd, "rb") as stream:
        obj, told = receive(stream, parent)
    return obj if isinstance(obj, int) else run(obj, told, parent)


def receive(stream: Any, parent: _billiard.Parent | None) -> tuple[process.BaseProcess | int, dict[str, Any]]:
    """Become what is described in a stream: first how to prepare, then the process object.

    Args:
        stream: A binary file.
        parent: Who has started this process, as far as is known; it does not outlive that one.

    Returns:
        The process object, or the exit code of a process that has failed before it had one; and what else was
        told.
    """
    current = process.current_process()
    current._inheriting = True  # type: ignore[attr-defined]
    told: dict[str, Any] = {}
    try:
        try:
            told = pickle.load(stream)
            if parent is not None:
                # First of all: what is imported next may take long.
                parent.watch(may_live=not told.get("daemon", False))
            prepare(told)
            util._setup_logging_from_environment()
            return pickle.load(stream), told
        finally:
            del current._inheriting  # type: ignore[attr-defined]
    except BaseException as error:  # the last frame of the process
        words = told.get("last_words")
        name = told.get("name", current.name)
        return _child.outcome_of(error, name, words.detach() if words else None), told


def run(obj: process.BaseProcess, told: dict[str, Any], handle: _billiard.Parent | None) -> int:
    """Be the child.

    Args:
        obj: The process object.
        told: What its parent has told besides.
        handle: Who has started it, as far as is known.

    Returns:
        The exit code.
    """
    try:
        _let_interrupts_in()
        parent = None
        if handle is not None:
            parent = ParentProcess(told.get("parent_name", "MainProcess"), handle)
            parent._watched = True
        return obj._bootstrap(parent=parent)
    except KeyboardInterrupt:
        # It came before the process object could see to it, or after.
        if obj._ends_by_interrupts:
            _child.end_by_interrupt()
        return 1


def _let_interrupts_in() -> None:
    """Until now, Ctrl-C had to wait: there was nobody to handle it without a traceback."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def prepare(data: dict[str, Any]) -> None:
    """Make this process like its parent, as far as `get_preparation_data` has told.

    Args:
        data: What it has told.
    """
    for name, apply in _PREPARATIONS.items():
        if data.get(name) is not None:
            apply(data[name])


def _change_environment(changes: dict[bytes, bytes | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.environb.pop(name, None)
        else:
            os.environb[name] = value


def _load_all(names: Sequence[str]) -> None:
    for name in names:
        importlib.import_module(name)


def _is_packages_main(mod_name: str) -> bool:
    """Whether this is a package's main file, which is there to be run; it need not survive being imported."""
    return mod_name.rpartition(".")[2] == "__main__"


def _is_shell(main_path: str) -> bool:
    """Whether this is an interactive shell, the main program of others; it has nothing that they need."""
    return os.path.splitext(os.path.basename(main_path))[0] == "ipython"


#: Which main modules, by what is told of them, a child does without.
STAYS_BEHIND: dict[str, Callable[[str], bool]] = {
    "init_main_from_name": _is_packages_main,
    "init_main_from_path": _is_shell,
}


def _fixup_main_from_name(mod_name: str) -> None:
    """Import the parent's main module, which it ran by name, unless it is here already."""
    if _is_packages_main(mod_name):
        return
    if getattr(sys.modules["__main__"].__spec__, "name", None) == mod_name:
        return
    import runpy

    _become_main(runpy.run_module(mod_name, run_name="__mp_main__", alter_sys=True))


def _fixup_main_from_path(main_path: str) -> None:
    """Import the parent's main module, which it ran from a file, unless it is here already."""
    if _is_shell(main_path):
        return
    if getattr(sys.modules["__main__"], "__file__", None) == main_path:
        return
    import runpy

    _become_main(runpy.run_path(main_path, run_name="__mp_main__"))


def _become_main(defined: dict[str, Any]) -> None:
    """Put what running the main module has defined in the place of ``__main__``."""
    module = types.ModuleType("__mp_main__")
    module.__dict__.update(defined)
    if defined.get("__file__"):
        os.environ["MP_MAIN_FILE"] = defined["__file__"]
    old_main_modules.append(sys.modules["__main__"])
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module


def import_main_path(main_path: str) -> None:
    """Import the parent's main module from a file, as a child does.

    Args:
        main_path: The file.
    """
    _fixup_main_from_path(main_path)


#: What is applied of what a parent has told, in this order.
_PREPARATIONS: dict[str, Callable[[Any], object]] = {
    "environment": _change_environment,
    # As it is: it need not be a text.
    "name": lambda name: setattr(process.current_process(), "_name", name),
    "authkey": lambda key: setattr(process.current_process(), "authkey", key),
    "log_to_stderr": lambda wanted: wanted and util.log_to_stderr(),
    "log_level": lambda level: util.get_logger().setLevel(level),
    "sign_of_life": lambda end: setattr(popen_fork, "_sign_of_life", end.detach()),
    "sys_path": lambda path: setattr(sys, "path", path),
    "sys_argv": lambda argv: setattr(sys, "argv", argv),
    "dir": os.chdir,
    "orig_dir": lambda path: setattr(process, "ORIGINAL_DIR", path),
    "start_method": lambda method: set_start_method(method, force=True),
    "preload": _load_all,
    "init_main_from_name": _fixup_main_from_name,
    "init_main_from_path": _fixup_main_from_path,
}
