"""Connections under each start method, and peers of other packages."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from talk import PATIENCE

import billiard
from billiard import resource_sharer
from billiard.context import BaseContext

Ends = "tuple[Any, Any]"


@pytest.fixture
def start(ctx: BaseContext) -> Iterator[Callable[..., Any]]:
    """Start a daemonic process; it has to end by itself."""
    started = []

    def start(target: Callable[..., object], *args: object) -> Any:
        child = ctx.Process(target=target, args=args, daemon=True)
        child.start()
        started.append(child)
        return child

    yield start
    for child in started:
        child.join(PATIENCE)
        assert child.exitcode in (0, -9)
        child.close()


@pytest.fixture
def sharing() -> Iterator[None]:
    """Stops sharing descriptors after the test."""
    yield
    resource_sharer.stop(PATIENCE)


@pytest.fixture
def ends(leak_census: None) -> Iterator[Callable[..., Any]]:  # noqa: ARG001
    """Make a pipe. Both ends are closed after the test."""
    made: list[Any] = []

    def ends(*args: Any, **kwargs: Any) -> Any:
        pair = billiard.Pipe(*args, **kwargs)
        made.extend(pair)
        return pair

    yield ends
    for end in made:
        end.close()


@pytest.fixture
def in_thread() -> Iterator[Callable[..., Callable[[], Any]]]:
    """Run a function in a thread; what is returned waits for it, and returns or raises what it did."""
    threads = []

    def run(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
        outcome: list[Any] = []

        def body() -> None:
            try:
                outcome.append((True, function(*args)))
            except BaseException as error:
                outcome.append((False, error))

        thread = threading.Thread(target=body, daemon=True)
        thread.start()
        threads.append(thread)

        def result() -> Any:
            thread.join(PATIENCE)
            assert outcome, "the thread has not ended"
            worked, value = outcome[0]
            if worked:
                return value
            raise value

        return result

    yield run
    for thread in threads:
        thread.join(PATIENCE)


@pytest.fixture(params=["multiprocessing", "original"])
def peer(request: pytest.FixtureRequest) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Run a program on another package: ``connection`` in it is that one's module.

    It is given its arguments, and speaks through standard input and output.
    """
    interpreter, module = sys.executable, "multiprocessing"
    if request.param == "original":
        oracle = Path(__file__).parents[2] / ".oracle" / "bin" / "python"
        if not oracle.exists():
            pytest.skip("the original package is not installed: make oracle")
        interpreter, module = str(oracle), "billiard"
    started = []

    def run(source: str, *args: str) -> subprocess.Popen[str]:
        program = f"import sys\nfrom {module} import connection\n{textwrap.dedent(source)}"
        pipe = subprocess.PIPE
        child = subprocess.Popen([interpreter, "-c", program, *args], stdin=pipe, stdout=pipe, text=True)
        started.append(child)
        return child

    yield run
    for child in started:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.close()
        assert child.wait(PATIENCE) == 0
        child.stdout.close()
