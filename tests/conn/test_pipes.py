"""Pipes between processes, under every start method."""

from __future__ import annotations

import os
import pickle
import signal
import stat

import pytest
import talk
from talk import PATIENCE

import billiard
from billiard.connection import Connection
from billiard.reduction import ForkingPickler

THINGS = [None, 0, "text", b"", b"bytes" * 10, {"a": [1, 2.5]}, list(range(20_000)), b"x" * 3_000_000, ("é",)]


def test_objects_come_back_as_they_went(ctx, start):
    ours, theirs = ctx.Pipe()
    start(talk.echo, theirs)
    theirs.close()
    with ours:
        for thing in [*THINGS, "good-bye"]:
            ours.send(thing)
            assert ours.recv() == thing


def test_bytes_come_back_as_they_went(ctx, start):
    ours, theirs = ctx.Pipe()
    start(talk.echo_bytes, theirs)
    theirs.close()
    with ours:
        for size in (0, 1, 4, 4095, 4096, 4097, 16_384, 16_385, 65_536, 65_537, 5_000_000):
            sent = os.urandom(size)
            ours.send_bytes(sent)
            assert ours.recv_bytes() == sent
        ours.send_bytes(b"good-bye")
        assert ours.recv_bytes() == b"good-bye"


def test_one_way(ctx, start):
    reader, writer = ctx.Pipe(False)
    start(talk.say, writer, *THINGS)
    writer.close()
    with reader:
        assert [reader.recv() for _ in THINGS] == THINGS
        with pytest.raises(EOFError):
            reader.recv()


def test_connections_travel_through_connections(ctx, start, sharing):  # noqa: ARG001
    there, there_end = ctx.Pipe()
    back, back_end = ctx.Pipe(False)
    start(talk.forward, there_end, back_end)
    answers, target = ctx.Pipe(False)
    there.send(target)
    target.close()
    assert answers.recv() == ("through", True, True, True)
    assert back.recv() == "done"
    for end in (there, there_end, back, back_end, answers):
        end.close()


def test_a_killed_peer_is_the_end_of_the_stream(ctx, start):
    ours, theirs = ctx.Pipe()
    child = start(talk.echo, theirs)
    theirs.close()
    with ours:
        ours.send("hello")
        assert ours.recv() == "hello"
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(EOFError):
            ours.recv()
        with pytest.raises(BrokenPipeError) as caught:
            ours.send("too late")
        assert caught.value.errno == 32


def test_what_the_descriptors_are(ends):
    one, other = ends()
    reader, writer = ends(False)
    for end, is_kind in [(one, stat.S_ISSOCK), (other, stat.S_ISSOCK), (reader, stat.S_ISFIFO)]:
        assert is_kind(os.fstat(end.fileno()).st_mode)
        assert not os.get_inheritable(end.fileno())
    flags = [(end.readable, end.writable) for end in (one, other, reader, writer)]
    assert flags == [(True, True), (True, True), (True, False), (False, True)]


@pytest.mark.parametrize("duplex", [True, False])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("second", [True, False])
def test_each_end_blocks_or_not(ends, duplex, first, second):
    pair = ends(duplex, rnonblock=first, wnonblock=second)
    assert [os.get_blocking(end.fileno()) for end in pair] == [not first, not second]
    for end in pair:
        end.setblocking(False)
        assert not os.get_blocking(end.fileno())
        end.setblocking(True)
        assert os.get_blocking(end.fileno())


@pytest.mark.parametrize("dumps", [ForkingPickler.dumps, pickle.dumps])
def test_a_pickled_connection_is_another_end_of_the_same_stream(ends, sharing, dumps):  # noqa: ARG001
    reader, writer = ends(False)
    pickled = dumps(reader)
    reader.close()
    with pickle.loads(pickled) as copy:
        assert type(copy) is Connection
        assert (copy.readable, copy.writable) == (True, False)
        assert not os.get_inheritable(copy.fileno())
        writer.send(1)
        assert copy.recv() == 1


def test_a_closed_connection_cannot_be_pickled(ends):
    reader, _ = ends(False)
    reader.close()
    with pytest.raises(OSError, match="handle is closed"):
        pickle.dumps(reader)


def test_every_context_has_it():
    for context in (billiard, *map(billiard.get_context, billiard.get_all_start_methods())):
        one, other = context.Pipe(duplex=False)
        with one, other:
            other.send("there")
            assert one.recv() == "there"
        assert context.allow_connection_pickling() is None


def test_a_child_that_inherits_both_ends_closes_its_own_only(ends, in_thread):
    reader, writer = ends(False)
    # Another thread is in the middle of a wait while the child is forked.
    received = in_thread(reader.recv)
    result, result_end = ends(False)

    def child():
        reader.close()
        try:
            os.fstat(number)
        except OSError as error:
            result_end.send(error.errno)
        else:
            result_end.send("still open")

    number = reader.fileno()
    process = billiard.get_context("fork").Process(target=child, daemon=True)
    process.start()
    assert result.recv() == 9
    writer.send("for the thread")
    assert received() == "for the thread"
    process.join(PATIENCE)
    process.close()
