"""Descriptors that somebody tries to fetch who cannot, may not, or does not go about it properly."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sharing import PATIENCE, read, service

import billiard
from billiard import _cloakroom
from billiard._cloakroom import CLAIM_SIZE, GREETING_SIZE, MOST_VISITORS, REFUSAL, REST
from billiard.exceptions import AuthenticationError
from billiard.resource_sharer import DupFd, _resource_sharer

pytestmark = pytest.mark.usefixtures("sharing")


@pytest.fixture
def visit():
    """Connects to where this process shares its descriptors."""
    with contextlib.ExitStack() as visits:

        def one():
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            visits.enter_context(sock)
            sock.settimeout(PATIENCE)
            sock.connect(service().address)
            return sock

        yield one


def read_with(key):
    def fetch(shared):
        billiard.current_process().authkey = key
        return read(shared)

    return fetch


@pytest.mark.parametrize("key", [b"", b"wrong", bytes(32)])
def test_a_process_with_another_key_is_refused_and_no_other(share, in_child, key):
    shared = share()
    for _ in range(3):
        with pytest.raises(AuthenticationError, match="digest sent was rejected"):
            in_child(read_with(key), shared)
    assert in_child(read, shared) == b"shared"


@pytest.mark.parametrize("key", [b"", b"of our own", bytes(1000)])
def test_the_key_is_whatever_both_have(share, in_child, monkeypatch, key):
    """Also when it was changed after the thread was started, and when it is empty."""
    shared = share()
    monkeypatch.setitem(billiard.current_process()._config, "authkey", key)
    assert in_child(read, shared) == b"shared"


@pytest.mark.parametrize(
    "message",
    [
        b"x",
        b"#CHALLENGE#" + bytes(20),
        bytes(CLAIM_SIZE),
        bytes(CLAIM_SIZE + 1),
        bytes(100_000),
        pickle.dumps(DupFd),
    ],
    ids=["byte", "challenge", "claim", "longer", "oversized", "pickle"],
)
def test_garbage_is_refused(share, in_child, visit, message):
    shared = share()
    visitor = visit()
    assert len(visitor.recv(1000)) == GREETING_SIZE
    visitor.send(message)
    assert visitor.recv(1000) == REFUSAL
    assert visitor.recv(1000) == b""
    assert in_child(read, shared) == b"shared"


def test_a_claim_with_something_behind_it_is_refused(share, in_child, visit):
    shared = share()
    visitor = visit()
    claim = _cloakroom.Claim(shared._id[1], billiard.current_process().authkey)
    visitor.send(claim.answer(visitor.recv(1000)) + b"x")
    assert visitor.recv(1000) == REFUSAL
    assert in_child(read, shared) == b"shared"


def test_nothing_that_arrives_is_unpickled(share, visit, monkeypatch):
    """Nor does anything stay open that a visitor brings along."""
    share()
    visitor = visit()
    visitor.recv(1000)
    for name in ("load", "loads", "Unpickler", "_Unpickler"):
        monkeypatch.setattr(pickle, name, None)
    socket.send_fds(visitor, [pickle.dumps(print).ljust(CLAIM_SIZE, b".")], [0, 1, 2])
    assert visitor.recv(1000) == REFUSAL


def test_a_visitor_that_says_nothing_keeps_nobody_waiting(share, in_child, visit):
    shared = [share() for _ in range(3)]
    silent = [visit() for _ in range(5)]
    assert [in_child(read, one) for one in shared] == [b"shared"] * 3
    assert [len(one.recv(1000)) for one in silent] == [GREETING_SIZE] * 5


def test_visitors_that_say_nothing_are_shown_out_in_the_end(share, in_child, visit, monkeypatch):
    """They may be as many as are let in: those who wait behind them have their turn."""
    monkeypatch.setattr(_cloakroom, "PATIENCE", 0.3)
    shared = share()
    silent = [visit() for _ in range(MOST_VISITORS)]
    assert in_child(read, shared) == b"shared"
    for one in silent:
        one.recv(1000)
        assert one.recv(1000) == b""


def test_only_so_many_are_let_in(share, visit):
    share()
    inside = [visit() for _ in range(MOST_VISITORS)]
    for one in inside:
        one.recv(1000)
    another = visit()
    another.settimeout(0.2)
    with pytest.raises(TimeoutError):
        another.recv(1000)
    another.settimeout(PATIENCE)
    inside[0].close()
    assert len(another.recv(1000)) == GREETING_SIZE


def test_a_visitor_that_leaves_at_once_is_no_trouble(share, in_child, visit):
    shared = share()
    for _ in range(20):
        visit().close()
    assert in_child(read, shared) == b"shared"


def test_a_visitor_that_leaves_before_the_verdict_costs_nothing(share, in_child, visit):
    """What it did not receive can still be fetched."""
    shared = share()
    claim = _cloakroom.Claim(shared._id[1], billiard.current_process().authkey)
    visitor = visit()
    greeting = visitor.recv(1000)
    with _resource_sharer._lock:  # so that the answer comes too late
        visitor.send(claim.answer(greeting))
        visitor.close()
    assert in_child(read, shared) == b"shared"


class Impostor(threading.Thread):
    """Somebody at an address who says other things than a sharer would."""

    def __init__(self, *messages):
        super().__init__(daemon=True)
        self._messages = messages
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind("")
        self._listener.listen(1)
        self.address = self._listener.getsockname()

    def run(self):
        with self._listener, self._listener.accept()[0] as visitor:
            visitor.settimeout(PATIENCE)
            for message in self._messages:
                visitor.send(message)
                visitor.recv(1000)


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([], EOFError),
        ([b"garbage"], AuthenticationError),
        ([bytes(GREETING_SIZE)], AuthenticationError),
        ([bytes(100_000)], AuthenticationError),
        ([_cloakroom._MAGIC + bytes(32), b"\x01" + bytes(32)], AuthenticationError),
        ([_cloakroom._MAGIC + bytes(32), bytes(100_000)], AuthenticationError),
        ([_cloakroom._MAGIC + bytes(32), REFUSAL], AuthenticationError),
    ],
)
def test_an_impostor_is_not_believed(messages, error):
    impostor = Impostor(*messages)
    impostor.start()
    shared = DupFd.__new__(DupFd)
    shared._id = (impostor.address, bytes(16))
    with pytest.raises(error):
        shared.detach()
    impostor.join(PATIENCE)
    assert not impostor.is_alive()


def lowest_free():
    fd = os.dup(0)
    os.close(fd)
    return fd


@contextlib.contextmanager
def descriptors_limited(more):
    """Let this process open only so many more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free() + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def read_with_few(shared):
    """Fetch with ever more free descriptors. Returns how often there were too few."""
    for free in range(20):
        with descriptors_limited(free):
            try:
                fd = shared.detach()
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
            else:
                os.close(fd)
                return free
    return None


