"""The put lock of a pool."""

from __future__ import annotations

import threading


class LaxBoundedSemaphore(threading.Semaphore):
    """A semaphore that ignores a release above its initial value.

    Args:
        value: How many may hold it.
        verbose: Ignored.
    """

    _value: int
    _cond: threading.Condition

    def __init__(self, value: int = 1, verbose: object = None) -> None:  # noqa: ARG002
        super().__init__(value)
        # A signal handler may end the pool while its thread is in here.
        self._cond = threading.Condition(threading.RLock())
        self._initial_value = value

    def grow(self) -> None:
        """Let one more hold it."""
        with self._cond:
            self._initial_value += 1
            self._value += 1
            self._cond.notify()

    def shrink(self) -> None:
        """Let one less hold it. If all are held, the next release does not free one."""
        with self._cond:
            self._initial_value -= 1
            self._value = min(self._value, self._initial_value)

    def release(self, n: int = 1) -> None:
        """Give back, unless nothing was taken."""
        # A look without the lock: whoever gives one back has taken it before.
        if self._value >= self._initial_value:
            return
        with self._cond:
            if self._value < self._initial_value:
                freed = min(n, self._initial_value - self._value)
                self._value += freed
                self._cond.notify(freed)

    def clear(self) -> None:
        """Give everything back."""
        with self._cond:
            freed = max(self._initial_value - self._value, 0)
            self._value += freed
            self._cond.notify(freed)


LaxBoundedSemaphore.__module__ = "billiard.pool"
