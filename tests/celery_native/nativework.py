"""What the tests of the Celery pool have run in its workers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import signals

from billiard.process import current_process

#: What `worker_process_init` was sent with in this process.
started: list[Any] = []


@signals.worker_process_init.connect
def _note_start(sender: Any = None, **_: Any) -> None:
    started.append(sender)


@signals.worker_process_shutdown.connect
def _note_end(pid: int = 0, exitcode: int = 0, **_: Any) -> None:
    folder = os.environ.get("BILLIARD_TEST_FOLDER")
    if folder:
        Path(folder, str(pid)).write_text(str(exitcode))


def trace(name: str, *args: Any) -> tuple[int, Any, float]:
    """In place of Celery's own: answers as that does."""
    return 0, _TASKS[name](*args), 0.0


def _sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def _about_me() -> tuple[int, list[Any], str]:
    return os.getpid(), started, current_process().name


def _exit(code: object) -> None:
    raise SystemExit(code)


def _interrupt() -> None:
    raise KeyboardInterrupt


_TASKS = {
    "exit": _exit,
    "interrupt": _interrupt,
    "add": lambda a, b: a + b,
    "sleep": _sleep,
    "about me": _about_me,
    "die": lambda: os.kill(os.getpid(), signal.SIGKILL),
}
