"""The exceptions: names, texts, pickles."""

from __future__ import annotations

import copy
import multiprocessing
import pickle

import pytest

from billiard import exceptions
from billiard.exceptions import SoftTimeLimitExceeded, Terminated, TimeLimitExceeded, WorkerLostError

OWN = [
    "CoroStop",
    "HandshakeError",
    "RestartFreqExceeded",
    "SoftTimeLimitExceeded",
    "Terminated",
    "TimeLimitExceeded",
    "WorkerLostError",
]
DETAILS = [
    "exitcode", "signal", "signal_name", "pid", "worker_name", "job", "task_id", "func_name", "runtime",
    "last_stack", "rss_peak", "oom_killed", "hint",
]  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_names_are_those_that_result_backends_store(name):
    kind = getattr(exceptions, name)
    assert (kind.__module__, kind.__qualname__) == ("billiard.exceptions", name)
    assert issubclass(kind, Exception)
    again = pickle.loads(pickle.dumps(kind(1, "two")))
    assert (type(again), again.args) == (kind, (1, "two"))
    assert pickle.loads(pickle.dumps(kind())).args == ()


def test_four_are_the_standard_librarys():
    for name in set(exceptions.__all__) - set(OWN):
        assert getattr(exceptions, name) is getattr(multiprocessing, name)


def test_time_limits_print_as_a_call():
    assert str(TimeLimitExceeded(5)) == "TimeLimitExceeded(5,)"
    assert str(TimeLimitExceeded(5, 6, job=3)) == "TimeLimitExceeded(5, 6)"
    assert str(SoftTimeLimitExceeded()) == "SoftTimeLimitExceeded()"


def test_a_lost_worker_without_details_has_none():
    error = WorkerLostError("why")
    assert str(error) == "why"
    assert error.__dict__ == {}
    assert all(getattr(error, name) is None for name in DETAILS)


def test_details_survive_pickling_and_copying():
    error = WorkerLostError(
        "why", exitcode=-9, pid=4, worker_name="ForkPoolWorker-1", job=7, func_name="m.f", runtime=1.5,
        last_stack="stack", rss_peak=100, oom_killed=False, hint="more memory",
    )  # fmt: skip
    error.more = "mine"
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert [getattr(again, name) for name in DETAILS] == [getattr(error, name) for name in DETAILS]
        assert (str(again), again.more) == ("why", "mine")
    assert (error.signal, error.signal_name, error.task_id) == (9, "SIGKILL", 7)


@pytest.mark.parametrize(
    ("details", "signal", "name"),
    [
        ({"exitcode": 3}, None, None),
        ({"exitcode": 0}, None, None),
        ({"exitcode": -15}, 15, "SIGTERM"),
        ({"exitcode": -200}, 200, None),
        ({"signal": 11}, 11, "SIGSEGV"),
        ({"exitcode": -9, "signal": 15, "signal_name": "other"}, 15, "other"),
    ],
)
def test_the_signal_follows_from_the_exit_code(details, signal, name):
    error = WorkerLostError(**details)
    assert (error.signal, error.signal_name) == (signal, name)


@pytest.mark.parametrize("kind", [TimeLimitExceeded, Terminated])
def test_other_ends_carry_details_too(kind):
    error = pickle.loads(pickle.dumps(kind(3, pid=1, job=2, last_stack="stack")))
    assert (error.args, error.pid, error.job, error.last_stack) == ((3,), 1, 2, "stack")
    assert (kind().pid, kind().job, kind().last_stack) == (None, None, None)


def test_an_unknown_detail_is_refused():
    with pytest.raises(TypeError):
        WorkerLostError("why", colour="red")
