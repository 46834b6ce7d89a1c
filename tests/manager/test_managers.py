"""What managers promise to programs, by every start method."""

from __future__ import annotations

import copy
import os
import pickle
import threading
import time

import managerwork
import pytest

import billiard
from billiard import managers
from billiard.managers import BaseManager, RemoteError, SyncManager


@pytest.fixture
def manager(ctx):
    with ctx.Manager() as manager:
        yield manager


def test_what_a_child_does_is_seen_here(ctx, manager):
    shared, numbers = manager.dict(a=1), manager.list([1, 2])
    queue, lock, event = manager.Queue(), manager.Lock(), manager.Event()
    child = ctx.Process(target=managerwork.use_everything, args=(shared, numbers, queue, lock, event))
    child.start()
    assert queue.get(timeout=30) == ("from", "child")
    assert shared.copy() == {"a": 1, "child": child.pid}
    assert numbers[:] == [1, 2, 3]
    event.set()
    child.join()
    assert child.exitcode == 0
    child.close()


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts the server's threads")
def test_clients_of_quick_objects_are_served_by_one_thread(ctx, manager):
    shared = manager.dict()
    threads = f"/proc/{manager._process.pid}/task"
    before = len(os.listdir(threads))
    children = [ctx.Process(target=managerwork.count, args=(shared, key, 50)) for key in ("a", "b", "c")]
    for child in children:
        child.start()
    shared["here"] = True
    assert len(os.listdir(threads)) <= before
    for child in children:
        child.join()
    assert shared.copy() == {"here": True, "a": 50, "b": 50, "c": 50}
    assert len(os.listdir(threads)) <= before
    # One that may wait has this client's questions answered by a thread of their own.
    with manager.Lock():
        assert len(os.listdir(threads)) > before
        assert shared["a"] == 50


def test_dictionaries_and_lists(manager):
    shared = manager.dict({"a": 1})
    shared["b"] = [2]
    shared.update(c=3)
    assert ("a" in shared, len(shared), shared.get("d", 4)) == (True, 3, 4)
    assert sorted(shared) == sorted(shared.keys()) == ["a", "b", "c"]
    assert sorted(shared.items()) == [("a", 1), ("b", [2]), ("c", 3)]
    assert shared | {"d": 4} == {"a": 1, "b": [2], "c": 3, "d": 4}
    shared |= {"d": 4}
    assert (shared.pop("d"), shared.has_key("d"), str(shared)) == (4, False, "{'a': 1, 'b': [2], 'c': 3}")
    with pytest.raises(KeyError, match="nope"):
        shared["nope"]
    numbers = manager.list([3, 1, 2])
    numbers.sort()
    numbers += [4]
    numbers *= 2
    assert list(numbers) == [1, 2, 3, 4, 1, 2, 3, 4]
    numbers.clear()
    assert (numbers.copy(), numbers.__add__([1])) == ([], [1])
    # A proxy within an object of the same server is the object itself.
    shared["list"] = numbers
    numbers.append("seen")
    assert shared["list"] == ["seen"]
    assert copy.deepcopy(shared)["list"] == ["seen"]


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 0, -1, 255, 256, 65_535, 65_536, 2**31, -(2**31), 2**63 - 1, 2**63, -(2**70)),
        *(1.5, float("inf"), "", "text", "ünï", "\ud800", "x" * 255, "x" * 256, "y" * 20_000),
        *(b"", b"bytes", b"z" * 300, b"z" * 3_000_000, (), (1, ("two", (3.0, (None,)))), tuple(range(300))),
        *([1, [2]], {"a": {}}, {1, 2}, frozenset({3}), bytearray(b"x"), range(3), complex(1, 2), int),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_values_come_back_as_they_went(kept, value):
    kept["value"] = value
    back = kept["value"]
    assert type(back) is type(value)
    assert back == value


@pytest.fixture(scope="module")
def kept():
    with billiard.Manager() as manager:
        yield manager.dict()


def test_what_is_the_same_stays_the_same(kept):
    one = [1]
    kept["pair"] = (one, one)
    first, second = kept["pair"]
    assert first is second


def test_values_arrays_and_namespaces(manager):
    value, array, space = manager.Value("i", 3), manager.Array("i", [1, 2]), manager.Namespace(a=1)
    value.value += 4
    array[1] = 5
    space.b = "two"
    assert (value.value, value.get(), array[:].tolist(), len(array)) == (7, 7, [1, 5], 2)
    assert (space.a, space.b, str(space)) == (1, "two", "Namespace(a=1, b='two')")
    del space.a
    with pytest.raises(AttributeError):
        space.a  # noqa: B018
    space._mine = 1
    assert str(space) == "Namespace(b='two')"


def test_locks_are_held_by_threads_of_clients(manager):
    lock, recursive = manager.RLock(), manager.Lock()
    with lock, lock:
        got = []
        other = threading.Thread(target=lambda: got.append(lock.acquire(False)))
        other.start()
        other.join()
        assert got == [False]
    assert recursive.acquire(True, 0.01)
    assert not recursive.acquire(True, 0.01)
    # Another thread may release it.
    other = threading.Thread(target=recursive.release)
    other.start()
    other.join()
    assert recursive.acquire(False)


def test_semaphores_conditions_and_barriers(manager):
    bounded = manager.BoundedSemaphore(1)
    bounded.acquire()
    bounded.release()
    with pytest.raises(ValueError, match="released too many times"):
        bounded.release()
    condition, barrier = manager.Condition(), manager.Barrier(2)
    done = []

    def other():
        with condition:
            done.append("notified")
            condition.notify()
        barrier.wait(30)

    with condition:
        assert not condition.wait(0.01)
        thread = threading.Thread(target=other)
        thread.start()
        assert condition.wait_for(lambda: done, 30) == ["notified"]
    assert barrier.wait(30) in (0, 1)
    thread.join()
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (2, 0, False)
    barrier.abort()
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()


