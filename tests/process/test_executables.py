"""The program that children which are fresh interpreters are started with."""

from __future__ import annotations

import os
import sys

import processwork
import pytest

import billiard
from billiard import forkserver, process, spawn


@pytest.fixture(params=["spawn", "forkserver"])
def method(request):
    """The name of a start method that starts interpreters."""
    return request.param


@pytest.fixture(autouse=True)
def executable(monkeypatch):
    """The program is the running interpreter again after the test."""
    monkeypatch.setattr(spawn, "_python_exe", sys.executable)


@pytest.fixture
def own_server(monkeypatch):
    """A fork server for one test."""
    server = forkserver.ForkServer()
    monkeypatch.setattr(forkserver, "_forkserver", server)
    yield server
    server._stop()


def test_the_program_can_be_chosen(tmp_path):
    assert spawn.get_executable() == sys.executable
    for path in ("/some/python", b"/some/python", tmp_path):
        billiard.set_executable(path)
        assert spawn.get_executable() == os.fspath(path)
        assert spawn.get_command_line()[0] == os.fsdecode(path)
    billiard.get_context("fork").set_executable(sys.executable)
    assert spawn.get_executable() == sys.executable
    with pytest.raises(TypeError):
        billiard.set_executable(3)


@pytest.fixture
def wrapper(tmp_path):
    """A program that notes how it is called, and is the interpreter."""
    path = tmp_path / "wrapper"
    path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nexec {sys.executable} "$@"\n')
    path.chmod(0o700)
    return path


@pytest.mark.usefixtures("leak_census")
def test_it_is_used(method, own_server, wrapper, tmp_path):
    billiard.set_executable(wrapper)
    for _ in range(2):
        child = billiard.get_context(method).Process(target=processwork.leave, args=(3,))
        child.start()
        child.join()
        assert child.exitcode == 3
        child.close()
    calls = (tmp_path / "calls").read_text().splitlines()
    module = "spawn import spawn_main" if method == "spawn" else "forkserver import main"
    assert len(calls) == (2 if method == "spawn" else 1)
    assert all(f"-c from billiard.{module}; " in call for call in calls)
    assert all(call.endswith(" --billiard-fork") for call in calls)
    own_server._stop()


@pytest.mark.usefixtures("leak_census", "own_server")
@pytest.mark.parametrize("kind", ["missing", "folder", "forbidden", "no program"])
def test_one_that_cannot_be_started_is_an_error_here(method, tmp_path, kind):
    path = tmp_path / "program"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(b"\x7fELF nonsense")
        path.chmod(0o600 if kind == "forbidden" else 0o700)
    billiard.set_executable(path)
    child = billiard.get_context(method).Process(target=int)
    with pytest.raises(OSError, match=str(path)) as caught:
        child.start()
    expected = {"missing": FileNotFoundError, "folder": PermissionError, "forbidden": PermissionError}
    assert type(caught.value) is expected.get(kind, OSError)
    assert caught.value.filename == str(path)
    assert (child._popen, child.pid) == (None, None)
    assert child not in process._children
    # With a program that works it can be started after all.
    spawn.set_executable(sys.executable)
    child.start()
    child.join()
    assert child.exitcode == 0
    child.close()
    forkserver._forkserver._stop()


@pytest.mark.usefixtures("leak_census", "own_server")
def test_a_fork_server_that_ends_at_once_is_an_error_here():
    billiard.set_executable("/bin/false")
    child = billiard.get_context("forkserver").Process(target=int)
    with pytest.raises(
        BrokenPipeError, match="the fork server ended with exit code 1 as soon as it was started"
    ):
        child.start()
    assert child._popen is None


def test_the_command_line_carries_the_interpreters_flags(script):
    source = """
    import sys
    from billiard import spawn
    print(spawn.get_command_line(pipe_handle=5, parent_pid=None))
    """
    done = script(source, command=("-W", "ignore", "-s", "-X", "dev", "program.py"))
    call = "from billiard.spawn import spawn_main; spawn_main(pipe_handle=5, parent_pid=None)"
    command = done.stdout.strip()
    assert command.startswith(repr([sys.executable])[:-1])
    assert command.endswith(f"'-c', '{call}', '--billiard-fork']")
    for flag in ("'-Wignore'", "'-s'", "'-X', 'dev'"):
        assert flag in command


def test_flags_reach_the_child(script, method):
    done = script(
        """
        import billiard, sys
        def show(): print(sys.flags.no_user_site, sys.flags.dev_mode, sys.flags.optimize)
        if __name__ == "__main__":
            child = billiard.get_context(sys.argv[1]).Process(target=show)
            child.start()
            child.join()
        """,
        method,
        command=("-s", "-O", "-X", "dev", "program.py"),
    )
    assert (done.stdout, done.stderr) == ("1 True 1\n", "")


@pytest.mark.parametrize(
    ("argv", "forking"),
    [
        (["program", "--billiard-fork"], True),
        (["program", "--billiard-fork", "pipe_handle=5"], True),
        (["program", "-c", "--billiard-fork"], False),
        (["program"], False),
        ([], False),
        (["--billiard-fork"], False),
    ],
)
def test_a_child_of_a_frozen_program_is_recognized(argv, forking):
    assert spawn.is_forking(argv) is forking


def test_a_frozen_program_is_called_with_words(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    billiard.set_executable("/frozen")
    assert spawn.get_command_line(pipe_handle=5, parent_fd=None) == [
        "/frozen", "--billiard-fork", "pipe_handle=5", "parent_fd=None",
    ]  # fmt: skip
    # No other module is its main module: a child is another run of it.
    assert spawn.main_module() == {}


def test_elsewhere_freeze_support_does_nothing(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program", "--billiard-fork", "pipe_handle=5"])
    assert billiard.freeze_support() is None
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "argv", ["program", "argument"])
    assert billiard.freeze_support() is None
    assert spawn.freeze_support() is None


FROZEN = """
import billiard, os, sys
from billiard import spawn
sys.frozen = True
spawn.set_executable(os.environ["FROZEN"])
with open("runs", "a") as file:
    print(*(word.split("=")[0] for word in sys.argv[1:]), file=file)
def child(code):
    print("child", __name__, billiard.current_process().name, flush=True)
    sys.exit(code)
if __name__ == "__main__":
    billiard.freeze_support()
    for method in ("fork", "spawn", "forkserver", "forkserver"):
        process = billiard.get_context(method).Process(target=child, args=(4,), name=method)
        process.start()
        process.join()
        print(process.exitcode, flush=True)
"""


def test_a_frozen_program_starts_itself(script, tmp_path):
    frozen = tmp_path / "frozen"
    frozen.write_text(f'#!/bin/sh\nexec {sys.executable} program.py "$@"\n')
    frozen.chmod(0o700)
    done = script(FROZEN, FROZEN=str(frozen))
    assert done.stderr == ""
    told = "".join(f"child __main__ {name}\n4\n" for name in ("fork", "spawn", "forkserver", "forkserver"))
    assert done.stdout == told
    # Once by the user, once by `spawn`, and once for the fork server: it has not run its main block again.
    assert (tmp_path / "runs").read_text().splitlines() == [
        "",
        "--billiard-fork pipe_handle parent_pid parent_fd",
        "--billiard-fork listener_fd alive_r owner",
    ]
