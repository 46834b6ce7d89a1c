"""Pools that a small event loop drives."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from billiard import util
from harness.looppool import LoopPool


def _end(pool: LoopPool) -> None:
    pool.terminate()
    pool.release()


@pytest.fixture
def make_loop(ended: Callable[..., LoopPool]) -> Callable[..., LoopPool]:
    """Make a pool with a loop. It is terminated after the test, and nothing of it may be left then."""

    def make(processes: int = 1, **options: object) -> LoopPool:
        return ended(LoopPool(processes, **options), _end)

    return make


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What the package says, and nobody else hears: the frames of the exceptions would keep pools."""
    lines: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        lines.append(record.getMessage())
        return False

    logger = util.get_logger()
    logger.addFilter(keep)
    yield lines
    logger.removeFilter(keep)


@pytest.fixture
def loop(make_loop: Callable[..., LoopPool]) -> LoopPool:
    """A pool of one worker, which is ready."""
    pool = make_loop(1)
    pool.run_until(lambda: pool.idle)
    return pool


@pytest.fixture
def outcome() -> Callable[..., object]:
    """Drive a pool until a job has ended; answers what it returned, or the exception that ended it."""

    def of(pool: LoopPool, function: Callable[..., object], *args: object, **options: object) -> object:
        result = pool.apply_async(function, args, **options)
        pool.run_until(result.ready)
        try:
            return result.get()
        except BaseException as error:
            return error

    return of
