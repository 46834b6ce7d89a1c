"""Locks and their like, between this process and its children, under each start method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import syncwork

from billiard.context import BaseContext
from billiard.process import BaseProcess


@pytest.fixture
def ctx(ctx: BaseContext, request: pytest.FixtureRequest) -> Iterator[BaseContext]:
    """The same, and what nobody holds any more is gone before the census."""
    yield ctx
    # Pytest would hold on to the arguments.
    request.node.funcargs.clear()


@pytest.fixture
def start(ctx: BaseContext) -> Iterator[Callable[..., BaseProcess]]:
    """Start a daemon; it is ended after the test."""
    started = []

    def start(target: Callable[..., object], *args: object, **options: Any) -> BaseProcess:
        child = ctx.Process(target=target, args=args, daemon=True, **options)
        child.start()
        started.append(child)
        return child

    yield start
    for child in started:
        if not child._closed:
            child.kill()
            child.join()
            child.close()


@pytest.fixture
def done(start: Callable[..., BaseProcess]) -> Callable[..., int]:
    """Run something in a child; answers the exit code, which is what it returns."""

    def done(target: Callable[..., object], *args: object) -> int:
        child = start(syncwork.leave_with, target, *args)
        child.join()
        code = child.exitcode
        child.close()
        return code

    return done
