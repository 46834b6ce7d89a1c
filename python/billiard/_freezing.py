"""Keeping the garbage collector away from memory that forked processes have in common.

The collector writes into every object that it looks at, and the first write to a page copies it. What is
frozen it does not look at any more.
"""

from __future__ import annotations

import gc
import time
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: The interpreter may freeze so many objects before the program begins (3.12: a few hundred); a program that
#: freezes what it has freezes thousands.
_THE_INTERPRETERS = 1000


class _Account:
    """Has garbage collected that thawing would hide.

    What thaws is old: it waits for a full collection. The interpreter counts what it lets grow old, and has
    one when that is a quarter of all; but it counts nothing here, and forgets what it had counted.
    """

    #: It is not worth asking how many a quarter would be before.
    LEAST = 10_000

    def __init__(self) -> None:
        self._aged = 0
        self._limit = self.LEAST

    def freeze(self) -> None:
        """Freeze everything, but what is young and garbage: it might hold descriptors, and forked processes
        would have them as long as they live.
        """
        young = sum(len(gc.get_objects(generation)) for generation in (0, 1))
        self._aged += max(0, young - gc.collect(1))
        gc.freeze()

    def thaw(self) -> None:
        """Undo it, and collect garbage if it is time to."""
        if self._aged > self._limit:
            self._limit = max(self.LEAST, gc.get_freeze_count() // 4)
        gc.unfreeze()
        if self._aged > self._limit:
            self._aged = 0
            gc.collect()


_account = _Account()


@contextmanager
def frozen(wanted: bool) -> Iterator[None]:
    """Freeze what there is, in whatever is forked meanwhile; here it thaws afterwards.

    Who collects garbage meanwhile finds only what has been made meanwhile.

    Args:
        wanted: False to do nothing. Nothing is done either if the program has frozen something already: it
            takes care of that, and thawing would undo it; or if it has switched the collector off, which is
            off in what is forked, too.
    """
    if not wanted or not gc.isenabled() or gc.get_freeze_count() > _THE_INTERPRETERS:
        yield
        return
    witness: list[object] | None = None
    try:
        _account.freeze()
        witness = []
        # FORK: a child never comes back from here.
        yield
    finally:
        # It is out of sight if the program, in a hook of ours, has frozen what there is by now.
        if witness is None or any(one is witness for one in gc.get_objects()):
            _account.thaw()


class Sparing:
    """Spares those who collect garbage before each start of a process most of it, when starts are many.

    Between two collections that find everything pass twenty times the time that one of them takes.
    """

    _SHARE = 20

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._until = 0.0

    def start(self, start: Callable[[int], object], index: int) -> None:
        """Start a process.

        Args:
            start: Does it, and may collect garbage before.
            index: What it is called with.
        """
        began = time.monotonic()
        if began < self._until:
            with frozen(self._wanted):
                start(index)
            return
        start(index)
        ended = time.monotonic()
        self._until = ended + self._SHARE * (ended - began)
