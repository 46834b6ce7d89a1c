"""Prints how many microseconds a message takes through a pipe and back, trip by trip, as JSON.

    pingpong.py PACKAGE KIND BYTES TRIPS

KIND is ``bytes`` or ``objects``. Without bytes, the object is a small number.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import Any

WARM_UP = 3


def echo(conn: Any, kind: str, trips: int) -> None:
    for _ in range(trips):
        if kind == "bytes":
            conn.send_bytes(conn.recv_bytes())
        else:
            conn.send(conn.recv())


def main() -> None:
    package, kind, size, trips = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) + WARM_UP
    context = importlib.import_module(package).get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=echo, args=(theirs, kind, trips))
    child.start()
    message: Any = os.urandom(size) if size or kind == "bytes" else 42
    micros = []
    for _ in range(trips):
        start = time.perf_counter_ns()
        if kind == "bytes":
            ours.send_bytes(message)
            answer = ours.recv_bytes()
        else:
            ours.send(message)
            answer = ours.recv()
        micros.append((time.perf_counter_ns() - start) / 1e3)
        if answer != message:
            raise AssertionError("the message did not come back as it was sent")
    child.join()
    print(json.dumps(micros[WARM_UP:]))


if __name__ == "__main__":
    main()
