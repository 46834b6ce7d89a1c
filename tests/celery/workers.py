"""Real Celery workers: how they are started, talked to, and ended."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.result import AsyncResult
from servers import PATIENCE, RedisServer

HERE = Path(__file__).resolve().parent
NATIVE = {"CELERY_CUSTOM_WORKER_POOL": "billiard.contrib.celery:TaskPool"}


@dataclass(frozen=True)
class Mode:
    """A way to run a worker.

    Attributes:
        blocking: Whether the worker runs without an event loop, as it does where its broker has none.
        start: What comes after the interpreter, before the options.
    """

    name: str
    blocking: bool = False
    start: tuple[str, ...] = ("-m", "celery", "-A", "workerapp", "worker")
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


MODES = (
    Mode("fair", options=("-O", "fair")),
    # The command line of Celery no longer knows that strategy, its worker does.
    Mode("fast", start=(str(HERE / "fastworker.py"),)),
    Mode("blocking", blocking=True),
    Mode("native", options=("-P", "custom"), environment=NATIVE),
    Mode("native_blocking", blocking=True, options=("-P", "custom"), environment=NATIVE),
)

#: For tests of two tasks at the same time: the ``fast`` strategy may hand both to the same process.
SIDE_BY_SIDE = pytest.mark.modes("fair", "blocking", "native", "native_blocking")


def original() -> bool:
    """Tell whether the original package is under test: an oracle for these tests."""
    import billiard  # noqa: PLC0415

    return importlib.util.find_spec("billiard._billiard") is None and billiard.VERSION[:2] < (4, 4)


def available_modes() -> list[Mode]:
    """Give the modes asked for by BILLIARD_CELERY_MODES, or all that this package has."""
    chosen = os.environ.get("BILLIARD_CELERY_MODES", "")
    names = chosen.split(",") if chosen else [mode.name for mode in MODES]
    if unknown := set(names).difference(mode.name for mode in MODES):
        raise ValueError(f"BILLIARD_CELERY_MODES names what is no mode: {', '.join(sorted(unknown))}")
    lacking = original() or importlib.util.find_spec("billiard.contrib") is None
    return [mode for mode in MODES if mode.name in names and not (lacking and mode.environment is NATIVE)]


def processes_of(session: int) -> dict[int, str]:
    """Name the living processes of a session by their state; a zombie is one that nobody has reaped yet."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _parent, _group, owner = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue  # it has ended meanwhile
            if int(owner) == session:
                found[int(entry.name)] = state
    return found


