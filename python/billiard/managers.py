"""Managers: objects that live in a server process, and proxies through which others use them.

`SyncManager` serves what programs share most: dictionaries, lists, queues, locks, pools. Others are made by
subclassing `BaseManager` and registering types. Processes on other machines take part, over TCP, if they
hold the key.

The server is in `_objectserver.py`, the proxies are in `_proxies.py` and `_proxytypes.py`; what moves the
messages is in Rust.
"""

from __future__ import annotations

import array
import os
import queue
import signal
import sys
import threading
from contextlib import suppress
from time import monotonic
from traceback import format_exc

from . import connection, context, pool, process, reduction, util
from ._lifelines import end_lifeline, lifeline, session
from ._objectserver import Server
from ._proxies import (
    AutoProxy,
    BaseProxy,
    MakeProxyType,
    ProcessLocalSet,
    RebuildProxy,
    RemoteError,
    State,
    Token,
    all_methods,
    convert_to_error,
    dispatch,
    listener_client,
    local_of,
    public_methods,
)
from ._proxytypes import (
    AcquirerProxy,
    ArrayProxy,
    BarrierProxy,
    BaseListProxy,
    BasePoolProxy,
    ConditionProxy,
    DictProxy,
    EventProxy,
    IteratorProxy,
    ListProxy,
    NamespaceProxy,
    PoolProxy,
    ValueProxy,
    _ArrayProxy_Attributes,
    _ListProxy_Attributes,
)
from ._servedtypes import Array, Namespace, Value
from .context import _default_context
from .einfo import ExceptionWithTraceback
from .reduction import ForkingPickler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Any, TypeVar

    from ._memorymanager import SharedMemoryManager

    _ManagerT = TypeVar("_ManagerT", bound="BaseManager")

__all__ = ["BaseManager", "BaseProxy", "SharedMemoryManager", "SyncManager", "Token"]

#: The names that others import from here, or the original has here.
_ = (
    ForkingPickler,
    *(context, format_exc, monotonic, threading, sys, BaseListProxy, BasePoolProxy, IteratorProxy),
    *(MakeProxyType, ProcessLocalSet, RebuildProxy, RemoteError, all_methods, convert_to_error),
    *(public_methods, _ArrayProxy_Attributes, _ListProxy_Attributes),
)

get_context = _default_context.get_context

Queue = queue.Queue

#: How long a server may take to end when it is asked to, and then when it is terminated; seconds.
_PATIENCE = (1.0, 0.1)


def reduce_array(a: array.array[Any]) -> tuple[Any, ...]:
    """Pickle an array as its bytes."""
    return array.array, (a.typecode, a.tobytes())


def rebuild_as_list(obj: Iterable[Any]) -> tuple[Any, ...]:
    """Pickle a view of a dictionary as a list."""
    return list, (list(obj),)


reduction.register(array.array, reduce_array)
view_types = [type(getattr({}, name)()) for name in ("items", "keys", "values")]
#: The type of what `dict.items` returns.
view_type = view_types[0]
for _view in view_types:
    reduction.register(_view, rebuild_as_list)


def _own_address(family: str) -> Any:
    """An address for a server that others cannot guess and that leaves no name behind."""
    if sys.platform.startswith("linux") and family == "AF_UNIX":
        return f"\0billiard-{os.urandom(16).hex()}"
    return None


def _rebuild_manager(
    cls: type[BaseManager], address: Any, authkey: bytes | None, serializer: str
) -> BaseManager:
    manager = cls(address, authkey, serializer)
    manager._state.value = State.STARTED
    return manager


def _ask_to_end(client: Any, address: Any, authkey: bytes) -> None:
    try:
        conn = client(address, authkey=authkey)
        try:
            dispatch(conn, None, "shutdown")
        finally:
            conn.close()
    except Exception as error:
        util.info("the manager does not answer: %s", error)


def _watch_parent(server: Server) -> None:
    parent = process.parent_process()
    if parent is not None:
        parent.join()
        util.info("the process that has started this manager is gone")
        server.stop_event.set()


