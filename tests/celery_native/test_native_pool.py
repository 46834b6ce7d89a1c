"""Celery's pool interface on the engine, driven by Celery's own event loop, without a broker."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from importlib import metadata, util
from typing import Any

import pytest

try:
    metadata.version("celery")
except metadata.PackageNotFoundError:
    pytest.skip("Celery is not installed", allow_module_level=True)

import billiard.pool

if util.find_spec("celery.concurrency") is None or not hasattr(billiard.pool, "ResultHandler"):
    pytest.skip("this Celery cannot use this package", allow_module_level=True)

import celery
import kombu
import nativework
from celery import signals
from celery.concurrency import prefork
from celery.worker import state
from kombu.asynchronous import Hub, set_event_loop
from kombu.asynchronous.semaphore import LaxBoundedSemaphore
from vine import promise

from billiard._tasks import raisable
from billiard.contrib.celery import TaskPool, _of_the_task
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError

PATIENCE = 30.0


class Request:
    """What Celery makes of a message: it hears what becomes of its task."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.thread = 0

    def _note(self, what: str, value: Any) -> None:
        self.told.append((what, value))
        self.thread = threading.get_ident()

    def names(self) -> list[str]:
        return [name for name, _ in self.told]

    def ended(self) -> bool:
        return bool({"success", "failure"} & set(self.names()))

    def began(self) -> bool:
        return "accepted" in self.names()

    def __getitem__(self, name: str) -> Any:
        return dict(self.told)[name]

    def execute(self, pool: TaskPool, name: str, *args: Any, **options: Any) -> Any:
        return pool.apply_async(
            nativework.trace,
            args=(name, *args),
            accept_callback=lambda pid, at: self._note("accepted", (pid, at)),
            timeout_callback=lambda soft, timeout: self._note("soft" if soft else "hard", timeout),
            callback=lambda told: self._note("success", told[1]),
            error_callback=lambda info: self._note("failure", raisable(info)),
            correlation_id=f"id of {name}",
            **options,
        )


