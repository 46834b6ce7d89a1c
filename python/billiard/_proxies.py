"""Proxies: objects here that stand for objects in a manager's server."""

from __future__ import annotations

from . import connection, context, process, util
from ._lifelines import Session, lifeline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

#: Name of a serializer -> what listens and what connects with it.
listener_client: dict[str, tuple[Any, Any]] = {
    "pickle": (connection.Listener, connection.Client),
    "xmlrpclib": (connection.XmlListener, connection.XmlClient),
}


class State:
    """How far a manager has come; several of its helpers look at the same one."""

    __slots__ = ["value"]
    INITIAL = 0
    STARTED = 1
    SHUTDOWN = 2

    value: int


class Token:
    """Which object of which server a proxy stands for.

    Args:
        typeid: The name that its type is registered by.
        address: The server's address.
        id: The object's ident there.
    """

    __slots__ = ("address", "id", "typeid")

    def __init__(self, typeid: str, address: Any, id: str) -> None:
        (self.typeid, self.address, self.id) = (typeid, address, id)

    def __getstate__(self) -> tuple[str, Any, str]:
        return self.typeid, self.address, self.id

    def __setstate__(self, state: tuple[str, Any, str]) -> None:
        (self.typeid, self.address, self.id) = state

    def __repr__(self) -> str:
        return f"{type(self).__name__}(typeid={self.typeid!r}, address={self.address!r}, id={self.id!r})"


class RemoteError(Exception):
    """Something went wrong in the server; the argument is the traceback from there."""

    def __str__(self) -> str:
        line = "-" * 75
        return f"\n{line}\n{self.args[0]}{line}"


def convert_to_error(kind: str, result: Any) -> BaseException:
    """Make an exception of what a server answers instead of a value.

    Args:
        kind: What kind of answer it is.
        result: What came with it.

    Returns:
        The exception itself for ``#ERROR``, a `RemoteError` for what could not be sent or was no request.
        A `ValueError` if there is no such kind.
    """
    if kind == "#ERROR":
        return result  # type: ignore[no-any-return]
    if kind == "#TRACEBACK":
        return RemoteError(result)
    if kind == "#UNSERIALIZABLE":
        return RemoteError(f"Unserializable message: {result}\n")
    return ValueError(f"Unrecognized message type {kind!r}")


def dispatch(c: Any, id: Any, methodname: str, args: Iterable[Any] = (), kwds: Mapping[str, Any] = {}) -> Any:
    """Send a request over a connection and return what comes of it.

    Args:
        c: The connection.
        id: Whom it is for: an object's ident, or ``None`` for the server.
        methodname: What is to be called.
        args: Positional arguments.
        kwds: Keyword arguments.

    Raises:
        EOFError: The server has closed the connection.
        BaseException: Whatever the call has raised there.
    """
    c.send((id, methodname, args, kwds))
    kind, result = c.recv()
    if kind == "#RETURN":
        return result
    raise convert_to_error(kind, result)


def all_methods(obj: object) -> list[str]:
    """The names of everything of an object that can be called."""
    return [name for name in dir(obj) if callable(getattr(obj, name))]


def public_methods(obj: object) -> list[str]:
    """The names of everything of an object that can be called and does not begin with an underscore."""
    return [name for name in all_methods(obj) if not name.startswith("_")]


class ProcessLocalSet(set):  # type: ignore[type-arg]
    """A set that a forked child finds empty."""

    def __init__(self) -> None:
        util.register_after_fork(self, lambda obj: obj.clear())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


