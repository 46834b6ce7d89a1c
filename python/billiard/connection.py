"""Connections between processes: pipes, listeners and clients, and waiting for several of them at once.

A connection carries whole messages, of bytes or of pickled objects. `Listener` and `Client` connect processes
that do not know each other; with a key, each proves to the other that it holds it before anything is
unpickled. What a connection does lies in Rust; here are its names.
"""

from __future__ import annotations

import io
import os
import socket
import tempfile
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

from . import _billiard, reduction, util
from ._billiard import wait
from .compat import send_offset, setblocking
from .exceptions import AuthenticationError, BufferTooShort, HandshakeError
from .reduction import ForkingPickler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Client", "Listener", "Pipe", "wait"]

_Base = TypeVar("_Base", bound="_ConnectionBase")
_ListenerT = TypeVar("_ListenerT", bound="Listener")

#: The names of what follows that others import from here.
_ = AuthenticationError, BufferTooShort, HandshakeError, ForkingPickler, send_offset

BUFSIZE = 8192
#: Seconds that somebody who connects may take to prove that it holds the key.
CONNECTION_TIMEOUT = 20.0

#: Length of the challenges of those who know only MD5.
MESSAGE_LENGTH = 20
CHALLENGE = b"#CHALLENGE#"
WELCOME = b"#WELCOME#"
FAILURE = b"#FAILURE#"

#: Whether peers are talked to that know no better digest than MD5: Python before 3.12, and the original.
ACCEPT_MD5 = True

_LONGEST_BEFORE_TRUST = 256

default_family = "AF_UNIX"
families = ["AF_INET", "AF_UNIX"]


class _ConnectionBase(_billiard.Connection):
    """One end of a stream of messages.

    Args:
        handle: The descriptor, which belongs to the connection from now on.
        readable: Whether messages can be received.
        writable: Whether messages can be sent.

    Raises:
        AttributeError: The handle is no integer.
        ValueError: It is negative, or the connection could neither send nor receive.
    """

    def __init__(self, handle: Any, readable: bool = True, writable: bool = True) -> None:
        number: int = handle.__index__()
        if number < 0:
            raise ValueError("invalid handle")
        if not readable and not writable:
            raise ValueError("at least one of `readable` and `writable` must be true")
        self._open(number, bool(readable), bool(writable))

    def setblocking(self, blocking: bool) -> None:
        """Have this end, and every copy of its descriptor, wait or raise `BlockingIOError`.

        Raises:
            OSError: The connection is closed on this side.
        """
        setblocking(self, blocking)

    def __enter__(self: _Base) -> _Base:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> None:
        self.close()


class Connection(_ConnectionBase):
    """A connection over a descriptor: a pipe's end, a socket, anything that bytes go through in order.

    It keeps nothing that was not asked for: the descriptor may be read from and written to in other ways,
    where a message begins. What has arrived of a message when a wait is interrupted is kept for the next
    call. A message that was sent only in part is different: the peer is in the middle of it, so that nothing
    can follow.

    Any thread may use it, one at a time: those that send, or receive, together mix their messages.

    Source: billiard 4.2.1 ``Connection``. Different here: messages of 2 GiB and more; interrupted waits lose
    nothing; closing under a waiting thread is safe; what a plain pickle holds is usable elsewhere.
    """

    def _send_bytes(self, buf: Any) -> None:
        self.send_bytes(buf)

    def _recv_bytes(self, maxsize: int | None = None) -> io.BytesIO:
        return io.BytesIO(self.recv_bytes(maxsize))

    def __reduce__(self) -> Any:
        return reduce_connection(self)


def reduce_connection(conn: Connection) -> tuple[Any, ...]:
    """Pickle a connection: a child that is being started is given its descriptor, others can fetch a copy."""
    rebuild = _rebuild_oob if conn.oob else rebuild_connection
    return rebuild, (reduction.DupFd(conn.fileno()), conn.readable, conn.writable)


