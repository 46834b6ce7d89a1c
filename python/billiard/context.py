"""Contexts: one set of factories for each way of starting processes."""

from __future__ import annotations

import os
import sys
import threading

from . import process
from .exceptions import (
    AuthenticationError,
    BufferTooShort,
    ProcessError,
    SoftTimeLimitExceeded,
    TimeLimitExceeded,
    TimeoutError,
    WorkerLostError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from logging import Logger
    from typing import Any

    from ._billiard import SemLock
    from ._serializers import Serializer
    from .connection import Connection
    from .managers import SyncManager
    from .pool import Pool as PoolType
    from .queues import JoinableQueue as JoinableQueueType
    from .queues import Queue as QueueType
    from .queues import SimpleQueue as SimpleQueueType
    from .synchronize import (
        Barrier,
        BoundedSemaphore,
        Condition,
        Event,
        Lock,
        RLock,
        Semaphore,
    )

__all__: list[str] = []  # things are copied from here to the package

W_NO_EXECV = "forking cannot be disabled: the start method 'spawn' is not available"

#: Every start method there may be, in the order in which they are listed.
_KNOWN_METHODS = ("fork", "spawn", "forkserver")

#: Overrides the number of processors that pools are sized by.
_CPU_COUNT_VARIABLE = "BILLIARD_CPU_COUNT"


def _only_lock(options: dict[str, Any]) -> Any:
    """What a factory is told about the lock, and nothing else."""
    lock = options.pop("lock", True)
    if options:
        raise TypeError(f"unexpected keyword arguments: {', '.join(options)}; there is only `lock`")
    return lock


class BaseContext:
    """The factories, for one way of starting processes."""

    ProcessError = ProcessError
    BufferTooShort = BufferTooShort
    TimeoutError = TimeoutError
    AuthenticationError = AuthenticationError
    TimeLimitExceeded = TimeLimitExceeded
    SoftTimeLimitExceeded = SoftTimeLimitExceeded
    WorkerLostError = WorkerLostError

    Process: type[process.BaseProcess]
    _name: str
    #: How processes and pools send what they send; ``None`` is pickle.
    _serializer: Serializer = None

    current_process = staticmethod(process.current_process)
    parent_process = staticmethod(process.parent_process)
    active_children = staticmethod(process.active_children)

    def cpu_count(self) -> int:
        """Return the number of processors of the machine.

        Raises:
            NotImplementedError: It cannot be determined.
        """
        count = os.cpu_count()
        if count is None:
            raise NotImplementedError("cannot determine number of cpus")
        return count

    def usable_cpu_count(self) -> int:
        """Return how many processors this process may really use.

        That is the least of its affinity and of all processor quotas of its control groups, rounded up, at
        least 1. The environment variable ``BILLIARD_CPU_COUNT`` overrides it.

        Raises:
            ValueError: The variable is not a positive whole number.
        """
        from . import _billiard

        ordered = os.environ.get(_CPU_COUNT_VARIABLE)
        if not ordered:
            return _billiard.usable_cpu_count()
        if not (ordered.isascii() and ordered.isdigit() and 0 < int(ordered) < sys.maxsize):
            raise ValueError(f"{_CPU_COUNT_VARIABLE} must be a positive whole number, not {ordered!r}")
        return _billiard.usable_cpu_count(int(ordered))

    def Pool(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        timeout: float | None = None,
        soft_timeout: float | None = None,
        lost_worker_timeout: float | None = None,
        max_restarts: int | None = None,
        max_restart_freq: float = 1,
        on_process_up: Callable[[Any], object] | None = None,
        on_process_down: Callable[[Any], object] | None = None,
        on_timeout_set: Callable[..., object] | None = None,
        on_timeout_cancel: Callable[..., object] | None = None,
        threads: bool = True,
        semaphore: Any = None,
        putlocks: bool = False,
        allow_restart: bool = False,
        synack: bool = False,
        on_process_exit: Callable[[int, int], object] | None = None,
        context: BaseContext | None = None,
        max_memory_per_child: int | None = None,
        enable_timeouts: bool = False,
        **kwargs: Any,
    ) -> PoolType:
        """Return a pool of worker processes; `billiard.pool.Pool` describes the arguments."""
        from .pool import Pool

        return Pool(
            processes,
            initializer,
            initargs,
            maxtasksperchild,
            timeout,
            soft_timeout,
            lost_worker_timeout,
            max_restarts,
            max_restart_freq,
            on_process_up,
            on_process_down,
            on_timeout_set,
            on_timeout_cancel,
            threads,
            semaphore,
            putlocks,
            allow_restart,
            synack=synack,
            on_process_exit=on_process_exit,
            context=context if context is not None else self.get_context(),
            max_memory_per_child=max_memory_per_child,
            enable_timeouts=enable_timeouts,
            **kwargs,
        )

    def Manager(self) -> SyncManager:
        """Return a manager whose server runs; see `billiard.managers.SyncManager`."""
        from .managers import SyncManager

        manager = SyncManager(ctx=self.get_context())
        manager.start()
        return manager

    def Lock(self) -> Lock:
        """Return a lock between processes; see `billiard.synchronize.Lock`."""
        from .synchronize import Lock

        return Lock(ctx=self.get_context())

    def RLock(self) -> RLock:
        """Return a lock that its thread may acquire again; see `billiard.synchronize.RLock`."""
        from .synchronize import RLock

        return RLock(ctx=self.get_context())

    def Semaphore(self, value: int = 1) -> Semaphore:
        """Return a semaphore; see `billiard.synchronize.Semaphore`.

        Args:
            value: How often it can be acquired before somebody releases it.

        Raises:
            OSError: The value is negative or above 2147483647.
        """
        from .synchronize import Semaphore

        return Semaphore(value, ctx=self.get_context())

    def BoundedSemaphore(self, value: int = 1) -> BoundedSemaphore:
        """Return a semaphore that is never above the value that it begins with.

        Args:
            value: That value.

        Raises:
            OSError: The value is negative or above 2147483647.
        """
        from .synchronize import BoundedSemaphore

        return BoundedSemaphore(value, ctx=self.get_context())

    def Condition(self, lock: SemLock | None = None) -> Condition:
        """Return a condition; see `billiard.synchronize.Condition`.

        Args:
            lock: The lock that it goes with; ``None`` for a new `RLock`.
        """
        from .synchronize import Condition

        return Condition(lock, ctx=self.get_context())

    def Event(self) -> Event:
        """Return a flag that can be waited for; see `billiard.synchronize.Event`."""
        from .synchronize import Event

        return Event(ctx=self.get_context())

    def Barrier(
        self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None
    ) -> Barrier:
        """Return a barrier; see `billiard.synchronize.Barrier`, which describes the arguments."""
        from .synchronize import Barrier

        return Barrier(parties, action, timeout, ctx=self.get_context())

    def Pipe(
        self, duplex: bool = True, rnonblock: bool = False, wnonblock: bool = False, *, oob: bool = False
    ) -> tuple[Connection, Connection]:
        """Return two connections with each other; `billiard.connection.Pipe` describes the arguments."""
        from .connection import Pipe

        return Pipe(duplex, rnonblock, wnonblock, oob=oob)

    def allow_connection_pickling(self) -> None:
        """Have the package's picklers know connections. They do as soon as there are any."""
        from . import connection  # noqa: F401

    def Queue(self, maxsize: int = 0, *, maxbytes: int | None = None) -> QueueType:
        """Return a queue; `billiard.queues.Queue` describes it and the arguments."""
        from .queues import Queue

        return Queue(maxsize, ctx=self.get_context(), maxbytes=maxbytes)

    def JoinableQueue(self, maxsize: int = 0, *, maxbytes: int | None = None) -> JoinableQueueType:
        """Return a queue that knows what is done; `billiard.queues.JoinableQueue` describes it."""
        from .queues import JoinableQueue

        return JoinableQueue(maxsize, ctx=self.get_context(), maxbytes=maxbytes)

    def SimpleQueue(self) -> SimpleQueueType:
        """Return a queue that is a pipe; `billiard.queues.SimpleQueue` describes it."""
        from .queues import SimpleQueue

        return SimpleQueue(ctx=self.get_context())

    def RawValue(self, typecode_or_type: str | type[Any], *args: Any) -> Any:
        """Return an object of `ctypes` in shared memory; see `billiard.sharedctypes.RawValue`."""
        from .sharedctypes import RawValue

        return RawValue(typecode_or_type, *args)

    def RawArray(self, typecode_or_type: str | type[Any], size_or_initializer: Any) -> Any:
        """Return an array of `ctypes` in shared memory; see `billiard.sharedctypes.RawArray`."""
        from .sharedctypes import RawArray

        return RawArray(typecode_or_type, size_or_initializer)

    def Value(self, typecode_or_type: str | type[Any], *args: Any, **kwargs: Any) -> Any:
        """Return an object of `ctypes` in shared memory, with a lock; see `billiard.sharedctypes.Value`.

        Args:
            typecode_or_type: Its type, or the letter that stands for it.
            args: What its type is called with.
            kwargs: ``lock``: True, a lock, or False for none.

        Raises:
            TypeError: There is no such type or keyword.
        """
        from .sharedctypes import Value

        return Value(typecode_or_type, *args, lock=_only_lock(kwargs), ctx=self.get_context())

    def Array(
        self, typecode_or_type: str | type[Any], size_or_initializer: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Return an array of `ctypes` in shared memory, with a lock; see `billiard.sharedctypes.Array`.

        Args:
            typecode_or_type: The type of its items, or the letter that stands for it.
            size_or_initializer: How many items, or a sequence of them.
            args: Nothing; the original ignores what is given here.
            kwargs: ``lock``: True, a lock, or False for none.

        Raises:
            TypeError: There is no such type or keyword, or there are more arguments.
        """
        from .sharedctypes import Array

        if args:
            raise TypeError(f"Array() takes 2 positional arguments, not {2 + len(args)}; give `lock` by name")
        return Array(typecode_or_type, size_or_initializer, lock=_only_lock(kwargs), ctx=self.get_context())

    def freeze_support(self) -> None:
        """Be the child, if this process is one that a frozen program has started; nothing anywhere else."""
        if getattr(sys, "frozen", False):
            from .spawn import freeze_support

            freeze_support()

    def set_executable(self, executable: str | bytes) -> None:
        """Set the program that children of ``spawn`` and ``forkserver`` are started with.

        Args:
            executable: Its path; the default is the running interpreter.
        """
        from .spawn import set_executable

        set_executable(executable)

    def set_forkserver_preload(self, module_names: list[str]) -> None:
        """Say what the fork server loads before it forks.

        Args:
            module_names: Names of modules; the default is ``["__main__"]``, the program's main module.

        Raises:
            TypeError: It is not a list of strings.
        """
        from .forkserver import set_forkserver_preload

        set_forkserver_preload(module_names)

    def get_logger(self) -> Logger:
        """Return the package's logger; until this is called once, the package logs nothing."""
        from .util import get_logger

        return get_logger()

    def log_to_stderr(self, level: int | str | None = None) -> Logger:
        """Log to standard error, and return the package's logger."""
        from .util import log_to_stderr

        return log_to_stderr(level)

    def get_context(self, method: str | None = None, *, serializer: Serializer = None) -> BaseContext:
        """Return the context of a start method.

        Args:
            method: Its name; ``None`` for this context itself.
            serializer: How its processes and pools send what they send, if not by pickle: see
                `billiard.Process`.

        Raises:
            ImportError: The serializer is not installed.
            ValueError: There is no such start method or serializer, or not here.
        """
        if serializer is not None:
            return self.get_context(method)._sending_by(serializer)
        if method is None:
            return self
        try:
            context = _concrete_contexts[method]
        except (KeyError, TypeError):
            if method in _KNOWN_METHODS:
                available = ", ".join(map(repr, self.get_all_start_methods()))
                raise ValueError(
                    f"start method {method!r} is not available here; available: {available}"
                ) from None
            raise ValueError(f"cannot find context for {method!r}") from None
        context._check_available()
        return context

    def _sending_by(self, serializer: Serializer) -> BaseContext:
        """A context like this one that sends what it sends by another serializer."""
        from ._serializers import pickler_for, process_sent_by

        pickler_for(serializer)
        other = type(self)()
        other._serializer = serializer
        other.Process = process_sent_by(self.Process, serializer)
        return other

    def get_start_method(self, allow_none: bool = False) -> str | None:  # noqa: ARG002
        """Return the name of this context's start method."""
        return self._name

    def set_start_method(self, method: str | None = None, force: bool = False) -> None:  # noqa: ARG002
        """A context that stands for one start method keeps it.

        Raises:
            ValueError: Always.
        """
        raise ValueError("cannot set start method of concrete context")

    def get_all_start_methods(self) -> list[str]:
        """Return the names of the start methods that work here, the default one first."""
        names = [name for name in _KNOWN_METHODS if name in _concrete_contexts]
        names.sort(key=_default_method.__ne__)
        return names

    def forking_is_enabled(self) -> bool:
        """Tell whether processes are started by fork."""
        return self.get_start_method() == "fork"

    def forking_enable(self, value: bool) -> None:
        """Allow forking, which changes nothing, or forbid it.

        Args:
            value: False makes ``spawn`` the start method; where there is none, a `RuntimeWarning` says so.
        """
        if value:
            return
        if "spawn" in _concrete_contexts:
            self.set_start_method("spawn", force=True)
        else:
            import warnings

            warnings.warn(RuntimeWarning(W_NO_EXECV), stacklevel=2)

    def _check_available(self) -> None:
        """Raise `ValueError` where this start method does not work."""


class Process(process.BaseProcess):
    """A process that is started the way the default context says when it is started."""

    _start_method = None

    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> Any:
        return _default_context.get_context().Process._Popen(process_obj)  # type: ignore[call-arg]


class DefaultContext(BaseContext):
    """The context whose factories are the package's functions. Its start method can be chosen once."""

    Process = Process

    def __init__(self, context: BaseContext) -> None:
        self._default_context = context
        self._actual_context: BaseContext | None = None

    def get_context(self, method: str | None = None, *, serializer: Serializer = None) -> BaseContext:
        """Return the context of a start method.

        Args:
            method: Its name; ``None`` for the one in use, which is thereby settled.
            serializer: How its processes and pools send what they send, if not by pickle: see
                `billiard.Process`.

        Raises:
            ImportError: The serializer is not installed.
            ValueError: There is no such start method or serializer, or not here.
        """
        if method is not None or serializer is not None:
            return super().get_context(method, serializer=serializer)
        if self._actual_context is None:
            self._actual_context = self._default_context
        return self._actual_context

    def set_start_method(self, method: str | None = None, force: bool = False) -> None:
        """Choose the start method.

        Args:
            method: Its name. ``None`` with ``force`` unsettles the choice.
            force: True to change a choice that is settled already.

        Raises:
            RuntimeError: It is settled, by this method or by having been used.
            ValueError: There is no such start method, or not here.
        """
        if self._actual_context is not None and not force:
            raise RuntimeError("context has already been set")
        if method is None and force:
            self._actual_context = None
            return
        self._actual_context = self.get_context(method)

    def get_start_method(self, allow_none: bool = False) -> str | None:
        """Return the name of the start method in use.

        Args:
            allow_none: True to answer ``None``, rather than settle the default, while none was chosen.
        """
        if self._actual_context is None:
            if allow_none:
                return None
            self._actual_context = self._default_context
        return self._actual_context._name


class ForkProcess(process.BaseProcess):
    """A process that is forked off this one."""

    _start_method = "fork"

    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> Any:
        from .popen_fork import Popen

        return Popen(process_obj)


class SpawnProcess(process.BaseProcess):
    """A process that is started as a fresh interpreter."""

    _start_method = "spawn"

    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> Any:
        from .popen_spawn_posix import Popen

        return Popen(process_obj)


class ForkServerProcess(process.BaseProcess):
    """A process that the fork server forks."""

    _start_method = "forkserver"

    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> Any:
        from .popen_forkserver import Popen

        return Popen(process_obj)


class ForkContext(BaseContext):
    """Starts processes by fork."""

    _name = "fork"
    Process = ForkProcess


class SpawnContext(BaseContext):
    """Starts processes as fresh interpreters."""

    _name = "spawn"
    Process = SpawnProcess


class ForkServerContext(BaseContext):
    """Starts processes from a server that is forked for each of them."""

    _name = "forkserver"
    Process = ForkServerProcess


_concrete_contexts: dict[str, BaseContext] = {
    "fork": ForkContext(),
    "spawn": SpawnContext(),
    "forkserver": ForkServerContext(),
}

# Taken from `sys.platform` at import: on macOS and Windows system libraries do not survive a fork.
_default_method = "spawn" if sys.platform in ("darwin", "win32") and "spawn" in _concrete_contexts else "fork"
_default_context = DefaultContext(_concrete_contexts[_default_method])

#: What of the default context is copied to the package.
DefaultContext.__all__ = [  # type: ignore[attr-defined]
    name for name in dir(DefaultContext) if not name.startswith("_") and name != "parent_process"
]


def _force_start_method(method: str) -> None:
    _default_context._actual_context = _concrete_contexts[method]


_tls = threading.local()


def get_spawning_popen() -> Any:
    """The child that is being started on this thread, if its process object is being pickled."""
    return getattr(_tls, "spawning_popen", None)


def set_spawning_popen(popen: Any) -> None:
    """Note the child that is being started on this thread; ``None`` when it has been."""
    _tls.spawning_popen = popen


def assert_spawning(obj: object) -> None:
    """Refuse to pickle what only a child can inherit.

    Raises:
        RuntimeError: No child is being started on this thread.
    """
    if get_spawning_popen() is None:
        raise RuntimeError(
            f"{type(obj).__name__} objects should only be shared between processes through inheritance"
        )
