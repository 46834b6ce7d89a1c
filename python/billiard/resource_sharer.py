"""Sharing descriptors with processes that are there already.

What a child is given when it is started it inherits. What is pickled for a process that runs already has to
be fetched: the pickle carries an address and a ticket, and this process keeps a copy of the descriptor and a
thread that hands it out at that address, once, to whoever shows the ticket and holds the family's key.

It does so until the process has ended: children that are waited for at its exit can still fetch. The thread
is a daemon, what is left goes with the process.

The address is an abstract one, chosen by the kernel: no file that could stay behind. In exchange any process
on the machine can connect. So the kernel is asked who it is, and all others than this user and root are shown
out; the key is proved before anything else happens. See `billiard._cloakroom` for what is said.

A process in another network namespace does not find the address.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import struct
import threading
import time
from contextlib import AbstractContextManager, suppress
from typing import Any

from . import process, reduction, util
from ._cloakroom import CLAIM_SIZE, GONE, GREETING_SIZE, VERDICT_SIZE, Claim, Cloakroom, trusts
from .exceptions import AuthenticationError

__all__ = ["DupFd", "stop"]

_Ident = tuple[bytes, bytes]

_Lock = AbstractContextManager[Any]

#: What the kernel says of a peer: process, user, group.
_CREDENTIALS = struct.Struct("iII")

_CLOSED = "the process that shared the descriptor has ended, has stopped sharing, or is another user's"

#: What `accept` fails with that may be otherwise in a moment. After anything else the thread cannot go on.
_NOT_NOW = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class DupFd:
    """A descriptor that can be pickled and taken out in another process.

    Args:
        fd: The descriptor. A copy is kept, so that it may be closed.

    Raises:
        OSError: It is not open.

    Source: billiard 4.2.1 ``DupFd``. Different here: no name is left in the file system; a client that says
    nothing keeps nobody waiting; what goes wrong is told to the client, with a reason.
    """

    def __init__(self, fd: int) -> None:
        self._id = _resource_sharer.register(fd)

    def detach(self) -> int:
        """Take the descriptor. This is possible once, in whatever process.

        Waits for the process that shared it, for as long as that lives.

        Returns:
            The descriptor, which belongs to the caller. Programs that this process starts do not inherit it.

        Raises:
            EOFError: It was taken already, or is not shared any more.
            ConnectionError: The process that shared it has ended, or has stopped sharing.
            AuthenticationError: The two processes do not have the same ``authkey``, or another user's process
                is at the address.
            OSError: This process can have no more descriptors open. The descriptor can still be taken.
        """
        return _resource_sharer.fetch(self._id)


class _Service:
    """A thread that hands out descriptors, and what belongs to it.

    Args:
        lock: Held by whoever touches anything here. Nobody holds it while waiting.
        running: The services that have something open.

    Attributes:
        address: Where it listens.
        room: The descriptors.
        is_over: Whether it has ended, or is about to.
    """

    def __init__(self, lock: _Lock, running: set[_Service]) -> None:
        self._lock = lock
        self._running = running
        self._visitors: dict[int, socket.socket] = {}
        self._poll = select.poll()
        self._patience: float | None = None
        self.room = Cloakroom()
        self.is_over = False
        self.thread = threading.Thread(target=self._serve, name="billiard-sharer", daemon=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        running.add(self)
        try:
            self._listener.setblocking(False)
            # KERNEL: an empty name has Linux choose an abstract one.
            self._listener.bind("")
            self._listener.listen(128)
            self.address: bytes = self._listener.getsockname()
            self._poll.register(self._listener, select.POLLIN)
            _start_without_signals(self.thread)
        except BaseException:
            self.close()
            raise

    def leave(self) -> None:
        """Have the thread end: refuse new visitors, and give up what is kept."""
        if not self.is_over:
            self.is_over = True
            self._close_kept()
            # KERNEL: wakes the thread, whether or not it is letting visitors in at the moment. The thread
            # closes what it may be waiting for.
            self._listener.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close everything that is open here."""
        self.is_over = True
        for sock in (self._listener, *self._visitors.values()):
            # What somebody has closed behind our back is closed.
            with suppress(OSError):
                sock.close()
        self._visitors.clear()
        self._close_kept()
        self._running.discard(self)

    def _close_kept(self) -> None:
        for descriptor in self.room.clear():
            with suppress(OSError):
                os.close(descriptor)

    def _serve(self) -> None:
        try:
            while self._serve_some():
                pass
        finally:
            with self._lock:
                self.close()

    def _serve_some(self) -> bool:
        """Wait for visitors, and serve them. Returns whether to go on."""
        events = self._poll.poll(self._patience)
        with self._lock:
            if self.is_over:
                return False
            for number, _ in events:
                if number == self._listener.fileno():
                    self._let_in()
                else:
                    self._hear(number)
            now = time.monotonic()
            for number in self.room.overdue(now):
                self._show_out(number)
            self._poll.modify(self._listener, select.POLLIN if self.room.accepts(now) else 0)
            deadline = self.room.next_deadline(now)
            self._patience = None if deadline is None else (deadline - now) * 1000
        return True

    def _let_in(self) -> None:
        """Let one visitor in; more have to wait until those that are here were heard."""
        try:
            visitor, _ = self._listener.accept()
        except OSError as error:
            if error.errno not in _NOT_NOW:
                raise
            self.room.rest(time.monotonic())
            return
        visitor.setblocking(False)
        if not trusts(os.geteuid(), _uid_of_peer(visitor)):
            visitor.close()
            return
        number = visitor.fileno()
        self._visitors[number] = visitor
        self._poll.register(visitor, select.POLLIN)
        try:
            visitor.send(self.room.greet(number, time.monotonic()))
        except OSError:
            self._show_out(number)

    def _hear(self, number: int) -> None:
        """Answer a visitor, and be done with it."""
        visitor = self._visitors[number]
        # Whatever cannot be sent: the visitor is told by the end of the conversation, and may come again.
        with suppress(OSError):
            message = visitor.recv(CLAIM_SIZE + 1)
            answer = self.room.hear(number, message, process.current_process().authkey)
            visitor.send(answer.message)
            if answer.descriptor is not None:
                reduction.sendfds(visitor, [answer.descriptor])
                given = self.room.take(answer.ticket)
                if given is not None:
                    os.close(given)
        self._show_out(number)

    def _show_out(self, number: int) -> None:
        visitor = self._visitors.pop(number)
        self.room.leave(number)
        self._poll.unregister(visitor)
        visitor.close()


