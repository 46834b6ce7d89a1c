"""Listeners and clients, and who is let in."""

from __future__ import annotations

import gc
import os
import socket
import struct
import tempfile
import time

import pytest
from talk import PATIENCE

from billiard import connection
from billiard.connection import (
    Client,
    Listener,
    SocketClient,
    SocketListener,
    XmlClient,
    XmlListener,
    address_type,
)
from billiard.exceptions import AuthenticationError

KEY = b"the key of the family"
FAMILIES = ("AF_UNIX", "AF_INET")

pytestmark = pytest.mark.usefixtures("leak_census")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("key", [None, b"", KEY, b"x" * 500])
def test_both_ends_talk(in_thread, family, key):
    with Listener(family=family, authkey=key) as listener:
        assert listener.last_accepted is None
        client = in_thread(Client, listener.address, None, key)
        with listener.accept() as ours, client() as theirs:
            ours.send("hello")
            assert theirs.recv() == "hello"
            theirs.send(b"x" * 1_000_000)
            assert len(ours.recv()) == 1_000_000
            assert not os.get_inheritable(ours.fileno())
            assert os.get_blocking(ours.fileno())
            assert os.get_blocking(theirs.fileno())
        assert listener.last_accepted == "" or listener.last_accepted[0] == "127.0.0.1"


@pytest.mark.parametrize("family", FAMILIES)
def test_another_key_is_refused_on_both_sides(in_thread, family):
    with Listener(family=family, authkey=KEY) as listener:
        client = in_thread(Client, listener.address, None, b"another")
        with pytest.raises(AuthenticationError, match="digest received was wrong"):
            listener.accept()
        with pytest.raises(AuthenticationError, match="digest sent was rejected"):
            client()
        # The listener goes on.
        client = in_thread(Client, listener.address, None, KEY)
        with listener.accept(), client():
            pass


def test_a_client_is_not_let_in_by_a_listener_without_the_key(in_thread):
    with Listener(("localhost", 0)) as listener:
        client = in_thread(Client, listener.address, None, KEY)
        with listener.accept() as conn:
            conn.send_bytes(b"#CHALLENGE#{sha256}" + bytes(40))
            conn.recv_bytes()
            conn.send_bytes(b"#WELCOME#")
            challenge = conn.recv_bytes()
            assert challenge.startswith(b"#CHALLENGE#{sha256}")
            conn.send_bytes(b"{sha256}" + bytes(32))
            with pytest.raises(AuthenticationError, match="digest received was wrong"):
                client()


def test_who_says_nothing_keeps_nobody_waiting(in_thread):
    with Listener(("localhost", 0), backlog=100, authkey=KEY) as listener:
        silent = [socket.create_connection(listener.address) for _ in range(70)]
        client = in_thread(Client, listener.address, None, KEY)
        with listener.accept() as ours, client() as theirs:
            ours.send(1)
            assert theirs.recv() == 1
        for sock in silent:
            sock.close()


def test_who_takes_too_long_is_shown_out(monkeypatch):
    monkeypatch.setattr(connection, "CONNECTION_TIMEOUT", 0.05)
    with Listener(("localhost", 0), authkey=KEY) as listener:
        listener._listener._socket.settimeout(0.3)
        with socket.create_connection(listener.address) as silent:
            start = time.monotonic()
            with pytest.raises(TimeoutError):
                listener.accept()
            assert time.monotonic() - start >= 0.3
            silent.settimeout(PATIENCE)
            assert silent.recv(1000)[4:].startswith(b"#CHALLENGE#")
            assert silent.recv(1) == b""


