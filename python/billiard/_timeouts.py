"""Timeouts that Python code waits with."""

from __future__ import annotations

import math
import threading


def refuse_nan(timeout: float | None) -> None:
    """Refuse what is no time at all.

    Raises:
        ValueError: The timeout is nan.
    """
    if timeout is not None and math.isnan(timeout):
        raise ValueError("timeout must be a number of seconds or None, not nan")


def bounded(timeout: float | None) -> float | None:
    """A time-out for `threading`, which refuses what is too large: that means for ever."""
    refuse_nan(timeout)
    return timeout if timeout is not None and timeout < threading.TIMEOUT_MAX else None
