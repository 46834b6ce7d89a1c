"""What becomes of children whose parent has ended without ending them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import billiard

#: How long what must happen may take on a machine that is busy, in seconds.
PATIENCE = 30.0
#: How long a child that must live on is watched, in seconds; the end would come within 300 ms.
A_WHILE = 0.6

PROGRAM = """
import os, sys
import kinwork, processwork
if __name__ == "__main__":
    end = processwork.Descriptor(int(sys.argv[4]))
    kinwork.start_chain(sys.argv[1].split(), getattr(kinwork, sys.argv[2]), sys.argv[3] == "daemon", end)
    sys.stdin.readline()
    os._exit(0)
"""


@pytest.fixture
def parent(tmp_path, leak_census):  # noqa: ARG001
    """Start a program that has a child, or a chain of them, and wait until the last one runs.

    Answers the program, the process id of that child, and the end of a pipe that is closed when all of them
    have ended.
    """
    (tmp_path / "program.py").write_text(PROGRAM)
    path = os.pathsep.join([str(Path(billiard.__file__).parents[1]), str(Path(__file__).parent)])
    started, readers = [], []

    def parent(methods, target="stay_known", kind="other"):
        reader, writer = os.pipe()
        readers.append(reader)
        program = subprocess.Popen(
            [sys.executable, "program.py", methods, target, kind, str(writer)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            pass_fds=[writer],
            stdin=subprocess.PIPE,
        )
        started.append(program)
        os.close(writer)
        return program, int(os.read(reader, 20)), reader

    yield parent
    for program in started:
        program.kill()
        program.communicate()
    for reader in readers:
        os.close(reader)


def _all_gone(reader, patience=PATIENCE):
    return select.select([reader], [], [], patience)[0] == [reader] and os.read(reader, 1) == b""


@pytest.mark.parametrize("kind", ["daemon", "other"])
@pytest.mark.parametrize("target", ["stay_known", "stay_although_asked"])
def test_no_child_outlives_a_parent_that_is_killed(parent, method, target, kind):
    program, _, reader = parent(method, target, kind)
    program.kill()
    assert _all_gone(reader)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGABRT])
def test_no_matter_which_signal_killed_it(parent, number):
    program, _, reader = parent("fork")
    program.send_signal(number)
    assert _all_gone(reader)


@pytest.mark.parametrize(
    "methods", ["fork spawn", "spawn forkserver", "forkserver fork", "forkserver forkserver"]
)
def test_nor_do_their_children(parent, methods):
    program, _, reader = parent(methods)
    program.kill()
    assert _all_gone(reader)


def test_a_daemon_ends_with_a_parent_that_leaves_at_once(parent, method):
    program, _, reader = parent(method, kind="daemon")
    program.communicate(b"leave\n")
    assert program.returncode == 0
    assert _all_gone(reader)


@pytest.mark.usefixtures("exits_are_told")
def test_another_child_lives_on(parent, method):
    program, child, reader = parent(method)
    program.communicate(b"leave\n")
    assert program.returncode == 0
    assert not _all_gone(reader, A_WHILE)
    os.kill(child, signal.SIGKILL)
    assert _all_gone(reader)