def test_a_process_without_free_descriptors_can_fetch_later(share, in_child):
    """It needs two. Not even with one does it spoil its chance."""
    assert in_child(read_with_few, share()) >= 2


def test_visitors_wait_while_the_sharing_process_has_no_free_descriptors(share, in_child, monkeypatch):
    shared = share()
    rests = []
    rested_thrice = threading.Event()
    rest = service().room.rest

    def resting(now):
        rest(now)
        rests.append(now)
        if len(rests) == 3:
            rested_thrice.set()

    monkeypatch.setattr(service().room, "rest", resting)
    here, there = socket.socketpair()

    def when_told():
        there.send(b"ready")
        there.recv(1)
        return read(shared)

    answers = []
    with here, there:
        fetching = threading.Thread(target=lambda: answers.append(in_child(when_told)), daemon=True)
        fetching.start()
        here.recv(10)
        with descriptors_limited(0):
            here.send(b"x")
            assert rested_thrice.wait(PATIENCE)
            assert answers == []
        fetching.join(PATIENCE)
    assert answers == [b"shared"]
    # It does not try again and again meanwhile.
    assert min(after - before for before, after in itertools.pairwise(rests)) >= REST


def as_nobody(function, *args):
    os.setuid(65534)
    return function(*args)


only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@only_root
def test_another_user_is_shown_out_without_a_word(share, in_child):
    shared = share()
    with pytest.raises(EOFError, match="is another user's"):
        in_child(as_nobody, read, shared)
    assert in_child(read, shared) == b"shared"


@only_root
def test_what_another_user_shares_is_not_fetched(in_child):
    here, there = socket.socketpair()

    def share_and_wait():
        there.send(pickle.dumps(DupFd(0)))
        there.recv(1)

    with here, there:
        sharing = threading.Thread(target=in_child, args=(as_nobody, share_and_wait), daemon=True)
        sharing.start()
        shared = pickle.loads(here.recv(1000))
        with pytest.raises(AuthenticationError, match="another user's process is at the address"):
            shared.detach()
        here.send(b"x")
        sharing.join(PATIENCE)
    assert not sharing.is_alive()


SHARE = """
import sys, time, pickle
from billiard.resource_sharer import DupFd
print(pickle.dumps([DupFd(0) for _ in range(5)]).hex(), flush=True)
time.sleep(1000)
"""


def test_a_killed_process_leaves_no_name(tmp_path):
    """Neither in the file system nor among the sockets; and who comes too late is told."""
    process = subprocess.Popen(
        [sys.executable, "-c", SHARE], stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    shared = pickle.loads(bytes.fromhex(process.stdout.readline().decode()))
    name = "@" + shared[0]._id[0][1:].decode()
    assert name in Path("/proc/net/unix").read_text().split()
    process.send_signal(signal.SIGKILL)
    assert process.wait(PATIENCE) == -signal.SIGKILL
    process.stdout.close()
    assert list(tmp_path.iterdir()) == []
    assert name not in Path("/proc/net/unix").read_text().split()
    with pytest.raises(ConnectionRefusedError, match="the process that shared the descriptor has ended"):
        shared[0].detach()


def test_a_process_killed_while_others_fetch_keeps_nobody_waiting(in_child):
    """They wait for what a stopped process does not answer, until it is gone."""
    process = subprocess.Popen([sys.executable, "-c", SHARE], stdout=subprocess.PIPE)
    shared = pickle.loads(bytes.fromhex(process.stdout.readline().decode()))
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    here, there = socket.socketpair()

    def fetch():
        there.send(b"x")
        with pytest.raises((EOFError, ConnectionError)):
            shared[0].detach()
        return "told"

    answers = []
    with here, there:
        fetching = threading.Thread(target=lambda: answers.append(in_child(fetch)), daemon=True)
        fetching.start()
        here.recv(1)
        process.kill()
        process.wait(PATIENCE)
        process.stdout.close()
        fetching.join(PATIENCE)
    assert answers == ["told"]