class Bomb:
    """Leaves a mark where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"", EOFError),
        (b"\0\0", EOFError),
        (b"\0\0\0\x10half", EOFError),
        (b"GET / HTTP/1.1\r\n\r\n", AuthenticationError),
        (struct.pack(">i", 257) + bytes(257), AuthenticationError),
        (struct.pack(">iQ", -1, 1 << 40), AuthenticationError),
        (struct.pack(">i", -2), AuthenticationError),
        (struct.pack(">i", 9) + b"#WELCOME#", AuthenticationError),
        (struct.pack(">i", 0), AuthenticationError),
    ],
)
def test_strangers_are_shown_out_and_told_nothing(said, error):
    with Listener(("localhost", 0), authkey=KEY) as listener:
        with socket.create_connection(listener.address) as stranger:
            stranger.sendall(said)
            stranger.shutdown(socket.SHUT_WR)
            with pytest.raises(error):
                listener.accept()
            stranger.settimeout(PATIENCE)
            heard = b""
            while chunk := _recv(stranger):
                heard += chunk
        assert heard[4:].startswith(b"#CHALLENGE#{sha256}")
        assert b"#WELCOME#" not in heard


def _recv(sock):
    try:
        return sock.recv(1000)
    except ConnectionResetError:
        return b""


def test_nothing_is_unpickled_before_the_peer_is_trusted(tmp_path):
    mark = tmp_path / "mark"
    with Listener(("localhost", 0), authkey=KEY) as listener, SocketClient(listener.address) as stranger:
        stranger.send(Bomb(str(mark)))
        with pytest.raises(AuthenticationError):
            listener.accept()
    assert not mark.exists()


def test_a_listener_that_hangs_up_is_the_end(in_thread):
    with Listener(("localhost", 0)) as listener:
        client = in_thread(Client, listener.address, None, KEY)
        listener.accept().close()
        with pytest.raises(EOFError):
            client()


def test_a_listener_that_asks_for_nothing_is_no_listener_of_ours(in_thread):
    with Listener(("localhost", 0)) as listener:
        client = in_thread(Client, listener.address, None, KEY)
        with listener.accept() as conn:
            conn.send("welcome")
            # COMPAT: an assertion of the original's.
            with pytest.raises(AssertionError) as caught:
                client()
        assert isinstance(caught.value, AuthenticationError)


# What a program forgets to close is named, and closed.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_the_path_is_in_the_package_s_folder_and_goes_with_the_listener():
    listener = Listener()
    path = listener.address
    assert os.path.basename(path).startswith("listener-")
    assert os.path.dirname(path).startswith(tempfile.gettempdir())
    assert os.path.exists(path)
    listener.close()
    assert not os.path.exists(path)
    listener = Listener()
    path = listener.address
    del listener
    gc.collect()
    assert not os.path.exists(path)


def test_a_path_that_somebody_has_removed_is_no_error(tmp_path):
    listener = Listener(str(tmp_path / "here"))
    os.unlink(listener.address)
    listener.close()


def test_a_path_that_is_taken_is_refused_and_stays(tmp_path):
    path = str(tmp_path / "here")
    with Listener(path):
        with pytest.raises(OSError, match="in use"):
            Listener(path)
        assert os.path.exists(path)


def test_an_abstract_address(in_thread):
    address = f"\0billiard-{os.getpid()}"
    with Listener(address, authkey=KEY) as listener:
        client = in_thread(Client, address, None, KEY)
        with listener.accept() as ours, client() as theirs:
            theirs.send(1)
            assert ours.recv() == 1


def test_a_path_stays_when_a_forked_child_ends(program):
    done = program(
        """
        import billiard, os
        from billiard.connection import Listener

        listener = Listener()
        child = billiard.get_context("fork").Process(target=list)
        child.start()
        child.join()
        assert child.exitcode == 0
        assert os.path.exists(listener.address)
        print(listener.address, end="")
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not os.path.exists(done.stdout)
    assert not os.path.exists(os.path.dirname(done.stdout))


