"""What a queue promises to programs, by every start method."""

from __future__ import annotations

import gc
import itertools
import os
import pickle
import threading
import time
from queue import Empty, Full

import numpy as np
import pytest
import queuework

import billiard
from billiard import queues

OBJECTS = [
    None,
    True,
    0,
    -(2**80),
    1.5,
    "text",
    b"bytes",
    "\ud800",
    (),
    (1, ("two", (3.0, (None, (b"five",))))),
    [1, 2],
    {"a": {"b": [1]}},
    {1, 2},
    range(3),
    print,
    bytearray(b"x" * 100_000),
    b"x" * 70_000,
    "y" * 5_000,
    tuple(range(300)),
]


def test_objects_arrive_as_they_were_put_and_in_order(ctx, start):
    queue = ctx.Queue()
    start(queuework.put_all, queue, OBJECTS)
    for expected in OBJECTS:
        got = queue.get(timeout=60)
        assert got == expected
        assert type(got) is type(expected)
    assert queue.empty()


def test_a_queue_goes_both_ways(ctx, start):
    questions, answers = ctx.Queue(), ctx.Queue()
    start(queuework.echo, questions, answers)
    for number in range(100):
        questions.put(number)
        assert answers.get(timeout=60) == number
    questions.put(None)


def test_every_object_of_many_producers_reaches_one_of_many_consumers(ctx, start):
    queue, results = ctx.Queue(), ctx.Queue()
    producers = [start(queuework.put_numbers, queue, who, 1000) for who in range(3)]
    consumers = [start(queuework.get_until_none, queue, results) for _ in range(3)]
    for producer in producers:
        producer.join()
    for _ in consumers:
        queue.put(None)
    got = [results.get(timeout=60) for _ in consumers]
    for one in got:
        for who in range(3):
            mine = [number for producer, number in one if producer == who]
            assert mine == sorted(mine)
    assert sorted(itertools.chain(*got)) == [(who, number) for who in range(3) for number in range(1000)]


def test_a_child_may_end_right_after_it_has_put_more_than_any_pipe_holds(ctx, start):
    queue = ctx.Queue()
    child = start(queuework.put_and_leave, queue, 10 << 20)
    child.join(60)
    assert child.exitcode == 0
    assert len(queue.get(timeout=60)) == 10 << 20


def test_what_was_put_before_close_is_delivered(ctx, start):
    queue = ctx.Queue()
    child = start(queuework.put_close_and_leave, queue, 1000)
    child.join(60)
    assert child.exitcode == 0
    assert [queue.get(timeout=60) for _ in range(1000)] == list(range(1000))


def test_what_a_killed_process_has_put_is_delivered(ctx, start):
    queue = ctx.Queue()
    child = start(queuework.put_and_be_killed, queue, ["last words"])
    child.join(60)
    assert child.exitcode == -9
    assert queue.get(timeout=60) == ["last words"]


def test_a_queue_goes_through_a_child_to_a_grandchild(ctx):
    outer, inner = ctx.Queue(), ctx.Queue()
    child = ctx.Process(target=queuework.put_into_inner, args=(outer, inner))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert outer.get(timeout=60) == 0
    assert inner.get(timeout=60) == "from a grandchild"


def test_a_child_has_an_open_queue_with_the_same_bound(ctx, start):
    queue, results = ctx.JoinableQueue(7), ctx.Queue()
    queue.put(1)
    start(queuework.describe, queue, results)
    assert results.get(timeout=60) == (7, 1, False, "JoinableQueue")


def test_get_ends_when_everybody_who_put_is_gone(ctx, start):
    queue = ctx.Queue()
    child = start(queuework.put_and_be_killed, queue, 1)
    assert queue.get(timeout=60, eof=True) == 1
    with pytest.raises(EOFError, match="is gone"):
        queue.get(timeout=60, eof=True)
    child.join(60)
    with pytest.raises(Empty):
        queue.get(timeout=0.01)


