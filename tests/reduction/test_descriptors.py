"""Descriptors sent through sockets."""

from __future__ import annotations

import array
import os
import resource
import socket
import threading

import pytest

import billiard
from billiard import reduction
from billiard.reduction import recv_handle, recvfds, send_handle, sendfds

pytestmark = pytest.mark.usefixtures("leak_census")

#: No test waits longer for a message.
PATIENCE = 30.0


@pytest.fixture(params=[socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
def pair(request):
    with_each = socket.socketpair(socket.AF_UNIX, request.param)
    for end in with_each:
        end.settimeout(PATIENCE)
    yield with_each
    for end in with_each:
        end.close()


@pytest.fixture
def files(tmp_path):
    """Opens distinct files; answers their descriptors."""
    opened = []

    def some(count):
        opened.extend(os.open(tmp_path / str(n), os.O_RDWR | os.O_CREAT) for n in range(count))
        return opened

    yield some
    for fd in opened:
        os.close(fd)


def is_same(fd, other):
    return os.path.samestat(os.fstat(fd), os.fstat(other))


def close(fds):
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize(("count", "size"), [(1, 1), (3, 3), (3, 8), (253, 253), (253, 300)])
def test_descriptors_arrive_in_order(pair, files, count, size):
    sent = files(count)
    sendfds(pair[0], sent)
    arrived = recvfds(pair[1], size)
    assert [is_same(*two) for two in zip(arrived, sent, strict=True)] == [True] * count
    assert not any(map(os.get_inheritable, arrived))
    close(arrived)


def test_messages_stay_apart(pair, files):
    sent = files(3)
    sendfds(pair[0], sent[:2])
    sendfds(pair[0], iter(sent[2:]))
    first, second = recvfds(pair[1], 8), recvfds(pair[1], 8)
    assert [is_same(*two) for two in zip(first + second, sent, strict=True)] == [True] * 3
    close(first + second)


def test_one_byte_of_data_tells_how_many(pair, files):
    sendfds(pair[0], files(3))
    data, [(_, _, fds)], _, _ = pair[1].recvmsg(10, 1000)
    assert data == b"\x03"
    close(array.array("i", fds))


def test_too_many_for_one_message_are_refused(pair):
    with pytest.raises(ValueError, match="at most 253 descriptors"):
        sendfds(pair[0], [0] * 254)


def test_what_is_not_open_cannot_be_sent(pair):
    with pytest.raises(OSError, match="Bad file descriptor"):
        sendfds(pair[0], [0, 1 << 20])


@pytest.mark.parametrize(("count", "size"), [(2, 1), (3, 1), (4, 2), (100, 1)])
def test_more_than_asked_for_are_refused_and_closed(pair, count, size):
    sendfds(pair[0], [0] * count)
    with pytest.raises(RuntimeError, match=f"more came than {size} descriptors"):
        recvfds(pair[1], size)


def test_more_than_the_process_can_have_are_refused_and_closed(pair):
    sendfds(pair[0], [0] * 10)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 5, hard))
    try:
        with pytest.raises(RuntimeError, match="than this process can have open"):
            recvfds(pair[1], 10)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_descriptors_are_no_message(pair):
    sendfds(pair[0], [])
    with pytest.raises(RuntimeError, match="received 0 items of ancdata"):
        recvfds(pair[1], 1)


def test_data_alone_is_malformed(pair):
    pair[0].send(b"\x01")
    with pytest.raises(RuntimeError, match="received 0 items of ancdata"):
        recvfds(pair[1], 1)


def test_a_wrong_count_is_malformed_and_what_came_is_closed(pair):
    pair[0].sendmsg([b"\x03"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 0]))])
    with pytest.raises(RuntimeError, match="2 descriptors came with b'\\\\x03'"):
        recvfds(pair[1], 8)


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
def test_a_message_that_is_longer_is_malformed(kind):
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        theirs.sendmsg([b"\x01more"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])
        with pytest.raises(RuntimeError, match="1 descriptors came"):
            recvfds(ours, 8)


