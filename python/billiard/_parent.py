"""The process that started this one, as a process object."""

from __future__ import annotations

from . import _billiard
from .process import BaseProcess

#: KERNEL: how often to look after a parent where there are no process descriptors, in seconds.
_LOOK = 0.05
#: The longest single wait, in seconds; the kernel takes no time-out of any length.
_LONGEST = 3600.0


class ParentProcess(BaseProcess):
    """The process that started this one.

    Args:
        name: Its name.
        handle: Who it is.
    """

    #: Whether this process ends with it already.
    _watched = False

    def __init__(self, name: str, handle: _billiard.Parent) -> None:
        # Made for every start, so it does without what a process that could be started needs.
        self._name = name
        self._handle = handle
        self._identity = ()
        self._parent_pid = self._popen = None
        self._closed = False
        self._config = {}

    def is_alive(self) -> bool:
        """Tell whether the parent still runs."""
        return self._handle.is_alive()

    @property
    def ident(self) -> int | None:
        """The process id."""
        return self._handle.pid

    pid = ident

    @property
    def sentinel(self) -> int:
        """A descriptor that becomes readable when the parent ends.

        Raises:
            OSError: The kernel gives out no such descriptors.
        """
        if self._handle.sentinel is None:
            raise OSError("this kernel gives out no descriptors of processes")
        return self._handle.sentinel

    def join(self, timeout: float | None = None) -> None:
        """Wait until the parent has ended.

        Args:
            timeout: Seconds to wait; ``None`` and inf wait for ever, 0 and less only look.
        """
        import math
        import time

        from ._timeouts import refuse_nan

        refuse_nan(timeout)
        deadline = time.monotonic() + (math.inf if timeout is None else timeout)
        while self.is_alive() and (left := deadline - time.monotonic()) > 0:
            if self._handle.sentinel is None or self._is_no_sentinel(left):
                time.sleep(min(left, _LOOK))

    def _is_no_sentinel(self, timeout: float) -> bool:
        """Wait for the sentinel, for a while at most. Whether it shows an end that there is not.

        A program that has closed every descriptor may use the number for something else by now.
        """
        import select

        poll = select.poll()
        poll.register(self.sentinel, select.POLLIN)
        # Rounded up: a wait of no length, again and again, would be no wait.
        return bool(poll.poll(int(min(timeout, _LONGEST) * 1000) + 1)) and self.is_alive()


def for_children(parent: BaseProcess) -> ParentProcess:
    """What a child that is about to be started will call its parent.

    Raises:
        OSError: No descriptor is left.
    """
    return ParentProcess(parent._name, _billiard.Parent.own())
