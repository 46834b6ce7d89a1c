"""Pools that are ended, and waits that end."""

from __future__ import annotations

import functools
import gc
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import billiard
from billiard.pool import Pool

#: How long a program that a test starts may run.
PROGRAM_TIMEOUT = 60.0


@pytest.fixture
def make_pool(ended: Callable[..., Pool]) -> Callable[..., Pool]:
    """Make a pool that is ended after the test; nothing of it may be left then."""

    def make(*args: object, **kwargs: object) -> Pool:
        return ended(kwargs.pop("kind", Pool)(*args, **kwargs))

    return make


@pytest.fixture
def thawed() -> Iterator[None]:
    """Nothing is frozen that the test runner has frozen."""
    gc.unfreeze()
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture
def pool(make_pool: Callable[..., Pool]) -> Pool:
    """A pool of two workers."""
    return make_pool(2)


@pytest.fixture(params=["fork", "forkserver", "spawn"])
def method(request: pytest.FixtureRequest, fork_server: None) -> str:  # noqa: ARG001
    """Each start method."""
    return str(request.param)


@pytest.fixture
def start(method: str, make_pool: Callable[..., Pool]) -> Callable[..., Pool]:
    """Like `make_pool`, by each start method. What workers run must be where they can import it."""
    return functools.partial(make_pool, context=billiard.get_context(method))


@pytest.fixture
def script_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write a program to a file, and answer its path. It finds what lies beside the tests."""
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])]))

    def write(source: str, name: str = "program") -> str:
        path = tmp_path / f"{name}.py"
        path.write_text(textwrap.dedent(source))
        return str(path)

    return write


@pytest.fixture
def script(script_file: Callable[..., str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program from a file; answers a `subprocess.CompletedProcess`."""

    def run(source: str, *args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, script_file(source), *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_TIMEOUT, check=False)

    return run