def rebuild_connection(df: Any, readable: bool, writable: bool) -> Connection:
    """Unpickle a connection."""
    fd: int = df.detach()
    # What a child inherits has come through an exec; this one need not go through another.
    os.set_inheritable(fd, False)
    return Connection(fd, readable, writable)


def _rebuild_oob(df: Any, readable: bool, writable: bool) -> Connection:
    """Unpickle a connection whose buffers travel beside its messages."""
    connection = rebuild_connection(df, readable, writable)
    connection.oob = True
    return connection


reduction.register(Connection, reduce_connection)


def Pipe(
    duplex: bool = True, rnonblock: bool = False, wnonblock: bool = False, *, oob: bool = False
) -> tuple[Connection, Connection]:
    """Return two connections with each other.

    Args:
        duplex: True for two that both send and receive; false for one that receives and one that sends.
        rnonblock: Whether the first raises `BlockingIOError` where it would have to wait.
        wnonblock: The same for the second.
        oob: True to have arrays and other large buffers travel beside the objects that they belong to, in
            memory that the receiver uses in place; see `Connection.oob`. Only processes that have these
            connections may read or write their descriptors then.

    Raises:
        OSError: No descriptor is left.
    """
    ends = _billiard.pipe(bool(duplex or oob), bool(rnonblock), bool(wnonblock))
    one, other = Connection(ends[0], writable=bool(duplex)), Connection(ends[1], readable=bool(duplex))
    one.oob = other.oob = bool(oob)
    return one, other


def address_type(address: object) -> str:
    """Return the family that an address belongs to: ``AF_INET``, ``AF_UNIX`` or ``AF_PIPE``.

    Raises:
        ValueError: It belongs to none.
    """
    if type(address) is tuple:
        return "AF_INET"
    if isinstance(address, str):
        return "AF_PIPE" if address.startswith("\\\\") else "AF_UNIX"
    raise ValueError(f"address type of {address!r} unrecognized")


def arbitrary_address(family: str) -> Any:
    """Return an address that is free, for a listener.

    Raises:
        ValueError: There is no such family here.
    """
    if family == "AF_INET":
        return ("localhost", 0)
    if family == "AF_UNIX":
        return tempfile.mktemp(prefix="listener-", dir=util.get_temp_dir())
    raise ValueError("unrecognized family")


def _validate_family(family: str | None) -> None:
    if family == "AF_PIPE":
        raise ValueError(f"Family {family} is not recognized.")


def _check_key(authkey: object) -> None:
    if authkey is not None and not isinstance(authkey, bytes):
        raise TypeError("authkey should be a byte string")


def _init_timeout(timeout: float = CONNECTION_TIMEOUT) -> float:
    return time.monotonic() + timeout


def _check_timeout(t: float) -> bool:
    return time.monotonic() > t


