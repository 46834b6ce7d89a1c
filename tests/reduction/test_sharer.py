"""Descriptors that other processes fetch."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sharing import PATIENCE, read, service

import billiard
from billiard import resource_sharer, util
from billiard.resource_sharer import DupFd, _resource_sharer, stop

pytestmark = pytest.mark.usefixtures("sharing")


def test_a_child_fetches_a_descriptor(share, in_child):
    assert in_child(read, share()) == b"shared"


def test_a_descriptor_can_be_fetched_in_the_process_that_shared_it(share):
    assert read(pickle.loads(pickle.dumps(share()))) == b"shared"


FETCH = """
import os, pickle, sys, billiard
billiard.current_process().authkey = bytes.fromhex(sys.argv[2])
print(os.read(pickle.loads(bytes.fromhex(sys.argv[1])).detach(), 100).decode())
"""


def test_an_unrelated_program_fetches_a_descriptor(share, program):
    """All it needs is the pickle and the key."""
    done = program(FETCH, pickle.dumps(share()).hex(), billiard.current_process().authkey.hex())
    assert (done.stdout, done.stderr) == ("shared\n", "")


def test_an_unrelated_program_without_the_key_does_not(share, program):
    shared = share()
    done = program(FETCH, pickle.dumps(shared).hex(), "00")
    assert done.returncode == 1
    assert "AuthenticationError: digest sent was rejected" in done.stderr
    assert read(shared) == b"shared"


@pytest.mark.parametrize("first_in_child", [True, False])
@pytest.mark.parametrize("second_in_child", [True, False])
def test_a_descriptor_is_given_once(share, in_child, first_in_child, second_in_child):
    shared = share()
    assert (in_child(read, shared) if first_in_child else read(shared)) == b"shared"
    with pytest.raises(EOFError, match="taken already, or is not shared any more"):
        in_child(read, shared) if second_in_child else read(shared)


def test_what_is_not_open_cannot_be_shared():
    with pytest.raises(OSError, match="Bad file descriptor"):
        DupFd(1 << 20)
    assert service() is None


def test_stopping_closes_what_nobody_fetched(in_child):
    reader, writer = os.pipe()
    shared = DupFd(writer)
    os.close(writer)
    stop()
    assert os.read(reader, 1) == b""
    os.close(reader)
    for fetch in (read, lambda it: in_child(read, it)):
        with pytest.raises(ConnectionRefusedError, match="has ended, has stopped sharing"):
            fetch(shared)


def test_sharing_starts_again_after_a_stop(share, in_child):
    for _ in range(3):
        stop()
        stop()
        assert in_child(read, share()) == b"shared"


def test_stopping_waits_no_longer_than_told(share, monkeypatch):
    said = []
    monkeypatch.setattr(util, "sub_warning", lambda *args: said.append(args[0] % args[1:]))
    share()
    thread = service().thread
    with _resource_sharer._lock:
        stop(0.01)
        assert thread.is_alive()
    assert said == ["the thread that shares descriptors has not ended in 0.01 seconds"]
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_the_descriptors_of_many_shares_are_gone_in_the_end(share, in_child):
    """What the census of the fixture counts: half are fetched by a child, some here, the rest never."""
    shared = [share(str(n).encode()) for n in range(500)]
    assert in_child(lambda: [read(one) for one in shared[::2]]) == [b"%d" % n for n in range(0, 500, 2)]
    assert [read(one) for one in shared[1:200:2]] == [b"%d" % n for n in range(1, 200, 2)]
    assert len(service().room._kept) == 150


def test_what_was_fetched_is_not_kept(share, in_child):
    before = len(os.listdir("/proc/self/fd"))
    share()
    for _ in range(20):
        assert in_child(read, share()) == b"shared"
    with _resource_sharer._lock:  # the thread has finished what it was at
        # Left are the listener, and the one that nobody fetched.
        assert len(os.listdir("/proc/self/fd")) == before + 2


def test_many_fetch_at_the_same_time(share, in_child):
    """More than are let in at a time."""
    shared = [share(str(n).encode()) for n in range(300)]

    def fetch_all():
        with ThreadPoolExecutor(100) as threads:
            return list(threads.map(read, shared))

    assert in_child(fetch_all) == [str(n).encode() for n in range(300)]


def test_the_thread_waits_for_all_and_for_nobody_in_particular(share):
    share()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as visitor:
        visitor.connect(service().address)
        visitor.recv(100)
        [there] = service()._visitors
        assert not os.get_blocking(there)
    assert not os.get_blocking(service()._listener.fileno())


def test_a_programs_time_out_for_new_sockets_is_not_for_these(share, in_child):
    shared = share()
    here, there = socket.socketpair()

    def fetch():
        socket.setdefaulttimeout(0.01)
        there.send(b"x")
        return read(shared)

    answers = []
    with here, there:
        fetching = threading.Thread(target=lambda: answers.append(in_child(fetch)), daemon=True)
        fetching.start()
        here.recv(1)
        with _resource_sharer._lock:  # longer than that
            threading.Event().wait(0.1)
        fetching.join(PATIENCE)
    assert answers == [b"shared"]


def test_signals_do_not_reach_the_thread(share):
    mask = signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGUSR2})
    try:
        share()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == {signal.SIGUSR2}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    status = Path(f"/proc/self/task/{service().thread.native_id}/status").read_text()
    [blocked] = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigBlk")]
    wanted = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    assert [number for number in wanted if not blocked >> (number - 1) & 1] == []


def switches():
    """How often the thread was on a processor, so to speak."""
    status = Path(f"/proc/self/task/{service().thread.native_id}/status").read_text()
    return [line for line in status.splitlines() if "ctxt_switches" in line]


def test_nobody_wakes_up_while_there_is_nothing_to_do(share, in_child):
    share()
    assert in_child(read, share()) == b"shared"
    # The thread's last step may still be on its way: its clock starts when it has been seen at rest.
    before = None
    for _ in range(100):
        before, last = switches(), before
        if before == last:
            break
        threading.Event().wait(0.05)
    threading.Event().wait(1)
    assert switches() == before


@pytest.mark.parametrize("how", ["pass", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "1/0"])
def test_a_program_that_shares_ends_as_it_would(program, how):
    """In development mode, which tells of every socket and file that was not closed."""
    ends = [
        program(f"import billiard, os\n{before}\n{how}", PYTHONDEVMODE="1", PYTHONWARNINGS="error")
        for before in ("", "from billiard.resource_sharer import DupFd; DupFd(0), DupFd(1)")
    ]
    assert ends[0].returncode == ends[1].returncode
    assert [len(end.stderr.splitlines()) for end in ends] == [len(ends[0].stderr.splitlines())] * 2


def test_children_can_fetch_while_their_parent_waits_for_them_at_its_exit(program):
    done = program(
        """
        import atexit, os, time, billiard
        from billiard.resource_sharer import DupFd

        def child():
            os.read(reader, 1)
            print(os.read(shared.detach(), 100).decode(), flush=True)

        reader, writer = os.pipe()
        there = os.memfd_create("it")
        os.pwrite(there, b"still there", 0)
        shared = DupFd(there)
        billiard.Process(target=child).start()
        # Registered last, so run first: the child goes on when this process is exiting.
        atexit.register(os.write, writer, b"x")
        """,
        PYTHONDEVMODE="1",
    )
    assert (done.stdout, done.stderr) == ("still there\n", "")


def test_a_thread_that_cannot_start_leaves_nothing(share, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            share()
    assert not _resource_sharer._running
    assert read(share()) == b"shared"


def test_a_thread_that_fails_is_replaced(share, in_child, monkeypatch):
    failures = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    shared = share()
    failing = service()
    with monkeypatch.context() as patched:
        patched.setattr(failing.room, "hear", lambda *_: 1 / 0)
        with pytest.raises((EOFError, ConnectionError)):
            in_child(read, shared)
        failing.thread.join(PATIENCE)
    assert [failure.exc_type for failure in failures] == [ZeroDivisionError]
    failures.clear()
    with pytest.raises(EOFError):
        read(shared)
    assert in_child(read, share()) == b"shared"


def test_a_thread_whose_descriptors_are_closed_by_others_ends(share, monkeypatch):
    """A program that closes everything it does not know: nobody spins, and sharing starts anew."""
    failures = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    share()
    blind = service()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as visitor:
        visitor.connect(blind.address)
        visitor.recv(100)
        [kept] = blind.room._kept.values()
        for fd in (kept, blind._listener.fileno()):
            os.close(fd)
    blind.thread.join(PATIENCE)
    assert not blind.thread.is_alive()
    assert [failure.exc_type for failure in failures] == [OSError]
    failures.clear()
    assert read(share()) == b"shared"


def test_stopping_on_the_thread_itself_does_not_wait(share, in_child, monkeypatch):
    """As a finalizer that happens to run there might."""
    shared = share()
    thread = service().thread
    hear = service().room.hear

    def stopping(*args):
        stop()
        return hear(*args)

    monkeypatch.setattr(service().room, "hear", stopping)
    with pytest.raises(EOFError, match="is not shared any more"):
        in_child(read, shared)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert resource_sharer._resource_sharer._service is None
