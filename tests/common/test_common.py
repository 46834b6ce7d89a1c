"""Signals, statuses, restart limits."""

from __future__ import annotations

import io
import os
import pickle
import signal
from unittest.mock import call, patch

import pytest

from billiard import common
from billiard.common import human_status, restart_state
from billiard.exceptions import RestartFreqExceeded


@pytest.fixture(autouse=True)
def not_told():
    yield
    common.clear_terminate_handler_fired()


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "exitcode 0"),
        (3, "exitcode 3"),
        (None, "exitcode None"),
        (-9, "signal 9 (SIGKILL)"),
        (-15, "signal 15 (SIGTERM)"),
        (-2, "signal 2 (SIGINT)"),
        (-6, "signal 6 (SIGABRT)"),
        (-200, "signal 200"),
    ],
)
def test_statuses_in_words(status, text):
    assert human_status(status) == text


def test_signal_names_and_numbers():
    assert common.SIGMAP[1] == "SIGHUP"
    assert common.SIGMAP[6] == "SIGABRT"
    assert common.SIGMAP[signal.SIGCHLD] == "SIGCHLD"
    assert 0 not in common.SIGMAP
    assert common.signum("SIGTERM") == 15
    assert common.signum("SIGNONE") is None


def test_unpickling_takes_any_buffer():
    data = pickle.dumps([1, 2])
    for buffer in (data, memoryview(data), bytearray(data)):
        assert common.pickle_loads(buffer) == [1, 2]
    assert common.pickle_load(io.BytesIO(data)) == [1, 2]


def test_installing_a_handler_that_cannot_be_is_no_error():
    for number in (signal.SIGKILL, 0, 1000, -1):
        common.maybe_setsignal(number, signal.SIG_IGN)
    for error in (OSError, AttributeError, ValueError, RuntimeError):
        with patch("signal.signal", side_effect=error):
            common.maybe_setsignal(signal.SIGUSR1, None)


def test_the_first_termination_exits_with_the_signal_as_status():
    with patch("sys.exit") as leave:
        common._shutdown_cleanup(15, None)
    (status,) = leave.call_args.args
    assert os.WTERMSIG(status) == 15
    assert common._should_have_exited == [True]
    assert common.terminate_handler_fired()


def test_the_second_termination_lets_the_cleanup_finish_and_the_third_does_not():
    with patch("sys.exit") as leave, patch("os._exit") as at_once:
        common._shutdown_cleanup(15, None)
        common._shutdown_cleanup(15, None)
        assert (leave.call_count, at_once.call_count) == (1, 0)
        common._shutdown_cleanup(3, None)
        at_once.assert_called_once_with(common.EX_SOFTWARE)
        common.clear_terminate_handler_fired()
        assert not common.terminate_handler_fired()
        common._shutdown_cleanup(15, None)
        assert leave.call_count == 2


@pytest.mark.parametrize("full", [False, True])
def test_signals_are_taken_over_unless_ignored(monkeypatch, full):
    monkeypatch.setattr(
        common, "TERMSIGS_FULL" if full else "TERMSIGS_DEFAULT", ["SIGTERM", "SIGNONE", "SIGUSR1"]
    )
    with patch("signal.getsignal") as get, patch("signal.signal") as install:
        get.return_value = signal.SIG_DFL
        common.reset_signals(full=full)
        assert get.call_args_list == [call(signal.SIGTERM), call(signal.SIGUSR1)]
        assert install.call_args_list == [
            call(signal.SIGTERM, common._shutdown_cleanup),
            call(signal.SIGUSR1, common._shutdown_cleanup),
        ]
    for untouchable in (signal.SIG_IGN, None):
        with patch("signal.getsignal", return_value=untouchable), patch("signal.signal") as install:
            common.reset_signals(full=full)
            install.assert_not_called()


REMAPPED = """
import billiard, signal, time
from billiard import common
print(common.TERM_SIGNAL.name, common.TERM_SIGNAME, common.TERMSIGS_IGNORE, common.TERMSIGS_FORCE)
print(sorted(common.TERMSIGS_DEFAULT))
def child():
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    common.reset_signals()
    print(signal.getsignal(signal.SIGTERM) == signal.SIG_IGN, flush=True)
    signal.raise_signal(signal.SIGQUIT)
started = billiard.Process(target=child)
started.start()
started.join()
print(started.exitcode)
started = billiard.Process(target=time.sleep, args=(1000,))
started.start()
started.terminate()
started.join()
print(started.exitcode)
"""


def test_another_signal_can_have_the_role_of_sigterm(program):
    done = program(REMAPPED, REMAP_SIGTERM="SIGQUIT")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "SIGQUIT SIGQUIT {'SIGTERM'} {'SIGQUIT'}",
        "['SIGHUP', 'SIGQUIT', 'SIGUSR1']",
        "True",
        "3",
        "-3",
    ]


def test_an_unknown_signal_for_that_role_is_an_error_at_import(program):
    done = program("import billiard.common", REMAP_SIGTERM="SIGNONE")
    assert "AttributeError" in done.stderr
    assert program("import billiard.common as c; print(c.REMAP_SIGTERM)", REMAP_SIGTERM="").stdout == "None\n"


def test_restarts_are_allowed_up_to_the_limit():
    state = restart_state(maxR=3, maxT=10)
    assert (state.R, state.T) == (0, None)
    for now in (100, 101, 102):
        state.step(now)
    assert (state.R, state.T) == (3, 100)
    with pytest.raises(RestartFreqExceeded, match="3 in 10s"):
        state.step(103)
    assert state.R == 0
    state.step(104)
    assert state.R == 1


def test_a_new_window_starts_counting_again():
    state = restart_state(2, 10)
    for now in (1, 2, 11, 12, 21, 22):
        state.step(now)
    with pytest.raises(state.RestartFreqExceeded):
        state.step(23)


def test_the_count_may_be_assigned():
    state = restart_state(1, 1000)
    for now in range(1, 100):
        state.R = 0
        state.step(now)


@pytest.mark.parametrize("limit", [None, 0])
def test_no_limit_is_no_limit(limit):
    state = restart_state(limit, 1)
    for _ in range(1000):
        state.step()