class BaseManager:
    """A server of objects, and the way to it.

    Args:
        address: Where it listens: ``(host, port)`` or a path. ``None`` for an address of its choice.
        authkey: The key that clients have to hold; ``None`` for the current process's.
        serializer: How clients and server send what they send: ``"pickle"`` or ``"xmlrpclib"``.
        ctx: The context whose processes the server is one of; ``None`` for the default one.

    Raises:
        KeyError: There is no such serializer.

    Source: billiard 4.2.1 ``BaseManager``. Different here: Ctrl-C at a terminal leaves the server alone; it
    ends when the process that has started it does; a server that cannot start says why.
    """

    _registry: dict[str, tuple[Any, ...]] = {}  # noqa: RUF012
    _Server = Server

    def __init__(
        self,
        address: Any = None,
        authkey: bytes | None = None,
        serializer: str = "pickle",
        ctx: context.BaseContext | None = None,
    ) -> None:
        if authkey is None:
            authkey = process.current_process().authkey
        self._address = address
        self._authkey = process.AuthenticationString(authkey)
        self._state = State()
        self._state.value = State.INITIAL
        self._serializer = serializer
        self._Listener, self._Client = listener_client[serializer]
        self._ctx = ctx or get_context()
        self._process: Any = None
        self._finalizer: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        key = self._authkey if context.get_spawning_popen() is not None else None
        return _rebuild_manager, (type(self), self._address, key, self._serializer)

    def _check_initial(self) -> None:
        if self._state.value != State.INITIAL:
            state = "started" if self._state.value == State.STARTED else "shut down"
            raise AssertionError(f"the manager is {state} already; make another one")

    def get_server(self) -> Server:
        """Make a server that this process runs itself, with ``serve_forever()``.

        Raises:
            AssertionError: The manager is started or connected already.
            OSError: The address is taken, or not ours.
        """
        self._check_initial()
        return self._Server(self._registry, self._address, self._authkey, self._serializer)

    def connect(self) -> None:
        """Use a server that runs already, at the address.

        Raises:
            AuthenticationError: It has another key.
            OSError: Nobody listens there.
        """
        conn = self._Client(self._address, authkey=self._authkey)
        try:
            dispatch(conn, None, "dummy")
        finally:
            conn.close()
        self._state.value = State.STARTED

    def start(self, initializer: Callable[..., object] | None = None, initargs: Iterable[Any] = ()) -> None:
        """Start a process that serves, and wait until it does.

        Args:
            initializer: What the process calls first.
            initargs: Its arguments.

        Raises:
            AssertionError: The manager is started or connected already.
            EOFError: The process has ended before it served.
            OSError: The address is taken, or the system cannot start a process.
            TypeError: The initializer cannot be called.
            BaseException: Whatever the initializer has raised.
        """
        self._check_initial()
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        address = self._address
        if address is None and self._serializer == "pickle":
            address = _own_address(connection.default_family)
        reader, writer = connection.Pipe(duplex=False)
        with reader:
            with writer:
                self._process = self._ctx.Process(
                    target=type(self)._run_server,
                    args=(
                        *(self._registry, address, self._authkey, self._serializer, writer),
                        *(initializer, tuple(initargs)),
                    ),
                )
                number = ":".join(map(str, self._process._identity))
                self._process.name = f"{type(self).__name__}-{number}"
                self._process.start()
            try:
                started, told = reader.recv()
            except EOFError:
                self._process.join()
                raise EOFError(
                    f"the manager's server ended with exit code {self._process.exitcode} before it served"
                ) from None
            except BaseException:
                self._process.kill()
                self._process.join()
                raise
        if not started:
            self._process.join()
            raise told
        self._address = told
        self._state.value = State.STARTED
        self._finalizer = util.Finalize(
            self,
            type(self)._finalize_manager,
            args=(self._process, self._address, self._authkey, self._state, self._Client),
            exitpriority=0,
        )
        self.shutdown = self._finalizer  # type: ignore[method-assign]

    @classmethod
    def _run_server(
        cls,
        registry: Any,
        address: Any,
        authkey: bytes,
        serializer: str,
        writer: Any,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
    ) -> None:
        """Be the server."""
        # Ctrl-C at a terminal reaches every process there; who uses the manager decides when it ends.
        with suppress(ValueError):
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        with writer:
            try:
                if initializer is not None:
                    initializer(*initargs)
                server = cls._Server(registry, address, authkey, serializer)
            except Exception as error:
                util.info("the server cannot start: %s", error)
                try:
                    writer.send((False, ExceptionWithTraceback(error, error.__traceback__)))
                except Exception:
                    writer.send((False, RemoteError(format_exc())))
                return
            writer.send((True, server.address))
        util.info("manager serving at %r", server.address)
        threading.Thread(target=_watch_parent, args=(server,), name="watches", daemon=True).start()
        server.serve_forever()

    @staticmethod
    def _finalize_manager(process: Any, address: Any, authkey: bytes, state: Any, _Client: Any) -> None:
        """End the server."""
        if process.is_alive():
            util.info("sending shutdown message to manager")
            asking = threading.Thread(target=_ask_to_end, args=(_Client, address, authkey), daemon=True)
            try:
                # A server that lets nobody in any more is not to keep this process waiting.
                asking.start()
            except RuntimeError:
                _ask_to_end(_Client, address, authkey)
            process.join(timeout=_PATIENCE[0])
            if process.is_alive():
                util.info("manager still alive: terminating it")
                process.terminate()
                process.join(timeout=_PATIENCE[1])
                if process.is_alive():
                    util.info("manager still alive after terminate")
        state.value = State.SHUTDOWN
        end_lifeline(address, authkey)
        local, _ = BaseProxy._address_to_local.pop(address, (None, None))
        line = local.__dict__.pop("connection", None) if local is not None else None
        if line is not None:
            line.close()

    def shutdown(self) -> None:
        """End the server, if this manager has started it. Doing so again does nothing.

        It is asked to end, after a second terminated.
        """

    def join(self, timeout: float | None = None) -> None:
        """Wait until the server process has ended.

        Args:
            timeout: Seconds to wait; ``None`` waits for ever.

        Raises:
            AssertionError: This manager has not started one.
        """
        if self._process is None:
            raise AssertionError("only the manager that has started the server can wait for its end")
        self._process.join(timeout)

    def _create(self, typeid: str, /, *args: Any, **kwds: Any) -> tuple[Token, tuple[str, ...]]:
        """Have the server make an object. Returns its token and the names of its exposed methods."""
        if self._state.value != State.STARTED:
            raise AssertionError("server not yet started")
        tls, _ = local_of(self._address)
        line = session(tls, self._address, self._authkey, self._Client)
        request = (None, "create", (typeid, *args), kwds)
        if line.ours:
            kind, result = line.ask(request)
            if kind != "#RETURN":
                raise convert_to_error(kind, result)
        else:
            conn = self._Client(self._address, authkey=self._authkey)
            try:
                result = dispatch(conn, *request)
            finally:
                conn.close()
        ident, exposed = result
        return Token(typeid, self._address, ident), tuple(exposed)

    def _ask(self, what: str) -> Any:
        conn = self._Client(self._address, authkey=self._authkey)
        try:
            return dispatch(conn, None, what)
        finally:
            conn.close()

    def _debug_info(self) -> str:
        """Describe the server's objects and their reference counts."""
        return self._ask("debug_info")  # type: ignore[no-any-return]

    def _number_of_objects(self) -> int:
        """How many objects the server has."""
        return self._ask("number_of_objects")  # type: ignore[no-any-return]

    @property
    def address(self) -> Any:
        """Where the server listens."""
        return self._address

    def __enter__(self: _ManagerT) -> _ManagerT:
        if self._state.value == State.INITIAL:
            self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.shutdown()

    @classmethod
    def register(
        cls,
        typeid: str,
        callable: Callable[..., Any] | None = None,
        proxytype: Any = None,
        exposed: Iterable[str] | None = None,
        method_to_typeid: Mapping[str, str] | None = None,
        create_method: bool = True,
    ) -> None:
        """Have the managers of this class serve another type.

        Args:
            typeid: Its name.
            callable: What makes its objects, in the server; ``None`` where only others make them.
            proxytype: What makes their proxies; ``None`` for a class with all exposed methods.
            exposed: The names of the methods that clients may call; ``None`` for those of the proxy type,
                else for all that do not begin with an underscore.
            method_to_typeid: Method -> typeid of its results, of which clients get proxies. ``None`` for
                what the proxy type says.
            create_method: Whether managers get a method of this name, which makes an object and returns a
                proxy.
        """
        if "_registry" not in cls.__dict__:
            cls._registry = cls._registry.copy()
        if proxytype is None:
            proxytype = AutoProxy
        exposed = exposed or getattr(proxytype, "_exposed_", None)
        method_to_typeid = method_to_typeid or getattr(proxytype, "_method_to_typeid_", None)
        for name, value in (method_to_typeid or {}).items():
            if type(name) is not str or type(value) is not str:
                raise AssertionError(f"method_to_typeid has {name!r}: {value!r}; both must be strings")
        cls._registry[typeid] = (callable, exposed, method_to_typeid, proxytype)
        if create_method:

            def make(self: BaseManager, /, *args: Any, **kwds: Any) -> Any:
                util.debug("requesting creation of a shared %r object", typeid)
                token, exposed = self._create(typeid, *args, **kwds)
                # The server holds a reference until the proxy has its own.
                try:
                    return proxytype(
                        token, self._serializer, manager=self, authkey=self._authkey, exposed=exposed
                    )
                finally:
                    lifeline(token.address, self._authkey, self._Client).drop(token.id, counted=False)

            make.__name__ = typeid
            make.__doc__ = f"Make a {typeid} in the server, and return a proxy for it."
            setattr(cls, typeid, make)


