"""What one connection does, and what it refuses."""

from __future__ import annotations

import array
import errno
import io
import os
import signal
import struct
import threading
import time
import weakref

import pytest
from talk import PATIENCE

from billiard.connection import Connection, ConnectionWrapper
from billiard.exceptions import BufferTooShort


@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, 300_000])
def test_a_frame_is_a_length_and_the_bytes(ends, in_thread, size):
    reader, writer = ends(False)
    sent = os.urandom(size)
    done = in_thread(writer.send_bytes, sent)
    with open(os.dup(reader.fileno()), "rb") as raw:
        assert raw.read(4) == struct.pack(">i", size)
        assert raw.read(size) == sent
    done()


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_a_frame_may_arrive_in_any_pieces(ends, in_thread, step):
    reader, writer = ends(False)
    frame = struct.pack(">i", 300) + b"a" * 300 + struct.pack(">iQ", -1, 5) + b"short"
    first = in_thread(reader.recv_bytes)
    for at in range(0, len(frame), step):
        os.write(writer.fileno(), frame[at : at + step])
    assert first() == b"a" * 300
    assert reader.recv_bytes() == b"short"


def test_nothing_is_read_ahead(ends):
    reader, writer = ends(False)
    writer.send_bytes(b"one")
    writer.send_bytes(b"two")
    assert reader.recv_bytes() == b"one"
    assert os.read(reader.fileno(), 100) == b"\0\0\0\3two"


def test_parts_of_buffers_are_sent(ends):
    one, other = ends()
    for args, arrived in [
        ((b"abc", 1), b"bc"),
        ((b"abc", 1, 1), b"b"),
        ((b"abc", 3), b""),
        ((b"abc", 1, None), b"bc"),
        ((bytearray(b"abc"),), b"abc"),
        ((array.array("i", [1, 2, 3]), 4, 4), struct.pack("i", 2)),
        ((memoryview(b"abcdef")[::2],), b"ace"),
        ((memoryview(bytes(range(12))).cast("B", (3, 4)), 2), bytes(range(2, 12))),
    ]:
        one.send_bytes(*args)
        assert other.recv_bytes() == arrived


@pytest.mark.parametrize(
    ("args", "error", "match"),
    [
        ((b"abc", -1), ValueError, "offset is negative"),
        ((b"abc", 4), ValueError, "buffer length < offset"),
        ((b"abc", 0, -1), ValueError, "size is negative"),
        ((b"abc", 1, 3), ValueError, r"buffer length < offset \+ size"),
        (("abc",), TypeError, "bytes-like"),
        ((b"abc", 1.0), TypeError, "integer"),
    ],
)
def test_parts_that_are_not_there_are_refused(ends, args, error, match):
    one, other = ends()
    with pytest.raises(error, match=match):
        one.send_bytes(*args)
    assert not other.poll()


def test_messages_are_received_into_buffers(ends):
    one, other = ends()
    buffer = bytearray(7)
    one.send_bytes(b"12345")
    assert other.recv_bytes_into(buffer, 2) == 5
    assert buffer == b"\0\x0012345"
    numbers = array.array("i", [0] * 4)
    one.send_bytes(struct.pack("2i", 7, 8))
    assert other.recv_bytes_into(numbers, 4) == 8
    assert list(numbers) == [0, 7, 8, 0]


def test_a_message_that_does_not_fit_is_not_lost(ends):
    one, other = ends()
    one.send_bytes(b"12345")
    one.send_bytes(b"next")
    buffer = bytearray(4)
    with pytest.raises(BufferTooShort) as caught:
        other.recv_bytes_into(buffer)
    assert caught.value.args == (b"12345",)
    assert buffer == bytes(4)
    assert other.recv_bytes() == b"next"


@pytest.mark.parametrize(
    ("buffer", "offset", "error", "match"),
    [
        (bytearray(3), -1, ValueError, "negative offset"),
        (bytearray(3), 4, ValueError, "offset too large"),
        (b"123", 0, TypeError, "read-only"),
        (memoryview(bytearray(8))[::2], 0, TypeError, "one piece"),
        ("123", 0, TypeError, "bytes-like"),
    ],
)
def test_buffers_that_cannot_be_filled_are_refused_and_the_message_stays(ends, buffer, offset, error, match):
    one, other = ends()
    one.send_bytes(b"12")
    with pytest.raises(error, match=match):
        other.recv_bytes_into(buffer, offset)
    assert other.recv_bytes() == b"12"


