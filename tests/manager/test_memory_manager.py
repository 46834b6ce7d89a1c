"""The manager of shared memory: what it has made works, and is gone when the manager is."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import time
from multiprocessing import shared_memory as standard
from multiprocessing.managers import SharedMemoryManager as StandardManager
from pathlib import Path

import managerwork
import pytest

import billiard
from billiard import managers
from billiard.managers import SharedMemoryManager
from billiard.shared_memory import ShareableList, SharedMemory


def left(*names):
    return [name for name in names if (Path("/dev/shm") / name).exists()]


@pytest.fixture
def manager(ctx):
    with SharedMemoryManager(ctx=ctx) as manager:
        yield manager


def test_it_makes_memory_and_lists_that_others_open(manager):
    memory, numbers = manager.SharedMemory(100), manager.ShareableList([1, "two", None])
    assert (type(memory), type(numbers)) == (SharedMemory, ShareableList)
    assert memory.size == 100
    memory.buf[:3] = b"abc"
    other, again = SharedMemory(memory.name), ShareableList(name=numbers.shm.name)
    assert bytes(other.buf[:3]) == b"abc"
    assert list(again) == list(numbers) == [1, "two", None]
    assert list(pickle.loads(pickle.dumps(numbers))) == [1, "two", None]


def test_the_standard_library_opens_them(manager, program):
    memory, numbers = manager.SharedMemory(size=100), manager.ShareableList([7])
    memory.buf[:3] = b"abc"
    source = """
        import sys
        from multiprocessing import resource_tracker, shared_memory
        # Else it removes what it has only opened.
        resource_tracker.register = lambda *_: None
        memory = shared_memory.SharedMemory(sys.argv[1])
        numbers = shared_memory.ShareableList(name=sys.argv[2])
        print(bytes(memory.buf[:3]), list(numbers))
    """
    done = program(source, memory.name, numbers.shm.name)
    assert (done.stdout, done.stderr) == ("b'abc' [7]\n", "")


def test_everything_is_gone_after_the_shutdown(ctx):
    manager = SharedMemoryManager(ctx=ctx)
    manager.start()
    memory, numbers = manager.SharedMemory(10), manager.ShareableList([1])
    assert left(memory.name, numbers.shm.name) == [memory.name, numbers.shm.name]
    manager.SharedMemory(10).unlink()
    manager.shutdown()
    assert left(memory.name, numbers.shm.name) == []
    # Who has it open keeps it.
    memory.buf[0] = numbers[0] = 5
    assert (memory.buf[0], numbers[0]) == (5, 5)
    for call in (manager.SharedMemory, manager.ShareableList):
        with pytest.raises(AssertionError, match="shut down"):
            call([1] if call == manager.ShareableList else 1)


def test_one_manager_leaves_the_memory_of_another_alone(manager):
    memory, own = manager.SharedMemory(10), SharedMemory(create=True, size=10)
    with SharedMemoryManager() as other:
        others = other.SharedMemory(10)
    assert left(memory.name, own.name, others.name) == [memory.name, own.name]
    own.unlink()


def test_what_a_child_makes_stays_until_the_manager_goes(ctx):
    with SharedMemoryManager(ctx=ctx) as manager:
        reader, writer = ctx.Pipe(duplex=False)
        child = ctx.Process(target=managerwork.make_memory, args=(manager, writer))
        child.start()
        names = reader.recv()
        child.join()
        child.close()
        reader.close()
        writer.close()
        memory = SharedMemory(names[0])
        assert bytes(memory.buf[:4]) == b"made"
        memory.close()
        assert left(*names) == [*names]
    assert left(*names) == []


def test_a_manager_that_is_collected_takes_everything_along(leak_census):  # noqa: ARG001
    manager = SharedMemoryManager()
    manager.start()
    name = manager.SharedMemory(10).name
    del manager
    gc.collect()
    assert left(name) == []


def test_if_its_server_is_killed_the_shutdown_removes_everything(ctx):
    manager = SharedMemoryManager(ctx=ctx)
    manager.start()
    memory = manager.SharedMemory(10)
    os.kill(manager._process.pid, signal.SIGKILL)
    manager._process.join()
    with pytest.raises(ConnectionRefusedError):
        manager.SharedMemory(10)
    assert left(memory.name) == [memory.name]
    manager.shutdown()
    assert left(memory.name) == []


@pytest.mark.parametrize("both", [False, True])
def test_if_its_owner_is_killed_everything_goes(ctx, method, both, until):
    reader, writer = ctx.Pipe(duplex=False)
    owner = ctx.Process(target=managerwork.own_memory, args=(method, writer))
    owner.start()
    server, *names = reader.recv()
    assert left(*names) == names
    if both:
        os.kill(server, signal.SIGKILL)
    owner.kill()
    owner.join()
    owner.close()
    reader.close()
    writer.close()

    # The server has 0.3 s to remove them. If it is no more, or that was too short, the next use does it.
    passed_by = time.monotonic() + (0 if both else 2)

    def are_gone():
        if time.monotonic() >= passed_by:
            SharedMemory(create=True, size=1).unlink()
        return not left(*names)

    until(are_gone)


def test_what_is_made_while_the_server_goes_is_removed(monkeypatch):
    manager = SharedMemoryManager()
    manager.start()
    names = []

    make = SharedMemory._kept_by

    def make_and_kill(*args):
        memory = make(*args)
        names.append(memory.name)
        manager._process.kill()
        manager._process.join()
        return memory

    monkeypatch.setattr(SharedMemory, "_kept_by", make_and_kill)
    with pytest.raises(ConnectionRefusedError):
        manager.SharedMemory(10)
    assert len(names) == 1
    assert left(*names) == []
    manager.shutdown()


def test_bad_arguments_are_refused(manager):
    with pytest.raises(ValueError, match="at least 1 byte"):
        manager.SharedMemory(0)
    with pytest.raises(ValueError, match="list"):
        manager.ShareableList([[]])
    assert manager.SharedMemory(1).size == 1


def test_a_manager_that_is_not_started_says_so():
    with pytest.raises(AssertionError, match="not yet started"):
        SharedMemoryManager().SharedMemory(1)


def test_it_has_the_methods_of_the_standard_librarys():
    mine = {name for name in dir(SharedMemoryManager) if not name.startswith("_")}
    assert {name for name in dir(StandardManager) if not name.startswith("_")} <= mine
    assert set(standard.__all__) <= mine
    assert "SharedMemoryManager" in managers.__all__
    assert billiard.managers.SharedMemoryServer.__module__ == "billiard.managers"
