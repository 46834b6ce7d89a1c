"""The process that started this one, as a process object."""

from __future__ import annotations

from . import _billiard
from .process import BaseProcess


class ParentProcess(BaseProcess):
    """The process that started this one.

    Args:
        name: Its name.
        handle: Who it is.
    """

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
            timeout: Seconds to wait; ``None`` waits for ever.
        """
        import select

        poll = select.poll()
        poll.register(self.sentinel, select.POLLIN)
        poll.poll(None if timeout is None else max(0.0, timeout) * 1000)


def for_children(parent: BaseProcess) -> ParentProcess:
    """What a child that is about to be started will call its parent.

    Raises:
        OSError: No descriptor is left.
    """
    return ParentProcess(parent._name, _billiard.Parent.own())