def test_too_long_a_message_ends_receiving(ends):
    one, other = ends()
    one.send_bytes(b"12345")
    assert other.recv_bytes(5) == b"12345"
    one.send_bytes(b"12345")
    with pytest.raises(OSError, match="bad message length"):
        other.recv_bytes(4)
    assert (other.closed, other.readable, other.writable) == (False, False, True)
    other.send("still there")
    assert one.recv() == "still there"
    reader, writer = ends(False)
    writer.send_bytes(b"12345")
    with pytest.raises(OSError, match="bad message length"):
        reader.recv_bytes(4)
    assert reader.closed
    with pytest.raises(ValueError, match="negative maxlength"):
        one.recv_bytes(-1)


@pytest.mark.parametrize(
    "head", [b"\xff\xff\xff\xfe", b"\x80\0\0\0", b"\xff" * 12, b"\xff\xff\xff\xff\x7f" + b"\xff" * 7]
)
def test_lengths_that_nobody_means_end_receiving(ends, head):
    reader, writer = ends(False)
    os.write(writer.fileno(), head)
    with pytest.raises(OSError, match="bytes"):
        reader.recv()
    assert reader.closed


def test_a_message_that_there_is_no_memory_for_is_not_taken_for_another(ends):
    reader, writer = ends(False)
    os.write(writer.fileno(), struct.pack(">iQ", -1, 1 << 60) + b"its beginning")
    for _ in range(2):
        with pytest.raises(MemoryError):
            reader.recv()
    writer.close()


@pytest.mark.parametrize("part", [b"\0", b"\0\0\0", b"\0\0\0\5", b"\0\0\0\5ab"])
def test_the_end_inside_a_message_is_no_regular_end(ends, part):
    reader, writer = ends(False)
    os.write(writer.fileno(), part)
    writer.close()
    with pytest.raises(OSError, match="got end of file during message") as caught:
        reader.recv()
    assert not isinstance(caught.value, EOFError)
    with pytest.raises(EOFError):
        reader.recv()


def test_the_wrong_direction_is_refused(ends):
    reader, writer = ends(False)
    for use in (lambda: reader.send(1), lambda: reader.send_bytes(b"")):
        with pytest.raises(OSError, match="connection is read-only"):
            use()
    for use in (writer.recv, writer.recv_bytes, writer.poll, lambda: writer.recv_bytes_into(bytearray())):
        with pytest.raises(OSError, match="connection is write-only"):
            use()


def test_a_closed_connection_is_refused(ends):
    one, _ = ends()
    one.close()
    one.close()
    assert one.closed
    assert one._handle is None
    for use in (
        one.fileno,
        one.recv,
        one.recv_bytes,
        one.poll,
        lambda: one.send(1),
        lambda: one.send_bytes(b""),
        lambda: one.send_offset(b"", 0),
        lambda: one.setblocking(True),
    ):
        with pytest.raises(OSError, match="handle is closed"):
            use()


@pytest.mark.parametrize(
    ("args", "error", "match"),
    [
        ((-1,), ValueError, "invalid handle"),
        ((0, False, False), ValueError, "at least one"),
        (("0",), AttributeError, "__index__"),
        ((None,), AttributeError, "__index__"),
    ],
)
def test_descriptors_that_are_none_are_refused(args, error, match):
    with pytest.raises(error, match=match):
        Connection(*args)


def test_a_descriptor_that_is_not_open_fails_when_it_is_used():
    number = os.dup(0)
    os.close(number)
    conn = Connection(number)
    with pytest.raises(OSError, match="Bad file") as caught:
        conn.recv()
    assert caught.value.errno == errno.EBADF


def test_it_is_closed_when_it_is_collected(ends):
    reader, writer = ends(False)
    copy = Connection(os.dup(writer.fileno()), readable=False)
    writer.close()
    copy.anything = "goes"
    gone = weakref.ref(copy)
    assert copy in {copy: None}
    del copy
    assert gone() is None
    with pytest.raises(EOFError):
        reader.recv()


def test_it_works_over_anything(tmp_path):
    path = tmp_path / "file"
    with Connection(os.open(path, os.O_RDWR | os.O_CREAT), readable=False) as writer:
        writer.send([1, 2])
        writer.send_bytes(b"x" * 10_000)
    with Connection(os.open(path, os.O_RDONLY), writable=False) as reader:
        assert reader.recv() == [1, 2]
        assert reader.recv_bytes() == b"x" * 10_000
        with pytest.raises(EOFError):
            reader.recv()


