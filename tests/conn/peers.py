"""Peers of other packages and other Pythons, as many as are found here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

#: What a peer does: a command at a time from its standard input, and what came of it to standard output.
#: Written so that every Python 3 understands it.
PROGRAM = """
import sys
from {module} import connection

def talk(conn):
    said = None
    while said != b"good-bye":
        said = conn.recv_bytes()
        if said == b"object":
            conn.send(conn.recv())
        else:
            conn.send_bytes(said)
    conn.close()

def listen(family, key):
    with connection.Listener(family=family, authkey=key) as listener:
        print(repr(listener.address), flush=True)
        talk(listener.accept())

def connect(address, key):
    talk(connection.Client(address, authkey=key))

for line in sys.stdin:
    name, args = eval(line)
    try:
        globals()[name](*args)
    except Exception as error:
        print(repr(type(error).__name__), flush=True)
    else:
        print(repr("done"), flush=True)
"""

_VERSION = "import sys; print(*sys.version_info[:2])"


class Other(NamedTuple):
    """Another package, or another Python."""

    name: str
    interpreter: str
    module: str
    version: tuple[int, int]

    @property
    def knows_only_md5(self) -> bool:
        return self.module == "billiard" or self.version < (3, 12)


def _version(interpreter: str) -> tuple[int, int] | None:
    # A name on the path may be a shim for an interpreter that is not active: only one that answers counts.
    try:
        answer = subprocess.run([interpreter, "-Ic", _VERSION], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    major, minor = answer.stdout.split()
    return int(major), int(minor)


def _pythons() -> Iterator[str]:
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for minor in range(6, 20):
        yield f"python3.{minor}"
        yield from map(str, root.glob(f"versions/3.{minor}.*/bin/python3.{minor}"))


def others() -> list[Other]:
    """This Python's standard library, the original, and other Pythons.

    Of those that know only MD5, the oldest stands for all: their handshake is one and the same.
    """
    found = [Other("multiprocessing", sys.executable, "multiprocessing", sys.version_info[:2])]
    oracle = Path(__file__).parents[2] / ".oracle" / "bin" / "python"
    version = _version(str(oracle))
    if version is not None:
        found.append(Other("original", str(oracle), "billiard", version))
    seen = {sys.version_info[:2]}
    for interpreter in _pythons():
        version = _version(interpreter)
        if version is None or version in seen or (version < (3, 12) and min(seen) < sys.version_info[:2]):
            continue
        seen.add(version)
        found.append(Other("python{}.{}".format(*version), interpreter, "multiprocessing", version))
    return found


class Peer:
    """A process of such a one."""

    def __init__(self, other: Other) -> None:
        self.knows_only_md5 = other.knows_only_md5
        self._command = [other.interpreter, "-c", PROGRAM.format(module=other.module)]
        self._child: subprocess.Popen[str] | None = None
        self._pending = 0

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, unless it runs already."""
        if self._child is None:
            pipe = subprocess.PIPE
            self._child = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, text=True)

    def kill(self) -> None:
        """End it, whatever it is doing."""
        child, self._child, self._pending = self._child, None, 0
        if child is not None:
            child.kill()
            child.communicate()

    def ask(self, name: str, *args: object) -> None:
        """Have it do something."""
        assert self._child is not None
        assert self._child.stdin is not None
        self._child.stdin.write(f"{(name, args)!r}\n")
        self._child.stdin.flush()
        self._pending += 1

    def read(self) -> Any:
        """What it says next."""
        assert self._child is not None
        assert self._child.stdout is not None
        return eval(self._child.stdout.readline())

    def outcome(self) -> Any:
        """Wait until it has done what it was asked for: ``done``, or the name of an exception."""
        self._pending -= 1
        return self.read()

    def is_idle(self) -> bool:
        """Tell whether everything it was asked for was waited for."""
        return self._pending == 0
