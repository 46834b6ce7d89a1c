"""The contenders, behind the few names that the questions use."""

from __future__ import annotations

import importlib
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

OURS = "ours"
ORIGINAL = "original"
STDLIB = "stdlib"
NAMES = (OURS, ORIGINAL, STDLIB)


@dataclass(frozen=True)
class Subject:
    """One contender, loaded in this process.

    Attributes:
        name: One of ``NAMES``.
        version: Of the package, or of the interpreter for the standard library.
        profile: Of the compiled code; empty where there is none of ours.
        package: What a program imports to use it.
        pool: Makes a pool; takes ``processes``, ``maxtasksperchild``.
        limited_pool: Makes a pool whose per-job limits are enforced; None where there are none.
    """

    name: str
    version: str
    profile: str
    package: str
    pool: Callable[..., Any]
    limited_pool: Callable[..., Any] | None


def kind(error: BaseException) -> str:
    """Name the class of what really happened: the original wraps errors that its parent process made."""
    return type(getattr(error, "exc", error)).__name__


def load(name: str) -> Subject:
    """Import a contender, and refuse one that would make the comparison a lie."""
    if name == STDLIB:
        import multiprocessing  # noqa: PLC0415 - a contender must not find another one already imported

        return Subject(name, platform.python_version(), "", "multiprocessing", multiprocessing.Pool, None)
    billiard = importlib.import_module("billiard")
    try:
        build_info: dict[str, Any] | None = importlib.import_module("billiard._billiard").build_info()
    except ModuleNotFoundError:
        build_info = None
    if name == ORIGINAL:
        if build_info is not None:
            sys.exit(f"{sys.executable} has this project's billiard, not the original; see `make oracle`")
        pool_class = importlib.import_module("billiard.pool").Pool

        def limited_pool(processes: int) -> Any:
            # Without this switch the original stores the limits of a job and never looks at them.
            return pool_class(processes, enable_timeouts=True)

        return Subject(name, billiard.__version__, "", "billiard", billiard.Pool, limited_pool)
    if build_info is None:
        sys.exit(f"{sys.executable} has the original billiard, not this project's; see `make build`")
    if build_info["profile"] != "release":
        sys.exit(f"this is a {build_info['profile']} build; only a release build is measured: `make build`")
    version, profile = build_info["version"], build_info["profile"]
    return Subject(name, version, profile, "billiard", billiard.Pool, billiard.Pool)
