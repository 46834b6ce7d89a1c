"""The classic messages, as they go through the pipes."""

from __future__ import annotations

import os
import pickle
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import loopworks
import pytest

from billiard.compat import isblocking
from billiard.pool import ACK, DEATH, READY, TASK
from harness.looppool import UP, LoopPool


def framed(message: object) -> bytes:
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return len(body).to_bytes(4, "big") + body


class Raw:
    """Speaks with a worker byte by byte."""

    def __init__(self, pool: LoopPool) -> None:
        (self.process,) = pool._pool
        self.buffer = b""

    def send(self, data: bytes) -> None:
        while data:
            select.select([], [self.process.inqW_fd], [], 30)
            data = data[self.process.send_job_offset(data, 0) :]

    def read(self, size: int) -> bytes:
        while len(self.buffer) < size:
            assert select.select([self.process.outqR_fd], [], [], 30)[0], "the worker says nothing"
            self.buffer += os.read(self.process.outqR_fd, 65_536)
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def hear(self) -> Any:
        return pickle.loads(self.read(int.from_bytes(self.read(4), "big")))


@pytest.fixture
def raw(make_loop: Callable[..., LoopPool]) -> Iterator[Raw]:
    """A worker whose messages nobody else reads, and that has said that it is there."""
    pool = make_loop(1)
    one = Raw(pool)
    assert one.hear() == (UP, (one.process.pid,))
    return one


def test_pipes_are_as_owners_expect_them(loop: LoopPool) -> None:
    (process,) = loop._pool
    assert isblocking(process.inq._reader)
    assert not isblocking(process.inq._writer)
    assert not isblocking(process.outq._reader)
    assert isblocking(process.outq._writer)
    assert process.inqW_fd == process.inq._writer.fileno()
    assert process.outqR_fd == process.outq._reader.fileno()
    assert (process.synq, process.synqR_fd, process.synqW_fd) == (None, None, None)
    assert not hasattr(process, "send_syn_offset")


def test_a_job_is_begun_done_and_ended(raw: Raw) -> None:
    before = time.monotonic()
    raw.send(framed((TASK, (7, None, abs, (-7,), {}))))
    state, (job, i, accepted, pid, synq) = raw.hear()
    assert (state, job, i, pid, synq) == (ACK, 7, None, raw.process.pid, None)
    assert before <= accepted <= time.monotonic()
    assert raw.hear() == (READY, (7, None, (True, 7), raw.process.inqW_fd))
    raw.send(framed((TASK, (8, 3, loopworks.fail, ["no"], {}))))
    assert raw.hear()[1][:2] == (8, 3)
    state, (job, i, (success, info), fd) = raw.hear()
    assert (state, job, i, success, fd) == (READY, 8, 3, False, raw.process.inqW_fd)
    assert (info.type, str(info.exception)) == (ValueError, "no")
    raw.send(framed(None))
    assert raw.hear() == (DEATH, (raw.process.pid, 0))
    raw.process._popen.wait(30)
    assert raw.process.exitcode == 0


def test_messages_may_come_bit_by_bit(raw: Raw) -> None:
    for byte in framed((TASK, (1, None, abs, (-1,), {}))):
        raw.send(bytes([byte]))
    assert raw.hear()[0] == ACK
    assert raw.hear()[1][2] == (True, 1)
    raw.send(b"".join(framed((TASK, (number, None, abs, (number,), {}))) for number in range(20)))
    assert [raw.hear()[1][0] for _ in range(40)] == [number for number in range(20) for _ in range(2)]


def test_what_means_nothing_is_passed_over(raw: Raw) -> None:
    raw.send(framed(()) + framed((TASK, (1, None, abs, (1,), {}))))
    assert raw.hear()[0] == ACK


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, -241), (signal.SIGQUIT, -253), (signal.SIGHUP, -255)]
)
def test_signals_end_an_idle_worker_in_an_orderly_way(raw: Raw, number: int, status: int) -> None:
    os.kill(raw.process.pid, number)
    assert raw.hear() == (DEATH, (raw.process.pid, status))
    raw.process._popen.wait(30)
    assert raw.process.exitcode == -number