def test_other_ancillary_data_is_malformed_and_what_came_is_closed(pair):
    pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    sendfds(pair[0], [0])
    with pytest.raises(RuntimeError, match="received 2 items of ancdata"):
        recvfds(pair[1], 16)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_the_end_of_the_stream_is_told(kind):
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours:
        theirs.close()
        with pytest.raises(EOFError):
            recvfds(ours, 1)
        with pytest.raises(BrokenPipeError):
            sendfds(ours, [0])


class Connection:
    """The least that a connection can be."""

    def __init__(self, sock):
        self._sock = sock

    def fileno(self):
        return self._sock.fileno()


def test_a_handle_travels_through_what_has_a_descriptor(pair, files):
    [sent] = files(1)
    send_handle(Connection(pair[0]), sent, os.getpid())
    arrived = recv_handle(Connection(pair[1]))
    assert is_same(arrived, sent)
    os.close(arrived)
    assert pair[0].fileno() >= 0
    assert pair[1].fileno() >= 0


def test_what_is_no_socket_carries_no_handle():
    reader, writer = os.pipe()
    with open(reader, "rb") as reading, open(writer, "wb") as writing:
        with pytest.raises(OSError, match="Socket operation on non-socket"):
            send_handle(writing, 0, None)
        with pytest.raises(OSError, match="Socket operation on non-socket"):
            recv_handle(reading)
        os.fstat(reader)
        os.fstat(writer)


def test_a_socket_keeps_its_own_time_out(pair):
    pair[0].settimeout(0.01)
    with pytest.raises(TimeoutError):
        recv_handle(pair[0])


@pytest.mark.parametrize("blocking", [True, False])
def test_a_connection_blocks_or_not_as_before(pair, blocking):
    """Whatever a program has set for its new sockets."""
    for end in pair:
        end.setblocking(blocking)
    ours, theirs = map(Connection, pair)
    socket.setdefaulttimeout(PATIENCE)
    try:
        send_handle(ours, 0, None)
        os.close(recv_handle(theirs))
        if not blocking:
            with pytest.raises(BlockingIOError):
                recv_handle(theirs)
    finally:
        socket.setdefaulttimeout(None)
    assert [os.get_blocking(end.fileno()) for end in pair] == [blocking] * 2


def test_descriptors_arrive_in_another_process(pair, files):
    """Both ways: the child sends back what it was sent, after having written to it."""
    [sent] = files(1)

    def child():
        [arrived] = recvfds(pair[1], 1)
        os.write(arrived, b"from the child")
        send_handle(pair[1], arrived, os.getppid())

    process = billiard.Process(target=child, daemon=True)
    process.start()
    sendfds(pair[0], [sent])
    back = recv_handle(pair[0])
    process.join(PATIENCE)
    assert process.exitcode == 0
    assert is_same(back, sent)
    assert os.pread(back, 100, 0) == b"from the child"
    os.close(back)


@pytest.fixture
def acknowledging(monkeypatch):
    """Do as on macOS."""
    monkeypatch.setattr(reduction, "ACKNOWLEDGE", True)


@pytest.mark.usefixtures("acknowledging")
def test_a_sender_may_wait_for_the_receiver(pair):
    arrived = []
    receiver = threading.Thread(target=lambda: arrived.extend(recvfds(pair[1], 1)))
    receiver.start()
    sendfds(pair[0], [0])
    receiver.join(PATIENCE)
    assert is_same(*arrived, 0)
    close(arrived)


@pytest.mark.usefixtures("acknowledging")
def test_a_wrong_acknowledgement_is_an_error(pair):
    pair[1].send(b"B")
    with pytest.raises(RuntimeError, match="not acknowledged"):
        sendfds(pair[0], [0])


@pytest.mark.usefixtures("acknowledging")
def test_what_cannot_be_acknowledged_is_closed(pair):
    pair[1].shutdown(socket.SHUT_WR)
    pair[0].sendmsg([b"\x01"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])
    with pytest.raises(BrokenPipeError):
        recvfds(pair[1], 1)
