"""What workers find when they start: modules that are loaded already, and limits for those that are not."""

from __future__ import annotations

import importlib

from ._submitting import checked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .context import BaseContext


#: Where numerical libraries look, when they are loaded, for the number of threads that they may use.
_THREAD_VARIABLES = (
    "BLIS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)


def thread_limits(wanted: int | str | None, workers: int, context: BaseContext) -> dict[bytes, bytes]:
    """Return the environment that limits the threads of numerical libraries in a worker.

    Args:
        wanted: How many threads; ``"auto"`` is its share of the usable processors, ``None`` no limit.
        workers: How many workers share them.
        context: Knows how many processors are usable.

    Raises:
        TypeError: It is neither a number nor ``"auto"``.
        ValueError: It is below 1.
    """
    if wanted is None:
        return {}
    if wanted == "auto":
        wanted = max(1, context.usable_cpu_count() // workers)
    threads = checked("threads_per_worker", wanted, 1, int)
    return {name.encode(): b"%d" % threads for name in _THREAD_VARIABLES}


def load_ahead(context: BaseContext, names: Iterable[str]) -> tuple[str, ...]:
    """Load modules for the workers of a context.

    Args:
        context: How the workers are started.
        names: Names of modules.

    Returns:
        The modules that each worker still has to load, or to have looked up, itself.

    Raises:
        ImportError: A module cannot be imported, and workers are copies of this process.
        TypeError: It is not a list of strings.
    """
    if isinstance(names, str):
        raise TypeError(f"preload must be a list of module names, not the string {names!r}")
    names = tuple(names)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"preload must be a list of module names, which {name!r} is not")
    method = context.get_start_method()
    if method == "fork":
        for name in names:
            importlib.import_module(name)
        return ()
    if method == "forkserver":
        from .forkserver import _forkserver

        # A worker that has to load the pool itself takes ten times as long to start.
        _forkserver.preload(("billiard.pool", *names))
    return names
