"""Large arguments for children that do not read them, and many starts that leave nothing."""

from __future__ import annotations

import signal

import pytest
from hostilework import CHAOS, METHODS, PATIENCE, kill, leave_with_length, nothing, until

import billiard
from billiard.forkserver import _forkserver

#: More than any pipe or socket takes.
FLOOD = bytes(10 << 20)


@pytest.fixture
def census(leak_census):  # noqa: ARG001
    """Count what is left after the fork server has gone."""
    yield
    _forkserver._stop()


@pytest.mark.usefixtures("census")
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
@pytest.mark.parametrize("method", METHODS)
def test_a_start_does_not_wait_until_a_large_argument_is_read(method, number):
    context = billiard.get_context(method)
    for _ in range(5 * CHAOS):
        silent = context.Process(target=leave_with_length, args=(FLOOD,), daemon=True)
        silent.start()
        kill(silent.pid, number)
        other = context.Process(target=leave_with_length, args=(FLOOD,), daemon=True)
        other.start()
        other.join(PATIENCE)
        assert other.exitcode == 10
        silent.kill()
        silent.join(PATIENCE)
        # It may have been done before it was told.
        assert silent.exitcode in (-signal.SIGKILL, 10)


@pytest.mark.usefixtures("census")
@pytest.mark.parametrize("way", ["joined", "looked at", "forgotten"])
@pytest.mark.parametrize(("method", "starts"), [("fork", 200), ("spawn", 20), ("forkserver", 200)])
def test_children_that_come_and_go_leave_nothing(method, starts, way):
    context = billiard.get_context(method)
    for _ in range(starts * CHAOS):
        child = context.Process(target=nothing)
        child.start()
        if way == "joined":
            child.join()
        elif way == "looked at":
            until(lambda child=child: not child.is_alive())
    del child
    until(lambda: not billiard.active_children())