def test_a_closed_listener_is_refused():
    listener = Listener()
    listener.close()
    listener.close()
    with pytest.raises(OSError, match="listener is closed"):
        listener.accept()
    for name in ("address", "last_accepted"):
        with pytest.raises(AttributeError):
            getattr(listener, name)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Listener(authkey="text"), TypeError, "byte string"),
        (lambda: Listener(family="AF_FOO"), ValueError, "unrecognized"),
        (lambda: Listener(family="AF_PIPE"), ValueError, "not recognized"),
        (lambda: Listener("\\\\.\\pipe\\x"), ValueError, "not recognized"),
        (lambda: Listener(5), ValueError, "address type of 5"),
        (lambda: Listener(b"/path"), ValueError, "address type"),
        (lambda: Listener("/nowhere/at/all"), FileNotFoundError, "No such file"),
        (lambda: Client("/nowhere/at/all"), FileNotFoundError, "No such file"),
        (lambda: Client("/nowhere/at/all", authkey="text"), FileNotFoundError, "No such file"),
        (lambda: Client(5), ValueError, "address type"),
    ],
)
def test_what_is_no_address_or_key_is_refused(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_a_key_that_is_none_leaves_no_connection_behind():
    with Listener(("localhost", 0)) as listener, pytest.raises(TypeError, match="byte string"):
        Client(listener.address, authkey="text")


def test_kinds_of_addresses():
    assert [address_type(it) for it in (("host", 1), "/path", "\\\\.\\pipe\\x")] == [
        "AF_INET",
        "AF_UNIX",
        "AF_PIPE",
    ]
    assert connection.arbitrary_address("AF_INET") == ("localhost", 0)
    with pytest.raises(ValueError, match="unrecognized family"):
        connection.arbitrary_address("AF_X")


@pytest.mark.parametrize("key", [None, KEY])
def test_closing_tells_the_threads_that_wait(in_thread, key):
    listener = Listener(("localhost", 0), authkey=key)
    address = listener.address
    waiting = [in_thread(listener.accept) for _ in range(3)]
    with socket.socket() as silent:
        if key:
            silent.connect(address)
            assert silent.recv(1), "a thread asks for the key, so it waits"
        listener.close()
        for outcome in waiting:
            with pytest.raises(OSError, match="listener is closed"):
                outcome()
    with pytest.raises(ConnectionRefusedError):
        Client(address, authkey=key)


def test_a_time_limit_of_the_socket_counts():
    with Listener(("localhost", 0)) as listener:
        listener._listener._socket.settimeout(0.05)
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            listener.accept()
        assert time.monotonic() - start >= 0.05


def test_several_threads_accept_at_one_listener(in_thread):
    with Listener(("localhost", 0), backlog=20, authkey=KEY) as listener:
        accepting = [in_thread(listener.accept) for _ in range(4)]
        silent = socket.create_connection(listener.address)
        clients = [in_thread(Client, listener.address, None, KEY) for _ in range(4)]
        theirs = [client() for client in clients]
        ours = [accepted() for accepted in accepting]
        for conn in theirs:
            conn.send(1)
        assert [conn.recv() for conn in ours] == [1] * 4
        for conn in (*theirs, *ours, silent):
            conn.close()


def test_several_processes_accept_at_one_listener(program):
    # Both are woken by one visitor; who does not get it goes on waiting, and can still be interrupted.
    done = program(
        """
        import billiard, signal
        from billiard.connection import Client, Listener

        def serve(listener):
            with listener.accept() as conn:
                conn.send("served")

        listener = Listener(("localhost", 0), backlog=5, authkey=b"k")
        children = [billiard.get_context("fork").Process(target=serve, args=(listener,)) for _ in range(3)]
        for child in children:
            child.start()
        for _ in children:
            with Client(listener.address, authkey=b"k") as conn:
                print(conn.recv(), end=" ")
        for child in children:
            child.join()
        """
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "served served served ")


@pytest.mark.parametrize("key", [None, KEY])
def test_objects_as_xml(in_thread, key):
    with XmlListener(("localhost", 0), authkey=key) as listener:
        client = in_thread(lambda: XmlClient(listener.address, authkey=key))
        ours, theirs = listener.accept(), client()
        theirs.send([1, "text", {"a": 2.5}, None])
        assert ours.recv() == [1, "text", {"a": 2.5}, None]
        ours.close()
        theirs.close()


def test_a_socket_listener_asks_for_nothing(in_thread):
    listener = SocketListener(("localhost", 0), "AF_INET", 1)
    client = in_thread(SocketClient, listener._address)
    with listener.accept() as ours, client() as theirs:
        theirs.send(1)
        assert ours.recv() == 1
    listener.close()
