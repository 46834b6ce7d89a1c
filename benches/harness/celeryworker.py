"""Celery workers over a private Redis, for the questions that ask what a user of Celery gets."""

from __future__ import annotations

import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.subject import OURS, Subject

PROGRAMS = Path(__file__).resolve().parents[1] / "programs"
PATIENCE_SECONDS = 60.0
STAMP = struct.Struct("q")
TICK_SECONDS = 0.005
NATIVE = "billiard.contrib.celery:TaskPool"


class CeleryWorker:
    """A worker and its Redis, which live as long as the ``with`` block.

    Its tasks write numbers of eight bytes into a pipe: the cheapest way for them to say something.

    Attributes:
        app: What sends tasks.
        words: The end of that pipe which is read.
    """

    def __init__(self, subject: Subject, *options: str, native: bool = False) -> None:
        if shutil.which("redis-server") is None:
            sys.exit("redis-server is not installed; see `make test-celery`")
        self._options = options
        # Only one contender has a pool of its own; the other is asked with the one it has.
        self._native = native and subject.name == OURS
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> CeleryWorker:
        self._folder = tempfile.TemporaryDirectory(prefix="bench-celery-")
        folder = Path(self._folder.name)
        socket, words = folder / "redis.sock", folder / "words"
        settings = ("--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder))
        self._start("redis-server", *settings)
        os.mkfifo(words)
        self.words = os.open(words, os.O_RDONLY | os.O_NONBLOCK)
        os.environ.update(BENCH_CELERY_REDIS=str(socket), BENCH_CELERY_WORDS=str(words))
        sys.path.insert(0, str(PROGRAMS))
        from celeryapp import app  # noqa: PLC0415 - needs what was just put into the environment

        self.app: Any = app
        self._wait_for(socket)
        environment = {**os.environ, "PYTHONPATH": str(PROGRAMS)}
        pool: tuple[str, ...] = ()
        if self._native:
            environment["CELERY_CUSTOM_WORKER_POOL"] = NATIVE
            pool = ("-P", "custom")
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "CRITICAL")
        command = ("-m", "celery", "-A", "celeryapp", "worker", "-n", "bench@here", *pool, *quiet)
        self.worker = self._start(sys.executable, *command, *self._options, env=environment)
        self.app.send_task("celeryapp.stamp").forget()
        self.hear(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._running):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        os.close(self.words)
        self._folder.cleanup()

    def _start(self, *command: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, env=env, stdin=quiet, stdout=quiet, stderr=quiet)
        self._running.append(process)
        return process

    @staticmethod
    def _wait_for(path: Path) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not path.exists():
            if time.monotonic() > deadline:
                sys.exit(f"redis-server does not come up at {path}")
            time.sleep(TICK_SECONDS)

    def hear(self, count: int) -> list[int]:
        """Wait for so many numbers from the tasks."""
        heard = b""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(heard) < count * STAMP.size:
            if time.monotonic() > deadline:
                sys.exit(f"the tasks said {len(heard) // STAMP.size} numbers of {count}")
            # Readable means one number, or hundreds: not to be woken by each, the reader sleeps a little.
            select.select([self.words], [], [], 1.0)
            if count > 1:
                time.sleep(TICK_SECONDS)
            try:
                heard += os.read(self.words, 1 << 16)
            except BlockingIOError:
                continue
        return [number for (number,) in STAMP.iter_unpack(heard)]

    def hold_back(self) -> None:
        """Have the worker take no tasks for now."""
        self.app.control.cancel_consumer("celery", reply=True, limit=1, timeout=PATIENCE_SECONDS)

    def let_go(self) -> None:
        """Have the worker take tasks again."""
        self.app.control.add_consumer("celery", reply=False)

    def busy_ns(self) -> int:
        """Tell how long all threads of the worker's main process have used a CPU."""
        tasks = Path(f"/proc/{self.worker.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)
