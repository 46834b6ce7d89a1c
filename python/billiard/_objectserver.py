"""The server of a manager: it has the objects, and does with them what clients ask for.

Two threads serve everybody. One lets in who holds the key. The other answers, in `_billiard.Hall`, whatever
can be answered at once. A client that asks for more, be it something that may wait or something that has
code of its own run, gets a thread for itself, from then on.
"""

from __future__ import annotations

import array
import os
import sys
import threading
from contextlib import suppress
from traceback import format_exc

from . import _billiard, connection, process, util
from ._lifelines import GREETING
from ._proxies import Token, listener_client, public_methods
from ._servedtypes import Array, Namespace, Value
from ._visits import Client, Holders, Visit
from .einfo import ExceptionWithTraceback
from .exceptions import AuthenticationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: What makes objects of which no method can wait for anything.
_QUICK_MAKERS = (list, dict, Namespace, Value, Array)
#: Their types.
_QUICK_TYPES = frozenset({list, dict, Namespace, Value, array.array})


class Server:
    """Has objects and serves them.

    Args:
        registry: Typeid -> (callable, exposed, method_to_typeid, proxytype).
        address: Where to listen; ``None`` for an address of its choice.
        authkey: The key that clients have to hold.
        serializer: How to talk to them, a key of `listener_client`.

    Attributes:
        address: Where it listens.
        id_to_obj: Ident -> (object, the names of its exposed methods, method -> typeid).
        id_to_refcount: Ident -> how many references clients have.

    Raises:
        OSError: The address is taken, or not ours.
        TypeError: The key is not bytes.

    Source: billiard 4.2.1 ``Server``. Different here: nobody is served before it has proved that it holds
    the key; what a client that died has held is released; stopping is an event, not a poll.
    """

    public = [  # noqa: RUF012
        *("shutdown", "create", "accept_connection", "get_methods", "debug_info", "number_of_objects"),
        *("dummy", "incref", "decref"),
    ]

    def __init__(self, registry: Any, address: Any, authkey: bytes, serializer: str) -> None:
        if not isinstance(authkey, bytes):
            raise TypeError(f"authkey must be bytes, not {type(authkey).__name__}")
        self.registry = registry
        self.authkey = process.AuthenticationString(authkey)
        listener = listener_client[serializer][0]
        self.listener = listener(address=address or None, backlog=128, authkey=bytes(authkey))
        bound = self.listener.address
        # The system tells an address without a name in the file system as bytes; nobody connects to such.
        self.address = os.fsdecode(bound) if isinstance(bound, bytes) else bound
        self.id_to_obj: dict[str, Any] = {"0": (None, (), None)}
        self.id_to_refcount: dict[str, int] = {}
        self.mutex = threading.RLock()
        self.stop_event = threading.Event()
        self._visits: dict[int, Visit] = {}
        self._clients: dict[str, Client] = {}
        self._holders = Holders(self.mutex, self.id_to_obj)
        # What an override of these does with a connection cannot be done in the hall.
        kind = type(self)
        is_native = (
            listener is connection.Listener
            and kind.handle_request is Server.handle_request
            and kind.serve_client is Server.serve_client
            and kind.accept_connection is Server.accept_connection
        )
        self._hall = _billiard.Hall(self.id_to_obj, _QUICK_TYPES) if is_native else None

    # -- Life.

    def serve_forever(self) -> None:
        """Serve until somebody asks for `shutdown`, or until Ctrl-C, and end the process with code 0."""
        process.current_process()._manager_server = self  # type: ignore[attr-defined]
        if self._hall is not None:
            # A child must not keep the clients from seeing that the server ends.
            util.register_after_fork(self._hall, lambda hall: hall.abandon())
            threading.Thread(target=self._hall.serve, args=(self,), name="answers", daemon=True).start()
        threading.Thread(target=self.accepter, name="accepts", daemon=True).start()
        try:
            with suppress(KeyboardInterrupt, SystemExit):
                self.stop_event.wait()
        finally:
            if self._hall is not None:
                self._hall.stop()
            self.listener.close()
            util.debug("the server ends")
            sys.exit(0)

    def accepter(self) -> None:
        """Let in who holds the key, until the server stops."""
        spare = _spare()
        while not self.stop_event.is_set():
            try:
                conn = self.listener.accept()
            except (EOFError, AuthenticationError):
                continue
            except OSError as error:
                if self.stop_event.is_set():
                    return
                util.info("cannot let a client in: %s", error)
                spare = self._refuse(spare)
                continue
            try:
                self._welcome(conn)
            except (OSError, RuntimeError) as error:
                util.info("cannot serve a client: %s", error)
                conn.close()

    def _refuse(self, spare: int | None) -> int | None:
        """Without descriptors, have the one who waits at the door see that it is closed.

        Otherwise it would wait for ever, and accepting would fail again at once.
        """
        if spare is None:
            self.stop_event.wait(0.1)
            return _spare()
        os.close(spare)
        # It does not block, and who was waiting may be gone.
        with suppress(OSError, AttributeError):
            visitor, _ = self.listener._listener._socket.accept()
            visitor.close()
        return _spare()

    def _welcome(self, conn: Any) -> None:
        if self._hall is None:
            threading.Thread(target=self.handle_request, args=(conn,), daemon=True).start()
            return
        number = os.dup(conn.fileno())
        conn.close()
        self._hall.adopt(number)

    # -- Connections that are not in the hall.

    def handle_request(self, c: Any) -> None:
        """Serve the one request that a connection begins with, and close it."""
        try:
            answer, _ = self._desk_now(c, c.recv())
            self._say(c, answer)
        except (OSError, EOFError):
            pass
        except Exception:
            with suppress(OSError):
                c.send(("#TRACEBACK", format_exc()))
        finally:
            c.close()

    def serve_client(self, conn: Any) -> None:
        """Serve the requests of a session, until the client closes the connection."""
        while not self.stop_event.is_set():
            try:
                request = conn.recv()
            except (EOFError, OSError):
                return
            except Exception:
                conn.send(("#TRACEBACK", format_exc()))
                continue
            self._say(conn, self._answer(request, None, conn))

    def accept_connection(self, c: Any, name: str) -> None:
        """Turn a connection into a session.

        Args:
            c: The connection.
            name: Who the client is; for people.
        """
        threading.current_thread().name = name
        c.send(("#RETURN", None))
        self.serve_client(c)

    # -- What the hall asks for.

    def _desk(self, seat: int, request: Any) -> tuple[Any, bool] | None:
        """Serve a request to the server. ``None``: it may take long.

        Returns:
            The answer, and whether others follow it.
        """
        visit = self._visits.setdefault(seat, Visit())
        try:
            greeting, name, args, kwds = request
            if name == "accept_connection":
                return ("#RETURN", self._seat(visit, greeting)), True
            if name == "dummy" and kwds:
                visit.is_lifeline = False
                return ("#RETURN", None), True
            if name == "shutdown" or (
                name == "create" and not any(self.registry[args[0]][0] is maker for maker in _QUICK_MAKERS)
            ):
                return None
        except Exception:
            return ("#TRACEBACK", format_exc()), visit.is_seated
        return self._desk_now(visit, request)

    def _seat(self, visit: Visit, greeting: Any) -> Any:
        visit.is_seated = True
        if not (type(greeting) is tuple and greeting[:1] == (GREETING,)):
            return None
        _, identity, is_lifeline = greeting
        with self.mutex:
            client = visit.client = self._clients.setdefault(identity, Client())
            client.visits += 1
        visit.is_lifeline = bool(is_lifeline)
        if visit.is_lifeline:
            # Its line had broken, not the process.
            client.gone = False
        return GREETING

    def _desk_now(self, c: Any, request: Any) -> tuple[Any, bool]:
        stays = getattr(c, "is_seated", False)
        try:
            _, name, args, kwds = request
            if name not in self.public:
                raise AttributeError(f"the server has no method {name!r} for clients")
            return ("#RETURN", getattr(self, name)(c, *args, **kwds)), stays
        except Exception:
            return ("#TRACEBACK", format_exc()), stays

    def _reply(self, seat: int, request: Any) -> tuple[str, Any]:
        """Serve a request of a session for an object of which no method can wait."""
        visit = self._visits.get(seat)
        return self._answer(request, visit, visit)

    def _failed(self, error: BaseException) -> tuple[str, Any]:
        return "#ERROR", error

    def _unsendable(self, answer: Any, error: BaseException) -> tuple[str, str]:
        """What to say instead of an answer that cannot be pickled."""
        util.info("cannot send %s: %s", type(answer[1]), error)
        try:
            return "#UNSERIALIZABLE", repr(answer[1])
        except Exception:
            return "#UNSERIALIZABLE", object.__repr__(answer[1])

    def _hand_over(self, seat: int, line: Any) -> None:
        visit = self._visits.setdefault(seat, Visit())
        attending = threading.Thread(target=self._attend, args=(seat, visit, line), daemon=True)
        try:
            attending.start()
        except RuntimeError as error:
            util.info("cannot serve a client: %s", error)
            line.close()
            self._parted(seat)

    def _attend(self, seat: int, visit: Visit, line: Any) -> None:
        """Serve one client, on a thread of its own."""
        stays = True
        try:
            while stays:
                try:
                    request = line.recv()
                except Exception:
                    if line.closed:
                        return
                    # It has come, and cannot be unpickled.
                    answer: Any = "#TRACEBACK", format_exc()
                else:
                    answer, stays = self._respond(seat, visit, request)
                self._say(line, answer)
                stays = stays and not visit.is_last
        except OSError as error:
            util.debug("a client is gone: %s", error)
        finally:
            line.close()
            if visit.is_last:
                self.stop_event.set()
            self._holders.release(visit)
            self._parted(seat)

    def _respond(self, seat: int, visit: Visit, request: Any) -> tuple[Any, bool]:
        if visit.is_seated and request[0] is not None:
            return self._answer(request, visit, visit), True
        return self._desk(seat, request) or self._desk_now(visit, request)

    def _say(self, c: Any, answer: Any) -> None:
        try:
            c.send(answer)
        except OSError:
            raise
        except Exception as error:
            c.send(self._unsendable(answer, error))

    def _parted(self, seat: int) -> None:
        """A client's connection has ended."""
        visit = self._visits.pop(seat, None)
        if visit is None or visit.client is None:
            return
        client = visit.client
        with self.mutex:
            client.visits -= 1
            if client.visits == 0:
                for key, known in list(self._clients.items()):
                    if known is client:
                        del self._clients[key]
        if visit.is_lifeline or client.visits == 0:
            self._bury(client)

    # -- Requests of sessions.

    def _answer(self, request: Any, visit: Visit | None = None, c: Any = None) -> tuple[str, Any]:
        """Do what is asked of an object."""
        try:
            ident, method, args, kwds = request
            obj, exposed, typeids = self.id_to_obj[ident]
            if method not in exposed or not hasattr(obj, method):
                return self._fall_back(c, obj, exposed, request)
            function = getattr(obj, method)
        except Exception:
            return "#TRACEBACK", format_exc()
        try:
            result = self._holders.call(visit, ident, obj, method, function, args, kwds)
        except Exception as error:
            if visit is not None and visit.client is not None:
                return "#ERROR", ExceptionWithTraceback(error, error.__traceback__)
            return "#ERROR", error
        typeid = typeids and typeids.get(method)
        return self._proxy(c, typeid, result) if typeid else ("#RETURN", result)

    def _fall_back(self, c: Any, obj: Any, exposed: Any, request: Any) -> tuple[str, Any]:
        """Do what can be asked of every object."""
        ident, method, args, kwds = request
        fallback = self.fallback_mapping.get(method)
        if fallback is None:
            raise AttributeError(f"method {method!r} of {type(obj)!r} object is not in exposed={exposed!r}")
        return "#RETURN", fallback(self, c, ident, obj, *args, **kwds)

    def _proxy(self, c: Any, typeid: str, result: Any) -> tuple[str, Any]:
        """Keep a result here, and have the client make a proxy for it."""
        try:
            ident, exposed = self.create(c, typeid, result)
        except Exception:
            return "#TRACEBACK", format_exc()
        return "#PROXY", (exposed, Token(typeid, self.address, ident))

    def fallback_getvalue(self, conn: Any, ident: str, obj: Any) -> Any:  # noqa: ARG002
        """A copy of the object."""
        return obj

    def fallback_str(self, conn: Any, ident: str, obj: Any) -> str:  # noqa: ARG002
        """How the object is shown to people."""
        return str(obj)

    def fallback_repr(self, conn: Any, ident: str, obj: Any) -> str:  # noqa: ARG002
        """How the object is shown to programmers."""
        return repr(obj)

    fallback_mapping: dict[Any, Callable[..., Any]] = {  # noqa: RUF012
        "__str__": fallback_str,
        "__repr__": fallback_repr,
        "#GETVALUE": fallback_getvalue,
    }

    # -- What clients have left behind.

    def _bury(self, client: Client) -> None:
        """Release what a client has held."""
        with self.mutex:
            client.gone = True
            self._holders.give_back(client)
            refs, client.refs = client.refs, {}
            for ident, count in refs.items():
                for _ in range(count):
                    self.decref(None, ident)

    # -- What clients may call.

    def dummy(self, c: Any) -> None:
        """Answer that the server is there."""

    def debug_info(self, c: Any) -> str:  # noqa: ARG002
        """Describe the objects and how many references there are to each."""
        with self.mutex:
            lines = [
                f"  {ident}:       refcount={count}\n    {str(self.id_to_obj[ident][0])[:75]}"
                for ident, count in sorted(self.id_to_refcount.items())
            ]
        return "\n".join(lines)

    def number_of_objects(self, c: Any) -> int:  # noqa: ARG002
        """How many objects there are."""
        return len(self.id_to_refcount)

    def shutdown(self, c: Any) -> None:
        """Have the server end, once the answer is on its way."""
        util.debug("a client has the server end")
        visit = c if isinstance(c, Visit) else None
        if visit is not None:
            visit.is_last = True
            return
        try:
            c.send(("#RETURN", None))
        finally:
            self.stop_event.set()

    def create(self, c: Any, typeid: str, *args: Any, **kwds: Any) -> tuple[str, tuple[str, ...]]:
        """Make an object.

        Args:
            c: The client's connection, which gets a reference to it.
            typeid: The name of its registered type.
            *args: Arguments of what makes it.
            **kwds: More of them.

        Returns:
            Its ident, and the names of its exposed methods.
        """
        maker, exposed, method_to_typeid, _ = self.registry[typeid]
        if maker is not None:
            obj = maker(*args, **kwds)
        elif kwds or len(args) != 1:
            raise ValueError("without a callable, the object itself must be the only argument")
        else:
            obj = args[0]
        if exposed is None:
            exposed = public_methods(obj)
        if method_to_typeid is not None:
            exposed = [*exposed, *method_to_typeid]
        ident = f"{id(obj):x}"
        util.debug("%r callable returned object with id %r", typeid, ident)
        with self.mutex:
            self.id_to_obj[ident] = (obj, set(exposed), method_to_typeid)
            self.id_to_refcount.setdefault(ident, 0)
            self.incref(c, ident)
        return ident, tuple(exposed)

    def get_methods(self, c: Any, token: Token) -> tuple[str, ...]:  # noqa: ARG002
        """The names of the methods that an object exposes."""
        return tuple(self.id_to_obj[token.id][1])

    def incref(self, c: Any, ident: str) -> None:
        """Note that a client has one more reference to an object."""
        with self.mutex:
            self.id_to_refcount[ident] += 1
            client = getattr(c, "client", None)
            if client is not None:
                client.refs[ident] = client.refs.get(ident, 0) + 1

    def decref(self, c: Any, ident: str) -> None:
        """Note that a client has one reference less. Without any the object goes."""
        gone = None
        with self.mutex:
            client = getattr(c, "client", None)
            if client is not None and ident in client.refs:
                client.refs[ident] -= 1
                if client.refs[ident] == 0:
                    del client.refs[ident]
            self.id_to_refcount[ident] -= 1
            if self.id_to_refcount[ident] == 0:
                del self.id_to_refcount[ident]
                # Its end may run code of its own, after the mutex.
                gone = self.id_to_obj.pop(ident)
                self._holders.forget(ident)
        del gone


def _spare() -> int | None:
    """A descriptor that is given up when there is no other left."""
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


Server.__module__ = "billiard.managers"
