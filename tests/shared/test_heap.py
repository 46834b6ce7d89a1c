"""Blocks of shared memory."""

from __future__ import annotations

import gc
import os
import random
import weakref

import pytest
import sharedwork

from billiard import _billiard, heap


def usage() -> dict[str, int]:
    gc.collect()
    return _billiard.shared_usage()


def test_a_block_is_a_view_that_can_be_written_to():
    wrapper = heap.BufferWrapper(100)
    view = wrapper.create_memoryview()
    assert (view.nbytes, view.format, view.readonly, wrapper.get_size()) == (100, "B", False, 100)
    view[:] = bytes(range(100))
    assert bytes(wrapper.create_memoryview()) == bytes(range(100))
    (arena, start, stop), size = wrapper._state
    assert bytes(memoryview(arena.buffer)[start:stop]) == bytes(range(100))
    assert size == 100


def test_the_address_is_where_it_is():
    import ctypes  # noqa: PLC0415 - the package's users may do without it

    wrapper = heap.BufferWrapper(8)
    wrapper.create_memoryview()[:] = b"12345678"
    assert ctypes.string_at(wrapper.get_address(), 8) == b"12345678"


def test_a_block_lives_as_long_as_its_views():
    before = usage()["blocks"]
    wrapper = heap.BufferWrapper(1000)
    gone = weakref.ref(wrapper)
    view = wrapper.create_memoryview()[10:20]
    del wrapper
    assert gone() is None
    assert usage()["blocks"] == before + 1
    view[:] = b"0123456789"
    del view
    assert usage()["blocks"] == before


@pytest.mark.parametrize("size", [-1, 2**63])
def test_no_block_has_such_a_size(size):
    for make in (heap.BufferWrapper, heap.Heap().malloc):
        with pytest.raises(AssertionError):
            make(size)


def test_what_no_machine_has_is_refused():
    with pytest.raises((MemoryError, OSError)):
        heap.BufferWrapper(2**62)


def test_a_heap_frees_what_it_has_allocated_once_and_only_here():
    own = heap.Heap()
    block = own.malloc(13)
    assert block[2] - block[1] == 16
    memoryview(block[0].buffer)[block[1] : block[2]] = b"x" * 16
    own.free(block)
    with pytest.raises(KeyError):
        own.free(block)
    block = own.malloc(1)
    if not (pid := os.fork()):
        try:
            own.free(block)
        except AssertionError:
            own.malloc(1)
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    own.free(block)


def test_memory_is_back_after_many_blocks():
    heap.trim()
    before = usage()
    dice = random.Random(1)
    out: list[object] = [None] * 32
    for _ in range(100_000):
        out[dice.randrange(32)] = heap.BufferWrapper(dice.randrange(64 << dice.randrange(15)))
    out.clear()
    heap.trim()
    assert usage() == before


def test_killed_holders_leave_nothing(ctx, done):
    heap.trim()
    before = usage()
    for _ in range(3):
        values = [ctx.RawArray("i", 300_000) for _ in range(4)]
        assert done(sharedwork.hold_and_die, values) == -9
        assert [value[0] for value in values] == [8] * 4
    del values
    heap.trim()
    assert usage() == before


def test_a_child_has_the_same_block(done):
    wrapper = heap.BufferWrapper(10)
    assert done(sharedwork.write, wrapper, b"from child") == 0
    assert bytes(wrapper.create_memoryview()) == b"from child"


def test_an_arena_is_anonymous_and_travels():
    arena = heap.Arena(100)
    assert (arena.size, len(arena.buffer), os.fstat(arena.fd).st_size) == (100, 100, 100)
    assert bytes(arena.buffer) == bytes(100)
    assert "memfd" in os.readlink(f"/proc/self/fd/{arena.fd}")
    rebuild, (size, sent) = heap.reduce_arena(arena)
    other = rebuild(size, sent)
    other.buffer[:4] = b"same"
    assert arena.buffer[:4] == b"same"


def test_a_block_goes_through_a_queue_both_ways(ctx):
    queue, answers = ctx.Queue(), ctx.Queue()
    child = ctx.Process(target=sharedwork.put_block, args=(queue, answers, b"block"))
    child.start()
    received = queue.get(timeout=30)
    answers.put(None)
    child.join()
    assert bytes(received.create_memoryview()[:5]) == b"block"
    child.close()
    child = ctx.Process(target=sharedwork.receive_and_write, args=(queue, b"again"))
    child.start()
    queue.put(received)
    child.join()
    assert bytes(received.create_memoryview()[:5]) == b"again"
    child.close()
    for it in (queue, answers):
        it.close()
    from billiard import resource_sharer  # noqa: PLC0415 - it began with the first block that was sent

    resource_sharer.stop()


def test_what_is_no_block_is_refused():
    wrapper = heap.BufferWrapper(10)
    fd, at, length = wrapper._state[0][0].place()
    for place, size in [((os.dup(fd), at + 1, length), 10), ((os.dup(fd), at, length), length + 1)]:
        with pytest.raises((RuntimeError, ValueError)):
            _billiard.Block.receive(place, size)