def test_tasks_are_joined(ctx, start):
    queue = ctx.JoinableQueue()
    for number in range(20):
        queue.put(number)
    start(queuework.work_off, queue, 15)
    start(queuework.work_off, queue, 5)
    queue.join()
    assert queue.empty()
    with pytest.raises(ValueError, match="too many times"):
        queue.task_done()


@pytest.mark.usefixtures("leak_census")
def test_a_join_without_tasks_returns():
    billiard.JoinableQueue().join()


def test_a_plain_queue_knows_nothing_of_tasks(queue):
    assert not hasattr(queue, "task_done")
    assert not hasattr(queue, "join")


@pytest.mark.usefixtures("leak_census")
def test_a_bounded_queue_is_full_at_its_bound():
    queue = billiard.Queue(2)
    queue.put(1)
    assert not queue.full()
    queue.put(2, False)
    assert queue.full()
    assert queue.qsize() == 2
    for put in (
        lambda: queue.put_nowait(3),
        lambda: queue.put(3, block=0),
        lambda: queue.put(3, timeout=-1),
        lambda: queue.put(3, True, 0.01),
    ):
        with pytest.raises(Full):
            put()
    assert queue.get() == 1
    queue.put_nowait(3)
    assert [queue.get_nowait(), queue.get_nowait()] == [2, 3]


@pytest.mark.usefixtures("leak_census")
@pytest.mark.parametrize("size", [0, -1, -(2**70)])
def test_a_queue_without_a_bound_is_never_full(size):
    queue = billiard.Queue(size)
    assert queue._maxsize == 2**31 - 1
    for number in range(100_000):
        queue.put(number)
    assert queue.qsize() == 100_000
    assert not queue.full()


def test_waiting_takes_as_long_as_was_asked_for(queue):
    for timeout in (0, -1, 0.05):
        begin = time.monotonic()
        with pytest.raises(Empty):
            queue.get(timeout=timeout)
        assert time.monotonic() - begin >= timeout
    with pytest.raises(Empty):
        queue.get(block=[])


def test_what_is_no_time_is_refused(queue):
    nan = float("nan")
    for wait in (
        lambda: queue.get(timeout=nan),
        lambda: queue.get_many(timeout=nan),
        lambda: queue.put(1, timeout=nan),
        lambda: queue.put_many([1], timeout=nan),
        lambda: queue._reader.poll(nan),
    ):
        with pytest.raises(ValueError, match="not nan"):
            wait()
    assert queue.empty()


@pytest.mark.parametrize("timeout", [None, float("inf"), 1e300])
def test_a_waiting_thread_is_woken(queue, timeout):
    timer = threading.Timer(0.05, queue.put, ["late"])
    timer.start()
    assert queue.get(timeout=timeout) == "late"
    timer.join()


@pytest.mark.usefixtures("leak_census")
def test_a_thread_that_waits_for_room_is_woken():
    queue = billiard.Queue(1)
    queue.put(1)
    timer = threading.Timer(0.05, queue.get)
    timer.start()
    queue.put(2)
    timer.join()
    assert queue.get() == 2


@pytest.mark.usefixtures("leak_census")
@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue"])
def test_a_bound_in_bytes_is_full_at_its_bound(kind):
    queue = getattr(billiard, kind)(maxbytes=1000)
    while not queue.full():
        queue.put_nowait(b"x" * 90)
    assert 1000 / 120 <= queue.qsize() <= 1000 / 90
    for put in (lambda: queue.put_nowait(1), lambda: queue.put(bytes(100_000), timeout=0.01)):
        with pytest.raises(Full):
            put()
    timer = threading.Timer(0.05, queue.get)
    timer.start()
    queue.put(bytes(100_000), timeout=30)
    timer.join()
    assert queue.full()
    assert len(queue.get_many()[-1]) == 100_000
    with pytest.raises(ValueError, match="maxbytes"):
        billiard.Queue(maxbytes=0)


