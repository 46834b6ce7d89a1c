"""How the tests of threads look at them."""

from __future__ import annotations

from pathlib import Path

#: How long what must happen may take on a machine that is busy.
PATIENCE = 30.0


def is_waiting(thread):
    """Whether the thread sleeps in the kernel."""
    stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "S"
