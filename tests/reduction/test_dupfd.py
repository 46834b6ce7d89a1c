"""Descriptors and sockets in pickles: for a child that is being started, and for anybody else."""

from __future__ import annotations

import io
import os
import pickle
import socket
import threading

import pytest
from sharing import PATIENCE, read, service

import billiard
from billiard import context, reduction, resource_sharer
from billiard.reduction import ForkingPickler

pytestmark = pytest.mark.usefixtures("sharing")


class Inherited:
    """What a child makes of a number that it was told: a descriptor that came with it."""

    def __init__(self, number):
        self._number = number

    def detach(self):
        return self._number


class StartedChild:
    """As much of a child being started as pickling needs: the descriptors it is given."""

    DupFd = Inherited

    def __init__(self):
        self.given = []

    def duplicate_for_child(self, fd):
        # It comes through an exec, so it is inheritable.
        self.given.append(os.dup(fd))
        os.set_inheritable(self.given[-1], True)
        return self.given[-1]


@pytest.fixture
def starting():
    """A child is being started on this thread."""
    child = StartedChild()
    context.set_spawning_popen(child)
    yield child
    context.set_spawning_popen(None)


def test_a_child_that_is_being_started_is_given_the_descriptor(starting, tmp_path):
    with (tmp_path / "file").open("wb") as file:
        wrapped = reduction.DupFd(file.fileno())
        assert type(wrapped) is Inherited
        [fd] = starting.given
        assert pickle.loads(ForkingPickler.dumps(wrapped)).detach() == fd
        assert os.path.samestat(os.fstat(fd), os.fstat(file.fileno()))
        os.close(fd)
    assert service() is None


def test_only_the_thread_that_starts_the_child_gives_it_anything(starting):
    wrapped = []
    other = threading.Thread(target=lambda: wrapped.append(reduction.DupFd(0)))
    other.start()
    other.join(PATIENCE)
    assert type(wrapped[0]) is resource_sharer.DupFd
    assert starting.given == []


def test_anybody_else_fetches_the_descriptor(in_child, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"there")
    with path.open("rb") as file:
        wrapped = reduction.DupFd(file.fileno())
    assert type(wrapped) is resource_sharer.DupFd
    assert in_child(lambda: read(pickle.loads(ForkingPickler.dumps(wrapped)))) == b"there"


@pytest.fixture
def tcp():
    """Both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname(), PATIENCE)
        theirs, _ = server.accept()
        theirs.settimeout(PATIENCE)
        with ours, theirs:
            yield ours, theirs


def test_a_socket_works_in_another_process(tcp, in_child):
    ours, theirs = tcp
    pickled = ForkingPickler.dumps(theirs)
    theirs.close()

    def talk():
        with pickle.loads(pickled) as sock:
            sock.sendall(sock.recv(100)[::-1])
            return sock.getpeername()

    ours.sendall(b"abc")
    assert in_child(talk) == ours.getsockname()
    assert ours.recv(100) == b"cba"
    assert ours.recv(100) == b""


def test_a_listening_socket_accepts_in_another_process(in_child):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        pickled = ForkingPickler.dumps(server)

    def serve():
        with pickle.loads(pickled) as sock:
            there, _ = sock.accept()
            with there:
                there.sendall(b"from the child")

    with socket.socket() as client:
        client.settimeout(PATIENCE)
        client.connect(address)
        in_child(serve)
        assert client.recv(100) == b"from the child"


KINDS = [
    (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP),
    (socket.AF_INET, socket.SOCK_DGRAM, 0),
    (socket.AF_UNIX, socket.SOCK_SEQPACKET, 0),
]


@pytest.mark.parametrize(("family", "kind", "proto"), KINDS)
@pytest.mark.parametrize("timeout", [None, 0.0, 2.5])
def test_a_socket_stays_what_it_was(family, kind, proto, timeout):
    with socket.socket(family, kind, proto) as sock:
        sock.settimeout(timeout)
        with pickle.loads(ForkingPickler.dumps(sock)) as same:
            assert type(same) is socket.socket
            assert same.fileno() != sock.fileno()
            assert (same.family, same.type, same.proto) == (family, kind, proto)
            assert same.gettimeout() == sock.gettimeout() == timeout
            assert os.get_blocking(same.fileno()) == os.get_blocking(sock.fileno()) == (timeout is None)
            assert not same.get_inheritable()


@pytest.mark.parametrize("timeout", [None, 2.5])
def test_a_programs_time_out_for_new_sockets_is_not_for_this_one(timeout):
    with socket.socket() as sock:
        sock.settimeout(timeout)
        pickled = ForkingPickler.dumps(sock)
        socket.setdefaulttimeout(7)
        try:
            with pickle.loads(pickled) as same:
                assert same.gettimeout() == timeout
                assert os.get_blocking(sock.fileno()) == (timeout is None)
        finally:
            socket.setdefaulttimeout(None)


def test_a_socket_for_a_child_that_is_being_started(starting):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pickle.loads(ForkingPickler.dumps(theirs)) as same:
            assert [same.fileno()] == starting.given
            assert not same.get_inheritable()
            same.sendall(b"x")
        assert ours.recv(10) == b"x"


def test_a_socket_that_is_closed_cannot_be_pickled(starting):
    sock = socket.socket()
    sock.close()
    for _ in range(2):
        with pytest.raises(OSError, match="cannot pickle a closed socket"):
            ForkingPickler.dumps(sock)
        context.set_spawning_popen(None)
    assert starting.given == []


def test_a_socket_that_cannot_be_rebuilt_is_closed(monkeypatch):
    with socket.socket() as sock:
        pickled = ForkingPickler.dumps(sock)
    monkeypatch.setattr(socket, "socket", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        reduction._rebuild_socket(*_arguments(pickled))


def _arguments(pickled):
    """What a socket's pickle has it rebuilt from."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            if name == "_rebuild_socket":
                return lambda *args: args
            return super().find_class(module, name)

    return Unpickler(io.BytesIO(pickled)).load()


def test_the_original_form_without_a_time_out_is_understood():
    with socket.socket() as sock:
        df = reduction.DupFd(sock.fileno())
    with reduction._rebuild_socket(df, socket.AF_INET, socket.SOCK_STREAM, 0) as same:
        assert same.gettimeout() is None


def test_plain_pickles_do_not_share_anything():
    with socket.socket() as sock, pytest.raises(TypeError, match="cannot pickle"):
        pickle.dumps(sock)
    assert service() is None


def _greet(sock, text):
    with sock:
        sock.sendall(text)
        return sock.proto


def test_a_pool_is_given_sockets():
    ours, theirs = socket.socketpair()
    with ours, theirs, billiard.Pool(2) as pool:
        ours.settimeout(PATIENCE)
        results = [pool.apply_async(_greet, (theirs, b"x")) for _ in range(20)]
        assert [result.get(PATIENCE) for result in results] == [0] * 20
        got = b""
        while len(got) < 20:
            got += ours.recv(100)
    assert got == b"x" * 20


def _make(text):
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(text)
    return ours


def test_a_pool_returns_sockets():
    """The worker shares them: they can be fetched while it lives."""
    with billiard.Pool(1) as pool, pool.apply(_make, (b"from the worker",)) as sock:
        assert sock.recv(100) == b"from the worker"
        assert sock.recv(100) == b""
