"""Keeping the garbage collector away from memory that forked processes have in common.

The collector writes into every object that it looks at, and the first write to a page copies it. What is
frozen it does not look at any more.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

#: The interpreter may freeze so many objects before the program begins (3.12: a few hundred); a program that
#: freezes what it has freezes thousands.
_THE_INTERPRETERS = 1000


@contextmanager
def frozen(wanted: bool) -> Iterator[None]:
    """Freeze what there is, in whatever is forked meanwhile; here it thaws afterwards.

    Args:
        wanted: False to do nothing. Nothing is done either if the program has frozen something already: it
            takes care of that, and thawing would undo it.
    """
    if not wanted or gc.get_freeze_count() > _THE_INTERPRETERS:
        yield
        return
    gc.freeze()
    try:
        # FORK: a child never comes back from here.
        yield
    finally:
        gc.unfreeze()
