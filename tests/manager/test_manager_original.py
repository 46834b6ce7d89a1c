"""The original's clients and servers understand ours, and the standard library's do."""

from __future__ import annotations

import multiprocessing.managers as standard

import pytest

import billiard
from billiard.managers import SyncManager

CLIENT = """
import sys
from billiard.managers import SyncManager
manager = SyncManager(("127.0.0.1", int(sys.argv[1])), b"secret")
manager.connect()
numbers, queue = manager.list([1]), manager.Queue()
numbers.append(2)
queue.put(tuple(numbers[:]))
print(queue.get(), numbers, manager._number_of_objects())
del numbers, queue
print(manager._number_of_objects())
"""


def test_the_original_uses_our_server(original):
    with SyncManager(("127.0.0.1", 0), b"secret", ctx=billiard.get_context("fork")) as manager:
        done = original(CLIENT, str(manager.address[1]))
        assert (done.stdout, done.stderr) == ("(1, 2) [1, 2] 2\n0\n", "")


def test_it_does_the_same_with_its_own(original, program):
    both = """
    import threading
    import billiard
    with billiard.Manager() as manager:
        shared, space, event = manager.dict(a=[1]), manager.Namespace(b=2), manager.Event()
        print(shared.items(), space.b, str(shared), str(space), shared.setdefault("c", 3), len(shared))
        attempts = lambda: shared["x"], lambda: space.y, lambda: shared._callmethod("nope"), manager.start
        for attempt in attempts:
            try:
                attempt()
            except BaseException as error:
                print(type(error).__name__)
        print(event.wait(0.01), event.is_set(), manager.Value("i", 3), manager.Array("i", [1, 2])[:])
        print(manager._number_of_objects())
        shared["n"] = nested = manager.list([1])
        print(shared["n"], type(shared["n"]).__name__)
    manager.shutdown()
    """
    ours, theirs = program(both), original(both)
    assert ours.stderr == theirs.stderr == ""
    assert ours.stdout == theirs.stdout


@pytest.mark.parametrize("ours_serves", [True, False])
def test_the_standard_library_and_we_understand_each_other(ours_serves):
    pair = SyncManager, standard.SyncManager
    server, client = pair if ours_serves else pair[::-1]
    with server(("127.0.0.1", 0), b"secret") as manager:
        other = client(manager.address, b"secret")
        other.connect()
        shared, lock = other.dict(a=1), other.Lock()
        shared["b"] = 2
        with lock:
            assert shared.copy() == {"a": 1, "b": 2}
        assert manager._number_of_objects() == 2
        del shared, lock
        assert manager._number_of_objects() == 0
