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
            child = self._start(describe(self, process_obj, sign))
        except BaseException:
            if watch is not None:
                os.close(watch)
            raise
        finally:
            if sign is not None:
                os.close(sign)
        self._take(child, watch)

    def _start(self, description: bytes) -> _billiard.Child:
        parent = _billiard.Parent.own()
        file = _billiard.memory_file(description)
        try:
            with spawn.beyond_standard(file, parent.sentinel) as (data, sentinel):
                command = spawn.get_command_line(pipe_handle=data, parent_pid=self._owner, parent_fd=sentinel)
                keep = (data, sentinel, *self._fds)
                return spawn.launch(command, (fd for fd in keep if fd is not None))
        finally:
            os.close(file)
