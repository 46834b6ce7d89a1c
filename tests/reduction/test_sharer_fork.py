"""What becomes of shared descriptors in a forked child: they stay the parent's."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import threading
import warnings

import pytest
from sharing import PATIENCE, read, service

import billiard
from billiard.resource_sharer import DupFd, _resource_sharer, stop

pytestmark = pytest.mark.usefixtures("sharing")


def descriptors():
    """What this process has open, but for what a look at it opens: pairs of number and target."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add((int(number), os.readlink(f"/proc/self/fd/{number}")))
    return found


def test_a_child_has_no_copy(share, in_child):
    before = descriptors()
    shared = share()
    visitor = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with visitor:
        visitor.connect(service().address)
        visitor.recv(100)  # the greeting: the thread has taken note of it
        added = {one for one in descriptors() - before if one[0] != visitor.fileno()}
        assert len(added) == 3  # the listener, the visitor's other end, the file
        assert in_child(lambda: added & descriptors()) == set()
        assert in_child(lambda: (service(), _resource_sharer._running)) == (None, set())
    assert read(shared) == b"shared"


def test_a_copy_made_by_the_system_call_has_none_either(share):
    """Nobody has prepared that child but the interpreter."""
    before = descriptors()
    shared = share()
    added = descriptors() - before
    assert len(added) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads
        pid = os.fork()
    if pid == 0:
        os._exit(len(added & descriptors()))
    assert os.waitpid(pid, 0)[1] == 0
    assert read(shared) == b"shared"


def test_a_child_fetches_what_its_parent_shares_and_the_other_way_round(share, in_child):
    here, there = socket.socketpair()

    def exchange(shared):
        there.send(pickle.dumps(share(b"the child's")))
        assert there.recv(10) == b"fetched"
        return read(shared)

    answers = []
    with here, there:
        child = threading.Thread(
            target=lambda: answers.append(in_child(exchange, share(b"the parent's"))), daemon=True
        )
        child.start()
        theirs = pickle.loads(here.recv(1000))
        # The pickle names the child's address: this process's own sharer does not interfere.
        assert theirs._id[0] != service().address
        assert read(theirs) == b"the child's"
        here.send(b"fetched")
        child.join(PATIENCE)
    assert answers == [b"the parent's"]


def test_a_child_may_stop_what_it_has_not_started(share, in_child):
    shared = share()
    in_child(stop)
    assert in_child(read, shared) == b"shared"


def test_a_grandchild_fetches_too(share, in_child):
    shared = share()
    assert in_child(in_child, read, shared) == b"shared"


def test_a_child_forked_while_another_thread_shares(share, in_child):
    """The lock is held by somebody who does not exist in the child."""
    held, done = threading.Event(), threading.Event()

    def hold():
        with _resource_sharer._lock:
            held.set()
            done.wait(PATIENCE)

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    held.wait(PATIENCE)
    threading.Timer(0.05, done.set).start()
    # The fork waits for the holder: what it has open is listed when the child is made.
    assert in_child(lambda: read(share())) == b"shared"
    assert done.is_set()
    holder.join(PATIENCE)


def visit_all(addresses):
    """Connect and leave, again and again, until there is nobody; then at the next address."""
    while address := addresses.recv(100):
        with contextlib.suppress(ConnectionError):
            while True:
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as visitor:
                    visitor.connect(address)
                    visitor.recv(100)


def test_children_forked_in_the_middle_of_it_all_have_no_copy(in_child):
    """One thread shares and stops sharing, a process visits, children are forked meanwhile."""
    reader, writer = os.pipe()
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    visitor = billiard.Process(target=lambda: (here.close(), visit_all(there)), daemon=True)
    visitor.start()
    before = sorted(target for _, target in descriptors() if target.startswith("socket:"))
    shared = os.readlink(f"/proc/self/fd/{writer}")
    over = threading.Event()

    def share_and_stop():
        while not over.is_set():
            DupFd(writer)
            here.send(service().address)
            for _ in range(50):
                DupFd(writer)
            stop()

    def copies():
        found = [target for _, target in descriptors() if target.startswith(("socket:", shared))]
        for known in (*before, shared, shared):
            found.remove(known)
        return found

    sharing = threading.Thread(target=share_and_stop, daemon=True)
    sharing.start()
    try:
        for _ in range(100):
            assert in_child(copies) == []
    finally:
        over.set()
        sharing.join(PATIENCE)
        here.close()
        there.close()
        visitor.join(PATIENCE)
        os.close(reader)
        os.close(writer)
    assert visitor.exitcode == 0


def test_pools_start_workers_while_there_is_sharing(share):
    shared = [share() for _ in range(10)]
    with billiard.Pool(2) as pool:
        assert pool.map(read, shared, chunksize=1) == [b"shared"] * 10
        assert DupFd is type(pool.apply(pickle.loads, (pickle.dumps(shared[0]),)))
