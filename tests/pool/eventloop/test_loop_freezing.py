"""A subclass that collects garbage before it starts a worker, as Celery's does, is not slow for that."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.looppool import LoopPool

COUNT = 100_000
kept: list[list[object]] = []


class Collecting(LoopPool):
    """Notes how many objects the collector had to look at before each start."""

    looked_at: list[int]

    def _create_worker_process(self, i: int) -> Any:
        self.__dict__.setdefault("looked_at", []).append(len(gc.get_objects()))
        gc.collect()
        return super()._create_worker_process(i)


def frozen_here() -> int:
    return gc.get_freeze_count()


@pytest.fixture
def many(thawed: None) -> Iterator[None]:  # noqa: ARG001
    """Many objects of the program."""
    kept.extend([] for _ in range(COUNT))
    yield
    kept.clear()


@pytest.fixture
def make_collecting(ended: Callable[..., Collecting]) -> Callable[..., Collecting]:
    def end(pool: Collecting) -> None:
        pool.terminate()
        pool.release()

    return lambda *args, **options: ended(Collecting(*args, **options), end)


@pytest.mark.usefixtures("many")
def test_garbage_is_not_looked_for_before_every_one_of_many_starts(
    make_collecting: Callable[..., Collecting], outcome: Callable[..., Any]
) -> None:
    pool = make_collecting(2, maxtasksperchild=1)
    counts = [outcome(pool, frozen_here) for _ in range(4)]
    pool.run_until(lambda: len(pool.looked_at) == 6)
    first, *others = pool.looked_at
    assert first > COUNT
    # On a machine that is busy some time may pass between two starts, and then it is looked for again.
    assert min(others) < COUNT
    # No worker looks at what it inherits; and here nothing stays frozen.
    assert min(counts) > COUNT
    assert gc.get_freeze_count() < COUNT


@pytest.mark.usefixtures("many")
def test_who_does_not_want_it_says_so(
    make_collecting: Callable[..., Collecting], outcome: Callable[..., Any]
) -> None:
    pool = make_collecting(1, maxtasksperchild=1, freeze=False)
    counts = [outcome(pool, frozen_here) for _ in range(2)]
    pool.run_until(lambda: len(pool.looked_at) == 3)
    assert min(pool.looked_at) > COUNT
    assert max(counts) < COUNT