def test_who_waits_keeps_nobody_else_waiting(manager):
    event, shared, queue = manager.Event(), manager.dict(), manager.JoinableQueue()
    got = []
    threads = [threading.Thread(target=event.wait), threading.Thread(target=lambda: got.append(queue.get()))]
    for thread in threads:
        thread.start()
    for number in range(100):
        shared[number] = number
    assert len(shared) == 100
    event.set()
    queue.put("item")
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    queue.task_done()
    queue.join()
    assert got == ["item"]


def test_pools_and_iterators(manager):
    with manager.Pool(1) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
        assert pool.apply_async(abs, (-3,)).get(30) == 3
        assert list(pool.imap(abs, [-4, -5])) == [4, 5]


def test_registered_types(ctx):
    with managerwork.Counters(ctx=ctx) as manager:
        counter = manager.Counter(5)
        assert (counter.add(), counter.add(by=2)) == (6, 8)
        other = counter.another()
        assert (other.add(), counter.add(0)) == (9, 8)
        assert not hasattr(manager, "Hidden")
        assert not hasattr(counter, "_private")
        with pytest.raises(RemoteError, match="not in exposed"):
            counter._callmethod("_private")
        assert manager.Private()._private() == "private"
        with pytest.raises(LookupError, match="nothing there") as caught:
            counter.fail()
        assert "managerwork.py" in str(caught.value.__cause__)
        with pytest.raises(RemoteError, match="Unserializable message: <function"):
            counter.unsendable()
        with pytest.raises(RemoteError, match="unexpected keyword"):
            manager.Counter(nonsense=1)
        # Children have no manager; methods that return proxies work there all the same.
        reader, writer = ctx.Pipe(duplex=False)
        child = ctx.Process(target=managerwork.make_from_proxy, args=(counter, writer))
        child.start()
        assert reader.poll(30)
        assert reader.recv() == 18
        child.join()
        child.close()
        reader.close()
        writer.close()


def test_generators(ctx):
    with managerwork.Generators(ctx=ctx) as manager:
        assert list(manager.squares(4)) == [0, 1, 4, 9]


def test_objects_live_as_long_as_somebody_refers_to_them(manager):
    one, two = manager.dict(), manager.list()
    assert manager._number_of_objects() == 2
    again = pickle.loads(pickle.dumps(one)) if billiard.current_process().authkey else None
    assert again is not None
    del one
    again["still"] = "there"
    assert manager._number_of_objects() == 2
    assert "refcount=1" in manager._debug_info()
    del again
    assert manager._number_of_objects() == 1
    assert two[:] == []


def test_the_states_of_a_manager(ctx):
    manager = SyncManager(ctx=ctx)
    manager.shutdown()
    with pytest.raises(AssertionError, match="not yet started"):
        manager.dict()
    with pytest.raises(TypeError, match="callable"):
        manager.start(initializer=3)
    with pytest.raises(AssertionError, match="started the server"):
        manager.join()
    manager.start(managerwork.set_up, ("before",))
    assert manager._process.name.startswith("SyncManager-")
    for again in (manager.start, manager.get_server):
        with pytest.raises(AssertionError, match="started already"):
            again()
    assert manager.prepared()[:] == ["before"] or ctx.get_start_method() != "fork"
    manager.shutdown()
    manager.shutdown()
    manager.join()
    assert manager._process.exitcode == 0
    with pytest.raises(AssertionError):
        manager.start()


@pytest.mark.parametrize(
    ("initializer", "error", "text"),
    [(managerwork.refuse, RuntimeError, "not today"), (managerwork.leave, EOFError, "exit code 3")],
)
def test_a_server_that_cannot_start_says_why(ctx, initializer, error, text):
    manager = SyncManager(ctx=ctx)
    with pytest.raises(error, match=text):
        manager.start(initializer)
    # It can be tried again.
    with manager:
        assert manager.list([1])[:] == [1]


def test_over_tcp_with_a_key_and_a_manager_elsewhere(ctx):
    with SyncManager(("127.0.0.1", 0), b"secret", ctx=ctx) as manager:
        shared = manager.dict(a=1)
        other = SyncManager(manager.address, b"secret")
        other.connect()
        numbers = other.list([1])
        assert (numbers[:], manager._number_of_objects()) == ([1], 2)
        other.shutdown()
        wrong = SyncManager(manager.address, b"wrong")
        with pytest.raises(billiard.AuthenticationError):
            wrong.connect()
        del numbers
        assert shared["a"] == 1


def test_by_xml(ctx):
    class Plain(BaseManager):
        pass

    Plain.register("dict", dict, SyncManager._registry["dict"][-1])
    manager = Plain(("127.0.0.1", 0), b"secret", "xmlrpclib", ctx=billiard.get_context("fork"))
    with manager:
        shared = manager.dict()
        shared["a"] = 1
        assert shared["a"] == 1
    assert ctx is not None


def test_ctrl_c_leaves_the_server_alone(manager):
    shared = manager.dict(a=1)
    manager._process.interrupt()
    time.sleep(0.05)
    assert shared["a"] == 1


def test_a_manager_that_is_pickled_is_another_way_to_the_server(manager):
    other = pickle.loads(pickle.dumps(manager))
    assert other.list([1])[:] == [1]


def test_kinds_of_answers():
    assert isinstance(managers.convert_to_error("#ERROR", KeyError()), KeyError)
    shown = str(managers.convert_to_error("#TRACEBACK", "text\n"))
    assert shown == "\n" + "-" * 75 + "\ntext\n" + "-" * 75
    assert isinstance(managers.convert_to_error("#OTHER", None), ValueError)
