"""Starting a process as a fresh interpreter."""

from __future__ import annotations

import os

from . import _billiard, popen_fork, spawn
from ._describing import describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .process import BaseProcess

__all__ = ["Popen"]


class _DupFd:
    """A descriptor on its way to a child, which gets it under the same number."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def detach(self) -> int:
        """Return the descriptor, in the child."""
        # It was inherited on purpose, but only by this child.
        os.set_inheritable(self.fd, False)
        return self.fd


class Popen(popen_fork.Popen):
    """A process that was started as a fresh interpreter.

    Args:
        process_obj: The process object to run in it.

    Raises:
        OSError: The program cannot be started, or no process or descriptor is left.
        pickle.PicklingError: The process object cannot be sent.
    """

    method = "spawn"
    DupFd = _DupFd

    def __init__(self, process_obj: BaseProcess) -> None:
        self._fds: list[int] = []
        super().__init__(process_obj)

    def duplicate_for_child(self, fd: int) -> int:
        """Have the child inherit a descriptor. Returns its number there, which is the same."""
        self._fds.append(fd)
        return fd

    def _launch(self, process_obj: BaseProcess) -> None:
        watch, sign = popen_fork._sentinel_pipe()
        try:
            data = _billiard.memory_file(describe(self, process_obj, sign))
            try:
                parent = _billiard.Parent.own()
                told = {"pipe_handle": data, "parent_pid": self._owner, "parent_fd": parent.sentinel}
                keep = [data, *self._fds]
                if parent.sentinel is not None:
                    keep.append(parent.sentinel)
                command = spawn.get_command_line(**told)
                child = _billiard.spawn(
                    os.fsencode(command[0]),
                    [os.fsencode(word) for word in command],
                    spawn.child_environment(),
                    sorted(set(keep)),
                    for_children=True,
                    pidfd=popen_fork._PIDFD,
                )
            finally:
                os.close(data)
        except BaseException:
            if watch is not None:
                os.close(watch)
            raise
        finally:
            if sign is not None:
                os.close(sign)
        self._take(child, watch)
