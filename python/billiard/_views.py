"""What an engine knows, in the shape in which programs look for it on a pool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from . import _billiard


class Cache(Mapping[int, Any]):
    """The jobs of a pool that have not ended, by number."""

    def __init__(self, engine: _billiard.Engine) -> None:
        self._engine = engine

    def __getitem__(self, job: int) -> Any:
        for handle in self._engine.handles():
            if handle._job == job:
                return handle
        raise KeyError(job)

    def __iter__(self) -> Iterator[int]:
        return iter([handle._job for handle in self._engine.handles()])

    def __len__(self) -> int:
        return len(self._engine.handles())


class TaskQueue:
    """The tasks that no worker has been given."""

    def __init__(self, engine: _billiard.Engine) -> None:
        self._engine = engine

    def qsize(self) -> int:
        return self._engine.load()[1]

    def empty(self) -> bool:
        return self.qsize() == 0
