"""What a task gives arrives at who has asked."""

from __future__ import annotations

import pytest
from celery import chord, group
from workers import Worker


def test_results_arrive(worker: Worker) -> None:
    sent = [worker.send("add", number, number) for number in range(50)]
    assert [one.get(timeout=30) for one in sent] == [2 * number for number in range(50)]


def test_failure_arrives_with_its_traceback(worker: Worker) -> None:
    sent = worker.send("fail", "on purpose")
    with pytest.raises(ValueError, match="on purpose"):
        sent.get(timeout=30)
    assert "in fail" in sent.traceback


def test_chord(worker: Worker) -> None:
    header = group((worker.signature("add", number, 1) for number in range(20)), app=worker.app)
    body = worker.signature("total")
    assert chord(header, body, app=worker.app).apply_async().get(timeout=30) == sum(range(1, 21))


def test_result_that_no_backend_takes_fails_its_task(worker: Worker) -> None:
    sent = worker.send("unpicklable")
    with pytest.raises(Exception, match="not JSON serializable"):
        sent.get(timeout=30)
    assert worker.run("add", 1, 1) == 2


@pytest.mark.parametrize("mebibytes", [1, 6])
def test_large_payloads_both_ways(worker: Worker, mebibytes: int) -> None:
    payload = "0123456789abcdef" * (mebibytes << 16)
    assert worker.run("echo", payload) == payload


def test_many_large_payloads_at_once(worker: Worker) -> None:
    """More than all pipes hold, to every process at the same time."""
    sent = [worker.send("size", "x" * length) for length in range(1 << 20, (1 << 20) + 12)]
    assert [one.get(timeout=30) for one in sent] == list(range(1 << 20, (1 << 20) + 12))
