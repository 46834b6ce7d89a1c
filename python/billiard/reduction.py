"""Pickling between processes, and sending descriptors between them."""

from __future__ import annotations

import array
import copyreg
import errno
import functools
import io
import os
import pickle
import socket
import sys
from contextlib import contextmanager

from . import context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, ClassVar

    _Reducer = Callable[[Any], Any]

__all__ = [
    "DupFd",
    "ForkingPickler",
    "dump",
    "recv_handle",
    "recvfds",
    "register",
    "send_handle",
    "sendfds",
]

#: Whether descriptors can be sent to other processes.
HAVE_SEND_HANDLE = hasattr(socket, "SCM_RIGHTS") and hasattr(socket.socket, "sendmsg")
#: Whether a sender waits until the receiver has what was sent: macOS loses what is on its way when the sender
#: closes it.
ACKNOWLEDGE = sys.platform == "darwin"

# KERNEL: Linux refuses more with the EINVAL that it has for so much else.
_MOST_DESCRIPTORS = 253
_CARRIES_DESCRIPTORS = (socket.SOL_SOCKET, socket.SCM_RIGHTS)


class _Reducers(dict):  # type: ignore[type-arg]
    """The reducers registered here, then those of `copyreg`; both as they are at the moment of asking.

    The pickler asks it for every object of a class that it does not know by itself, so the second look is a
    method of the other table, which costs no Python call.
    """

    __missing__ = copyreg.dispatch_table.__getitem__


class ForkingPickler(pickle.Pickler):
    """A pickler that knows the package's own types, and those registered by others.

    Args:
        file: Where the pickle is written.
        protocol: The pickle protocol; ``None`` for the interpreter's default.

    Source: billiard 4.2.1 ``ForkingPickler``. Different here: what is registered later is seen by picklers
    that exist.
    """

    _extra_reducers: ClassVar[dict[type, _Reducer]] = _Reducers()
    _copyreg_dispatch_table = copyreg.dispatch_table

    dispatch_table = _extra_reducers

    loads = staticmethod(pickle.loads)

    @classmethod
    def register(cls, type: type, reduce: _Reducer) -> None:
        """Have objects of exactly this type pickled by ``reduce``, which answers like ``__reduce__``."""
        cls._extra_reducers[type] = reduce

    @classmethod
    def dumps(cls, obj: Any, protocol: int | None = None) -> memoryview:
        """Pickle an object.

        Returns:
            The pickle, as a view of the buffer that it was written to.
        """
        buffer = io.BytesIO()
        cls(buffer, protocol).dump(obj)
        return buffer.getbuffer()

    @classmethod
    def loadbuf(cls, buf: io.BytesIO, protocol: int | None = None) -> Any:  # noqa: ARG003
        """Unpickle what is in a buffer, whatever its position."""
        return cls.loads(buf.getbuffer())


register = ForkingPickler.register


def dump(obj: Any, file: Any, protocol: int | None = None) -> None:
    """Pickle an object to a file."""
    ForkingPickler(file, protocol).dump(obj)


def _reduce_method(m: Any) -> tuple[Any, ...]:
    return getattr, (m.__self__, m.__func__.__name__)


def _reduce_method_descriptor(m: Any) -> tuple[Any, ...]:
    return getattr, (m.__objclass__, m.__name__)


def _reduce_partial(p: functools.partial[Any]) -> tuple[Any, ...]:
    if p.__dict__:
        return p.__reduce__()  # type: ignore[return-value]
    return _rebuild_partial, (p.func, p.args, p.keywords)


