"""Connections between threads."""

from __future__ import annotations

import array
import gc
import os
import signal
import threading
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadwork import PATIENCE, is_waiting

from billiard.dummy import connection
from billiard.dummy.connection import Client, Connection, Listener, Pipe


class Other(threading.Thread):
    """Calls something in a thread of its own; `outcome` is what it returned or raised."""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self._call = function, args
        self._outcome = None
        self.start()

    def run(self):
        function, args = self._call
        try:
            self._outcome = function(*args)
        except BaseException as error:
            self._outcome = error

    def outcome(self):
        self.join(PATIENCE)
        assert not self.is_alive()
        return self._outcome


# --- pipes ---


def test_what_is_sent_is_received_in_order_and_as_it_is():
    here, there = Pipe()
    things = [object(), lambda: 0, [1], None, b"", "x"]
    for thing in things:
        here.send(thing)
    assert all(there.recv() is thing for thing in things)
    there.send(things)
    assert here.recv() is things


def test_a_one_way_pipe_goes_one_way():
    reader, writer = Pipe(duplex=False)
    assert (reader.readable, reader.writable, writer.readable, writer.writable) == (True, False, False, True)
    writer.send(1)
    assert reader.recv() == 1
    for wrong in (reader.send, reader.send_bytes):
        with pytest.raises(OSError, match="connection is read-only"):
            wrong(b"")
    for wrong in (writer.recv, writer.recv_bytes, writer.poll):
        with pytest.raises(OSError, match="connection is write-only"):
            wrong()
    reader.close()
    with pytest.raises(BrokenPipeError):
        writer.send(1)


@pytest.mark.parametrize("timeout", [0, 0.0, -1, 0.01, 1e-9])
def test_polling_takes_nothing_and_does_not_wait_for_ever(timeout):
    here, there = Pipe()
    assert not there.poll(timeout)
    assert not there.poll()
    here.send(1)
    assert there.poll(timeout)
    assert there.poll()
    assert there.recv() == 1
    assert not there.poll(timeout)


@pytest.mark.parametrize("timeout", [None, PATIENCE, 1e300, float("inf")])
def test_polling_waits_until_there_is_something(timeout, until):
    here, there = Pipe()
    other = Other(there.poll, timeout)
    until(lambda: is_waiting(other))
    here.send(1)
    assert other.outcome() is True
    assert there.recv() == 1


def test_nan_is_no_time():
    _, there = Pipe()
    with pytest.raises(ValueError, match="not nan"):
        there.poll(float("nan"))


def test_receiving_waits_until_there_is_something(until):
    here, there = Pipe()
    other = Other(there.recv)
    until(lambda: is_waiting(other))
    here.send("late")
    assert other.outcome() == "late"


def test_bytes_are_copied():
    here, there = Pipe()
    buffer = bytearray(b"abcdef")
    here.send_bytes(buffer)
    here.send_bytes(memoryview(buffer), 2)
    here.send_bytes(buffer, 1, 3)
    here.send_bytes(buffer, 6)
    here.send_bytes(buffer, 0, 0)
    here.send_bytes(array.array("H", [1, 2]))
    buffer[:] = b"xxxxxx"
    assert [there.recv_bytes() for _ in range(5)] == [b"abcdef", b"cdef", b"bcd", b"", b""]
    assert there.recv_bytes() == array.array("H", [1, 2]).tobytes()
    here.send_bytes(b"x")
    assert there.recv() == b"x"


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((-1,), "offset is negative"),
        ((0, -1), "size is negative"),
        ((4,), r"buffer length < offset$"),
        ((1, 3), r"buffer length < offset \+ size$"),
    ],
)
def test_bytes_that_are_not_there_are_not_sent(args, text):
    here, there = Pipe()
    with pytest.raises(ValueError, match=text):
        here.send_bytes(b"abc", *args)
    assert not there.poll()


def test_what_is_no_buffer_is_not_sent_as_bytes():
    here, there = Pipe()
    with pytest.raises(TypeError):
        here.send_bytes("abc")
    assert not there.poll()


def test_bytes_may_be_too_long_or_none():
    here, there = Pipe()
    here.send_bytes(b"abc")
    here.send_bytes(b"abc")
    with pytest.raises(ValueError, match="negative maxlength"):
        there.recv_bytes(-1)
    assert there.recv_bytes(3) == b"abc"
    with pytest.raises(OSError, match="bad message length"):
        there.recv_bytes(2)
    here.send("abc")
    with pytest.raises(TypeError, match="the other end has sent str"):
        there.recv_bytes()
    here.send(1)
    assert there.recv() == 1


