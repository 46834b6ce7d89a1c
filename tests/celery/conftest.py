"""Integration with the real Celery, over a real Redis: ``make test-celery``."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

try:
    metadata.version("celery")
    INSTALLED = True
except metadata.PackageNotFoundError:
    # Where the package itself is tested there is no Celery: nothing here can even be imported.
    INSTALLED = False


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave these tests out of a run of all tests: they have a configuration of their own."""
    mine = config.inipath is not None and config.inipath.parent == Path(__file__).parent
    return None if mine and INSTALLED else True


if INSTALLED:
    from servers import RedisServer
    from workers import Mode, Starter, Worker, available_modes, original

    @pytest.fixture(scope="session")
    def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
        with RedisServer(tmp_path_factory.mktemp("redis")) as running:
            yield running

    _numbers = itertools.count(1)

    def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
        if "mode" in metafunc.fixturenames:
            wanted = metafunc.definition.get_closest_marker("modes")
            names = wanted.args if wanted else ("fair", "fast", "blocking", "native", "native_blocking")
            modes = [mode for mode in available_modes() if mode.name in names]
            metafunc.parametrize("mode", modes, ids=[mode.name for mode in modes], scope="session")

    def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
        """Skip what the original is known to do wrong, where it is the one under test."""
        if original():
            for item in items:
                mode = item.callspec.params["mode"].name  # type: ignore[attr-defined]
                for marker in item.iter_markers("better"):
                    if mode not in marker.kwargs.get("modes", [mode]):
                        continue
                    item.add_marker(pytest.mark.skip(reason=f"the original: {marker.args[0]}"))

    @pytest.fixture(scope="session")
    def worker(server: RedisServer, mode: Mode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
        """A worker with two processes that serves all tests of its mode that do not end it."""
        shared = Worker(server, tmp_path_factory.mktemp(mode.name), mode, next(_numbers))
        try:
            yield shared.start()
            assert shared.stop() == os.EX_OK
        finally:
            shared.destroy()

    @pytest.fixture
    def start_worker(server: RedisServer, mode: Mode, tmp_path: Path) -> Iterator[Starter]:
        """Start workers for one test; what they leave is ended with it."""
        started: list[Worker] = []

        def start(*options: str, after: Worker | None = None, **arguments: Any) -> Worker:
            if after is not None:
                one = after.successor()
            else:
                one = Worker(server, tmp_path, mode, next(_numbers), *options, **arguments)
            started.append(one)
            return one.start()

        yield start
        for one in started:
            one.destroy()

    @pytest.fixture
    def key(request: pytest.FixtureRequest) -> str:
        """Name what the tasks of this test say, and nobody else does."""
        return f"test:{next(_numbers)}:{request.node.name}"
