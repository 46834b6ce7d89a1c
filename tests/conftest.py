"""What all tests share: a census that finds leaks, and programs that run by themselves."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import billiard
from billiard import forkserver, heap
from billiard.context import BaseContext

#: How long what must happen may take on a machine that is busy.
PATIENCE = 30.0
METHODS = ("fork", "spawn", "forkserver")
#: How long a program that a test starts may run.
PROGRAM_TIMEOUT = 60.0

# Of workers that tests kill the package writes a line, which goes to the terminal where nobody listens.
logging.getLogger("multiprocessing").addHandler(logging.NullHandler())


@pytest.fixture(scope="module", autouse=True)
def _old_objects_stay() -> None:
    """Let the census look for garbage in what these tests make, and not in all there is: that takes long."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _children() -> set[str]:
    found = set()
    for task in threads():
        try:
            found.update(Path(f"/proc/self/task/{task}/children").read_text().split())
        except OSError:
            continue  # the thread ended meanwhile
    return {f"child {pid}" for pid in found}


def _descriptors() -> set[str]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue  # the one that listed the folder
        found.add(f"descriptor {number} -> {target}")
    return found


def threads() -> set[str]:
    """The threads of this process, by the system's numbers.

    The kernel ends its list early when the thread that it is at ends, as that may with which pytest watched
    the test before. What has ended is not in the next list: two of the same miss nothing.
    """
    last = set(os.listdir("/proc/self/task"))
    while (now := set(os.listdir("/proc/self/task"))) != last:
        last = now
    return now


def _threads() -> set[str]:
    return {f"thread {task}" for task in threads()}


def _shared_memory() -> set[str]:
    try:
        return {f"/dev/shm/{name}" for name in os.listdir("/dev/shm")}
    except OSError:
        return set()


def census() -> set[str]:
    """Everything this process holds that could outlive a test."""
    heap.trim()
    return _children() | _descriptors() | _threads() | _shared_memory()


@pytest.fixture
def leak_census() -> Iterator[None]:
    """Fail the test if it leaves a process, descriptor, thread or shared-memory name behind."""
    gc.collect()
    before = census()
    yield
    deadline = time.monotonic() + PATIENCE
    while True:
        gc.collect()
        left = census() - before
        if not left:
            return
        if time.monotonic() > deadline:
            pytest.fail("left behind:\n" + "\n".join([*sorted(left), *_descriptions(left)]), pytrace=False)
        time.sleep(0.01)


def _descriptions(left: set[str]) -> Iterator[str]:
    """What the threads among what is left are and do: a number alone tells nobody why one stays."""
    known = {thread.native_id: thread for thread in threading.enumerate()}
    frames = sys._current_frames()
    for number in (int(name.split()[1]) for name in sorted(left) if name.startswith("thread ")):
        task = Path(f"/proc/self/task/{number}")
        thread = known.get(number)
        with suppress(OSError):
            called, state = (task / "comm").read_text().strip(), (task / "syscall").read_text().strip()
            yield f"thread {number}: {called}, {thread}, in system call {state}"
        frame = None if thread is None else frames.get(thread.ident or 0)
        if frame is not None:
            yield "".join(traceback.format_stack(frame))


def _end(pool: Any) -> None:
    pool.terminate()
    pool.join()


@pytest.fixture
def ended(leak_census: None, request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:  # noqa: ARG001
    """Have a pool, or something else, ended after the test; nothing of it may be left then."""
    kept = []

    def keep(thing: Any, end: Callable[[Any], object] = _end) -> Any:
        kept.append((thing, end))
        return thing

    yield keep
    # What nobody holds any more is closed, and the census comes next: pytest would hold on to the arguments.
    if request.node.funcargs:
        request.node.funcargs.clear()
    while kept:
        thing, end = kept.pop()
        end(thing)
        del thing, end


@pytest.fixture(scope="module")
def fork_server() -> Iterator[None]:
    """Have the fork server run, so that no test starts it: it is there before and after each."""
    forkserver.ensure_running()
    yield
    forkserver._forkserver._stop()


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    """The name of a start method."""
    return str(request.param)


@pytest.fixture
def ctx(method: str, request: pytest.FixtureRequest) -> BaseContext:
    """The context of a start method; a test that leaves something behind fails."""
    if method == "forkserver":
        request.getfixturevalue("fork_server")
    request.getfixturevalue("leak_census")
    return billiard.get_context(method)


@pytest.fixture(name="threads")
def _threads_of_the_system() -> Callable[[], set[str]]:
    """List the threads of this process, as the system numbers them."""
    return threads


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait until something is true; fail if it does not become so."""

    def wait(condition: Callable[[], object], what: str = "") -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"did not happen in {PATIENCE} s: {what or condition}")
            time.sleep(0.002)

    return wait


Program = Callable[..., "subprocess.CompletedProcess[str]"]


def _program(interpreter: str, environment: Mapping[str, str] = os.environ) -> Program:
    def run(source: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [interpreter, "-c", textwrap.dedent(source), *args],
            env={**environment, **env},
            capture_output=True,
            text=True,
            timeout=PROGRAM_TIMEOUT,
            check=False,
        )

    return run


@pytest.fixture
def program() -> Program:
    """Run a Python program in a process of its own; answers a `subprocess.CompletedProcess`."""
    return _program(sys.executable)


@pytest.fixture
def original() -> Program:
    """Like `program`, on the original package. Skips the test where that is not installed for this Python."""
    home = Path(__file__).parent.parent / ".oracle"
    if not (home / "bin" / "python").exists():
        pytest.skip("the original package is not installed: make oracle")
    if not list(home.glob("lib/python{}.{}".format(*sys.version_info))):
        pytest.skip("the original package is installed for another version of Python")
    interpreter = home / "bin" / "python"
    # A path that leads these tests to our package would lead the original's interpreter there too.
    return _program(str(interpreter), {k: v for k, v in os.environ.items() if k != "PYTHONPATH"})
