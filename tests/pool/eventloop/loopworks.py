"""What the jobs of these tests do."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from billiard.exceptions import SoftTimeLimitExceeded
from billiard.process import current_process


def double(number: int) -> int:
    return 2 * number


def fail(text: str) -> None:
    raise ValueError(text)


def whoami() -> tuple[int, str, int]:
    me = current_process()
    return os.getpid(), me.name, me.index


def filled(size: int) -> bytes:
    return b"x" * size


def size_of(data: bytes) -> int:
    return len(data)


def echo(data: bytes) -> bytes:
    return data


def leave(code: object) -> None:
    sys.exit(code)


def vanish(code: int) -> None:
    os._exit(code)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def interrupt() -> None:
    raise KeyboardInterrupt


def hang(begun: str) -> None:
    """Say that it has begun, and never end."""
    Path(begun).touch()
    while True:
        time.sleep(60)


def endure(begun: str) -> str:
    """Wait for a soft limit."""
    try:
        hang(begun)
    except SoftTimeLimitExceeded as error:
        return f"caught {error.args}"
    return "never"


def swallow(begun: str) -> str:
    """Catch the exit that a signal has raised."""
    try:
        hang(begun)
    except SystemExit:
        return "stayed"
    return "never"


def stubborn(begun: str) -> None:
    """Ignore what can be ignored."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    hang(begun)


def large_after_exit(begun: str) -> bytes:
    """Return more than a pipe holds."""
    Path(begun).touch()
    return b"x" * 5_000_000


def unpicklable() -> object:
    return threading.Lock()


class TwoArguments(Exception):
    """Cannot be unpickled: its constructor takes more than it keeps."""

    def __init__(self, one: object, two: object) -> None:
        super().__init__(f"{one} {two}")


def fail_badly() -> None:
    raise TwoArguments(1, 2)


def gone() -> None:
    """Is removed from here while a job with it is on its way."""


class Initializers:
    """What workers call when they begin."""

    @staticmethod
    def fails() -> None:
        raise RuntimeError("cannot begin")

    @staticmethod
    def announces(where: str) -> None:
        Path(where, str(os.getpid())).touch()


def note_exit(where: str, pid: int, code: int) -> None:
    Path(where, f"{pid}").write_text(str(code))