def test_a_child_keeps_the_bound_in_bytes(ctx, start):
    queue = ctx.Queue(maxbytes=5000)
    child = start(queuework.put_all, queue, [bytes(1000)] * 20)
    for _ in range(20):
        assert queue.get(timeout=30) == bytes(1000)
        assert queue.qsize() <= 5
    child.join(30)
    assert child.exitcode == 0


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_the_serializer_of_the_context_is_used(kind, start):
    context = billiard.get_context("spawn", serializer=(queuework.dumps, queuework.loads))
    questions, answers = getattr(context, kind)(), getattr(context, kind)()
    start(queuework.echo, questions, answers)
    for obj in (1, (1, 2), "text", b"x" * 100_000):
        questions.put(obj)
        assert answers.get() == obj
    with pytest.raises(KeyError, match="refused"):
        questions.put({"refused": 1})
    questions.put(None)


def test_large_objects_of_every_kind_arrive_whole(ctx, start):
    questions, answers = ctx.Queue(2), ctx.Queue()
    start(queuework.echo, questions, answers)
    big = bytes(range(256)) * 400
    objects = [
        big,
        bytearray(big),
        [big, 1],
        "ä" * 100_000,
        np.arange(20_000),
        np.frombuffer(big, "u1"),
        (big,) * 3,
    ]
    for obj in objects:
        questions.put(obj)
        got = answers.get(timeout=30)
        assert type(got) is type(obj)
        assert np.array_equal(got, obj) if isinstance(obj, np.ndarray) else got == obj
    questions.put_many([big] * 5)
    got = [answers.get(timeout=30) for _ in range(5)]
    assert got == [big] * 5
    questions.put(None)


def test_what_belonged_to_the_thread_tells_that_there_is_none(queue):
    queue.put(1)
    assert not queue._buffer
    assert queue._thread is queue._jointhread is None
    assert queue._poll(0.0)
    for name in ("_feed", "_notempty", "_writer", "_rlock", "_wlock", "_sem", "_send_bytes", "_recv_bytes"):
        assert not hasattr(queue, name)


@pytest.mark.usefixtures("leak_census")
def test_what_cannot_be_pickled_raises_and_nothing_else_is_lost():
    queue = billiard.Queue(2)
    queue.put(1)
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        queue.put(lambda: 0)
    queue.put(2)
    assert queue.full()
    assert [queue.get(), queue.get()] == [1, 2]


@pytest.mark.usefixtures("leak_census")
def test_a_subclass_may_deal_with_what_cannot_be_pickled():
    told = []

    class Tolerant(queues.Queue):
        @staticmethod
        def _on_queue_feeder_error(e, obj):
            told.append((type(e), obj))

    queue = Tolerant(ctx=billiard.get_context("fork"))
    lock = threading.Lock()
    queue.put(lock)
    queue.put_many([1, lock, 2])
    assert told == [(TypeError, lock)] * 2
    assert queue.get_many() == [1, 2]


def test_what_cannot_be_unpickled_is_gone(queue):
    queue.put(queuework.Unreadable())
    queue.put("next")
    with pytest.raises(KeyError, match="unreadable"):
        queue.get()
    assert queue.get() == "next"


_shared = None


class Fetches:
    """Gets the next object of the queue in order to be unpickled."""

    def __reduce__(self):
        return fetch, ()


def fetch():
    return _shared.get()


def test_unpickling_may_use_the_same_queue(queue, monkeypatch):
    monkeypatch.setitem(globals(), "_shared", queue)
    queue.put(Fetches())
    queue.put([2])
    queue.put("third")
    assert queue.get() == [2]
    assert queue.get() == "third"


def test_mutation_after_put_is_not_seen(queue):
    items = [1]
    queue.put(items)
    items.append(2)
    assert queue.get() == [1]


def test_many_at_once_keep_their_order(queue):
    queue.put_many(range(1000))
    queue.put("last")
    assert queue.get_many(10) == list(range(10))
    assert queue.get_many() == [*range(10, 1000), "last"]
    with pytest.raises(Empty):
        queue.get_many(timeout=0.01)
    with pytest.raises(ValueError, match="at least 1"):
        queue.get_many(0)
    queue.put_many([])
    assert queue.empty()


@pytest.mark.usefixtures("leak_census")
def test_what_does_not_fit_of_many_is_told():
    queue = billiard.Queue(3)
    with pytest.raises(Full) as full:
        queue.put_many("abcde", timeout=0.01)
    assert full.value.args == (3,)
    assert queue.get_many() == ["a", "b", "c"]


