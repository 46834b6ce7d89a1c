"""Waits that end."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from threadwork import PATIENCE


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait until something is true; fail if it does not become so."""

    def wait(condition: Callable[[], object], what: str = "") -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"did not happen in {PATIENCE} s: {what or condition}")
            time.sleep(0.002)

    return wait
