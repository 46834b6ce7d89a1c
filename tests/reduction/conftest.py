"""What the tests of descriptors share."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sharing import PATIENCE

import billiard
from billiard import resource_sharer


@pytest.fixture
def sharing(leak_census: None) -> Iterator[None]:  # noqa: ARG001
    """Stops sharing after the test, before what is left behind is looked for."""
    yield
    resource_sharer.stop(PATIENCE)


@pytest.fixture
def share(tmp_path: Path) -> Callable[..., resource_sharer.DupFd]:
    """Shares a new file with some text in it. Nobody but the sharer has it open afterwards."""

    def one(text: bytes = b"shared") -> resource_sharer.DupFd:
        path = tmp_path / "file"
        path.write_bytes(text)
        with path.open("rb") as file:
            path.unlink()
            return resource_sharer.DupFd(file.fileno())

    return one


@pytest.fixture
def in_child() -> Callable[..., Any]:
    """Runs a function in a forked child. Returns what it returns, or raises what it raises."""

    def run(function: Callable[..., Any], *args: Any) -> Any:
        reader, writer = os.pipe()

        def child() -> None:
            os.close(reader)
            with open(writer, "wb") as file:
                try:
                    answer = (True, function(*args))
                except BaseException as error:
                    answer = (False, error)
                pickle.dump(answer, file)

        process = billiard.Process(target=child, daemon=True)
        process.start()
        os.close(writer)
        with open(reader, "rb") as file:
            worked, answer = pickle.load(file)
        process.join(PATIENCE)
        assert process.exitcode == 0
        if worked:
            return answer
        raise answer

    return run