class Worker:
    """A Celery worker, as far as its pool can tell."""

    def __init__(self, limit: int, **options: Any) -> None:
        self.app = celery.Celery("native", set_as_current=False)
        self.app.finalize()
        self.hub = Hub()
        set_event_loop(self.hub)
        self.semaphore = LaxBoundedSemaphore(limit)
        settings = {
            "maxtasksperchild": None,
            "max_memory_per_child": None,
            "timeout": None,
            "soft_timeout": None,
            "lost_worker_timeout": 10.0,
            "putlocks": False,
            "threads": False,
            "max_restarts": 100,
            "allow_restart": True,
            "sched_strategy": "fair",
            "semaphore": self.semaphore,
        }
        settings |= options
        self.pool = TaskPool(
            limit, initargs=(self.app, "here"), forking_enable=True, app=self.app, **settings
        )
        self.pool.start()
        self.pool.register_with_event_loop(self.hub)
        self._loop = self.hub.create_loop()

    def drive(self, done: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < deadline, f"did not happen in {PATIENCE} s"
            # So that the loop comes back here.
            self.hub.call_later(0.5, int)
            next(self._loop)

    def reconnect(self) -> None:
        """What Celery does when it has lost its broker and found it again."""
        self.pool.flush()
        self.hub.reset()
        self.pool.register_with_event_loop(self.hub)
        self._loop = self.hub.create_loop()

    def run(self, name: str, *args: Any, **options: Any) -> Request:
        request = Request()
        request.execute(self.pool, name, *args, **options)
        self.drive(request.ended)
        return request

    def begin(self, name: str, *args: Any, **options: Any) -> Request:
        request = Request()
        request.execute(self.pool, name, *args, **options)
        self.drive(request.began)
        return request

    def end(self) -> None:
        self.pool.terminate()
        self.hub.close()
        set_event_loop(None)


@pytest.fixture
def make(ended: Callable[..., Worker]) -> Callable[..., Worker]:
    """Start a worker; nothing of it may be left afterwards."""

    def start(limit: int = 1, **options: Any) -> Worker:
        return ended(Worker(limit, **options), Worker.end)

    return start


def test_a_task_is_accepted_and_succeeds_on_the_thread_of_the_loop(make):
    worker = make()
    request = worker.run("add", 1, 2)
    assert request.names() == ["accepted", "success"]
    assert request["success"] == 3
    assert request["accepted"][0] == worker.pool.info["processes"][0]
    assert request.thread == threading.get_ident()
    assert worker.pool.did_start_ok()


def test_processes_begin_as_those_of_celery_do(make):
    made = []

    def note(sender: Any = None, **_: Any) -> None:
        made.append(sender)

    signals.worker_before_create_process.connect(note)
    try:
        worker = make(2)
    finally:
        signals.worker_before_create_process.disconnect(note)
    assert made == [worker.pool._pool] * 2
    pid, started, name = worker.run("about me")["success"]
    assert pid in worker.pool.info["processes"]
    # Before 5.7 nobody is named.
    assert started in (["here"], [None])
    assert name.startswith("ForkPoolWorker-")


def test_processes_end_as_those_of_celery_do(make, tmp_path, monkeypatch):
    monkeypatch.setenv("BILLIARD_TEST_FOLDER", str(tmp_path))
    worker = make(maxtasksperchild=1)
    first = worker.run("add", 1, 1)["accepted"][0]
    worker.drive(lambda: first not in (pids := worker.pool.info["processes"]) and len(pids) == 1)
    assert (tmp_path / str(first)).read_text() == "155"
    [second] = worker.pool.info["processes"]
    worker.pool.close()
    worker.pool.stop()
    assert (tmp_path / str(second)).read_text() == "0"


def test_the_semaphore_of_the_worker_lets_the_next_task_go(make):
    worker = make(1)
    ended: list[int] = []
    for n in range(30):
        callback = lambda told: ended.append(told[1])  # noqa: E731
        worker.semaphore.acquire(
            lambda n=n, callback=callback: worker.pool.apply_async(
                nativework.trace, args=("add", n, 0), callback=callback
            )
        )
    worker.drive(lambda: len(ended) == 30)
    assert ended == list(range(30))
    assert worker.semaphore.value == 1


def test_hard_limit_is_told_before_the_failure_with_the_stack(make, caplog):
    worker = make()
    request = worker.run("sleep", 60, timeout=0.3)
    assert request.names() == ["accepted", "hard", "failure"]
    assert request["hard"] == 0.3
    assert isinstance(request["failure"], TimeLimitExceeded)
    if request["failure"].last_stack:
        [record] = [one for one in caplog.records if "was here when its time limit passed" in one.message]
        assert "id of sleep" in record.message
        assert "in _sleep" in record.message
        assert "in workloop" not in record.message
    assert worker.run("add", 1, 1)["success"] == 2


def test_soft_limit_is_told_and_the_process_lives(make):
    worker = make()
    pids = worker.pool.info["processes"]
    assert worker.run("sleep", 60, soft_timeout=0.2).names() == ["accepted", "soft", "failure"]
    assert worker.pool.info["processes"] == pids


def test_a_lost_task_is_called_by_its_name(make):
    failure = make().run("die")["failure"]
    assert isinstance(failure, WorkerLostError)
    assert failure.func_name == "die"
    assert "signal 9 (SIGKILL)" in str(failure)


@pytest.mark.parametrize(
    ("task", "args", "code"),
    [("exit", (7,), 7), ("exit", (None,), 0), ("exit", ("so",), 1), ("interrupt", (), 1)],
)
def test_an_exit_of_a_task_is_told_as_what_celery_can_store(make, task, args, code):
    worker = make()
    pids = worker.pool.info["processes"]
    failure = worker.run(task, *args)["failure"]
    assert isinstance(failure, WorkerLostError)
    assert failure.exitcode == code
    assert failure.pid == pids[0]
    assert worker.run("add", 1, 1)["accepted"][0] == pids[0]


def test_a_revoked_task_ends_alone(make):
    worker = make(2)
    revoked, other = worker.begin("sleep", 60), worker.begin("sleep", 0.5)
    worker.pool.terminate_job(revoked["accepted"][0], signal.SIGTERM)
    worker.drive(lambda: revoked.ended() and other.ended())
    assert isinstance(revoked["failure"], Terminated)
    assert other["success"] == "slept"


def test_the_pool_grows_shrinks_and_restarts(make):
    worker = make(1)
    worker.pool.grow(1)
    worker.drive(lambda: len(worker.pool.info["processes"]) == 2)
    assert worker.pool.num_processes == 2
    worker.pool.shrink(1)
    worker.drive(lambda: len(worker.pool.info["processes"]) == 1)
    [pid] = worker.pool.info["processes"]
    worker.pool.restart()
    worker.drive(lambda: pid not in (pids := worker.pool.info["processes"]) and len(pids) == 1)
    busy = worker.begin("sleep", 60)
    with pytest.raises(ValueError, match="busy"):
        worker.pool.shrink(1)
    assert busy.names() == ["accepted"]


def test_a_lost_connection_gives_back_what_has_not_begun(make):
    worker = make(1)
    running = worker.begin("sleep", 0.5)
    waiting = Request()
    waiting.execute(worker.pool, "add", 1, 1)
    worker.reconnect()
    worker.drive(running.ended)
    assert worker.run("add", 2, 2)["success"] == 4
    assert waiting.names() == []


def test_a_warm_shutdown_finishes_what_was_submitted(make):
    worker = make(1)
    requests = [worker.begin("sleep", 0.2)]
    for n in range(5):
        requests.append(Request())
        requests[-1].execute(worker.pool, "add", n, 0)
    worker.pool.close()
    assert Request().execute(worker.pool, "add", 1, 1) is None
    worker.pool.stop()
    assert [request["success"] for request in requests] == ["slept", 0, 1, 2, 3, 4]


def test_what_the_event_loop_has_to_do_is_done_while_the_pool_ends(make, caplog):
    worker = make(1)
    request = worker.begin("sleep", 0.5)
    on, threads = [], set(threading.enumerate())

    def beat() -> None:
        on.append((threading.current_thread(), request.ended()))
        if len(on) == 3:
            # It is nothing that the event loop logs itself.
            raise AssertionError("no heart")

    worker.hub.call_repeatedly(0.05, beat)
    worker.pool.close()
    worker.pool.stop()
    assert request["success"] == "slept"
    assert len(on) >= 3
    assert {thread for thread, _ in on} == {threading.current_thread()}
    assert not on[1][1], "only when it was over"
    assert set(threading.enumerate()) == threads
    assert [one.message for one in caplog.records if "no heart" in one.message]
    # The pool is in the traceback.
    caplog.clear()


def test_a_task_is_acknowledged_as_soon_as_it_ends_while_the_pool_ends(make):
    if not hasattr(prefork, "_run_ready_callbacks"):
        pytest.skip("this Celery acknowledges when it closes its event loop")
    worker = make(1)
    order: list[str] = []

    class Message(kombu.Message):
        def ack_log_error(self, *_: Any, **__: Any) -> None:
            order.append("acknowledged")

    message = Message(channel=None)
    for name, pause in (("first", 0.0), ("second", 0.5)):
        worker.pool.apply_async(
            nativework.trace,
            args=("sleep", pause),
            callback=lambda _, name=name: (
                order.append(name),
                worker.hub.call_soon(promise(message.ack_log_error)),
            ),
        )
    worker.pool.close()
    worker.pool.stop()
    assert order == ["first", "acknowledged", "second", "acknowledged"]


def test_a_cold_shutdown_cancels_what_celery_did_not_know_to_run(make, monkeypatch):
    worker = make(1)
    cancelled = []

    class Late(Request):
        class task:
            acks_late = True

        def _note(self, what: str, value: Any) -> None:
            super()._note(what, value)
            if what == "accepted":
                state.active_requests.add(self)

        def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:  # noqa: ARG002
            cancelled.append(self)
            pool.terminate_job(self["accepted"][0], signal)

    running, waiting = Late(), Late()
    running.execute(worker.pool, "sleep", 60)
    waiting.execute(worker.pool, "sleep", 60)
    # The task runs, and the pool has not said so yet.
    deadline = time.monotonic() + PATIENCE
    while not any(one["busy"] is not None for one in worker.pool.info["engine"]["workers"]):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    monkeypatch.setattr(state, "should_terminate", True)
    try:
        worker.pool.stop()
    finally:
        state.active_requests.discard(running)
    assert cancelled == [running]
    assert waiting.names() == []


def test_the_figures_can_be_sent(make):
    worker = make(2)
    worker.run("add", 1, 1)
    info = json.loads(json.dumps(worker.pool.info))
    assert info["implementation"] == "billiard.contrib.celery:TaskPool"
    assert info["max-concurrency"] == 2
    assert info["max-tasks-per-child"] == "N/A"
    assert info["put-guarded-by-semaphore"] is False
    assert info["timeouts"] == [0, 0]
    assert info["writes"]["total"] == 1
    assert sorted(info["writes"]["raw"].split(", ")) == ["0", "1"]
    assert info["writes"]["inqueues"] == {"total": 2, "active": 0}
    assert info["engine"]["tasks"]["finished"] == 1
    assert {one["pid"] for one in info["engine"]["workers"]} == set(info["processes"])


def test_a_worker_without_an_event_loop_has_a_thread_that_delivers(make):
    worker = make(2, threads=True, putlocks=True, semaphore=None, max_restarts=None)
    request, failed = Request(), Request()
    request.execute(worker.pool, "add", 1, 2)
    failed.execute(worker.pool, "exit", 7)
    deadline = time.monotonic() + PATIENCE
    while not (request.ended() and failed.ended()) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert request.names() == ["accepted", "success"]
    assert request.thread != threading.get_ident()
    assert isinstance(failed["failure"], WorkerLostError)
    assert worker.pool.info["engine"]["tasks"]["finished"] == 2
    worker.pool.close()
    worker.pool.stop()


def test_how_a_worker_came_to_be_is_left_out_of_its_stack():
    stack = "\n".join(
        [
            "Thread 0x1 (most recent call first):",
            '  File "a.py", line 1 in other',
            "",
            "Current thread 0x2 (most recent call first):",
            '  File "b.py", line 2 in task',
            '  File "_worker.py", line 3 in workloop',
            '  File "main.py", line 4 in <module>',
        ]
    )
    assert _of_the_task(stack).splitlines() == stack.splitlines()[:5]
