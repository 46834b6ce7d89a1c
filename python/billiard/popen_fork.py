"""Starting a process by fork."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from functools import partial

from . import _billiard, _child, _parent, process
from .common import TERM_SIGNAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._parent import ParentProcess
    from .process import BaseProcess

__all__ = ["Popen"]

#: Whether the kernel hands out process descriptors. Without them a pipe is the sentinel.
_PIDFD = _billiard.has_pidfd()

#: The end of the sentinel pipe that shows the parent that this process lives; without process descriptors
#: only.
_sign_of_life: int | None = None


def _sentinel_pipe() -> tuple[int | None, int | None]:
    """Both ends of the pipe that shows a child's end, where there are no process descriptors."""
    return (None, None) if _PIDFD else os.pipe()


class Popen:
    """A process that was forked off this one. It is killed if this object goes before `BaseProcess.start` has
    taken it.

    Args:
        process_obj: The process object to run in it.

    Attributes:
        pid: The process id.
        returncode: The exit code or the negated signal; ``None`` while it runs.
        sentinel: A descriptor that becomes readable when it ends; ``None`` after `close`.

    Raises:
        OSError: No process or no descriptor is left.
    """

    method = "fork"
    sentinel: int | None = None
    pid: int
    # A signal handler's exception may end the construction anywhere, and then this is looked at all the same.
    _pipe: int | None = None

    def __init__(self, process_obj: BaseProcess) -> None:
        # What is in a buffer now would be written by both.
        process._maybe_flush(sys.stdout)
        process._maybe_flush(sys.stderr)
        self.returncode: int | None = None
        self._child: _billiard.Child | None = None
        self._owner = os.getpid()
        self._launch(process_obj)

    def duplicate_for_child(self, fd: int) -> int:
        """A forked child has every descriptor already, under the same number."""
        return fd

    def _keep(self) -> None:
        """Let the process live on when this object goes."""
        if self._child is not None:
            self._child.keep()

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Look whether the process has ended.

        Args:
            flag: 0 to wait for it.

        Returns:
            `returncode`.
        """
        child = self._child
        if self.returncode is None and child is not None:
            self._note(child, child.poll() if flag else child.wait())
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until the process has ended.

        Args:
            timeout: Seconds to wait; ``None`` waits for ever, 0 and less only look.

        Returns:
            `returncode`.
        """
        child = self._child
        if self.returncode is None and child is not None:
            self._note(child, child.wait(timeout))
        return self.returncode

    def _note(self, child: _billiard.Child, returncode: int | None) -> None:
        if returncode is not None:
            if child.status_lost:
                from .util import debug

                debug("the exit status of process %d was taken by somebody else", self.pid)
            self.returncode = returncode

    def _send_signal(self, number: int) -> None:
        child = self._child
        if self.returncode is not None or child is None:
            return
        try:
            child.signal(number)
        except OSError:
            # What cannot be signalled because it is just ending is no error.
            if self.wait(timeout=0.1) is None:
                raise

    def terminate(self) -> None:
        """Ask the process to end."""
        self._send_signal(TERM_SIGNAL)

    def kill(self) -> None:
        """End the process."""
        self._send_signal(signal.SIGKILL)

    def interrupt(self) -> None:
        """Interrupt the process as Ctrl-C does."""
        self._send_signal(signal.SIGINT)

    def close(self) -> None:
        """Release the sentinel, once the process has ended. Closing again does nothing."""
        if self.poll() is None:
            return
        self.sentinel = None
        self._child = None
        self._close_pipe()

    def _close_pipe(self) -> None:
        pipe, self._pipe = self._pipe, None
        # FORK: in a copy of this process the number may mean something else by now.
        if pipe is not None and os.getpid() == self._owner:
            os.close(pipe)

    def __del__(self) -> None:
        self._close_pipe()

    def _launch(self, process_obj: BaseProcess) -> None:
        _child.before_fork()
        parent = _parent.for_children(process.current_process())
        watch, sign = _sentinel_pipe()
        try:
            child = _billiard.fork(partial(self._in_child, process_obj, parent, watch, sign), _PIDFD)
        except BaseException:
            if watch is not None:
                os.close(watch)
            raise
        finally:
            if sign is not None:
                os.close(sign)
        self._take(child, watch)

    def _take(self, child: _billiard.Child, watch: int | None) -> None:
        self.pid, self._child, self._pipe = child.pid, child, watch
        self.sentinel = watch if watch is not None else child.sentinel

    def _in_child(
        self,
        process_obj: BaseProcess,
        parent: ParentProcess,
        watch: int | None,
        sign: int | None,
    ) -> int:
        global _sign_of_life
        # What was registered there is for the end of the other process.
        atexit._clear()
        process._kin = os.getpid(), self._owner
        for inherited in (watch, _sign_of_life):
            if inherited is not None:
                os.close(inherited)
        _sign_of_life = sign
        return process_obj._bootstrap(parent=parent)