def wait_until(happened: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Look again and again for what no event tells of; give what was found."""
    deadline = time.monotonic() + patience
    while not (found := happened()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not in {patience:g} s: {what}")
        time.sleep(0.01)
    return found


class Worker:
    """One worker, from its start to its end, with a broker and a result store of its own."""

    def __init__(  # noqa: PLR0913
        self,
        server: RedisServer,
        folder: Path,
        mode: Mode,
        number: int,
        *options: str,
        settings: Mapping[str, Any] | None = None,
        streams: bool = True,
    ) -> None:
        self.mode = mode
        self.hostname = f"{mode.name}{number}@here"
        self.log = folder / f"{self.hostname}.log"
        self._server = server
        self._options = options
        self._streams = streams
        self.settings = {
            "broker_url": server.url(number),
            "result_backend": server.url(number),
            "worker_prefetch_multiplier": 1,
            "worker_pool_restarts": True,
            "worker_lost_wait": 2.0,
            **(settings or {}),
        }
        self.app = Celery(f"sender{number}", set_as_current=False)
        self.app.conf.update(self.settings)
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "INFO")
        # A shell closes them; Python's own subprocess would open something in their place.
        closed = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
        return [
            *(() if self._streams else closed),
            sys.executable,
            *self.mode.start,
            *self.mode.options,
            *quiet,
            "-n",
            self.hostname,
            *(() if "-c" in self._options or "--autoscale" in self._options else ("-c", "2")),
            *self._options,
        ]

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            **self.mode.environment,
            "PYTHONPATH": str(HERE),
            "AUTOSCALE_KEEPALIVE": "1",
            "BILLIARD_CELERY_SETTINGS": json.dumps(self.settings),
            "BILLIARD_CELERY_BLOCKING": "yes" if self.mode.blocking else "",
            "BILLIARD_CELERY_NOTES": str(self._server.socket),
            "BILLIARD_CELERY_HOSTNAME": self.hostname,
        }

    def start(self) -> Worker:
        """Start it, in a session of its own, and wait until it takes tasks."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.log.parent,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.await_ready()
        return self

    def await_ready(self) -> int:
        """Wait for the worker's own word that it takes tasks; gives its process."""
        deadline = time.monotonic() + PATIENCE
        while (word := self._server.client.blpop([f"ready:{self.hostname}"], timeout=1)) is None:
            # One that detaches itself leaves at once, with success.
            over = self.process is not None and self.process.poll() not in (None, os.EX_OK)
            if over or time.monotonic() > deadline:
                raise RuntimeError(f"the worker does not come up:\n{self.tail()}")
        return int(word[1])

    def successor(self) -> Worker:
        """Give a worker with the same broker, results and name, for after this one's end."""
        return copy.copy(self)

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    @property
    def pid(self) -> int:
        assert self.process is not None, "start it first"
        return self.process.pid

    def children(self) -> list[int]:
        """Give the living processes of the pool."""
        return [pid for pid, state in processes_of(self.pid).items() if pid != self.pid and state != "Z"]

    def await_size(self, size: int, patience: float = PATIENCE) -> None:
        wait_until(lambda: len(self.children()) == size, f"{self.hostname} has {size} processes", patience)

    def await_active(self, count: int) -> None:
        """Wait until the worker itself knows that so many of its tasks are running."""
        wait_until(lambda: len(self.control("active")) == count, f"{self.hostname} runs {count} tasks")

    def await_listed(self, count: int) -> None:
        """Wait until the worker itself counts so many processes."""

        def listed() -> bool:
            return len(self.control("stats")["pool"]["processes"]) == count

        wait_until(listed, f"{self.hostname} lists {count} processes")

    def await_gone(self, pid: int) -> None:
        wait_until(lambda: pid not in processes_of(self.pid), f"{self.hostname} has no process {pid}")

    def statuses(self) -> list[int]:
        """Give the exit statuses that processes have announced to ``worker_process_shutdown``."""
        return [json.loads(word)[1] for word in self._server.client.lrange(f"down:{self.hostname}", 0, -1)]

    def traces(self, key: str) -> set[int]:
        return {int(number) for number in self._server.client.smembers(key)}

    def send(self, task: str, *args: Any, **options: Any) -> AsyncResult:
        return self.app.send_task(f"workerapp.{task}", args, **options)

    def signature(self, task: str, *args: Any, **options: Any) -> Any:
        return self.app.signature(f"workerapp.{task}", args, **options)

    def run(self, task: str, *args: Any, **options: Any) -> Any:
        """Send a task and give its result."""
        return self.send(task, *args, **options).get(timeout=PATIENCE)

    def heard(self, key: str) -> Any:
        """Wait for the next word under that key."""
        word = self._server.client.blpop([key], timeout=PATIENCE)
        if word is None:
            raise TimeoutError(f"nobody said {key} in {PATIENCE:g} s:\n{self.tail()}")
        return json.loads(word[1])

    def control(self, command: str, **arguments: Any) -> Any:
        """Give the worker's answer to a remote-control command."""
        answers = self.app.control.broadcast(
            command, arguments, reply=True, destination=[self.hostname], limit=1, timeout=PATIENCE
        )
        if not answers:
            raise TimeoutError(f"no answer to {command}:\n{self.tail()}")
        return answers[0][self.hostname]

    def wait(self, patience: float = 2 * PATIENCE) -> int:
        """Wait for its end; gives the exit status. None of its processes may be left.

        The original may wait 30 s for a process that waits for it; see `test_warm_shutdown_in_the_moment…`.
        """
        assert self.process is not None, "start it first"
        try:
            status = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the worker does not end:\n{self.tail()}") from None
        wait_until(lambda: not processes_of(self.pid), f"{self.hostname} leaves no process behind")
        return status

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end, by a signal to its main process alone; gives the exit status."""
        os.kill(self.pid, number)
        return self.wait()

    def destroy(self) -> None:
        """End whatever there is left of it."""
        for pid in processes_of(self.pid) if self.process is not None else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait(PATIENCE)
        # A result that is collected later would look for a Redis that has gone, again and again.
        consumer = self.app.backend.result_consumer
        consumer.stop()
        consumer._pubsub = None
        self.app.close()


Starter = Callable[..., Worker]
"""Starts a worker for one test.

Takes options of its command line, and by name `settings` and `streams`; or `after`, a worker to succeed.
"""
