"""Arrays whose buffers travel beside their message, where both ends have agreed on that."""

import os
import pickle
import signal
import threading

import numpy as np
import pytest
import talk

import billiard
from billiard.connection import Pipe

MIB = 1 << 20


@pytest.fixture
def ends(leak_census):  # noqa: ARG001 - around it
    one, other = Pipe(oob=True)
    yield one, other
    one.close()
    other.close()


def owner_of(array):
    while getattr(array, "base", None) is not None:
        array = array.base
    return type(array.obj if isinstance(array, memoryview) else array).__name__


def passed(ends, obj):
    """Send an object, by a thread: it may be more than fits between the ends."""
    sender = threading.Thread(target=ends[0].send, args=(obj,))
    sender.start()
    got = ends[1].recv()
    sender.join()
    return got


def test_arrays_arrive_in_place_and_as_writable_as_they_were(ends):
    array = np.arange(100_000)
    fixed = array.copy()
    fixed.flags.writeable = False
    for one in (array, fixed, array):
        got = passed(ends, {"array": one, "n": 1})["array"]
        assert owner_of(got) == "SharedView"
        assert got.flags.writeable is one.flags.writeable
        assert np.array_equal(got, array)
        if got.flags.writeable:
            got[:] = 0
    assert array[-1] == 99_999


def test_what_has_no_large_buffers_is_sent_as_ever(ends):
    for obj in (None, 5, "text", b"x" * 300_000, bytearray(100_000), np.arange(10), [b"y" * 40_000] * 3):
        got = passed(ends, obj)
        assert type(got) is type(obj)
        assert np.array_equal(got, obj) if isinstance(obj, np.ndarray) else got == obj
    ends[0].send_bytes(b"bytes")
    assert ends[1].recv_bytes() == b"bytes"


def test_several_buffers_keep_their_places(ends):
    objects = [np.full(size, size) for size in (5_000, 10, 40_001, 70_003)]
    for got, sent in zip(passed(ends, objects), objects, strict=True):
        assert np.array_equal(got, sent)


def test_memory_is_not_used_again_under_a_view(ends):
    kept = [passed(ends, np.full(50_000, number)) for number in range(40)]
    assert all((array == number).all() for number, array in enumerate(kept))


def test_nothing_is_left_of_many(ends):
    before = len(os.listdir("/proc/self/fd"))
    for number in range(300):
        assert passed(ends, np.full(20_000, number))[-1] == number
    # What the sender keeps, and no more.
    assert len(os.listdir("/proc/self/fd")) <= before + 16


@pytest.mark.parametrize("duplex", [True, False])
def test_children_of_every_kind_have_it(ctx, duplex):
    receiver, sender = ctx.Pipe(duplex, oob=True)
    assert receiver.oob
    assert (receiver.readable, receiver.writable) == (True, duplex)
    child = ctx.Process(target=talk.send_array, args=(sender, 200_000))
    child.start()
    got = receiver.recv()
    child.join(60)
    assert child.exitcode == 0
    assert owner_of(got) == "SharedView"
    assert np.array_equal(got, np.arange(200_000))
    child.close()
    receiver.close()
    sender.close()


def test_both_ends_of_a_unix_socket_may_agree_on_it():
    with billiard.connection.Listener(family="AF_UNIX") as listener:
        client = billiard.connection.Client(listener.address)
        server = listener.accept()
        for end in (client, server):
            assert not end.oob
            end.oob = True
        assert np.array_equal(passed((client, server), np.arange(50_000)), np.arange(50_000))
        client.close()
        server.close()


def test_what_carries_no_descriptors_refuses():
    receiver, sender = Pipe(duplex=False)
    with pytest.raises(ValueError, match="no Unix socket"):
        sender.oob = True
    sender.oob = False
    sender.close()
    receiver.close()
    with pytest.raises(OSError, match="closed"):
        sender.oob = True


def test_the_wire_is_the_usual_one_unless_it_was_asked_for():
    one, other = Pipe()
    array = np.arange(30_000)
    thread = threading.Thread(target=one.send, args=(array,))
    thread.start()
    message = other.recv_bytes()
    thread.join()
    assert np.array_equal(pickle.loads(message), array)
    assert message[:1] == b"\x80"
    one.close()
    other.close()


def test_a_sender_is_kept_from_filling_the_memory_and_can_be_interrupted(ends):
    one, other = ends
    array, sent = np.zeros(20_000), []

    def interrupt(*_):
        raise InterruptedError("told to stop")

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(InterruptedError, match="told"):  # noqa: PT012 - which of them waits is not known
            for _ in range(10_000):
                # In time for each of them, however busy the machine is, and late for the one that waits.
                signal.setitimer(signal.ITIMER_REAL, 2)
                one.send(array)
                sent.append(1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert 1 <= len(sent) < 200
    for _ in sent:
        assert len(other.recv()) == 20_000
    one.send(array)
    assert len(other.recv()) == 20_000


def test_the_end_is_told(ends):
    one, other = ends
    one.send(np.zeros(50_000))
    one.close()
    assert len(other.recv()) == 50_000
    with pytest.raises(EOFError):
        other.recv()
    with pytest.raises(BrokenPipeError):
        other.send(np.zeros(50_000))


def test_a_killed_receiver_keeps_nothing(ends):
    one, other = ends
    for round_ in range(20):
        told = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                kept = [other.recv() for _ in range(1 + round_ % 3)]
                os.write(told[1], bytes([len(kept)]))
                signal.pause()
            finally:
                os._exit(1)
        for _ in range(1 + round_ % 3):
            one.send(np.full(30_000, round_))
        os.close(told[1])
        assert os.read(told[0], 1) == bytes([1 + round_ % 3])
        os.close(told[0])
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    one.send(np.full(30_000, 7))
    assert (other.recv() == 7).all()


def test_a_forked_child_has_a_copy_that_nobody_changes(ends):
    view = passed(ends, np.full(50_000, 1))
    go_on = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(go_on[1])
            os.read(go_on[0], 1)
            code = int(not (view == 1).all())
        finally:
            os._exit(code)
    view[:] = 2
    del view
    for number in range(3, 10):
        assert (passed(ends, np.full(50_000, number)) == number).all()
    for end in go_on:
        os.close(end)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