def test_what_a_terminate_signal_raises_is_nobodys_result(raw: Raw, tmp_path: Path) -> None:
    raw.send(framed((TASK, (1, None, loopworks.hang, (str(tmp_path / "begun"),), {}))))
    assert raw.hear()[0] == ACK
    wait_for(tmp_path / "begun")
    os.kill(raw.process.pid, signal.SIGTERM)
    assert raw.hear() == (DEATH, (raw.process.pid, -241))


def test_who_catches_it_stays(raw: Raw, tmp_path: Path) -> None:
    raw.send(framed((TASK, (1, None, loopworks.swallow, (str(tmp_path / "begun"),), {}))))
    assert raw.hear()[0] == ACK
    wait_for(tmp_path / "begun")
    os.kill(raw.process.pid, signal.SIGTERM)
    assert raw.hear()[1][2] == (True, "stayed")
    raw.send(framed((TASK, (2, None, loopworks.fail, ("no",), {}))))
    raw.hear()
    # The next one is told with its own error.
    assert raw.hear()[1][2][1].type is ValueError


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_signals_tear_no_message(raw: Raw) -> None:
    size = 300_000
    raw.send(framed((TASK, (1, None, loopworks.filled, (size,), {}))))
    assert raw.hear()[0] == ACK
    head = raw.read(4)
    # It waits for room. What interrupts it now is for no task.
    for _ in range(20):
        os.kill(raw.process.pid, signal.SIGUSR1)
        time.sleep(0.002)
    message = pickle.loads(raw.read(int.from_bytes(head, "big")))
    assert message == (READY, (1, None, (True, b"x" * size), raw.process.inqW_fd))
    raw.send(framed((TASK, (2, None, abs, (-2,), {}))))
    assert raw.hear()[0] == ACK
    assert raw.hear()[1][2] == (True, 2)


def test_soft_limits_at_any_moment_leave_whole_messages(raw: Raw) -> None:
    deadline = time.monotonic() + 3
    number = 0
    outcomes = set()
    while time.monotonic() < deadline and number < 300:
        raw.send(framed((TASK, (number, None, loopworks.filled, (number * 1_000,), {}))))
        os.kill(raw.process.pid, signal.SIGUSR1)
        assert raw.hear()[1][0] == number
        os.kill(raw.process.pid, signal.SIGUSR1)
        state, (job, _, (success, value), _) = raw.hear()
        assert (state, job) == (READY, number)
        outcomes.add(success)
        assert value == b"x" * (number * 1_000) if success else value.type.__name__ == "SoftTimeLimitExceeded"
        number += 1
    assert True in outcomes
    assert raw.process._is_alive()


def test_a_worker_that_leaves_by_itself_waits_until_it_was_heard(make_loop: Callable[..., LoopPool]) -> None:
    pool = make_loop(1, maxtasksperchild=1)
    raw = Raw(pool)
    raw.hear()
    raw.send(framed((TASK, (1, None, abs, (-1,), {}))))
    select.select([raw.process.outqR_fd], [], [], 30)
    assert raw.process._popen.wait(0.3) is None
    assert raw.hear()[0] == ACK
    assert raw.hear()[0] == READY
    assert raw.hear() == (DEATH, (raw.process.pid, 155))
    raw.process._popen.wait(30)
    assert raw.process.exitcode == 155


def test_a_worker_that_is_told_to_leave_does_not_wait(make_loop: Callable[..., LoopPool]) -> None:
    pool = make_loop(1, maxtasksperchild=1)
    (process,) = pool._pool
    raw = Raw(pool)
    raw.hear()
    raw.send(framed((TASK, (1, None, abs, (-1,), {}))) + framed(None))
    process._popen.wait(20)
    assert process.exitcode == 155
