"""The handlers of a pool that its owner drives, by themselves."""

from __future__ import annotations

import signal
import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, Mock

import pytest

from billiard.common import TERM_SIGNAL, restart_state
from billiard.exceptions import TimeLimitExceeded
from billiard.pool import (
    ACK,
    CLOSE,
    DEATH,
    READY,
    RUN,
    TERMINATE,
    ApplyResult,
    Pool,
    PoolThread,
    ResultHandler,
    Supervisor,
    TaskHandler,
    TimeoutHandler,
    Worker,
)
from harness.looppool import LoopPool


def result_handler(cache: dict[int, Any], **kwargs: Any) -> ResultHandler:
    given = {"poll": lambda _: (False, None), "putlock": None, "restart_state": restart_state(1, 1)}
    given |= {"check_timeouts": None, "on_job_ready": None, "join_exited_workers": lambda **_: []}
    return ResultHandler(outqueue=Mock(), get=Mock(), cache=cache, **{**given, **kwargs})


def test_messages_settle_jobs() -> None:
    cache: dict[int, Any] = {}
    ready, putlock, state = Mock(), Mock(), restart_state(1, 1)
    handler = result_handler(cache, on_job_ready=ready, putlock=putlock, restart_state=state)
    result = ApplyResult(cache, None)
    state.R = 1
    handler.on_state_change((ACK, (result._job, None, 2.5, 17, None)))
    assert (state.R, result._worker_pid) == (0, 17)
    handler.on_state_change((READY, (result._job, None, (True, 4), 5)))
    ready.assert_called_once_with(result._job, None, (True, 4), 5)
    putlock.release.assert_called_once_with()
    assert result.get() == 4
    # Nobody knows the job any more; the worker is free all the same.
    handler.on_state_change((READY, (result._job, None, (True, 4), 5)))
    assert ready.call_count == 2
    assert putlock.release.call_count == 1
    handler.on_state_change((ACK, (result._job, None, 2.5, 17, None)))
    handler.on_state_change((DEATH, (17, 0)))
    handler.on_state_change((99, ("whatever",)))


def test_more_kinds_of_messages_may_be_added() -> None:
    handler, told = result_handler({}), Mock()
    handler.state_handlers[15] = told
    handler.on_state_change((15, (17,)))
    told.assert_called_once_with(17)


def test_results_are_counted_for_who_has_sent_them() -> None:
    cache: dict[int, Any] = {}
    counters = {1: MagicMock(value=0), 2: MagicMock(value=0)}
    handler = result_handler(cache, on_ready_counters=counters)
    for job, pid in ((7, 1), (8, 2), (9, 2)):
        handler.on_state_change((ACK, (job, None, 1.0, pid, None)))
    handler.on_worker_exit(2)
    for job in (7, 8, 9):
        handler.on_state_change((READY, (job, None, (True, None), None)))
    assert [counters[pid].value for pid in (1, 2)] == [1, 0]


def test_what_has_arrived_is_handled_without_waiting() -> None:
    cache: dict[int, Any] = {}
    result = ApplyResult(cache, None)
    messages = [(ACK, (result._job, None, 1.0, 17, None)), (READY, (result._job, None, (True, 1), None))]
    waits: list[float] = []

    def poll(timeout: float) -> tuple[bool, Any]:
        waits.append(timeout)
        return (True, messages.pop(0)) if messages else (False, None)

    handler = result_handler(cache, poll=poll)
    handler.handle_event(5, None)
    assert (result.get(), waits) == (1, [0, 0, 0])
    handler.terminate()
    handler.handle_event()
    assert len(waits) == 3


def test_an_end_of_the_messages_ends_nothing_else() -> None:
    def poll(timeout: float) -> tuple[bool, Any]:
        raise EOFError(timeout)

    result_handler({}, poll=poll).handle_event()
    handler = result_handler({}, poll=lambda _: (True, None))
    handler.handle_event()
    assert handler._state == CLOSE


