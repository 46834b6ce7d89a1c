"""Locks and their like, between this process and its children, under each start method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import syncwork

import billiard
from billiard import forkserver
from billiard.context import BaseContext
from billiard.process import BaseProcess

METHODS = ("fork", "spawn", "forkserver")


@pytest.fixture(scope="module")
def fork_server() -> Iterator[None]:
    """Have the fork server run, so that no test starts it: it is there before and after each."""
    forkserver.ensure_running()
    yield
    forkserver._forkserver._stop()


@pytest.fixture(params=METHODS)
def ctx(request: pytest.FixtureRequest) -> Iterator[BaseContext]:
    """The context of a start method; a test that leaves something behind fails."""
    if request.param == "forkserver":
        request.getfixturevalue("fork_server")
    request.getfixturevalue("leak_census")
    yield billiard.get_context(request.param)
    # What nobody holds any more is gone, and the census comes next: pytest would hold on to the arguments.
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
