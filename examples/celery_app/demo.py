"""Runs the shop while its processes are being killed, and counts what is in the books.

    python demo.py [--orders N] [--native]

Starts a Redis on a private socket and a worker with four processes, sends the orders, and kills one of the
four after every few of them until all orders are charged. Everything it started is gone at the end.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
NATIVE = "billiard.contrib.celery:TaskPool"
PATIENCE = 60.0
BETWEEN = 8
"""So many orders are charged between two kills."""


@contextmanager
def running(*command: str, log: Path, number: int = signal.SIGTERM) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program for the time of a block; at its end, ask the program to end."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=HERE, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.send_signal(number)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def start_redis(stack: ExitStack, folder: Path) -> None:
    """Start Redis on a socket of its own, and tell the shop where it is."""
    program = shutil.which("redis-server")
    if program is None:
        sys.exit("redis-server is not installed: apt-get install redis-server")
    socket = folder / "redis.sock"
    settings = ("--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder))
    stack.enter_context(running(program, *settings, log=folder / "redis.log"))
    deadline = time.monotonic() + PATIENCE
    while not socket.exists():
        if time.monotonic() > deadline:
            sys.exit(f"redis-server does not start:\n{(folder / 'redis.log').read_text()}")
        time.sleep(0.01)
    os.environ["REDIS_URL"] = f"redis+socket://{socket}?virtual_host=0"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--orders", type=int, default=300)
    parser.add_argument("--native", action="store_true", help="with the pool of this package")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shop-")))
        start_redis(stack, folder)
        pool: tuple[str, ...] = ()
        if options.native:
            os.environ["CELERY_CUSTOM_WORKER_POOL"] = NATIVE
            pool = ("-P", "custom")
        command = (sys.executable, "-m", "celery", "-A", "shop", "worker", "-c", "4", *pool)
        worker = stack.enter_context(running(*command, log=folder / "worker.log"))

        # Only now is it known where Redis is.
        import shop  # noqa: PLC0415
        from chaos import kill_one  # noqa: PLC0415
        from producer import send  # noqa: PLC0415

        kind = "native" if options.native else "prefork"
        print(
            f"a worker with 4 processes ({kind}), and {options.orders} orders, one after the other",
            flush=True,
        )
        shop.charge.delay(-1).get(timeout=PATIENCE)
        began = time.monotonic()
        sent = send(options.orders)
        choice = random.Random(4)
        killed = survived = 0
        while (done := sent.completed_count()) < options.orders:
            if time.monotonic() - began > PATIENCE:
                print((folder / "worker.log").read_text()[-3000:])
                sys.exit(f"after {PATIENCE:g} s only {done} orders are charged")
            # By what was done, not by the clock: on a busy machine nobody would live long enough to work.
            if done >= survived and (victim := kill_one(worker.pid, choice)) is not None:
                print(f"  {done:4} charged, killed process {victim}", flush=True)
                killed += 1
                survived = done + BETWEEN
            time.sleep(0.02)
        took = time.monotonic() - began
        with shop.books() as ledger:
            charged = ledger.hlen("charged") - 1
            begun = int(ledger.get("begun")) - 1
    print(f"{killed} processes were killed in {took:.1f} s; {begun - charged} orders were begun again")
    print(f"orders sent: {options.orders}; charged: {charged}; lost: {options.orders - charged}")
    return 0 if charged == options.orders else 1


if __name__ == "__main__":
    sys.exit(main())
