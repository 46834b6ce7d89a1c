"""Large messages, arrays and buffers: through the ring, beside it, and beside the pickle."""

import math
import os
import time
from pathlib import Path

import numpy as np
import pytest
from poolwork import identity

KIB = 1024
#: Where the way of a message changes, or might: inside the ring, beside it, beside the pickle.
EDGES = (8 * KIB, 32 * KIB, 64 * KIB, 1024 * KIB)
SIZES = sorted({0, 1} | {edge + step for edge in EDGES for step in (-64, -33, -17, -9, -1, 0, 1, 2, 9, 64)})


def length_and_ends(data):
    view = memoryview(data)
    return len(view), bytes(view[:4]), bytes(view[-4:])


def make_bytes(size):
    return bytes(i % 251 for i in range(256)) * (size // 256) + b"e" * (size % 256)


def make_array(shape, dtype, order="C"):
    return np.asarray(np.arange(math.prod(shape)).reshape(shape), dtype=dtype, order=order)


def total_and_layout(a):
    return a.sum(), a.flags.c_contiguous, a.flags.f_contiguous, a.dtype.str, a.shape


def can_write(a):
    return a.flags.writeable


def change(a):
    a[0] = 99
    return int(a[0])


def fill(data):
    data[:4] = b"work"
    return data


@pytest.mark.parametrize("size", SIZES)
def test_sizes_around_every_edge(pool, size):
    data = make_bytes(size)
    text = "x" * size
    assert pool.apply(length_and_ends, (data,)) == length_and_ends(data)
    assert pool.apply(make_bytes, (size,)) == data
    assert pool.apply(identity, (text,)) == text
    assert pool.apply(identity, (bytearray(data),)) == bytearray(data)
    assert pool.map(identity, [data, text], chunksize=2) == [data, text]


def test_large_arguments_and_results_do_not_use_up_the_memory(pool):
    data = os.urandom(1 << 20)
    for _ in range(300):
        assert len(pool.apply(identity, (data,))) == len(data)


def test_a_result_that_is_much_larger_than_any_channel(pool):
    assert pool.apply(make_bytes, (100 << 20,)) == make_bytes(100 << 20)


def test_many_large_messages_at_once(pool):
    results = [pool.apply_async(identity, (bytes([i]) * (200 * KIB),)) for i in range(200)]
    assert [(r.get()[0], len(r.get())) for r in results] == [(i, 200 * KIB) for i in range(200)]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(0,), (3,), (1000,), (64, 64), (100, 30, 7), (1 << 20,)])
def test_numpy_arrays_both_ways(pool, shape, order):
    for dtype in ("u1", "<i4", ">f8", "c16"):
        a = make_array(shape, dtype, order)
        assert pool.apply(total_and_layout, (a,)) == total_and_layout(a)
        back = pool.apply(make_array, (shape, dtype, order))
        assert back.dtype == a.dtype
        assert np.array_equal(back, a)


def test_numpy_views_and_odd_arrays(pool):
    base = np.arange(100_000.0)
    for a in (base[::3], base[::-1], base.reshape(100, 1000).T, np.array([{"a": 1}, None]), np.float32(3.5)):
        assert np.array_equal(pool.apply(identity, (a,)), a)
    record = np.zeros(5000, dtype=[("a", "i4"), ("b", "f8")])
    record["b"] = 1.5
    assert np.array_equal(pool.apply(identity, (record,)), record)


def test_arrays_are_as_writable_as_they_were(pool):
    a = np.zeros(100_000)
    assert pool.apply(can_write, (a,))
    assert pool.apply(change, (a,)) == 99
    assert a[0] == 0
    back = pool.apply(identity, (a,))
    back[0] = 1
    a.flags.writeable = False
    assert not pool.apply(can_write, (a,))
    assert not pool.apply(identity, (a,)).flags.writeable


def test_a_result_array_outlives_its_worker_and_its_pool(make_pool):
    pool = make_pool(1)
    back = pool.apply(make_array, ((1 << 18,), "<i8"))
    others = [pool.apply(make_array, ((1 << 18,), "<i8")) for _ in range(5)]
    pool.terminate()
    pool.join()
    assert np.array_equal(back, np.arange(1 << 18))
    assert all(np.array_equal(back, other) for other in others)


def test_bytearrays_and_buffers_can_be_changed_without_harm(pool):
    data = bytearray(make_bytes(100_000))
    assert bytes(pool.apply(fill, (data,))[:4]) == b"work"
    assert data == make_bytes(100_000)
    back = pool.apply(fill, (bytearray(100_000),))
    assert type(back) is bytearray
    back.extend(b"more")
    assert len(back) == 100_004


def test_a_caller_may_change_a_buffer_as_soon_as_it_is_submitted(pool):
    a = np.ones(100_000)
    results = []
    for i in range(50):
        a[:] = i
        results.append(pool.apply_async(total_and_layout, (a,)))
    assert [r.get()[0] for r in results] == [i * 100_000 for i in range(50)]


def shared_memory_of(pid):
    """How many bytes lie in memory of ours that a process has open, each piece counted once."""
    pieces = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            if "memfd:billiard" in os.readlink(f"/proc/{pid}/fd/{name}"):
                stat = os.stat(f"/proc/{pid}/fd/{name}")
                pieces[stat.st_ino] = stat.st_blocks * 512
        except OSError:
            continue  # the one that listed the folder
    return sum(pieces.values())


def test_the_memory_of_huge_arrays_goes_back_while_the_pool_is_idle(make_pool):
    pool = make_pool(1)
    pool.apply(os.getpid)
    base = shared_memory_of(os.getpid())
    array = np.arange(12 << 20)
    back = pool.apply(identity, (array,))
    assert np.array_equal(back, array)
    assert shared_memory_of(os.getpid()) >= base + back.nbytes
    del back
    # What stays: 16 MiB on each side, and a little for itself.
    deadline = time.monotonic() + 30
    while shared_memory_of(os.getpid()) > base + (34 << 20):
        assert time.monotonic() < deadline, f"{shared_memory_of(os.getpid()) - base} bytes are left"
        time.sleep(0.05)
    assert np.array_equal(pool.apply(identity, (array,)), array)


def available_memory():
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * KIB
    return 0


def sparse_ends(array):
    return array.nbytes, int(array[0]), int(array[-1])


@pytest.mark.skipif(
    "BILLIARD_HUGE_TESTS" not in os.environ or available_memory() < 12 << 30,
    reason="moves more than 4 GiB: set BILLIARD_HUGE_TESTS where there are 12 GiB free",
)
def test_more_than_four_gibibytes(pool):
    array = np.zeros((4 << 30) + 4096, "u1")
    array[0], array[-1] = 1, 2
    assert pool.apply(sparse_ends, (array,)) == (array.nbytes, 1, 2)