class Listener:
    """Waits for connections.

    Args:
        address: Where: ``(host, port)``, or a path. ``None`` for one that is free.
        family: ``AF_INET`` or ``AF_UNIX``; ``None`` for what the address says, else ``AF_UNIX``.
        backlog: How many may be waiting to be let in.
        authkey: The key that those who connect have to hold, and that is proved to them. ``None`` lets
            everybody in; an empty key is a key.

    Raises:
        OSError: The address is taken, or not ours.
        TypeError: The key is not bytes.
        ValueError: There is no such family here.

    Source: billiard 4.2.1 ``Listener``. Different here: who connects and says nothing keeps nobody waiting.
    """

    def __init__(
        self,
        address: Any = None,
        family: str | None = None,
        backlog: int = 1,
        authkey: bytes | None = None,
    ) -> None:
        family = family or (address_type(address) if address else default_family)
        _validate_family(family)
        _check_key(authkey)
        address = address or arbitrary_address(family)
        self._authkey = authkey
        self._listener: SocketListener | None = SocketListener(address, family, backlog)
        self._doorman: _billiard.Doorman | None = None

    def accept(self) -> Any:
        """Wait for somebody to connect.

        Returns:
            The `Connection`.

        Raises:
            AuthenticationError: Somebody has connected who does not hold the key. The listener goes on.
            EOFError: Somebody has connected, and gone away without having proved anything.
            OSError: The listener is closed, also while this waits; or no descriptor is left.
        """
        listener = self._listener
        if listener is None:
            raise OSError("listener is closed")
        doorman = self._doorman
        if doorman is None:
            doorman = self._doorman = _billiard.Doorman(self._authkey, ACCEPT_MD5, CONNECTION_TIMEOUT)
        return listener._admit(doorman)

    def close(self) -> None:
        """Stop listening. Connections stay open. A thread that waits in `accept` is told by an `OSError`."""
        listener, self._listener = self._listener, None
        doorman, self._doorman = self._doorman, None
        if doorman is not None:
            doorman.close()
        if listener is not None:
            listener.close()

    def _open_listener(self) -> Any:
        # COMPAT: what is closed answers like the ``None`` that the original has in its place.
        return self._listener

    @property
    def address(self) -> Any:
        """Where it listens."""
        return self._open_listener()._address

    @property
    def last_accepted(self) -> Any:
        """The address of the last one that was let in; ``None`` before."""
        return self._open_listener()._last_accepted

    def __enter__(self: _ListenerT) -> _ListenerT:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.close()


def Client(address: Any, family: str | None = None, authkey: bytes | None = None) -> Connection:
    """Connect to a listener, and wait until it lets us in.

    Args:
        address: Where it listens.
        family: See `Listener`.
        authkey: The key that both have to hold; ``None`` if it asks for none.

    Raises:
        AuthenticationError: The listener does not let us in, or does not hold the key itself.
        EOFError: It has closed the connection.
        OSError: Nobody listens there.
        TypeError: The key is not bytes.
    """
    _validate_family(family or address_type(address))
    number = _connect(address)
    try:
        _check_key(authkey)
    except BaseException:
        os.close(number)
        raise
    if authkey is not None:
        number = _billiard.introduce(number, authkey, ACCEPT_MD5)
    return Connection(number)


def _connect(address: Any) -> int:
    with socket.socket(getattr(socket, address_type(address))) as sock:
        sock.settimeout(None)
        sock.connect(address)
        return sock.detach()


class SocketListener:
    """Waits for connections at a socket, and lets everybody in.

    Args:
        address: Where.
        family: The name of the socket's family.
        backlog: How many may be waiting to be let in.
    """

    def __init__(self, address: Any, family: str, backlog: int = 1) -> None:
        number = getattr(socket, family, None)
        if number is None:
            raise ValueError("unrecognized family")
        self._socket = socket.socket(number)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.settimeout(None)
            self._socket.bind(address)
            self._socket.listen(backlog)
            self._address = self._socket.getsockname()
        except BaseException:
            self._socket.close()
            raise
        self._family = family
        self._last_accepted: Any = None
        self._doorman = _billiard.Doorman(None)
        self._unlink: Any = None
        # An abstract address, which begins with a null, goes with its socket.
        if family == "AF_UNIX" and address and address[0] not in ("\0", 0):
            self._unlink = util.Finalize(self, _remove, args=(address,), exitpriority=0)

    def accept(self) -> Connection:
        """Wait for somebody to connect."""
        return self._admit(self._doorman)

    def _admit(self, doorman: _billiard.Doorman) -> Connection:
        listening = self._socket.fileno()
        if listening < 0:
            raise OSError("listener is closed")
        number = doorman.admit(listening, self._socket.gettimeout())
        if number is None:
            # What the program has set for the socket counts for those who wait at it, too.
            raise TimeoutError("timed out")
        with socket.socket(fileno=number) as sock:
            with suppress(OSError):
                self._last_accepted = sock.getpeername()
            return Connection(sock.detach())

    def close(self) -> None:
        """Stop listening, and remove the path."""
        try:
            self._doorman.close()
            self._socket.close()
        finally:
            unlink, self._unlink = self._unlink, None
            if unlink is not None:
                unlink()


