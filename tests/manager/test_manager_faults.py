"""Clients that die, lie, stall or have no key: nothing changes for the others."""

from __future__ import annotations

import os
import pickle
import resource
import socket
import struct
import threading

import managerwork
import pytest

import billiard
from billiard import connection, managers
from billiard.managers import SyncManager

pytestmark = pytest.mark.usefixtures("leak_census")


@pytest.fixture
def manager(leak_census):  # noqa: ARG001 - what the manager itself leaves behind counts
    context = billiard.get_context("fork")
    with SyncManager(("127.0.0.1", 0), b"secret", ctx=context) as manager:
        yield manager


@pytest.fixture
def start():
    started = []

    def start(target, *args):
        reader, writer = billiard.Pipe(duplex=False)
        child = billiard.get_context("fork").Process(target=target, args=(*args, writer), daemon=True)
        child.start()
        writer.close()
        started.append((child, reader))
        assert reader.poll(30)
        reader.recv()
        return child

    yield start
    for child, reader in started:
        child.kill()
        child.join()
        child.close()
        reader.close()
    # They have proxies among their arguments, and this list lives on a little.
    started.clear()


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Condition"])
def test_a_lock_of_a_dead_client_goes_to_the_next(manager, start, kind):
    lock = getattr(manager, kind)()
    holder = start(managerwork.hold, lock)
    assert not lock.acquire(False)
    holder.kill()
    assert lock.acquire(True, 30)
    lock.release()


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_a_client_that_dies_waiting_keeps_no_lock(manager, start, kind):
    lock = getattr(manager, kind)()
    holder, waiter = start(managerwork.hold, lock), start(managerwork.wait_for, lock)
    waiter.kill()
    waiter.join()
    holder.kill()
    assert lock.acquire(True, 30)
    lock.release()


def test_what_a_dead_client_referred_to_goes(manager, start, until):
    proxy = manager.list()
    holder = start(managerwork.keep, proxy)
    assert "refcount=2" in manager._debug_info()
    holder.kill()
    until(lambda: "refcount=1" in manager._debug_info())


def test_a_thread_that_ends_lets_go_of_nothing_that_is_the_process_s(manager):
    made = []
    thread = threading.Thread(target=lambda: made.append(manager.Lock()))
    thread.start()
    thread.join()
    thread = threading.Thread(target=made[0].acquire)
    thread.start()
    thread.join()
    assert not made[0].acquire(True, 0.05)
    made[0].release()


def test_strangers_and_nonsense_change_nothing(manager):
    shared = manager.dict(a=1)
    visitors = []
    for said in (
        b"",
        b"\0\0\0\x04nope",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\xff" * 3,
    ):
        visitor = socket.create_connection(manager.address)
        visitor.sendall(said)
        visitors.append(visitor)
        assert shared["a"] == 1
    for key in (b"wrong", b""):
        with pytest.raises(billiard.AuthenticationError):
            connection.Client(manager.address, authkey=key)
    assert shared["a"] == 1
    for visitor in visitors:
        visitor.close()