def test_arrays_arrive_whole(queue):
    array = np.arange(1_000_000)
    queue.put({"array": array, "n": 1})
    got = queue.get()
    assert (got["array"] == array).all()
    got["array"][0] = 5


@pytest.mark.usefixtures("leak_census")
def test_a_closed_queue_refuses():
    queue = billiard.Queue()
    with pytest.raises(ValueError, match="not closed"):
        queue.join_thread()
    queue.put(1)
    queue.close()
    queue.close()
    for use in (
        lambda: queue.put(1),
        lambda: queue.put_many([1]),
        queue.get,
        lambda: queue.get(False),
        queue.get_many,
    ):
        with pytest.raises(ValueError, match=r"Queue <.*Queue object at 0x.*> is closed"):
            use()
    queue.join_thread()
    queue.cancel_join_thread()


@pytest.mark.usefixtures("leak_census")
def test_a_forked_child_has_a_queue_that_its_parent_has_closed():
    queue, results = billiard.Queue(), billiard.Queue()
    queue.put("kept")
    queue.close()
    child = billiard.get_context("fork").Process(target=queuework.describe, args=(queue, results))
    child.start()
    assert results.get(timeout=60) == (2**31 - 1, 1, False, "Queue")
    child.join()
    child.close()


def test_a_queue_is_made_by_a_context():
    for make in (queues.Queue, queues.JoinableQueue, queues.SimpleQueue):
        with pytest.raises(TypeError, match="ctx"):
            make()


def test_only_children_inherit_a_queue(queue):
    with pytest.raises(RuntimeError, match="through inheritance"):
        pickle.dumps(queue)


def test_a_subclass_that_forgets_its_base_is_told():
    class Forgetful(queues.Queue):
        def __init__(self):
            pass

    with pytest.raises(RuntimeError, match="__init__"):
        Forgetful().put(1)


@pytest.mark.usefixtures("leak_census")
def test_what_is_no_queue_is_not_taken_for_one():
    queue = queues.Queue.__new__(queues.Queue)
    fd = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(ValueError, match="not that of a queue"):
        queue._take(fd, os.dup(fd))


@pytest.mark.usefixtures("leak_census")
def test_ten_thousand_queues_leave_nothing():
    for number in range(10_000):
        queue = billiard.Queue()
        queue.put(number)
        assert queue.get() == number
    del queue
    gc.collect()


@pytest.mark.parametrize("put", ["put", "put_many"])
def test_arrays_of_many_megabytes_arrive_whole(ctx, start, put):
    arrays = [np.arange(n, dtype=np.int64) for n in (300_000, 1_000_003, 2_100_000)]
    questions, answers = ctx.Queue(), ctx.Queue()
    start(queuework.echo, questions, answers)
    if put == "put":
        for array in arrays:
            questions.put(array)
    else:
        questions.put_many(arrays)
    for array in arrays:
        answer = answers.get(timeout=60)
        assert np.array_equal(answer, array)
        # It is this process's own, whatever becomes of the queue.
        answer[0] = 1
    questions.put(None)


def test_put_many_of_large_objects_tells_how_many_found_room(ctx):
    queue = ctx.Queue(3)
    large = [bytes([n]) * 200_000 for n in range(5)]
    with pytest.raises(Full) as caught:
        queue.put_many([1, *large], timeout=0.01)
    assert caught.value.args == (3,)
    assert queue.get_many() == [1, *large[:2]]


def test_put_many_of_large_objects_waits_for_room(ctx, start):
    queue, results = ctx.Queue(2), ctx.Queue()
    start(queuework.get_until_none, queue, results)
    large = [bytes([n]) * 100_000 for n in range(40)]
    queue.put_many([*large, None])
    assert results.get(timeout=60) == large


def test_more_large_objects_at_once_than_are_copied_unlocked(ctx):
    queue = ctx.Queue()
    large = [bytes([n]) * 70_000 for n in range(40)]
    queue.put_many(large)
    assert queue.get_many() == large