def _remove(path: Any) -> None:
    # Somebody may have tidied up before.
    with suppress(FileNotFoundError):
        os.unlink(path)


def SocketClient(address: Any) -> Connection:
    """Connect to a socket that somebody listens at."""
    return Connection(_connect(address))


class _SocketContainer:
    """Something that has a socket."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock


def detach(sock: socket.socket) -> int:
    """Take the descriptor out of a socket object."""
    return sock.detach()


def deliver_challenge(connection: Any, authkey: bytes) -> None:
    """Have the peer prove that it holds the key.

    Args:
        connection: Whatever has ``send_bytes`` and ``recv_bytes``.
        authkey: The key.

    Raises:
        AuthenticationError: It does not hold the key.
        TypeError: The key is not bytes.
    """
    _check_key(authkey)
    challenge = _billiard.new_challenge()
    connection.send_bytes(challenge)
    answer = connection.recv_bytes(_LONGEST_BEFORE_TRUST)
    try:
        _billiard.judge_answer(authkey, challenge, answer, ACCEPT_MD5)
    except AuthenticationError:
        connection.send_bytes(FAILURE)
        raise
    connection.send_bytes(WELCOME)


def answer_challenge(connection: Any, authkey: bytes) -> None:
    """Prove to the peer that we hold the key.

    Args:
        connection: Whatever has ``send_bytes`` and ``recv_bytes``.
        authkey: The key.

    Raises:
        AuthenticationError: The peer does not accept the proof, or asks for none that we could give.
        TypeError: The key is not bytes.
    """
    _check_key(authkey)
    message = connection.recv_bytes(_LONGEST_BEFORE_TRUST)
    connection.send_bytes(_billiard.answer_challenge(authkey, message, ACCEPT_MD5))
    if connection.recv_bytes(_LONGEST_BEFORE_TRUST) != WELCOME:
        raise AuthenticationError("digest sent was rejected")


class ConnectionWrapper:
    """A connection that sends objects in another form than pickled.

    Args:
        conn: The connection.
        dumps: Turns an object into bytes.
        loads: Turns them back.
    """

    def __init__(self, conn: Any, dumps: Callable[[Any], bytes], loads: Callable[[bytes], Any]) -> None:
        self._conn = conn
        self._dumps = dumps
        self._loads = loads
        for name in ("fileno", "close", "poll", "recv_bytes", "send_bytes"):
            setattr(self, name, getattr(conn, name))

    def send(self, obj: Any) -> None:
        """Send an object."""
        self._conn.send_bytes(self._dumps(obj))

    def recv(self) -> Any:
        """Receive an object."""
        return self._loads(self._conn.recv_bytes())


def _xml_dumps(obj: Any) -> bytes:
    from xmlrpc.client import dumps

    return dumps((obj,), None, None, None, True).encode("utf-8")


def _xml_loads(s: bytes) -> Any:
    from xmlrpc.client import loads

    ((obj,), _) = loads(s.decode("utf-8"))
    return obj


class XmlListener(Listener):
    """A listener whose connections carry objects as XML-RPC writes them, and unpickle nothing."""

    def accept(self) -> ConnectionWrapper:
        """Wait for somebody to connect."""
        return ConnectionWrapper(super().accept(), _xml_dumps, _xml_loads)


def XmlClient(*args: Any, **kwds: Any) -> ConnectionWrapper:
    """Connect to an `XmlListener`; the arguments are those of `Client`."""
    return ConnectionWrapper(Client(*args, **kwds), _xml_dumps, _xml_loads)