# --- the end ---


def test_the_end_comes_after_what_was_sent():
    here, there = Pipe()
    here.send(1)
    here.close()
    assert there.poll()
    assert there.recv() == 1
    for _ in range(2):
        assert there.poll()
        with pytest.raises(EOFError):
            there.recv()
        with pytest.raises(EOFError):
            there.recv_bytes()
    with pytest.raises(BrokenPipeError, match="other end is closed") as caught:
        there.send(2)
    assert caught.value.errno == 32


def test_an_end_that_is_closed_says_so():
    here, there = Pipe()
    there.send(1)
    assert not here.closed
    here.close()
    here.close()
    assert here.closed
    for call in (here.recv, here.recv_bytes, here.poll, lambda: here.send(1), lambda: here.send_bytes(b"")):
        with pytest.raises(OSError, match="handle is closed"):
            call()
    assert not there.closed


def test_leaving_the_block_closes():
    here, there = Pipe()
    with here as same:
        assert same is here
        here.send(1)
    assert here.closed
    assert there.recv() == 1
    with pytest.raises(EOFError):
        there.recv()


def test_an_end_that_nobody_holds_is_closed():
    here, there = Pipe()
    circle = [here]
    circle.append(circle)
    del here, circle
    gc.collect()
    with pytest.raises(EOFError):
        there.recv()


def test_a_wrong_call_of_the_constructor_is_only_that():
    with pytest.raises(TypeError):
        Connection()
    with pytest.raises(TypeError):
        Listener(backlog="many")
    gc.collect()


@pytest.mark.parametrize("call", ["recv", "recv_bytes", "poll"])
@pytest.mark.parametrize("end", ["here", "there"])
def test_closing_wakes_who_waits(call, end, until):
    here, there = Pipe()
    other = Other(getattr(there, call), *([None] if call == "poll" else []))
    until(lambda: is_waiting(other))
    (here if end == "here" else there).close()
    outcome = other.outcome()
    if end == "there":
        assert isinstance(outcome, OSError)
        assert "handle is closed" in str(outcome)
    else:
        assert outcome is True if call == "poll" else isinstance(outcome, EOFError)


def test_waiting_can_be_interrupted(until):
    class Rang(Exception):
        pass

    def ring(*_):
        raise Rang

    def ring_when_waiting(may_ring):
        assert may_ring.wait(PATIENCE)
        until(lambda: is_waiting(threading.main_thread()))
        os.kill(os.getpid(), signal.SIGUSR2)

    here, there = Pipe()
    before = signal.signal(signal.SIGUSR2, ring)
    try:
        for wait in (there.recv, lambda: there.poll(None)):
            may_ring = threading.Event()
            ringer = Other(ring_when_waiting, may_ring)
            with pytest.raises(Rang):  # noqa: PT012 - it may ring as soon as it may
                may_ring.set()
                wait()
            assert ringer.outcome() is None
    finally:
        signal.signal(signal.SIGUSR2, before)
    here.send(1)
    assert there.recv() == 1


# --- listeners ---


def test_a_client_reaches_the_listener():
    with Listener() as listener:
        client = Client(listener.address)
        server = listener.accept()
        client.send(1)
        server.send(2)
        assert (server.recv(), client.recv()) == (1, 2)
        client.close()
        with pytest.raises(EOFError):
            server.recv()


def test_address_and_family_are_ignored():
    assert connection.families == [None]
    with Listener("anything", connection.families[0], 3) as listener:
        client = Client(listener.address)
        client.send("before it is accepted")
        assert listener.accept().recv() == "before it is accepted"


def test_accepting_waits_for_a_client(until):
    with Listener() as listener:
        other = Other(listener.accept)
        until(lambda: is_waiting(other))
        client = Client(listener.address)
        other.outcome().send(1)
        assert client.recv() == 1


@pytest.mark.parametrize("backlog", [1, 3])
def test_clients_beyond_the_backlog_wait(backlog, until):
    with Listener(backlog=backlog) as listener:
        clients = [Client(listener.address) for _ in range(backlog)]
        late = Other(Client, listener.address)
        until(lambda: is_waiting(late))
        servers = [listener.accept() for _ in range(backlog)]
        clients.append(late.outcome())
        servers.append(listener.accept())
        for number, (client, server) in enumerate(zip(clients, servers, strict=True)):
            client.send(number)
            assert server.recv() == number


