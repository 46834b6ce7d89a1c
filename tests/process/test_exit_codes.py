"""How a process ends, and what is said about it: the same under each start method."""

from __future__ import annotations

import os
import signal

import endwork
import processwork
import pytest


@pytest.mark.parametrize(
    ("target", "args", "code"),
    [
        (int, (), 0),
        (processwork.leave, (None,), 0),
        (processwork.leave, (3,), 3),
        (processwork.leave, (True,), 1),
        (processwork.leave, (-1,), 255),
        (processwork.leave, (300,), 44),
        (processwork.leave, (2**70 + 5,), 5),
        (processwork.leave, ("text", False), 1),
        (processwork.leave, (3.5, False), 1),
        (processwork.fail, (SystemExit(1, 2), False), 1),
        (processwork.fail, (SystemExit(), False), 0),
        (processwork.fail, (ValueError("x"), False), 1),
        (processwork.fail, (KeyboardInterrupt(),), 1),
        (processwork.fail, (GeneratorExit(), False), 1),
        (os._exit, (7,), 7),
        (processwork.kill_self, (signal.SIGUSR2,), -signal.SIGUSR2),
        (processwork.kill_self, (signal.SIGKILL,), -signal.SIGKILL),
        (processwork.kill_self, (signal.SIGTERM,), -signal.SIGTERM),
        (processwork.kill_self, (signal.SIGRTMIN + 3,), -signal.SIGRTMIN - 3),
    ],
    ids=lambda value: repr(value) if isinstance(value, tuple) else None,
)
def test_exit_codes(start, target, args, code):
    child = start(target, *args)
    child.join()
    assert child.exitcode == child._popen.returncode == code
    assert not child.is_alive()


def test_a_crash_is_told_once_under_the_processs_name(output):
    out, err = output(processwork.fail, ValueError("unlikely text"), name="Sisyphus")
    assert out == ""
    assert err.startswith("Process Sisyphus:\nTraceback (most recent call last):\n")
    assert err.endswith("\nValueError: unlikely text\n")
    assert err.count("Error: unlikely text") == err.count("Traceback") == 1


@pytest.mark.parametrize("handler", ["none", "stderr", "file"])
def test_a_crash_is_told_once_in_each_place(output, tmp_path, handler):
    path = tmp_path / "log"
    path.touch()
    _, err = output(endwork.fail_while_logging, str(path), handler)
    assert err.count("Error: unlikely text") == err.count("Traceback") == 1
    logged = path.read_text()
    assert logged.count("Error: unlikely text") == logged.count("Traceback") == (handler == "file")


def test_what_was_printed_before_a_crash_comes_first(output):
    assert output(endwork.print_and_fail, mixed=True).startswith("before\nProcess ")


def test_an_interrupted_child_says_nothing(output, staying):
    child = staying()
    child.interrupt()
    child.join()
    assert child.exitcode == 1
    assert output(processwork.fail, KeyboardInterrupt()) == ("", "")


@pytest.mark.parametrize("code", ["farewell", 3.5, ["a"], b"x"])
def test_what_exit_is_given_is_printed(output, code):
    assert output(processwork.leave, code) == ("", f"{code}\n")


@pytest.mark.parametrize("kind", ["closed", "missing", "strange", "unspeakable", "exit"])
def test_a_child_that_cannot_tell_of_its_crash_winds_up_all_the_same(start, pipe, kind):
    reader, writer = pipe()
    child = start(endwork.fail_speechless, kind, writer)
    child.join()
    assert child.exitcode == 1
    assert os.read(reader, 10) == b"r"


EARLY = """
import billiard, os, signal, sys
if __name__ == "__main__":
    for method in ("spawn", "forkserver"):
        child = billiard.get_context(method).Process(target=int)
        child.start()
        child.interrupt()
        child.join()
        print(child.exitcode in (0, 1))
"""


def test_an_interrupt_that_comes_early_waits_until_it_can_be_handled(script):
    # A fresh interpreter that is interrupted while it starts would tell of its own inside.
    done = script(EARLY)
    assert (done.stdout, done.stderr) == ("True\nTrue\n", "")


THE_SAME = """
import billiard, os, sys
def fail():
    raise ValueError("unlikely text")
def leave(code):
    sys.exit(code)
if __name__ == "__main__":
    for method in sys.argv[1:]:
        for target, args in ((fail, ()), (os._exit, (7,)), (leave, (3,)), (leave, (-1,)), (leave, (True,)),
                             (leave, (3.5,)), (leave, ([1],))):
            child = billiard.get_context(method).Process(target=target, args=args, name="n")
            child.start()
            child.join()
            print(child.exitcode, child)
"""


def test_exit_codes_are_the_originals_where_those_are_right(script, original_script):
    # Of its fork server they are not.
    ours, theirs = (run(THE_SAME, "fork", "spawn") for run in (script, original_script))
    assert ours.stdout == theirs.stdout

    def said(text):
        # Not where in the package it happened.
        return [line for line in text.split("\n") if "billiard" not in line and not line.startswith("    ")]

    assert said(ours.stderr) == said(theirs.stderr)
