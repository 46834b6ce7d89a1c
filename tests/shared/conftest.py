"""Shared memory between this process and its children, under each start method."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from billiard.context import BaseContext


@pytest.fixture
def ctx(ctx: BaseContext, request: pytest.FixtureRequest) -> Iterator[BaseContext]:
    """The same, and what nobody holds any more is gone before the census."""
    yield ctx
    # Pytest would hold on to the arguments.
    request.node.funcargs.clear()


@pytest.fixture
def done(ctx: BaseContext) -> Callable[..., int | None]:
    """Run something in a child; answers its exit code."""

    def done(target: Callable[..., object], *args: object) -> int | None:
        child = ctx.Process(target=target, args=args, daemon=True)
        child.start()
        child.join(30)
        code = child.exitcode
        child.kill()
        child.join()
        child.close()
        return code

    return done