class Unpicklable:
    def __reduce__(self):
        raise ZeroDivisionError("no")


def test_what_cannot_be_pickled_sends_nothing(ends):
    one, other = ends()
    with pytest.raises(ZeroDivisionError):
        one.send([b"x" * 100_000, Unpicklable()])
    assert not other.poll()
    one.send("next")
    assert other.recv() == "next"


class SendsMore:
    """Sends something itself while it is pickled."""

    conn = None

    def __reduce__(self):
        type(self).conn.send("from inside")
        return str, ("outside",)


def test_pickling_may_send_something_itself(ends):
    one, other = ends()
    SendsMore.conn = one
    one.send([SendsMore(), SendsMore()])
    assert [other.recv() for _ in range(3)] == ["from inside"] * 2 + [["outside"] * 2]


def test_an_object_that_closes_the_connection_while_it_is_pickled_is_not_sent(ends):
    one, other = ends()

    class Closes:
        def __reduce__(self):
            one.close()
            return int, ()

    with pytest.raises(OSError, match="handle is closed"):
        one.send(Closes())
    with pytest.raises(EOFError):
        other.recv()


def test_large_pieces_of_a_pickle_arrive_in_their_places(ends, in_thread):
    one, other = ends()
    thing = [1, b"a" * 200_000, "b" * 200_000, bytearray(b"c" * 200_000), {"d": b"d" * 40_000}, 2] * 5
    received = in_thread(other.recv)
    one.send(thing)
    assert received() == thing


def test_a_pipe_without_blocking(ends):
    reader, writer = ends(False, True, True)
    for receive in (reader.recv, reader.recv_bytes, lambda: reader.recv_bytes_into(bytearray(9))):
        with pytest.raises(BlockingIOError) as caught:
            receive()
        assert caught.value.errno == errno.EAGAIN
    os.write(writer.fileno(), b"\0\0\0\5he")
    for receive in (reader.recv, reader.recv_bytes, lambda: reader.recv_bytes_into(bytearray(9))):
        with pytest.raises(BlockingIOError):
            receive()
    os.write(writer.fileno(), b"llo")
    buffer = bytearray(9)
    assert reader.recv_bytes_into(buffer) == 5
    assert buffer[:5] == b"hello"


def test_a_full_pipe_without_blocking_refuses_whole_messages(ends):
    reader, writer = ends(False, True, True)
    # As many as 64 KiB hold, with the four bytes in front of each.
    sent = 64
    for _ in range(sent):
        writer.send_bytes(b"x" * 1020)
    with pytest.raises(BlockingIOError) as caught:
        writer.send_bytes(b"x" * 1020)
    assert caught.value.errno == errno.EAGAIN
    assert [reader.recv_bytes() for _ in range(sent)] == [b"x" * 1020] * sent
    assert not reader.poll()
    writer.send(1)
    assert reader.recv() == 1


def test_after_a_message_that_was_cut_off_nothing_follows(ends):
    _, writer = ends(False, True, True)
    with pytest.raises(BlockingIOError):
        writer.send_bytes(bytes(3_000_000))
    with pytest.raises(OSError, match="only in part; close the connection"):
        writer.send(1)


def test_raw_bytes_are_written_from_an_offset(ends):
    reader, writer = ends(False, False, True)
    assert writer.send_offset(b"abcdef", 2) == 4
    assert writer.send_offset(b"abcdef", -2) == 2
    assert writer.send_offset(b"abcdef", 10) == 0
    assert os.read(reader.fileno(), 100) == b"cdefef"
    whole = bytes(1_000_000)
    written = writer.send_offset(whole, 0)
    assert 0 < written < len(whole)
    with pytest.raises(BlockingIOError) as caught:
        writer.send_offset(whole, written)
    assert caught.value.errno == errno.EAGAIN
    reader.close()
    with pytest.raises(BrokenPipeError):
        writer.send_offset(b"x", 0)


@pytest.mark.parametrize("timeout", [0, 0.0, -1, -1e300, float("-inf")])
def test_a_look_does_not_wait(ends, timeout):
    one, other = ends()
    assert other.poll() is False
    assert other.poll(timeout) is False
    one.send(1)
    assert other.poll(timeout) is True
    assert other.recv() == 1
    one.close()
    assert other.poll(timeout) is True


def test_a_poll_waits_as_long_as_it_says_and_no_less(ends):
    _, other = ends()
    for seconds in (0.0009, 0.05):
        start = time.monotonic()
        assert other.poll(seconds) is False
        assert time.monotonic() - start >= seconds


