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
from pathlib import Path


def children(pid: int) -> list[int]:
    """List the processes of a worker's pool."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended meanwhile
            found += map(int, (task / "children").read_text().split())
    return found


def kill_one(pid: int, choice: random.Random) -> int | None:
    """Kill one process of a worker's pool; gives its number, or None if there was none to kill."""
    victims = children(pid)
    if not victims:
        return None
    victim = choice.choice(victims)
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:
        return None
    return victim


if __name__ == "__main__":
    pause = float(sys.argv[2]) if len(sys.argv) > 2 else 0.5
    while True:
        time.sleep(pause * random.uniform(0.5, 1.5))
        if (killed := kill_one(int(sys.argv[1]), random.Random())) is not None:
            print(f"killed {killed}", flush=True)
