"""How a process talks to managers' servers: a line for each thread that asks, and one that tells what the
process holds references to.

The server learns of the end of a process by the end of that last line, its lifeline, and lets go of what the
process has held. So nothing is ever waited for on it. Servers of others do not know it: there every count is
a connection of its own.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress

from . import _billiard, connection, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: What a client puts where others put nothing, and the server answers instead of nothing: that it is one of
#: ours.
GREETING = "billiard 1"

#: Which process this is, to servers. It is another one after a fork.
_me = ""
_lifelines: dict[tuple[Any, bytes], Lifeline] = {}


def _forget() -> None:
    """Be nobody yet, in a forked child: its copies of the lines are the parent's."""
    global _me
    _me = ""
    for lifeline in _lifelines.values():
        lifeline.abandon()
    _lifelines.clear()


os.register_at_fork(after_in_child=_forget)


def _identity() -> str:
    global _me
    if not _me:
        _me = os.urandom(16).hex()
    return _me


class _Asking:
    """Has a connection of whatever kind answer questions."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn
        self.closed = False

    def ask(self, question: tuple[Any, ...]) -> Any:
        try:
            self._conn.send(question)
            return self._conn.recv()
        except (OSError, EOFError):
            self.close()
            raise

    def close(self) -> None:
        self.closed = True
        self._conn.close()


class Session:
    """A line to a server, seated.

    Args:
        address: The server's address.
        authkey: Its key.
        client: What connects to it.
        lifeline: Whether its end tells of the end of this process.

    Attributes:
        ask: Sends a request and answers what the server says: a kind and a value.
        ours: Whether the server knows what only ours know.
    """

    def __init__(self, address: Any, authkey: bytes, client: Callable[..., Any], lifeline: bool) -> None:
        name = process.current_process().name
        thread = threading.current_thread().name
        if thread != "MainThread":
            name = f"{name}|{thread}"
        conn = client(address, authkey=authkey)
        try:
            conn.send(((GREETING, _identity(), lifeline), "accept_connection", (name,), {}))
            kind, said = conn.recv()
            if kind != "#RETURN":
                from ._proxies import convert_to_error

                raise convert_to_error(kind, said)
        except BaseException:
            conn.close()
            raise
        self.ours = said == GREETING
        self._line: Any = _Asking(conn)
        if type(conn) is connection.Connection:
            # Every message there is an answer, so that it can be read ahead.
            number = os.dup(conn.fileno())
            conn.close()
            self._line = _billiard.Line(number)
        self.ask: Callable[[tuple[Any, ...]], Any] = self._line.ask
        self.close: Callable[[], None] = self._line.close

    @property
    def closed(self) -> bool:
        """Whether nothing can be asked any more."""
        return bool(self._line.closed)


class Lifeline:
    """Tells one server of the references that this process has.

    Finalizers count down, and may run anywhere, in the middle of counting up included: what cannot be told at
    once is told by whoever is in the way.
    """

    def __init__(self, address: Any, authkey: bytes, client: Callable[..., Any]) -> None:
        self._where = address, authkey, client
        self._lock = threading.Lock()
        self._dropped: deque[tuple[str, bool]] = deque()
        self._session: Session | None = None
        self._held = 0

    def take(self, ident: str) -> None:
        """Hold a reference to an object of the server's.

        Raises:
            RemoteError: There is no such object any more.
            OSError: The server is gone.
        """
        with self._lock:
            self._tell("incref", ident)
            self._held += 1
        self._settle()

    def drop(self, ident: str, counted: bool = True) -> None:
        """Let a reference go, one of `take` or (not ``counted``) one that the server has made for us."""
        self._dropped.append((ident, counted))
        self._settle()

    def _settle(self) -> None:
        failure: Exception | None = None
        while self._dropped and self._lock.acquire(blocking=False):
            try:
                while self._dropped:
                    ident, counted = self._dropped.popleft()
                    self._held -= counted
                    try:
                        self._tell("decref", ident)
                    except Exception as error:
                        failure = error
                if self._held <= 0:
                    self._part()
            finally:
                self._lock.release()
        if failure is not None:
            raise failure

    def _tell(self, what: str, ident: str) -> None:
        from ._proxies import convert_to_error, dispatch

        address, authkey, client = self._where
        session = self._session
        if session is None or session.closed:
            session = self._session = Session(address, authkey, client, lifeline=True)
        if session.ours:
            kind, said = session.ask((None, what, (ident,), {}))
            if kind != "#RETURN":
                raise convert_to_error(kind, said)
            return
        conn = client(address, authkey=authkey)
        try:
            dispatch(conn, None, what, (ident,))
        finally:
            conn.close()

    def _part(self) -> None:
        session, self._session = self._session, None
        if session is not None and not session.closed:
            # What is still on its way in other threads is not to be dropped with this line.
            with suppress(OSError, EOFError):
                if session.ours:
                    session.ask((None, "dummy", (), {"parting": True}))
            session.close()

    def abandon(self) -> None:
        """Close it without a word: in a forked child, or when the server has ended."""
        session, self._session = self._session, None
        if session is not None:
            session.close()


def lifeline(address: Any, authkey: bytes, client: Callable[..., Any]) -> Lifeline:
    """The one of this process to a server."""
    key = address, bytes(authkey)
    found = _lifelines.get(key)
    if found is None:
        found = _lifelines.setdefault(key, Lifeline(address, authkey, client))
    return found


def session(tls: Any, address: Any, authkey: bytes, client: Callable[..., Any]) -> Session:
    """The session of this thread, opened if there is none."""
    found: Session | None = getattr(tls, "connection", None)
    if found is None or found.closed:
        found = tls.connection = Session(address, authkey, client, lifeline=False)
    return found


def end_lifeline(address: Any, authkey: bytes) -> None:
    """Forget about a server that has ended."""
    found = _lifelines.pop((address, bytes(authkey)), None)
    if found is not None:
        found.abandon()
