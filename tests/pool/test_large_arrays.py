"""Arrays that are larger than any channel: seen in place, and gone with the last view, whoever dies."""

from __future__ import annotations

import os
import signal

import numpy as np

from billiard.exceptions import WorkerLostError

MIB = 1 << 20
#: Of the memory for large messages so much stays on either side for the next ones; more of it for a second.
KEPT = 2 * 16 * MIB

held = []


def hold(array):
    held.append(array)
    return os.getpid()


def ones(size):
    return np.ones(size, dtype=np.uint8)


def ends_of(array):
    return array.nbytes, int(array[0]), int(array[-1]), array.base is not None


def backed():
    """How many bytes of memory are behind all that this process shares."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{number}").startswith("/memfd:billiard"):
                told = os.stat(f"/proc/self/fd/{number}")
                found[told.st_ino] = told.st_blocks * 512
        except OSError:
            continue  # the one that listed the folder
    return sum(found.values())


def test_an_argument_is_a_view_and_a_killed_worker_gives_back_what_it_held(make_pool, until):
    pool = make_pool(1)
    before = backed()
    for _ in range(4):
        pid = pool.apply(hold, (ones(64 * MIB),))
    assert backed() - before >= 4 * 64 * MIB
    assert pool.apply(ends_of, (ones(64 * MIB),)) == (64 * MIB, 1, 1, True)
    os.kill(pid, signal.SIGKILL)
    try:
        assert pool.apply_async(hold, (ones(1),)).get(30) != pid
    except WorkerLostError:
        # It was handed to the dying one.
        assert pool.apply_async(hold, (ones(1),)).get(30) != pid
    until(lambda: backed() - before <= KEPT + 4 * MIB)


def test_a_result_goes_with_the_last_view_of_it(make_pool, until):
    pool = make_pool(1)
    before = backed()
    views = [pool.apply(ones, (64 * MIB,))[5:] for _ in range(4)]
    assert backed() - before >= 4 * 64 * MIB
    assert all(view[-1] == 1 for view in views)
    views.clear()
    # The worker sees it when it needs memory the next time.
    assert ends_of(pool.apply(ones, (MIB,)))[:3] == (MIB, 1, 1)
    until(lambda: backed() - before <= KEPT + 4 * MIB)
