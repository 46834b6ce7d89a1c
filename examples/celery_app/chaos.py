"""Kills processes of a worker's pool, at random, with SIGKILL.

python chaos.py PID-OF-THE-WORKER [SECONDS-BETWEEN]
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path


def children(pid: int) -> list[int]:
    """List the processes of a worker's pool."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended meanwhile
            found += map(int, (task / "children").read_text().split())
    return found


def attack(pid: int, pause: float, choice: random.Random) -> Iterator[int]:
    """Kill one of them after each pause, for ever; gives the process that it was."""
    while True:
        time.sleep(choice.uniform(0.5, 1.5) * pause)
        if victims := children(pid):
            victim = choice.choice(victims)
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            yield victim


if __name__ == "__main__":
    for killed in attack(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.2, random.Random()):
        print(f"killed {killed}", flush=True)