def test_handlers_have_states_and_can_be_stopped_unstarted() -> None:
    task_handler = TaskHandler(Mock(), Mock(), Mock(), [1, 2], {})
    for handler in (PoolThread(), task_handler, TimeoutHandler([], {}, None, None), result_handler({})):
        assert (handler._state, handler.is_alive(), handler.daemon) == (RUN, False, True)
        handler.close()
        assert handler._state == CLOSE
        handler.stop()
        handler.terminate()
        assert handler._state == TERMINATE
    assert task_handler.put.call_args_list == [((None,),)] * 2
    task_handler.outqueue.put.assert_called_once_with(None)


def test_limits_are_kept_softly_then_hard(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, object]] = []
    process = Mock(pid=17)
    process._popen.poll.return_value = 0
    process._popen.wait.return_value = -15
    process._popen._send_signal.side_effect = lambda number: told.append(("signal", number))
    cache: dict[int, Any] = {}
    handler = TimeoutHandler([process], cache, None, None)
    result = ApplyResult(
        cache,
        None,
        timeout_callback=lambda soft, timeout: told.append(("limit", (soft, timeout))),
        soft_timeout=1,
        timeout=2,
        error_callback=lambda info: told.append(("error", info.type)),
    )
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    handler.handle_event()
    result._ack(None, 100.0, 17, None)
    for clock[0] in (100.5, 101.5, 101.6):
        handler.handle_event()
    assert told == [("limit", (True, 1)), ("signal", signal.SIGUSR1)]
    clock[0] = 102.5
    next(handler.handle_timeouts())
    assert told[2:] == [("error", TimeLimitExceeded), ("limit", (False, 2)), ("signal", TERM_SIGNAL)]
    assert handler._warned == set()


def test_a_limit_without_a_worker_harms_nobody() -> None:
    handler = TimeoutHandler([], {}, None, None)
    job = Mock(_worker_pid=17, _job=1, _timeout=2)
    job.ready.return_value = False
    handler.on_soft_timeout(job)
    job.handle_timeout.assert_not_called()
    handler.on_hard_timeout(job)
    (_, (success, info)), _ = job._set.call_args
    assert (success, info.type) == (False, TimeLimitExceeded)
    job.handle_timeout.assert_called_once_with(soft=False)


def test_a_worker_can_be_made_of_anything() -> None:
    worker = Worker(Mock(), Mock())
    process = SimpleNamespace()
    assert worker.contribute_to_object(process) is process
    assert process.inqW_fd is worker.inqW_fd
    assert process._quick_put is process.inq._writer.send
    assert process._quick_get is process.outq._reader.recv
    assert process.send_job_offset is process.inq._writer.send_offset
    assert (process.synqR_fd, process.synqW_fd, process._send_syn_offset) == (None, None, None)
    with pytest.raises(ValueError, match="maxtasksperchild"):
        Worker(Mock(), Mock(), maxtasks=True)
    synq = Mock()
    Worker(Mock(), Mock(), synq).contribute_to_object(process)
    assert process.send_syn_offset is synq._writer.send_offset


def test_methods_work_before_the_pool_is_made() -> None:
    pool = LoopPool.__new__(LoopPool)
    pool.spare, pool.synack = [], False
    queues = pool.get_process_queues()
    assert pool.cpu_count() >= 1
    for one in queues[:2]:
        one.close()


def test_classes_are_where_they_are_looked_for() -> None:
    assert Pool.Supervisor is Supervisor
    assert (Pool.TaskHandler, Pool.TimeoutHandler, Pool.ResultHandler) == (
        TaskHandler,
        TimeoutHandler,
        ResultHandler,
    )
    assert {kind.__module__ for kind in (TaskHandler, TimeoutHandler, ResultHandler, Supervisor)} == {
        "billiard.pool"
    }
    for absent in ("flush", "register_with_event_loop"):
        assert not hasattr(Pool, absent)
