"""Measures our queues against faster-fifo, on the six rows that faster-fifo shows of itself.

    python -m venv /somewhere && /somewhere/bin/pip install faster-fifo
    benches/faster_fifo.py --peer /somewhere/bin/python

Either holds as many bytes as the other. The two take turns, each measurement in a process of its own.
The bar: ahead on every row.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

ROWS = ((1, 1), (10, 1), (1, 10), (3, 20), (20, 3), (20, 20))
PROGRAM = Path(__file__).resolve().parent / "programs" / "queue_rows.py"
LIMIT = 120


def measure(python: str, subject: str, row: tuple[int, int], objects: int, how: str) -> float:
    command = [python, str(PROGRAM), subject, *map(str, row), str(objects), how]
    return float(subprocess.run(command, check=True, timeout=LIMIT, capture_output=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description="our queues against faster-fifo")
    parser.add_argument("--peer", required=True, help="an interpreter that has faster-fifo")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--objects", type=int, default=200_000)
    options = parser.parse_args()
    behind = 0
    print("| producers → consumers | get | objects/s | faster-fifo | ratio | least ratio |")
    print("|---|---|--:|--:|--:|--:|")
    for row in ROWS:
        for how in ("one", "many"):
            ours, theirs = [], []
            for _ in range(options.rounds):
                ours.append(measure(sys.executable, "ours", row, options.objects, how))
                theirs.append(measure(options.peer, "faster-fifo", row, options.objects, how))
            mine, other = statistics.median(ours), statistics.median(theirs)
            least = min(ours) / max(theirs)
            cells = (f"{row[0]} → {row[1]}", how, f"{mine:,.0f}", f"{other:,.0f}")
            print("|", *(f"{cell} |" for cell in cells), f"{mine / other:.1f}x | {least:.1f}x |")
            behind += mine <= other
    sys.exit(f"behind on {behind} of {2 * len(ROWS)} rows" if behind else 0)


if __name__ == "__main__":
    main()