class BaseProxy:
    """Stands for an object in a manager's server.

    Args:
        token: Which one.
        serializer: How to talk to the server, a key of `listener_client`.
        manager: The manager that made it, if it is there.
        authkey: The server's key; ``None`` for the manager's, else the process's.
        exposed: The names of the methods that may be called, where the type itself does not know.
        incref: Whether this process is to hold a reference to the object. False only where another one does
            for certain.

    Raises:
        OSError: The server is gone.

    Source: billiard 4.2.1 ``BaseProxy``. Different here: a process that dies lets its references go; a
    connection that broke is opened anew; methods that return proxies work in children, too.
    """

    _address_to_local: dict[Any, tuple[Any, ProcessLocalSet]] = {}  # noqa: RUF012
    _mutex = util.ForkAwareThreadLock()

    def __init__(
        self,
        token: Token,
        serializer: str,
        manager: Any = None,
        authkey: bytes | None = None,
        exposed: Any = None,  # noqa: ARG002
        incref: bool = True,
    ) -> None:
        self._tls, self._idset = local_of(token.address)
        self._token = token
        self._id = token.id
        self._manager = manager
        self._serializer = serializer
        self._Client = listener_client[serializer][1]
        if authkey is None:
            authkey = manager._authkey if manager is not None else process.current_process().authkey
        self._authkey = process.AuthenticationString(authkey)
        if incref:
            self._incref()
        util.register_after_fork(self, BaseProxy._after_fork)

    def _connect(self) -> None:
        util.debug("making connection to manager")
        self._tls.connection = Session(self._token.address, self._authkey, self._Client, lifeline=False)

    def _callmethod(self, methodname: str, args: Iterable[Any] = (), kwds: Mapping[str, Any] = {}) -> Any:
        """Call a method of the object.

        Args:
            methodname: Its name.
            args: Positional arguments.
            kwds: Keyword arguments.

        Returns:
            A copy of what it returns, or a proxy for it where the type is registered so.

        Raises:
            EOFError: The server is gone.
            RemoteError: The method may not be called, or its result cannot be sent.
            BaseException: Whatever the method has raised.
        """
        tls = self._tls
        try:
            line = tls.connection
        except AttributeError:
            self._connect()
            line = tls.connection
        try:
            kind, result = line.ask((self._id, methodname, args, kwds))
        except BaseException:
            if line.closed:
                # The next call opens another one.
                tls.__dict__.pop("connection", None)
            raise
        if kind == "#RETURN":
            return result
        if kind == "#PROXY":
            return self._proxy_for(*result)
        raise convert_to_error(kind, result)

    def _proxy_for(self, exposed: Any, token: Token) -> BaseProxy:
        from .managers import SyncManager

        registry = self._manager._registry if self._manager is not None else SyncManager._registry
        proxytype = registry[token.typeid][-1] if token.typeid in registry else AutoProxy
        # The way to the server that is known to work from here.
        token.address = self._token.address
        proxy = proxytype(
            token, self._serializer, manager=self._manager, authkey=self._authkey, exposed=exposed
        )
        self._counting().drop(token.id, counted=False)
        return proxy  # type: ignore[no-any-return]

    def _getvalue(self) -> Any:
        """A copy of the object."""
        return self._callmethod("#GETVALUE")

    def _counting(self) -> Any:
        return lifeline(self._token.address, self._authkey, self._Client)

    def _incref(self) -> None:
        self._counting().take(self._id)
        util.debug("INCREF %r", self._id)
        self._idset.add(self._id)
        state = self._manager._state if self._manager is not None else None
        self._close = util.Finalize(
            self,
            BaseProxy._decref,
            args=(self._token, self._authkey, state, self._tls, self._idset, self._Client),
            exitpriority=10,
        )

    @staticmethod
    def _decref(token: Token, authkey: bytes, state: Any, tls: Any, idset: Any, _Client: Any) -> None:
        idset.discard(token.id)
        if state is None or state.value == State.STARTED:
            try:
                util.debug("DECREF %r", token.id)
                lifeline(token.address, authkey, _Client).drop(token.id)
            except Exception as error:
                util.debug("... decref failed: %s", error)
        else:
            util.debug("DECREF %r -- manager already shutdown", token.id)
        # The last proxy of this server takes the thread's line with it.
        if not idset and (line := tls.__dict__.pop("connection", None)) is not None:
            line.close()

    def _after_fork(self) -> None:
        self._manager = None
        try:
            self._incref()
        except Exception as error:
            # It need not be used here, and the server may be gone.
            util.info("incref failed: %s", error)

    def __reduce__(self) -> tuple[Any, ...]:
        kwds: dict[str, Any] = {}
        if context.get_spawning_popen() is not None:
            kwds["authkey"] = self._authkey
        if getattr(self, "_isauto", False):
            kwds["exposed"] = self._exposed_  # type: ignore[attr-defined]
            return RebuildProxy, (AutoProxy, self._token, self._serializer, kwds)
        return RebuildProxy, (type(self), self._token, self._serializer, kwds)

    def __deepcopy__(self, memo: Any) -> Any:
        return self._getvalue()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} object, typeid {self._token.typeid!r} at {id(self):#x}>"

    def __str__(self) -> str:
        try:
            return self._callmethod("__repr__")  # type: ignore[no-any-return]
        except Exception:
            return repr(self)[:-1] + "; '__str__()' failed>"


def local_of(address: Any) -> tuple[Any, ProcessLocalSet]:
    """What the threads of this process have for a server: their sessions, and the idents of the proxies."""
    with BaseProxy._mutex:
        found = BaseProxy._address_to_local.get(address)
        if found is None:
            found = util.ForkAwareLocal(), ProcessLocalSet()
            BaseProxy._address_to_local[address] = found
        return found


def RebuildProxy(func: Callable[..., Any], token: Token, serializer: str, kwds: dict[str, Any]) -> Any:
    """Unpickle a proxy: in the server whose object it stands for, the object; elsewhere, a proxy.

    Args:
        func: What makes the proxy.
        token: Which object it is.
        serializer: How to talk to its server.
        kwds: Further arguments of ``func``.
    """
    current = process.current_process()
    server = getattr(current, "_manager_server", None)
    if server is not None and server.address == token.address:
        return server.id_to_obj[token.id][0]
    # While a child is being started its parent has a reference, and the child gets its own afterwards.
    incref = kwds.pop("incref", True) and not getattr(current, "_inheriting", False)
    return func(token, serializer, incref=incref, **kwds)


def _forwarding(name: str) -> Any:
    def method(self: BaseProxy, *args: Any, **kwds: Any) -> Any:
        return self._callmethod(name, args, kwds)

    method.__name__ = name
    method.__doc__ = f"Call ``{name}`` of the object."
    return method


def MakeProxyType(name: str, exposed: Iterable[str], _cache: dict[Any, type] = {}) -> Any:  # noqa: B006
    """Make a class of proxies.

    Args:
        name: Its name.
        exposed: The names of its methods.
    """
    exposed = tuple(exposed)
    made = _cache.get((name, exposed))
    if made is None:
        body: dict[str, Any] = {method: _forwarding(method) for method in exposed}
        made = type(name, (BaseProxy,), {**body, "__module__": "billiard.managers", "_exposed_": exposed})
        _cache[name, exposed] = made
    return made


def AutoProxy(
    token: Token,
    serializer: str,
    manager: Any = None,
    authkey: bytes | None = None,
    exposed: Any = None,
    incref: bool = True,
) -> Any:
    """Make a proxy with all the methods that its object exposes; `BaseProxy` describes the arguments."""
    client = listener_client[serializer][1]
    if authkey is None:
        authkey = manager._authkey if manager is not None else process.current_process().authkey
    if exposed is None:
        conn = client(token.address, authkey=authkey)
        try:
            exposed = dispatch(conn, None, "get_methods", (token,))
        finally:
            conn.close()
    kind = MakeProxyType(f"AutoProxy[{token.typeid}]", exposed)
    proxy = kind(token, serializer, manager=manager, authkey=authkey, incref=incref)
    proxy._isauto = True
    return proxy


# They travel under this name, to the original's processes as well.
for _item in list(vars().values()):
    if getattr(_item, "__module__", None) == __name__:
        _item.__module__ = "billiard.managers"
