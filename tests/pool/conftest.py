"""Pools that are ended, and waits that end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from billiard.pool import Pool

#: How long what must happen may take on a machine that is busy.
PATIENCE = 30.0


@pytest.fixture
def make_pool(leak_census: None, request: pytest.FixtureRequest) -> Iterator[Callable[..., Pool]]:  # noqa: ARG001
    """Make a pool that is ended after the test; nothing of it may be left then."""
    pools = []

    def make(*args: object, **kwargs: object) -> Pool:
        pool = kwargs.pop("kind", Pool)(*args, **kwargs)
        pools.append(pool)
        return pool

    yield make
    # What nobody holds any more is closed, and the census comes next: pytest would hold on to the arguments.
    if request.node.funcargs:
        request.node.funcargs.clear()
    while pools:
        pool = pools.pop()
        pool.terminate()
        pool.join()
        del pool


@pytest.fixture
def pool(make_pool: Callable[..., Pool]) -> Pool:
    """A pool of two workers."""
    return make_pool(2)


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