@pytest.mark.parametrize("backlog", [0, -1])
def test_a_backlog_may_be_unlimited(backlog):
    with Listener(backlog=backlog) as listener:
        assert len([Client(listener.address) for _ in range(100)]) == 100


def test_a_closed_listener_refuses(until):
    listener = Listener()
    accepted = Client(listener.address)
    server = listener.accept()
    pending = Client(listener.address)
    late = Other(Client, listener.address)
    until(lambda: is_waiting(late))
    listener.close()
    listener.close()
    refused = late.outcome()
    assert isinstance(refused, ConnectionRefusedError)
    assert refused.errno == 111
    with pytest.raises(ConnectionRefusedError, match="listener is closed"):
        Client(listener.address)
    with pytest.raises(OSError, match="listener is closed"):
        listener.accept()
    with pytest.raises(EOFError):
        pending.recv()
    with pytest.raises(BrokenPipeError):
        pending.send(1)
    accepted.send(1)
    assert server.recv() == 1


def test_closing_a_listener_wakes_who_accepts(until):
    listener = Listener()
    other = Other(listener.accept)
    until(lambda: is_waiting(other))
    listener.close()
    outcome = other.outcome()
    assert isinstance(outcome, OSError)
    assert "listener is closed" in str(outcome)


def test_a_listener_that_nobody_holds_is_closed():
    listener = Listener()
    address = listener.address
    del listener
    with pytest.raises(ConnectionRefusedError):
        Client(address)


@pytest.mark.parametrize("address", [None, "localhost", ("localhost", 1)])
def test_only_addresses_of_listeners_can_be_reached(address):
    with pytest.raises(TypeError, match="address of a listener"):
        Client(address)


# --- many ---


def test_many_threads_share_an_end():
    here, there = Pipe()

    def send(start):
        for number in range(start, start + 500):
            here.send(number)

    def receive():
        got = []
        while (number := there.recv()) is not None:
            got.append(number)
        return got

    receivers = [Other(receive) for _ in range(3)]
    senders = [Other(send, 500 * n) for n in range(4)]
    assert [sender.outcome() for sender in senders] == [None] * 4
    for _ in receivers:
        here.send(None)
    got = [receiver.outcome() for receiver in receivers]
    assert sorted(number for numbers in got for number in numbers) == list(range(2000))
    # Of one sender, each receiver has what it has in the order in which it was sent.
    for numbers in got:
        for n in range(4):
            own = [number for number in numbers if number // 500 == n]
            assert own == sorted(own)


@given(st.lists(st.sampled_from(["send", "recv", "poll", "close"]).flatmap(
    lambda what: st.tuples(st.just(what), st.sampled_from([0, 1]))
)))  # fmt: skip
def test_any_sequence_of_calls_does_what_two_queues_would(steps):
    ends = Pipe()
    queues, closed = (deque(), deque()), [False, False]
    for number, (what, end) in enumerate(steps):
        connection, other = ends[end], 1 - end
        if what == "close":
            connection.close()
            closed[end] = True
            queues[end].clear()
        elif closed[end]:
            with pytest.raises(OSError, match="handle is closed"):
                getattr(connection, what)(*([number] if what == "send" else []))
        elif what == "poll":
            assert connection.poll() == (bool(queues[end]) or closed[other])
        elif what == "send" and closed[other]:
            with pytest.raises(BrokenPipeError):
                connection.send(number)
        elif what == "send":
            connection.send(number)
            queues[other].append(number)
        elif queues[end]:
            assert connection.recv() == queues[end].popleft()
        elif closed[other]:
            with pytest.raises(EOFError):
                connection.recv()


SAME = """
from billiard.dummy.connection import Client, Listener, Pipe, families
here, there = Pipe()
thing = object()
here.send(thing)
print(there.recv() is thing, there.poll(), there.poll(0.01), families)
here.send_bytes(b"x")
print(there.poll(), there.recv_bytes(), here.close())
with Listener("ignored", None, backlog=2) as listener:
    clients = [Client(listener.address) for _ in range(2)]
    servers = [listener.accept() for _ in range(2)]
    for number, client in enumerate(clients): client.send(number)
    print([server.recv() for server in servers])
    for number, server in enumerate(servers): server.send(number)
    print([client.recv() for client in clients])
print(listener.close())
"""


def test_it_does_what_the_original_does(program, original):
    ours, theirs = program(SAME), original(SAME.replace("print(listener.close())", "print(None)"))
    assert ours.stderr == theirs.stderr == ""
    assert ours.stdout == theirs.stdout
