"""Locks and semaphores: who may do what, in one process and in several."""

from __future__ import annotations

import gc
import os
import pickle
import threading
import time
import weakref

import pytest
import syncwork

import billiard
from billiard import synchronize

LOCKS = ("Lock", "RLock")
ALL = (*LOCKS, "Semaphore", "BoundedSemaphore")


@pytest.fixture(params=ALL)
def lock(request, ctx):
    return getattr(ctx, request.param)()


def in_thread(function, *args):
    """What a function answers on another thread."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(function(*args)))
    thread.start()
    thread.join()
    return answers[0]


def test_a_lock_is_held_by_one(lock, done):
    assert lock.acquire() is True
    assert in_thread(lock.acquire, False) is False
    assert done(syncwork.acquires, lock) == 0
    assert in_thread(lock.acquire, True, 0.01) is False
    lock.release()
    assert done(syncwork.acquires, lock) == 1


def test_with_acquires_and_releases(lock):
    with lock as acquired:
        assert acquired is True
        assert lock._semlock._get_value() == 0
        assert lock._semlock._is_zero()
        assert lock._is_mine()
        assert lock._count() == 1
    assert lock._get_value() == 1
    assert not lock._is_mine()
    with pytest.raises(KeyError), lock:
        raise KeyError
    assert lock._get_value() == 1


def test_a_wait_takes_as_long_as_it_says(lock):
    lock.acquire()
    for timeout in (-1, 0, 0.05):
        begin = time.monotonic()
        assert in_thread(lock.acquire, True, timeout) is False
        assert time.monotonic() - begin >= timeout
    assert in_thread(lambda: lock.acquire(block=False, timeout=100)) is False


@pytest.mark.parametrize("timeout", [None, float("inf"), 1e300])
@pytest.mark.parametrize("kind", ["Lock", "Semaphore", "BoundedSemaphore"])
def test_a_wait_without_end_ends_with_the_release(ctx, kind, timeout):
    lock = getattr(ctx, kind)()
    lock.acquire()
    thread = threading.Timer(0.05, lock.release)
    thread.start()
    assert lock.acquire(True, timeout)
    thread.join()


def test_a_waiter_in_another_process_goes_on(lock, start, ctx):
    lock.acquire()
    ready, told = ctx.Semaphore(0), ctx.Semaphore(0)
    child = start(_enter, lock, ready, told)
    ready.acquire()
    assert not told.acquire(timeout=0.05)
    lock.release()
    assert told.acquire(timeout=30)
    child.join()


def _enter(lock, ready, told):
    ready.release()
    with lock:
        told.release()


def test_a_recursive_lock_is_acquired_again_by_its_thread_alone(ctx, done):
    lock = ctx.RLock()
    for depth in range(1, 4):
        assert lock.acquire(False)
        assert lock._count() == depth
    for _ in range(2):
        lock.release()
        assert not in_thread(lock.acquire, False)
    assert done(syncwork.acquires, lock) == 0
    lock.release()
    assert done(syncwork.acquires, lock) == 1


def test_only_its_thread_releases_a_recursive_lock(ctx, done):
    lock = ctx.RLock()
    text = "attempt to release recursive lock not owned by thread"
    with pytest.raises(AssertionError, match=text):
        lock.release()
    with lock:
        assert in_thread(syncwork.error_of, syncwork.release, lock) == 21
        assert done(syncwork.error_of, syncwork.release, lock) == 21
    assert lock._get_value() == 1


@pytest.mark.parametrize("kind", ["Lock", "BoundedSemaphore"])
def test_what_is_free_cannot_be_released(ctx, kind, done):
    lock = getattr(ctx, kind)()
    with pytest.raises(ValueError, match="semaphore or lock released too many times"):
        lock.release()
    assert done(syncwork.error_of, syncwork.release, lock) == 22


def test_any_process_releases_a_lock_and_then_it_is_nobodys(ctx, done):
    lock = ctx.Lock()
    lock.acquire()
    assert lock._is_mine()
    assert done(syncwork.gives, lock) == 0
    assert not lock._is_mine()
    assert "owner=None" in repr(lock)
    assert lock.acquire(False)


def test_a_semaphore_counts(ctx, done):
    semaphore = ctx.Semaphore(2)
    assert semaphore.get_value() == 2
    semaphore.acquire()
    assert done(syncwork.takes, semaphore) == 1
    assert semaphore.get_value() == 0
    assert semaphore.acquire(False) is False
    assert done(syncwork.gives, semaphore, 5) == 0
    assert semaphore.get_value() == 5
    assert ctx.Semaphore(0).acquire(True, 0.001) is False


def test_a_bounded_semaphore_has_a_bound(ctx):
    semaphore = ctx.BoundedSemaphore(2)
    assert semaphore.maxvalue == 2
    with semaphore, semaphore:
        assert semaphore._get_value() == 0
    with pytest.raises(ValueError, match="released too many times"):
        semaphore.release()


def test_what_cannot_be_is_refused():
    for value in (-1, synchronize.SEM_VALUE_MAX + 1):
        with pytest.raises(OSError, match="Invalid argument"):
            billiard.Semaphore(value)
        with pytest.raises(OSError, match="Invalid argument"):
            billiard.BoundedSemaphore(value)
    with pytest.raises(ValueError, match="unrecognized kind"):
        synchronize.SemLock(2, 1, 1)
    with pytest.raises(OSError, match="Invalid argument"):
        synchronize.SemLock(synchronize.SEMAPHORE, 3, 2)
    with pytest.raises(TypeError):
        billiard.Lock().acquire(blocking=False)
    semaphore = synchronize.SemLock(
        synchronize.SEMAPHORE, synchronize.SEM_VALUE_MAX, synchronize.SEM_VALUE_MAX
    )
    with pytest.raises(ValueError, match="too many times"):
        semaphore.release()
    with pytest.raises(FileNotFoundError):
        synchronize.sem_unlink("/mp-nothing")


def test_what_holds_it_is_shown(ctx, start):
    lock, recursive = ctx.Lock(), ctx.RLock()
    name = billiard.current_process().name
    assert repr(lock) == "<Lock(owner=None)>"
    assert repr(recursive) == "<RLock(None, 0)>"
    with lock, recursive, recursive:
        assert repr(lock) == f"<Lock(owner={name})>"
        assert repr(recursive) == f"<RLock({name}, 2)>"
        assert in_thread(repr, lock) == "<Lock(owner=SomeOtherThread)>"
        assert in_thread(repr, recursive) == "<RLock(SomeOtherThread, nonzero)>"
    ready = ctx.Event()
    start(syncwork.take_and_stay, lock, ready)
    assert ready.wait(30)
    assert repr(lock) == "<Lock(owner=SomeOtherProcess)>"
    assert repr(ctx.Semaphore(3)) == "<Semaphore(value=3)>"
    assert repr(ctx.BoundedSemaphore(3)) == "<BoundedSemaphore(value=3, maxvalue=3)>"

    def on_thread():
        with recursive:
            return repr(recursive)

    assert in_thread(on_thread).startswith(f"<RLock({name}|Thread-")


def test_the_attributes_of_the_original_are_there(ctx):
    lock = ctx.Lock()
    native = lock._semlock
    assert (native.kind, native.maxvalue, native.name) == (synchronize.SEMAPHORE, 1, None)
    assert isinstance(native.handle, int)
    assert ctx.RLock().kind == synchronize.RECURSIVE_MUTEX
    assert ctx.Semaphore().maxvalue == synchronize.SEM_VALUE_MAX
    assert synchronize.SemLock._make_name().startswith("/mp-")
    native._after_fork()
    lock.anything = 1
    assert lock.anything == 1


def test_only_a_child_that_is_started_is_sent_a_lock(lock):
    name = type(lock).__name__
    text = f"^{name} objects should only be shared between processes through inheritance$"
    with pytest.raises(RuntimeError, match=text):
        pickle.dumps(lock)


def test_two_handles_of_one_lock_agree(ctx, done):
    lock = ctx.RLock()
    assert done(_use_both, lock, [lock]) == 1


def _use_both(one, others):
    (other,) = others
    one.acquire()
    other.acquire()
    one.release()
    other.release()
    return one._get_value() == 1 and other._get_value() == 1


def test_a_lock_goes_on_to_grandchildren(ctx, done):
    lock = ctx.Lock()
    lock.acquire()
    assert done(_ask_a_child, ctx._name, lock) == 0
    lock.release()
    assert done(_ask_a_child, ctx._name, lock) == 1


def _ask_a_child(method, lock):
    child = billiard.get_context(method).Process(target=syncwork.leave_with, args=(syncwork.acquires, lock))
    child.start()
    child.join()
    return child.exitcode


def test_a_lock_goes_to_children_of_other_methods(ctx, request):
    request.getfixturevalue("fork_server")
    lock = ctx.Lock()
    lock.acquire()
    for method in ("fork", "spawn", "forkserver"):
        assert _ask_a_child(method, lock) == 0


def test_many_locks_have_one_descriptor(ctx, done):
    locks = [ctx.Lock() for _ in range(300)]
    before = len(os.listdir("/proc/self/fd"))
    more = [ctx.Lock() for _ in range(300)]
    assert len(os.listdir("/proc/self/fd")) == before
    with locks[-1]:
        assert done(_count_free, locks) == 43
    assert more


def _count_free(locks):
    """How many are free, as far as an exit code tells."""
    return sum(lock.acquire(False) for lock in locks) % 256


def test_locks_that_are_dropped_leave_nothing(ctx):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10_000):
        ctx.Lock()
    kept = [ctx.Lock() for _ in range(3000)]
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    child = ctx.Process(target=_count_free, args=(kept,))
    child.start()
    child.join()
    child.close()
    del child
    reference = weakref.ref(kept[0])
    del kept
    gc.collect()
    assert reference() is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_lock_outlives_its_maker_in_a_child(ctx, start):
    """The parent lets go of the lock, and makes others where it was; the child's is another one."""
    lock, ready, told = ctx.Lock(), ctx.Semaphore(0), ctx.Semaphore(0)
    child = start(_hold_on, lock, ready, told)
    ready.acquire()
    del lock
    others = [ctx.Lock() for _ in range(100)]
    for other in others:
        assert other.acquire(False)
    told.release()
    child.join()
    assert child.exitcode == 0


