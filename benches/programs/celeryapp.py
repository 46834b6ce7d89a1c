"""What the workers of the Celery questions run: tasks that say when and where, through a pipe."""

from __future__ import annotations

import os
import struct
import time

from celery import Celery

STAMP = struct.Struct("q")
URL = f"redis+socket://{os.environ['BENCH_CELERY_REDIS']}?virtual_host=0"

app = Celery("celeryapp")
app.conf.update(
    broker_url=URL,
    result_backend=URL,
    task_ignore_result=True,
    worker_hijack_root_logger=False,
)
_pipes: dict[int, int] = {}


def say(number: int) -> None:
    pipe = _pipes.get(os.getpid())
    if pipe is None:
        pipe = _pipes[os.getpid()] = os.open(os.environ["BENCH_CELERY_WORDS"], os.O_WRONLY)
    os.write(pipe, STAMP.pack(number))


@app.task
def stamp() -> None:
    """Say when it runs."""
    say(time.monotonic_ns())


@app.task
def late(sent_ns: int) -> None:
    """Say how long after it was sent it runs."""
    say(time.monotonic_ns() - sent_ns)


@app.task(ignore_result=False)
def linger(seconds: float) -> None:
    """Say who runs it and when it began, then stay."""
    say(os.getpid())
    say(time.monotonic_ns())
    time.sleep(seconds)
