"""Processes under each start method: started, asked, ended."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import processwork
import pytest

import billiard
from billiard.context import BaseContext
from billiard.process import BaseProcess

#: How long a program may run.
PROGRAM_TIMEOUT = 60.0


@pytest.fixture
def exits_are_told() -> None:
    """Skip the test where the kernel does not tell strangers how a process has ended."""
    if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 15):
        pytest.skip("told since Linux 6.15")


@pytest.fixture
def start(ctx: BaseContext) -> Iterator[Callable[..., BaseProcess]]:
    """Start a process, a daemon unless told otherwise; it is ended after the test."""
    started = []

    def start(target: Callable[..., object], *args: object, **options: Any) -> BaseProcess:
        child = ctx.Process(target=target, args=args, **{"daemon": True, **options})
        child.start()
        started.append(child)
        return child

    yield start
    for child in started:
        if not child._closed:
            child.kill()
            child.join()
            child.close()


@pytest.fixture
def pipe(ctx: BaseContext) -> Iterator[Callable[[], tuple[int, processwork.Descriptor]]]:  # noqa: ARG001
    """Make a pipe: the end to read from, and the one for a child. Both are closed after the test."""
    ends = []

    def pipe() -> tuple[int, processwork.Descriptor]:
        reader, writer = os.pipe()
        ends.extend((reader, writer))
        return reader, processwork.Descriptor(writer)

    yield pipe
    for end in ends:
        os.close(end)


@pytest.fixture
def staying(
    start: Callable[..., BaseProcess], pipe: Callable[[], tuple[int, processwork.Descriptor]]
) -> Callable[..., BaseProcess]:
    """Start a process that runs until it is ended, and wait until it runs."""

    def staying(target: Callable[..., object] = processwork.stay, **options: Any) -> BaseProcess:
        reader, writer = pipe()
        child = start(target, writer, **options)
        assert os.read(reader, 1) == b"r"
        return child

    return staying


@pytest.fixture
def ask(ctx: BaseContext) -> Callable[..., Any]:
    """Have a child compute something, and return what it says."""

    def ask(function: Callable[..., object], *args: object, **options: Any) -> Any:
        reader, writer = os.pipe()
        child = ctx.Process(
            target=processwork.tell, args=(processwork.Descriptor(writer), function, *args), **options
        )
        child.start()
        os.close(writer)
        with open(reader, "rb") as file:
            answer = file.read()
        child.join()
        assert child.exitcode == 0
        child.close()
        return pickle.loads(answer)

    return ask


@pytest.fixture
def output(ctx: BaseContext) -> Callable[..., Any]:
    """Run a target in a child until it has ended, and return what it has written: to standard output, and to
    standard error; or to both, mixed.

    A fork server has its own standard descriptors, so that nobody can catch what its children write there.
    """

    def output(target: Callable[..., object], *args: object, mixed: bool = False, **options: Any) -> Any:
        out, out_end = os.pipe()
        err, err_end = (os.dup(out), os.dup(out_end)) if mixed else os.pipe()
        ends = processwork.Descriptor(out_end), processwork.Descriptor(err_end)
        child = ctx.Process(target=processwork.speak_into, args=(*ends, target, *args), **options)
        child.start()
        os.close(out_end)
        os.close(err_end)
        said = []
        for end in (out, err):
            with open(end) as file:
                said.append(file.read())
        child.join()
        child.close()
        return said[0] if mixed else tuple(said)

    return output


Script = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Run a program from a file, in an empty folder; answers a `subprocess.CompletedProcess`.

    What it writes is buffered as usual, whatever the environment of the tests says.
    """
    # The package that is tested, from whatever folder the program runs in.
    here = str(Path(billiard.__file__).parents[1])
    return _script(tmp_path, sys.executable, {**os.environ, "PYTHONPATH": here})


@pytest.fixture
def original_script(tmp_path: Path) -> Script:
    """Like `script`, on the original package. Skips the test where that is not installed."""
    interpreter = Path(__file__).parents[2] / ".oracle" / "bin" / "python"
    if not interpreter.exists():
        pytest.skip("the original package is not installed: make oracle")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return _script(tmp_path, str(interpreter), environment)


def _script(folder: Path, interpreter: str, environment: dict[str, str]) -> Script:
    environment.pop("PYTHONUNBUFFERED", None)

    def run(
        source: str, *args: str, stdin: str = "", command: tuple[str, ...] = ("program.py",), **env: str
    ) -> subprocess.CompletedProcess[str]:
        (folder / "program.py").write_text(textwrap.dedent(source))
        return subprocess.run(
            [interpreter, *command, *args],
            cwd=folder,
            env={**environment, **env},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PROGRAM_TIMEOUT,
            check=False,
        )

    return run
