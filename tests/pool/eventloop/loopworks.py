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


class OnlyToWrite:
    """Can be pickled, and kills or fails whoever unpickles it."""

    def __init__(self, how: str = "raise") -> None:
        self._how = how

    def __reduce__(self) -> tuple[object, ...]:
        return _read, (self._how,)


def _read(how: str) -> None:
    if how == "die":
        die()
    if how == "leave":
        sys.exit(0)
    raise ValueError("only to write")


def only_to_write() -> OnlyToWrite:
    return OnlyToWrite()


def leave_well(begun: str) -> None:
    try:
        hang(begun)
    except SystemExit:
        sys.exit(0)


def nap_and_double(number: int, seconds: float) -> int:
    time.sleep(seconds)
    return 2 * number


def nap_if_even(number: int) -> int:
    if number % 2 == 0:
        time.sleep(1)
    return number


def nap_die_or_go_on(number: int) -> int:
    if number == 0:
        time.sleep(0.5)
    elif number == 1:
        die()
    return number