def _rebuild_partial(func: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> functools.partial[Any]:
    return functools.partial(func, *args, **keywords)


class _Sample:
    def method(self) -> None: ...


register(type(_Sample().method), _reduce_method)
register(type(list.append), _reduce_method_descriptor)
register(type(int.__add__), _reduce_method_descriptor)
register(functools.partial, _reduce_partial)


def sendfds(sock: socket.socket, fds: Iterable[int]) -> None:
    """Send descriptors through a Unix socket. The receiver gets copies under numbers of its own.

    Args:
        sock: The socket.
        fds: The descriptors, at least 1 and at most 253, or the receiver has nothing to receive.

    Raises:
        ValueError: More than 253.
        OSError: One of them is not open, or the socket cannot send.

    Source: billiard 4.2.1 ``sendfds``. Different here: too many are told from other invalid arguments.
    """
    numbers = array.array("i", fds)
    if len(numbers) > _MOST_DESCRIPTORS:
        raise ValueError(f"at most {_MOST_DESCRIPTORS} descriptors can be sent at a time, not {len(numbers)}")
    sock.sendmsg([bytes([len(numbers) % 256])], [(*_CARRIES_DESCRIPTORS, numbers)])
    if ACKNOWLEDGE and sock.recv(1) != b"A":
        raise RuntimeError("the descriptors were not acknowledged")


def recvfds(sock: socket.socket, size: int) -> list[int]:
    """Receive what `sendfds` sent.

    Args:
        sock: The socket.
        size: How many descriptors to accept at most.

    Returns:
        The descriptors, in the order in which they were sent. They are not inherited by programs that this
        one starts.

    Raises:
        EOFError: The sender is gone.
        RuntimeError: What came is no such message, or more than ``size`` descriptors, or more than this
            process can have open. Those that did come are closed.

    Source: billiard 4.2.1 ``recvfds``. Different here: nothing that arrived stays open when it is refused.
    """
    fds = array.array("i")
    data, ancillary, flags, _ = sock.recvmsg(
        1, socket.CMSG_SPACE(size * fds.itemsize), socket.MSG_CMSG_CLOEXEC
    )
    if not data and not ancillary:
        raise EOFError("whoever was to send descriptors is gone")
    kinds = [(level, kind) for level, kind, _ in ancillary]
    for level, kind, content in ancillary:
        if (level, kind) == _CARRIES_DESCRIPTORS:
            fds.frombytes(content)
    try:
        if flags & socket.MSG_CTRUNC or len(fds) > size:
            raise RuntimeError(f"more came than {size} descriptors, or than this process can have open")
        if kinds != [_CARRIES_DESCRIPTORS]:
            raise RuntimeError(f"received {len(kinds)} items of ancdata, not one that carries descriptors")
        if flags & socket.MSG_TRUNC or data != bytes([len(fds) % 256]):
            raise RuntimeError(f"{len(fds)} descriptors came with {data!r}, which announces something else")
        if ACKNOWLEDGE:
            sock.send(b"A")
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return list(fds)


@contextmanager
def _socket_of(conn: Any) -> Iterator[socket.socket]:
    """A socket object for the descriptor of a connection, which stays the connection's."""
    if isinstance(conn, socket.socket):
        yield conn
        return
    fd = conn.fileno()
    # The time-out that a program has set for its new sockets would make this one non-blocking, and with it
    # everybody else's copy.
    blocking = os.get_blocking(fd)
    sock = socket.socket(fileno=fd)
    try:
        sock.setblocking(blocking)
        yield sock
    finally:
        sock.detach()


def send_handle(conn: Any, handle: int, destination_pid: int | None) -> None:  # noqa: ARG001
    """Send a descriptor through a connection.

    Args:
        conn: Whatever has a ``fileno()`` that is a Unix socket.
        handle: The descriptor.
        destination_pid: Who receives it. Only Windows has to know.

    Raises:
        OSError: The descriptor is not open, or the connection is no socket or cannot send.
    """
    with _socket_of(conn) as sock:
        sendfds(sock, [handle])


def recv_handle(conn: Any) -> int:
    """Receive what `send_handle` sent.

    Raises:
        EOFError: The sender is gone.
        RuntimeError: What came is something else.
    """
    with _socket_of(conn) as sock:
        return recvfds(sock, 1)[0]


def DupFd(fd: int) -> Any:
    """Wrap a descriptor so that it can be pickled.

    While a child is being started on this thread, the child inherits it. Otherwise this process keeps a copy
    and hands it to whoever unpickles the wrapper; see `billiard.resource_sharer`.

    Args:
        fd: The descriptor. It may be closed afterwards, in the first case once the child has been started.

    Returns:
        An object whose ``detach()`` answers the descriptor, once, in the process that unpickled it.

    Raises:
        OSError: It is not open.
    """
    popen = context.get_spawning_popen()
    if popen is not None:
        return popen.DupFd(popen.duplicate_for_child(fd))
    from . import resource_sharer

    return resource_sharer.DupFd(fd)


def _reduce_socket(s: socket.socket) -> tuple[Any, ...]:
    fd = s.fileno()
    if fd < 0:
        raise OSError(errno.EBADF, "cannot pickle a closed socket")
    return _rebuild_socket, (DupFd(fd), int(s.family), int(s.type), s.proto, s.gettimeout())


def _rebuild_socket(
    df: Any, family: int, type: int, proto: int, timeout: float | None = None
) -> socket.socket:
    fd = df.detach()
    try:
        sock = socket.socket(family, type, proto, fileno=fd)
    except BaseException:
        os.close(fd)
        raise
    # What a child inherits has come through an exec; this one need not go through another.
    sock.set_inheritable(False)
    # Both processes' sockets block or do not block together, so they had better agree.
    sock.settimeout(timeout)
    return sock


register(socket.socket, _reduce_socket)