class SyncManager(BaseManager):
    """Serves what processes share most.

    ``Queue``, ``JoinableQueue``, ``Event``, ``Lock``, ``RLock``, ``Semaphore``, ``BoundedSemaphore``,
    ``Condition``, ``Barrier``, ``Pool``, ``list``, ``dict``, ``Value``, ``Array`` and ``Namespace`` make
    one in the server, with the arguments of the classes of `queue`, `threading`, `billiard.pool` and the
    builtins, and return a proxy for it.
    """


for _typeid, _maker, _proxytype in (
    ("Queue", queue.Queue, None),
    ("JoinableQueue", queue.Queue, None),
    ("Event", threading.Event, EventProxy),
    ("Lock", threading.Lock, AcquirerProxy),
    ("RLock", threading.RLock, AcquirerProxy),
    ("Semaphore", threading.Semaphore, AcquirerProxy),
    ("BoundedSemaphore", threading.BoundedSemaphore, AcquirerProxy),
    ("Condition", threading.Condition, ConditionProxy),
    ("Barrier", threading.Barrier, BarrierProxy),
    ("Pool", pool.Pool, PoolProxy),
    ("list", list, ListProxy),
    ("dict", dict, DictProxy),
    ("Value", Value, ValueProxy),
    ("Array", Array, ArrayProxy),
    ("Namespace", Namespace, NamespaceProxy),
):
    SyncManager.register(_typeid, _maker, _proxytype)

# What methods return.
SyncManager.register("Iterator", proxytype=IteratorProxy, create_method=False)
SyncManager.register("AsyncResult", create_method=False)


def __getattr__(name: str) -> Any:
    # Made from the other manager, so it can only be had later.
    if name in ("SharedMemoryManager", "SharedMemoryServer"):
        from . import _memorymanager

        return getattr(_memorymanager, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
