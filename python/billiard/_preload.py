"""Loading what workers need where it is loaded once for many of them."""

from __future__ import annotations

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .context import BaseContext


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