def _hold_on(lock, ready, told):
    with lock:
        ready.release()
        told.acquire()


def test_a_subclass_may_take_what_it_likes():
    class Named(synchronize.Lock):
        def __init__(self, name):
            super().__init__()
            self.name_of_mine = name

    with Named("x") as acquired:
        assert acquired

    class Forgetful(synchronize.Lock):
        def __init__(self):
            pass

    with pytest.raises(RuntimeError, match="not initialized"):
        Forgetful().acquire()


def test_nothing_is_lost_by_those_who_count(ctx, start, tmp_path):
    path = tmp_path / "number"
    path.write_bytes(b"0")
    lock = ctx.Lock()
    children = [start(syncwork.count_up, lock, str(path), 300) for _ in range(3)]
    for child in children:
        child.join()
    assert path.read_bytes() == b"900"


def _keep(lock):
    _kept.append(lock)


_kept = []


def _is_free(_):
    return _kept[0]._get_value()


def test_a_pools_workers_are_given_locks(ctx):
    lock = ctx.Lock()
    with ctx.Pool(2, initializer=_keep, initargs=(lock,)) as pool:
        assert pool.map(_is_free, range(4)) == [1] * 4
        with lock:
            assert pool.map(_is_free, range(4)) == [0] * 4
    pool.join()
    del pool
