"""Queues under each start method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import billiard
from billiard.context import BaseContext
from billiard.process import BaseProcess


@pytest.fixture
def start(ctx: BaseContext) -> Iterator[Callable[..., BaseProcess]]:
    """Start a daemon; it is ended after the test."""
    started = []

    def start(target: Callable[..., object], *args: Any) -> BaseProcess:
        child = ctx.Process(target=target, args=args, daemon=True)
        child.start()
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.join()
        child.close()
    # They have queues among their arguments, and this list lives on a little.
    started.clear()


@pytest.fixture
def queue() -> Iterator[Any]:
    """A queue without a bound."""
    queue = billiard.Queue()
    yield queue
    queue.close()
    queue.join_thread()