class _ResourceSharer:
    """Shares this process's descriptors, once there are some to share, and fetches those of others."""

    def __init__(self) -> None:
        self._running: set[_Service] = set()
        self._renew()

    def _renew(self) -> None:
        self._lock = threading.RLock()
        self._service: _Service | None = None

    def register(self, fd: int) -> _Ident:
        """Keep a copy of a descriptor until somebody fetches it. Starts the thread if there is none.

        Returns:
            Where and with which ticket to fetch it.

        Raises:
            OSError: The descriptor is not open, or there are no more to be had.
        """
        with self._lock:
            kept = os.dup(fd)
            try:
                service = self._service
                if service is None or service.is_over:
                    service = self._service = _Service(self._lock, self._running)
                return service.address, service.room.keep(kept)
            except BaseException:
                os.close(kept)
                raise

    def fetch(self, ident: _Ident) -> int:
        """Take a descriptor that some process registered, this one included; see `DupFd.detach`."""
        address, ticket = ident
        with self._lock:
            service = self._service
            if service is not None and service.address == address:
                descriptor = service.room.take(ticket)
                if descriptor is None:
                    raise EOFError(GONE)
                return descriptor
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(None)
            # Without a number left for it the kernel would drop the descriptor on its arrival, for good.
            spare = os.dup(sock.fileno())
            try:
                _claim(sock, address, ticket)
            finally:
                os.close(spare)
            return reduction.recvfds(sock, 1)[0]

    def stop(self, timeout: float | None = None) -> None:
        """Stop sharing, and close what nobody has fetched. It starts again when there is something to share.

        Args:
            timeout: Seconds to wait for the thread; ``None`` waits for ever.
        """
        with self._lock:
            service, self._service = self._service, None
            if service is None:
                return
            service.leave()
        if service.thread is threading.current_thread():
            return
        service.thread.join(timeout)
        if service.thread.is_alive():
            util.sub_warning("the thread that shares descriptors has not ended in %s seconds", timeout)

    def _before_fork(self) -> None:
        # FORK: so that the child finds all that is open here listed, and can close it.
        self._lock.acquire()

    def _after_fork_in_parent(self) -> None:
        self._lock.release()

    def _afterfork(self) -> None:
        """Have nothing to do, in a child, with what its parent shares."""
        for service in list(self._running):
            service.close()
        self._renew()


def _start_without_signals(thread: threading.Thread) -> None:
    """Start a thread that no signal ever interrupts: it inherits the mask."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _uid_of_peer(sock: socket.socket) -> int:
    """The user of the process that has connected, or of the one that listens."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(credentials)[1]
    return uid


def _claim(sock: socket.socket, address: bytes, ticket: bytes) -> None:
    """Have the descriptor for a ticket sent."""
    try:
        sock.connect(address)
    except ConnectionRefusedError as error:
        raise ConnectionRefusedError(error.errno, _CLOSED) from None
    if not trusts(os.geteuid(), _uid_of_peer(sock)):
        raise AuthenticationError("another user's process is at the address")
    claim = Claim(ticket, process.current_process().authkey)
    sock.send(claim.answer(_receive(sock, GREETING_SIZE)), socket.MSG_NOSIGNAL)
    claim.check(_receive(sock, VERDICT_SIZE))


def _receive(sock: socket.socket, size: int) -> bytes:
    """Receive a message; one that is longer than expected is cut off behind the next byte."""
    message = sock.recv(size + 1)
    if not message:
        raise EOFError(_CLOSED)
    return message


_resource_sharer = _ResourceSharer()
stop = _resource_sharer.stop

os.register_at_fork(
    before=_resource_sharer._before_fork,
    after_in_parent=_resource_sharer._after_fork_in_parent,
    after_in_child=_resource_sharer._afterfork,
)
