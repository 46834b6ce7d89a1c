"""Connections under each start method, and peers of other packages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from peers import Peer, others
from talk import PATIENCE

import billiard
from billiard import resource_sharer
from billiard.context import BaseContext

Ends = "tuple[Any, Any]"


@pytest.fixture
def start(ctx: BaseContext) -> Iterator[Callable[..., Any]]:
    """Start a daemonic process; it has to end by itself."""
    started = []

    def start(target: Callable[..., object], *args: object) -> Any:
        child = ctx.Process(target=target, args=args, daemon=True)
        child.start()
        started.append(child)
        return child

    yield start
    for child in started:
        child.join(PATIENCE)
        assert child.exitcode in (0, -9)
        child.close()


@pytest.fixture
def sharing() -> Iterator[None]:
    """Stops sharing descriptors after the test."""
    yield
    resource_sharer.stop(PATIENCE)


@pytest.fixture
def ends(leak_census: None) -> Iterator[Callable[..., Any]]:  # noqa: ARG001
    """Make a pipe. Both ends are closed after the test."""
    made: list[Any] = []

    def ends(*args: Any, **kwargs: Any) -> Any:
        pair = billiard.Pipe(*args, **kwargs)
        made.extend(pair)
        return pair

    yield ends
    for end in made:
        end.close()


@pytest.fixture
def in_thread() -> Iterator[Callable[..., Callable[[], Any]]]:
    """Run a function in a thread; what is returned waits for it, and returns or raises what it did."""
    threads = []

    def run(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
        outcome: list[Any] = []

        def body() -> None:
            try:
                outcome.append((True, function(*args)))
            except BaseException as error:
                outcome.append((False, error))

        thread = threading.Thread(target=body, daemon=True)
        thread.start()
        threads.append(thread)

        def result() -> Any:
            thread.join(PATIENCE)
            assert outcome, "the thread has not ended"
            worked, value = outcome[0]
            if worked:
                return value
            raise value

        return result

    yield run
    for thread in threads:
        thread.join(PATIENCE)


@pytest.fixture(scope="session", params=others(), ids=lambda other: other.name)
def other(request: pytest.FixtureRequest) -> Iterator[Peer]:
    """A process of another package, or of another Python."""
    with Peer(request.param) as peer:
        yield peer


@pytest.fixture
def peer(other: Peer) -> Iterator[Peer]:
    """The same, doing nothing; whatever it was asked for in the test has to be done by the end of it."""
    other.start()
    try:
        yield other
        assert other.is_idle()
    except BaseException:
        other.kill()
        raise
