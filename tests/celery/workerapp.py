"""The application that the workers under test run.

A task that a test has to meet at work says so in a list of Redis, from where it can already be met: the test
waits for that word, and for nothing else. Settings come from the environment, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

import redis
from celery import Celery, signals
from celery.worker import WorkController

from billiard.exceptions import SoftTimeLimitExceeded

SETTINGS: dict[str, Any] = json.loads(os.environ["BILLIARD_CELERY_SETTINGS"])
NOTES = os.environ["BILLIARD_CELERY_NOTES"]
HOSTNAME = os.environ["BILLIARD_CELERY_HOSTNAME"]

app = Celery("workerapp", set_as_current=True)
app.conf.update(SETTINGS)
if os.environ.get("BILLIARD_CELERY_BLOCKING"):
    # As where the broker knows no event loop; those brokers have races of their own, this one has none.
    WorkController.should_use_eventloop = lambda _: False
_connections: dict[int, redis.Redis] = {}


def notes() -> redis.Redis:
    """Give this process its own connection: one that was inherited is shared with the parent."""
    found = _connections.get(os.getpid())
    if found is None:
        found = _connections[os.getpid()] = redis.Redis(unix_socket_path=NOTES)
    return found


def say(key: str, value: Any) -> None:
    notes().rpush(key, json.dumps(value))


@signals.worker_ready.connect
def _ready(**_: Any) -> None:
    say(f"ready:{HOSTNAME}", os.getpid())


@signals.worker_process_init.connect
def _child_up(**_: Any) -> None:
    say(f"up:{HOSTNAME}", os.getpid())


@signals.worker_process_shutdown.connect
def _child_down(pid: int, exitcode: int, **_: Any) -> None:
    say(f"down:{HOSTNAME}", [pid, exitcode])


@app.task
def add(left: int, right: int) -> int:
    return left + right


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def who() -> int:
    return os.getpid()


@app.task
def echo(payload: Any) -> Any:
    return payload


@app.task
def size(payload: str) -> int:
    return len(payload)


@app.task
def inflate(length: int) -> str:
    return "x" * length


@app.task
def fail(text: str) -> None:
    raise ValueError(text)


@app.task
def unpicklable() -> Any:
    """Give what neither JSON nor pickle takes."""
    return lambda: None


@app.task
def hold(key: str, seconds: float) -> str:
    """Be at work for so long; the soft limit ends it with a result."""
    try:
        say(key, os.getpid())
        time.sleep(seconds)
    except SoftTimeLimitExceeded:
        return "interrupted"
    return "slept"


@app.task
def slumber(seconds: float) -> None:
    time.sleep(seconds)


@app.task
def obstinate(key: str, seconds: float) -> str:
    """Be at work for so long, and take no hint."""
    say(key, os.getpid())
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            time.sleep(max(0.0, until - time.monotonic()))
        except SoftTimeLimitExceeded:
            say(key, "soft")
    return "slept"


@app.task
def leave(status: int) -> None:
    os._exit(status)


@app.task
def exit_politely(status: int) -> None:
    sys.exit(status)


@app.task
def kill_oneself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(acks_late=True, reject_on_worker_lost=True)
def retried(key: str, seconds: float) -> int:
    """Hold the first time, so that the test can end it; done at once when it is delivered again."""
    run = int(notes().incr(f"{key}:runs"))
    say(key, os.getpid())
    if run == 1:
        time.sleep(seconds)
    return run


@app.task(acks_late=True, reject_on_worker_lost=True)
def leave_trace(key: str, number: int, seconds: float) -> None:
    """Do something that lasts a moment and has an effect."""
    time.sleep(seconds)
    notes().sadd(key, number)


@app.task
def allocate(mebibytes: int) -> int:
    """Keep so much memory in this process."""
    _hoard.append(bytearray(os.urandom(1 << 20)) * mebibytes)
    return os.getpid()


_hoard: list[bytearray] = []
