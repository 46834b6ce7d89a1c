"""Starting a process by having the fork server fork it."""

from __future__ import annotations

import os

from . import _billiard, forkserver, popen_fork
from ._describing import describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .process import BaseProcess

__all__ = ["Popen"]


class _DupFd:
    """A descriptor on its way to a child, known there by its place among those that were sent along."""

    def __init__(self, ind: int) -> None:
        self.ind = ind

    def detach(self) -> int:
        """Return the descriptor, in the child."""
        return forkserver.get_inherited_fds()[self.ind]


class Popen(popen_fork.Popen):
    """A process that the fork server has forked.

    Args:
        process_obj: The process object to run in it.

    Raises:
        ChildProcessError: The process was ended before it could say that it runs.
        OSError: The fork server cannot be started, or no process or descriptor is left.
        ValueError: Too many descriptors go along.
        pickle.PicklingError: The process object cannot be sent.
    """

    method = "forkserver"
    DupFd = _DupFd

    def __init__(self, process_obj: BaseProcess) -> None:
        self._fds: list[int] = []
        super().__init__(process_obj)

    def duplicate_for_child(self, fd: int) -> int:
        """Send a descriptor along, once however often it is asked for. Returns its place among those that
        are.
        """
        if fd not in self._fds:
            self._fds.append(fd)
        return self._fds.index(fd)

    def _launch(self, process_obj: BaseProcess) -> None:
        watch, sign = popen_fork._sentinel_pipe()
        try:
            data = describe(self, process_obj, sign, forkserver._forkserver.changes())
            parent = _billiard.Parent.own()
            child = forkserver._forkserver.start(data, parent.sentinel, self._fds)
        except BaseException:
            if watch is not None:
                os.close(watch)
            raise
        finally:
            if sign is not None:
                os.close(sign)
        self._take(child, watch)
