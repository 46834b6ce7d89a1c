"""Pools of threads that are ended, gates that open, and waits that end."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator

import pytest
from threadwork import Gate

import billiard.util
from billiard.pool import ThreadPool


@pytest.fixture
def make_pool(ended: Callable[..., ThreadPool]) -> Callable[..., ThreadPool]:
    """Make a pool that is ended after the test; nothing of it may be left then."""

    def make(*args: object, **kwargs: object) -> ThreadPool:
        return ended(kwargs.pop("kind", ThreadPool)(*args, **kwargs))

    return make


@pytest.fixture
def pool(make_pool: Callable[..., ThreadPool]) -> ThreadPool:
    """A pool of two threads."""
    return make_pool(2)


@pytest.fixture
def gate(make_pool: Callable[..., ThreadPool]) -> Iterator[Gate]:  # noqa: ARG001 - opened before pools are joined
    """A gate that is open after the test at the latest."""
    gate = Gate()
    yield gate
    gate.go.set()


@pytest.fixture
def log() -> Iterator[Callable[[], str]]:
    """What the package logs, as text: records would keep the frames, and with them the pool."""
    logger, stream = billiard.util.get_logger(), io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    old, logger.level = logger.level, logging.ERROR
    propagate, logger.propagate = logger.propagate, False
    yield stream.getvalue
    logger.removeHandler(handler)
    logger.level, logger.propagate = old, propagate
