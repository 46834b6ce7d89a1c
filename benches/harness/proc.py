"""What the kernel says about a process tree; read from /proc so that nothing has to be installed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += map(int, (task / "children").read_text().split())
        except OSError:  # the thread ended while we looked
            continue
    return found


def tree(pid: int) -> list[int]:
    """List the process and all its descendants."""
    found = [pid]
    for child in children(pid):
        found += tree(child)
    return found


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


@dataclass(frozen=True)
class Activity:
    """How often the threads of a tree went to sleep, and how long they ran."""

    sleeps: int
    busy_ns: int

    def __sub__(self, earlier: Activity) -> Activity:
        return Activity(self.sleeps - earlier.sleeps, self.busy_ns - earlier.busy_ns)


def activity(pid: int, *, skip: int | None = None) -> Activity:
    """Add up all threads of a tree; ``skip`` is the thread that measures, and that wakes up to do so."""
    sleeps = busy_ns = 0
    for process in tree(pid):
        for task in Path(f"/proc/{process}/task").iterdir():
            if task.name == str(skip):
                continue
            status = (task / "status").read_text()
            sleeps += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
            busy_ns += int((task / "schedstat").read_text().split()[0])
    return Activity(sleeps, busy_ns)


@dataclass(frozen=True)
class Possessions:
    """What a process holds and might forget to give back."""

    descriptors: int
    threads: int
    processes: int
    segments: int


def possessions() -> Possessions:
    return Possessions(
        descriptors=len(os.listdir("/proc/self/fd")),
        threads=len(os.listdir("/proc/self/task")),
        processes=len(children(os.getpid())),
        segments=len(os.listdir("/dev/shm")),
    )