@pytest.mark.parametrize("timeout", [None, 1e300, float("inf"), PATIENCE])
def test_a_poll_ends_with_what_it_waits_for(ends, in_thread, timeout):
    one, other = ends()
    found = in_thread(other.poll, timeout)
    one.send(1)
    assert found() is True


def test_timeouts_that_are_none_are_refused(ends):
    one, _ = ends()
    with pytest.raises(ValueError, match="seconds or None, not nan"):
        one.poll(float("nan"))
    with pytest.raises(TypeError):
        one.poll("1")


def test_a_thread_that_waits_lets_others_run(ends, in_thread):
    one, other = ends()
    received = in_thread(other.recv)
    # A wait that kept the interpreter would keep us from ever sending.
    one.send("now")
    assert received() == "now"


def test_closing_under_a_waiting_thread_gives_its_descriptor_to_nobody(ends, in_thread):
    one, other = ends()
    number = other.fileno()
    entered = threading.Event()

    def receive():
        entered.set()
        return other.recv()

    received = in_thread(receive)
    entered.wait(PATIENCE)
    # Asleep in the system, for which there is no event.
    while not _sleepers():
        time.sleep(0.001)
    other.close()
    assert other.closed
    taken = os.open("/dev/null", os.O_RDONLY)
    assert taken != number
    one.send("for the thread")
    assert received() == "for the thread"
    os.close(taken)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(number)


def _sleepers():
    """The threads of this process, other than this one, that sleep in a poll."""
    found = []
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/syscall") as file:
            # KERNEL: 271 is ppoll where the interpreter runs natively on x86-64, 73 on others.
            if file.read().split()[0] in ("271", "73"):
                found.append(task)
    return found


class Alarm(Exception):
    """Raised by a signal handler."""


@pytest.fixture
def alarm():
    """Have SIGALRM raise `Alarm`."""

    def handler(*_):
        raise Alarm

    before = signal.signal(signal.SIGALRM, handler)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("part", [b"", b"\0\0", b"\0\0\0\5", b"\0\0\0\5he"])
@pytest.mark.parametrize("into", [True, False])
def test_a_signal_ends_a_wait_and_no_message_is_lost(ends, part, into):
    reader, writer = ends(False)
    os.write(writer.fileno(), part)
    buffer = bytearray(5)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    with pytest.raises(Alarm):
        reader.recv_bytes_into(buffer) if into else reader.recv_bytes()
    os.write(writer.fileno(), b"\0\0\0\5hello"[len(part) :])
    writer.send_bytes(b"next")
    assert reader.recv_bytes() == b"hello"
    assert reader.recv_bytes() == b"next"


@pytest.mark.usefixtures("alarm")
def test_a_signal_ends_a_poll_and_a_send(ends):
    reader, writer = ends(False)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    with pytest.raises(Alarm):
        reader.poll(None)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    with pytest.raises(Alarm):
        writer.send_bytes(bytes(5_000_000))
    with pytest.raises(OSError, match="only in part"):
        writer.send(1)


def test_a_handler_that_returns_does_not_end_a_wait(ends):
    one, other = ends()
    seen = []

    def handler(*_):
        seen.append(other.poll(0))
        one.send("from the handler")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        assert other.recv() == "from the handler"
    finally:
        signal.signal(signal.SIGALRM, before)
    assert seen == [False]


def test_many_threads_take_turns_with_many_connections(ends, in_thread):
    pairs = [ends() for _ in range(8)]

    def talk(one, other):
        for number in range(200):
            one.send((number, b"x" * number * 100))
            assert other.recv()[0] == number
        return number

    results = [in_thread(talk, *pair) for pair in pairs]
    assert [result() for result in results] == [199] * len(pairs)


def test_private_names_of_the_original_work(ends):
    one, other = ends()
    one._send_bytes(b"abc")
    assert other._recv_bytes().getvalue() == b"abc"
    assert (one._handle, one._readable, one._writable) == (one.fileno(), True, True)


def test_a_wrapper_sends_in_another_form(ends):
    one, other = ends()
    wrapped = ConnectionWrapper(
        one, lambda text: text.encode(), lambda data: io.BytesIO(data).read().decode()
    )
    wrapped.send("text")
    assert other.recv_bytes() == b"text"
    other.send_bytes(b"back")
    assert wrapped.poll(PATIENCE)
    assert wrapped.recv() == "back"
    assert wrapped.fileno() == one.fileno()
