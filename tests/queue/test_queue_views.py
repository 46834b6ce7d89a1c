"""Large buffers that are used where they lie in a queue: whose they are, and what they keep for how long."""

import gc
import os
import pickle
import random
import threading
import time

import numpy as np
import pytest
import viewwork
from viewwork import memory_of, numbered, owner_of

import billiard

MIB = 1 << 20
#: What a queue has that holds nothing, and has held nothing for a while.
BASE = 5 * MIB
#: What it may have beyond what is in use, once nobody uses it.
IDLE = BASE + 32 * MIB


def settled(queue, most):
    """Look until no more memory than that is left; a put and a get come by, as others may not."""
    deadline = time.monotonic() + 30
    while memory_of(queue) > most:
        assert time.monotonic() < deadline, f"{memory_of(queue)} bytes are left"
        queue.put(0)
        assert queue.get() == 0
        time.sleep(0.02)
    return True


def test_arrays_are_used_where_they_lie_and_are_as_writable_as_they_were(ctx, start):
    queue, answers = ctx.Queue(), ctx.Queue()
    start(viewwork.describe_arrays, queue, answers)
    array = np.arange(300_000)
    fixed = array.copy()
    fixed.flags.writeable = False
    for one, writeable in ((array, True), (fixed, False), (array, True)):
        queue.put(one)
        assert answers.get(timeout=30) == ("SharedView", writeable, array.sum())
    assert np.array_equal(array, fixed)
    queue.put(None)


def test_nobody_else_gets_the_memory_of_a_view(queue):
    queue.put(numbered(1))
    view = queue.get()
    view[5] = 2
    for number in range(3, 40):
        queue.put(numbered(number))
        assert owner_of(queue.get()) == "SharedView"
    assert view[5] == 2
    assert (np.delete(view, 5) == 1).all()


def test_a_view_outlives_its_queue():
    queue = billiard.Queue()
    queue.put(numbered(4))
    view = queue.get()
    queue.close()
    del queue
    gc.collect()
    assert (view == 4).all()


def test_what_has_several_buffers_keeps_them_until_the_last_is_gone(queue):
    queue.put(viewwork.Pair(bytearray(b"a" * MIB), b"b" * MIB))
    pair = queue.get()
    assert type(pair.plain) is type(pair.fixed) is memoryview
    assert not pair.plain.readonly
    assert pair.fixed.readonly
    with pytest.raises(TypeError):
        pair.fixed[0] = 1
    plain = pair.plain
    del pair
    queue.put(numbered(1, 3))
    assert (queue.get() == 1).all()
    assert plain == b"a" * MIB


def test_a_buffer_is_a_memoryview_whatever_its_size(queue):
    for size in (40_000, 2 * MIB):
        for data in (bytearray(size), bytes(size)):
            queue.put(pickle.PickleBuffer(data))
            got = queue.get()
            assert type(got) is memoryview
            assert got == data
            assert got.readonly is isinstance(data, bytes)


def test_memory_goes_back_with_the_last_view(queue):
    views = []
    for number in range(12):
        queue.put(numbered(number, 8))
        views.append(queue.get())
    assert {owner_of(view) for view in views} == {"SharedView"}
    assert memory_of(queue) >= 96 * MIB
    assert all((view == number).all() for number, view in enumerate(views))
    del views
    # At once, since nobody may ever come again.
    assert memory_of(queue) <= IDLE


def test_whoever_collects_gets_copies_and_keeps_nobody_from_the_queue(queue):
    views = []
    for number in range(60):
        queue.put(numbered(number, 4))
        views.append(queue.get())
    owners = [owner_of(view) for view in views]
    assert owners[0] == "SharedView"
    assert owners[-1] == "bytearray"
    # Half of what is mapped at most, and what is on its way.
    assert memory_of(queue) <= 128 * MIB + IDLE
    for number in range(300):
        queue.put(numbered(number, 0.1))
        views.append(queue.get())
    assert all((view == number).all() for number, view in enumerate(views[:60]))
    assert all((view == number).all() for number, view in enumerate(views[60:]))
    del views
    assert settled(queue, BASE)


def test_one_view_may_be_larger_than_all_that_may_be_collected(queue):
    queue.put(numbered(7, 200))
    view = queue.get()
    assert owner_of(view) == "SharedView"
    queue.put(numbered(8, 4))
    assert (queue.get() == 8).all()
    assert (view == 7).all()


def test_a_forked_child_has_a_copy_that_nobody_changes(queue):
    queue.put(numbered(1, 2))
    queue.put(numbered(2, 2))
    one, other = queue.get(), queue.get()
    go_on = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            one[3] = 9
            os.close(go_on[1])
            os.read(go_on[0], 1)
            if (np.delete(one, 3) == 1).all() and one[3] == 9 and (other == 2).all():
                code = 0
        finally:
            os._exit(code)
    other[:] = 3
    assert (one == 1).all()
    del one
    for number in range(50, 60):
        queue.put(numbered(number, 2))
        assert (queue.get() == number).all()
    for end in go_on:
        os.close(end)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (other == 3).all()


def test_threads_that_write_while_the_process_forks_lose_nothing(queue):
    queue.put(numbered(0, 4))
    view = queue.get()
    done, wrong = threading.Event(), []

    def write():
        number = 0
        while not done.is_set():
            number += 1
            view[:] = number
            if view[0] != number or view[-1] != number or (view != number).any():
                wrong.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
    finally:
        done.set()
        writer.join()
    assert not wrong


def test_after_a_fork_the_queue_has_its_memory_back(queue):
    queue.put(numbered(1, 64))
    view = queue.get()
    assert memory_of(queue) >= 64 * MIB
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert memory_of(queue) <= IDLE
    assert (view == 1).all()


def test_memory_goes_back_when_whoever_had_views_is_killed():
    context = billiard.get_context("fork")
    queue, kept = context.Queue(), context.Queue()
    dice = random.Random(3)

    def reader():
        process = context.Process(target=viewwork.keep_views, args=(queue, kept), daemon=True)
        process.start()
        return process

    readers = [reader() for _ in range(3)]
    killed = number = 0
    while killed < 100:
        # Never more than they can be expected to get, so that none of it is what is left.
        for _ in range(dice.randrange(1, 6)):
            number += 1
            queue.put(numbered(number, dice.choice((0.1, 1, 3))))
        for _ in range(dice.randrange(1, 3)):
            kept.get(timeout=30)
        victim = dice.randrange(len(readers))
        readers[victim].kill()
        readers[victim].join()
        assert readers[victim].exitcode == -9
        readers[victim].close()
        killed += 1
        readers[victim] = reader()
    for process in readers:
        process.kill()
        process.join()
        process.close()
    while not queue.empty():
        queue.get()
    assert settled(queue, BASE)
    queue.put(numbered(1))
    assert (queue.get() == 1).all()


def test_a_killed_reader_of_a_huge_array_leaves_nothing():
    context = billiard.get_context("fork")
    queue, kept = context.Queue(), context.Queue()
    for round_ in range(3):
        queue.put(numbered(round_, 300))
        process = context.Process(target=viewwork.keep_one_view, args=(queue, kept), daemon=True)
        process.start()
        assert kept.get(timeout=30) == round_
        assert memory_of(queue) >= 300 * MIB
        process.kill()
        process.join()
        process.close()
        assert settled(queue, BASE)
