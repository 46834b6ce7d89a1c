"""Starts a worker with the ``fast`` strategy: it writes to a child as long as its pipe has room."""

from __future__ import annotations

import argparse
import sys

from workerapp import app


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("gossip", "mingle", "heartbeat"):
        parser.add_argument(f"--without-{name}", action="store_true")
    parser.add_argument("-l", dest="loglevel")
    parser.add_argument("-n", dest="hostname")
    parser.add_argument("-c", dest="concurrency", type=int)
    parser.add_argument("-f", dest="logfile")
    parser.add_argument("--max-tasks-per-child", type=int)
    parser.add_argument("--max-memory-per-child", type=int)
    parser.add_argument("--time-limit", type=float)
    parser.add_argument("--soft-time-limit", type=float)
    options = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    worker = app.Worker(optimization="fast", quiet=True, **options)
    worker.start()
    return int(worker.exitcode or 0)


if __name__ == "__main__":
    sys.exit(main())