class Bomb:
    """Leaves a trace where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_is_unpickled_of_somebody_without_the_key(manager, tmp_path):
    bomb = pickle.dumps((Bomb(str(tmp_path / "exploded")), "dummy", (), {}))
    for _ in range(3):
        with socket.create_connection(manager.address) as visitor:
            visitor.sendall(struct.pack("!i", len(bomb)) + bomb)
            visitor.settimeout(30)
            while visitor.recv(4096):
                pass
    assert not (tmp_path / "exploded").exists()
    # The same from somebody who holds the key is what the protocol means.
    with connection.Client(manager.address, authkey=b"secret") as friend:
        friend.send_bytes(bomb)
        assert friend.recv()[0] == "#RETURN"
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"no pickle",
        pickle.dumps(1),
        pickle.dumps((None, "_stop", (), {})),
        pickle.dumps((None, "create", ("nonsense",), {})),
        pickle.dumps((None, "incref", ("nonsense",), {})),
        pickle.dumps((None, "accept_connection")),
        pickle.dumps(("ident", "method", (), {})),
        pickle.dumps((None, None, None, None)),
        pickle.dumps([None, "dummy", [], {}]),
    ],
)
def test_requests_that_are_none_are_told_so(manager, message):
    shared = manager.dict(a=1)
    with connection.Client(manager.address, authkey=b"secret") as client:
        client.send_bytes(message)
        kind, _ = client.recv()
        assert kind in ("#TRACEBACK", "#RETURN")
        assert (kind == "#RETURN") == (message == pickle.dumps([None, "dummy", [], {}]))
    assert shared["a"] == 1


def test_a_session_survives_requests_that_are_none(manager):
    shared = manager.dict(a=1)
    with connection.Client(manager.address, authkey=b"secret") as client:
        managers.dispatch(client, None, "accept_connection", ("name",))
        for message in (
            b"nonsense",
            pickle.dumps(("0", "x", (), {})),
            pickle.dumps((shared._id, "nope", (), {})),
        ):
            client.send_bytes(message)
            assert client.recv()[0] == "#TRACEBACK"
        assert managers.dispatch(client, shared._id, "copy") == {"a": 1}
        assert managers.dispatch(client, shared._id, "#GETVALUE") == {"a": 1}


def test_one_who_does_not_read_its_answers_keeps_nobody_waiting(manager):
    shared = manager.dict(large=b"x" * 8_000_000)
    with connection.Client(manager.address, authkey=b"secret") as deaf:
        managers.dispatch(deaf, None, "accept_connection", ("deaf",))
        deaf.send((shared._id, "copy", (), {}))
        for number in range(200):
            shared[number] = number
        kind, found = deaf.recv()
        assert (kind, len(found["large"])) == ("#RETURN", 8_000_000)


def test_a_line_that_was_cut_is_opened_anew(manager):
    queue = manager.Queue()
    queue.put(1)
    line = queue._tls.connection
    line.close()
    with pytest.raises(OSError, match="closed"):
        queue.put(2)
    assert queue.get() == 1
    assert queue._tls.connection is not line


def test_a_server_ends_with_the_process_that_has_started_it():
    reader, writer = billiard.Pipe(duplex=False)
    owner = billiard.get_context("fork").Process(target=managerwork.start_and_tell, args=(writer,))
    owner.start()
    assert reader.poll(30)
    server = reader.recv()
    owner.kill()
    owner.join()
    owner.close()
    assert managerwork.is_gone(server)
    reader.close()
    writer.close()


def test_a_server_without_descriptors_refuses_and_goes_on(until):
    with SyncManager(("127.0.0.1", 0), b"secret", ctx=billiard.get_context("fork")) as manager:
        shared = manager.dict(a=1)
        server = manager._process.pid
        used = set(map(int, os.listdir(f"/proc/{server}/fd")))
        few = next(few for few in range(1000) if len(set(range(few)) - used) == 8)
        resource.prlimit(server, resource.RLIMIT_NOFILE, (few, few))
        visitors = [socket.create_connection(manager.address) for _ in range(40)]
        for visitor in visitors:
            visitor.settimeout(30)
        refused = 0
        for visitor in visitors[::-1]:
            try:
                refused += visitor.recv(1) == b""
            except ConnectionResetError:
                refused += 1
        assert refused > 0
        assert shared["a"] == 1
        for visitor in visitors:
            visitor.close()
        until(lambda: _works(manager))


def _works(manager):
    try:
        return manager._number_of_objects() == 1
    except (EOFError, OSError):
        return False


def test_a_manager_is_gone_and_its_proxies_say_so():
    manager = SyncManager(ctx=billiard.get_context("fork"))
    manager.start()
    shared = manager.dict()
    manager._process.kill()
    manager.join()
    with pytest.raises((EOFError, OSError)):
        shared["a"] = 1
    with pytest.raises(OSError, match="refused"):
        shared["a"] = 1
    manager.shutdown()
