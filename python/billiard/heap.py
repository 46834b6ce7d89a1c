"""Blocks of anonymous shared memory.

Every process allocates in memory that it has made itself, so that nobody who is killed in the middle of it
blocks or damages the others. See ``docs/shared-memory.md``.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
import weakref

from . import _billiard, reduction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    _Block = tuple[Any, int, int]

__all__ = ["BufferWrapper"]

_PAGE = mmap.PAGESIZE


#: How many bytes a block can have.
_MOST = sys.maxsize


def _refuse(size: int) -> None:
    raise AssertionError(f"a block has from 0 to {_MOST} bytes, not {size}")


def _close_own(fd: int, owner: int) -> None:
    # A forked child may have closed what it inherited, and opened something else under this number.
    if owner == os.getpid():
        os.close(fd)


class Arena:
    """A piece of anonymous shared memory with a descriptor of its own.

    Args:
        size: How many bytes, at least 1.
        fd: The descriptor of shared memory that exists, which is taken over; -1 for a new piece, of zeros.

    Attributes:
        size: How many bytes.
        fd: The descriptor.
        buffer: The memory, as an `mmap.mmap`.

    Raises:
        OSError: No memory or descriptor is left.

    Source: billiard 4.2.1 ``Arena``. Different here: it is no file in the folder for temporary files.
    """

    def __init__(self, size: int, fd: int = -1) -> None:
        self.size = size
        self.fd = _billiard.shared_file(size) if fd == -1 else fd
        # The descriptor is kept to be sent; it goes with the object.
        weakref.finalize(self, _close_own, self.fd, os.getpid())
        self.buffer = mmap.mmap(self.fd, size)


def reduce_arena(a: Arena) -> tuple[Callable[..., Arena], tuple[Any, ...]]:
    """Pickle a piece of shared memory: whoever unpickles it has the same one.

    Raises:
        OSError: Its descriptor was closed.
    """
    return rebuild_arena, (a.size, reduction.DupFd(a.fd))


def rebuild_arena(size: int, dupfd: Any) -> Arena:
    """Make of what `reduce_arena` has pickled the piece of shared memory that it was."""
    return Arena(size, dupfd.detach())


class Heap:
    """Blocks of shared memory that are freed by hand. `BufferWrapper` frees its own.

    Args:
        size: Ignored: memory is taken from the system as it is needed.

    Source: billiard 4.2.1 ``Heap``. Different here: all heaps of a process are one, and memory goes back to
    the system.
    """

    _alignment = 8

    def __init__(self, size: int = _PAGE) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._allocated_blocks: dict[int, _Block] = {}

    @staticmethod
    def _roundup(n: int, alignment: int) -> int:
        """The least multiple of ``alignment`` that is not less than ``n``."""
        return -(-n // alignment) * alignment

    def _own(self) -> dict[int, _Block]:
        """The blocks of this process; a forked child begins with none."""
        if self._owner != os.getpid():
            self._lock = threading.Lock()
            self._allocated_blocks = {}
            self._owner = os.getpid()
        return self._allocated_blocks

    def malloc(self, size: int) -> tuple[Any, int, int]:
        """Allocate a block.

        Args:
            size: How many bytes at least.

        Returns:
            An object whose ``buffer`` has the block, and where in that it begins and ends.

        Raises:
            AssertionError: The size is negative, or larger than anything.
            MemoryError: There is not that much.
            OSError: No memory or descriptor is left.
        """
        if not 0 <= size <= _MOST:
            _refuse(size)
        memory = _billiard.Block(self._roundup(max(size, 1), self._alignment), False)
        block = (memory, 0, len(memory))
        blocks = self._own()
        with self._lock:
            blocks[id(memory)] = block
        return block

    def free(self, block: tuple[Any, int, int]) -> None:
        """Free a block. Its memory stays until nothing has a view of it.

        Raises:
            AssertionError: Another process has allocated it.
            KeyError: It is no block that is allocated here.
        """
        if self._owner != os.getpid():
            raise AssertionError("a block is freed by the process that has allocated it")
        with self._lock:
            if self._allocated_blocks.pop(id(block[0]), None) is None:
                raise KeyError(block)


class BufferWrapper:
    """A block of shared memory. It is freed when the wrapper and all views of it are gone.

    What it holds at first may be what another block of this process has held.

    Args:
        size: How many bytes.

    Raises:
        AssertionError: The size is negative, or larger than anything.
        MemoryError: There is not that much.
        OSError: No memory or descriptor is left.

    Source: billiard 4.2.1 ``BufferWrapper``. Different here: ``get_address`` works.
    """

    _heap = Heap()
    _state: tuple[tuple[Any, int, int], int]

    def __init__(self, size: int) -> None:
        if not 0 <= size <= _MOST:
            _refuse(size)
        self._state = (_billiard.Block(size, False), 0, size), size

    @classmethod
    def _zeroed(cls, size: int) -> BufferWrapper:
        """A block of zeros."""
        return cls._around(_billiard.Block(size), size)

    @classmethod
    def _around(cls, block: Any, size: int) -> BufferWrapper:
        self = cls.__new__(cls)
        self._state = ((block, 0, size), size)
        return self

    def create_memoryview(self) -> memoryview:
        """Return a view of the block, which can be written to."""
        return memoryview(self._state[0][0])

    def get_address(self) -> int:
        """Return where the block begins in the memory of this process."""
        address: int = self._state[0][0].address
        return address

    def get_size(self) -> int:
        """Return how many bytes the block has."""
        return self._state[1]


def _reduce_wrapper(wrapper: BufferWrapper) -> tuple[Callable[..., BufferWrapper], tuple[Any, ...]]:
    (block, _, _), size = wrapper._state
    fd, at, length = block.place()
    return _rebuild_wrapper, (reduction.DupFd(fd), at, length, size)


def _rebuild_wrapper(sent: Any, at: int, length: int, size: int) -> BufferWrapper:
    return BufferWrapper._around(_billiard.Block.receive((sent.detach(), at, length), size), size)


def trim() -> None:
    """Give memory back to the system that is kept for the next blocks, up to 64 MiB of it."""
    _billiard.shared_trim()


reduction.register(Arena, reduce_arena)
reduction.register(BufferWrapper, _reduce_wrapper)
