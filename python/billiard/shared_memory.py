"""Shared memory with a name, for processes that are no relatives.

It has the interface and the layout of the standard library's module of this name, and each can open what the
other has made. Here no process keeps watch over the names; ``docs/shared-memory.md`` tells who removes them.
"""

from __future__ import annotations

import mmap
import os
import secrets
import struct
import types
import weakref

from . import _billiard, process, util

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

__all__ = ["ShareableList", "SharedMemory"]

_PREFIX = "psm_"

#: What this process has open.
_open: weakref.WeakSet[SharedMemory] = weakref.WeakSet()
#: The process that has promised to look once more when it ends.
_leaving = 0


def _look_when_leaving() -> None:
    global _leaving
    if _leaving != os.getpid():
        _leaving = os.getpid()
        # After those that join the children.
        util.Finalize(None, _leave, exitpriority=-100)


def _leave(*_: Any) -> None:
    """The process ends: nothing is in use here any more, and what nobody else needs goes."""
    for memory in list(_open):
        # FORK: what was inherited is the same lock as the parent's.
        if memory._fd >= 0 and memory._opener == os.getpid():
            _billiard.named_let_go(memory._fd)
    _billiard.named_sweep(leaving=True)


def _keeper() -> int:
    """Who keeps what is made here: the parent, or this process itself if it has none of this package."""
    parent = process.parent_process()
    return os.getpid() if parent is None or parent.pid is None else parent.pid


class SharedMemory:
    """A piece of shared memory with a name.

    Args:
        name: The name, without slashes; ``None`` to have a new one chosen.
        create: True to make it, of zeros; False to open what another process has made.
        size: How many bytes, if it is made.
        track: False to leave the name to whoever calls `unlink`.

    Raises:
        FileExistsError: It is to be made, and there is one of that name.
        FileNotFoundError: It is to be opened, and there is none.
        OSError: No memory or descriptor is left.
        ValueError: It is to be made without a size, or opened without a name, or is empty.

    Source: CPython ``multiprocessing.shared_memory.SharedMemory``. Different here: the name goes with the
    last process that could use it, also if all of them were killed.
    """

    _buf: memoryview | None = None
    _mmap: mmap.mmap | None = None
    _fd = -1

    def __init__(
        self, name: str | None = None, create: bool = False, size: int = 0, *, track: bool = True
    ) -> None:
        if size < 0 or (create and size == 0):
            raise ValueError(f"shared memory is made of at least 1 byte, not {size}")
        if not create and name is None:
            raise ValueError("a name is needed to open what there is; `create=True` makes something new")
        self._begin(name, create, size, _keeper() if track else None)

    @classmethod
    def _kept_by(cls, keeper: int, name: str, size: int) -> SharedMemory:
        """Make one whose name stays as long as a process runs."""
        self = cls.__new__(cls)
        self._begin(name, True, size, keeper)
        return self

    def _begin(self, name: str | None, create: bool, size: int, keeper: int | None) -> None:
        self._opener = os.getpid()
        _billiard.named_sweep()
        self._name, self._fd = self._make(name, size, keeper) if create else self._find(str(name))
        _look_when_leaving()
        try:
            self._size = os.fstat(self._fd).st_size
            self._mmap = mmap.mmap(self._fd, self._size)
        except BaseException:
            if create:
                _billiard.named_remove(self._name)
            self.close()
            raise
        self._buf = memoryview(self._mmap)
        _open.add(self)

    @staticmethod
    def _make(name: str | None, size: int, keeper: int | None) -> tuple[str, int]:
        while True:
            chosen = _PREFIX + secrets.token_hex(4) if name is None else name.removeprefix("/")
            try:
                return chosen, _billiard.named_create(chosen, size, keeper)
            except FileExistsError:
                if name is not None:
                    raise

    @staticmethod
    def _find(name: str) -> tuple[str, int]:
        name = name.removeprefix("/")
        return name, _billiard.named_open(name)

    @property
    def buf(self) -> memoryview | None:
        """The bytes, which can be written to; ``None`` once it is closed."""
        return self._buf

    @property
    def name(self) -> str:
        """The name by which other processes open it."""
        return self._name

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self._size

    def close(self) -> None:
        """Stop using it here. Whoever has it open keeps it.

        Raises:
            BufferError: There are views of its ``buf``.
        """
        if self._buf is not None:
            self._buf.release()
            self._buf = None
        if self._mmap is not None:
            self._mmap.close()
            self._mmap = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def unlink(self) -> None:
        """Remove the name. Whoever has it open keeps the memory.

        Raises:
            FileNotFoundError: Somebody has removed it already.
        """
        _billiard.named_remove(self._name)

    def __del__(self) -> None:
        try:
            self.close()
        except BufferError:
            # The views keep the memory; the descriptor is not needed for that.
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, False, self.size)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, size={self.size})"


#: How an item is packed, by its type. What is shorter than 8 bytes fills them, each kind in a way of its own.
_FORMATS = {int: "q", float: "d", bool: "xxxxxxx?"}
_NOTHING = "xxxxxx?x"
#: What has to be done to an item that was unpacked.
_AS_IT_IS, _DECODE, _STRIP, _NONE = range(4)
_WORD = 8


def _pack(item: object) -> tuple[str, bytes, int]:
    """How an item is packed, as what, and what is done to unpack it."""
    if item is None:
        return _NOTHING, struct.pack(_NOTHING, False), _NONE
    if isinstance(item, (str, bytes)):
        raw = item.encode() if isinstance(item, str) else item
        code = f"{_WORD * (len(raw) // _WORD + 1)}s"
        return code, struct.pack(code, raw), _DECODE if isinstance(item, str) else _STRIP
    for kind, code in _FORMATS.items():
        if type(item) is kind:
            return code, struct.pack(code, item), _AS_IT_IS
    raise ValueError(f"an item is an int, float, bool, str, bytes or None, not {type(item).__name__}")


class ShareableList:
    """A list in shared memory, of a length that does not change.

    Its items are numbers, truth values, ``None``, strings and bytes. One can be replaced by another one of
    any of these types that does not need more room. Zeros at the end of strings and bytes are lost. There is
    no lock.

    Args:
        sequence: The items; ``None`` to open what another process has made.
        name: The name of the memory; ``None`` to have a new one chosen.

    Attributes:
        shm: The memory.

    Raises:
        FileNotFoundError: There is no memory of that name.
        ValueError: An item is of another type.

    Source: CPython ``multiprocessing.shared_memory.ShareableList``, whose layout it has.
    """

    # In the memory: the length; where each item ends, with a 0 before; the items; the formats in 8 bytes
    # each; the codes of what is done to unpack them.

    def __init__(self, sequence: Iterable[Any] | None = None, *, name: str | None = None) -> None:
        if sequence is None:
            self.shm = SharedMemory(name)
            self._length = int(struct.unpack_from("q", self._memory, 0)[0])
            return
        self._fill(sequence, name)

    @classmethod
    def _kept_by(cls, keeper: int, name: str, sequence: Iterable[Any]) -> ShareableList:
        """Make one in memory whose name stays as long as a process runs."""
        self = cls.__new__(cls)
        self._fill(sequence, name, keeper)
        return self

    def _fill(self, sequence: Iterable[Any], name: str | None, keeper: int | None = None) -> None:
        packed = [_pack(item) for item in sequence]
        self._length = len(packed)
        ends = [0]
        for _, raw, _ in packed:
            ends.append(ends[-1] + len(raw))
        head = struct.pack(f"q{len(ends)}q", self._length, *ends)
        formats = b"".join(struct.pack("8s", code.encode()) for code, _, _ in packed)
        content = (
            head + b"".join(raw for _, raw, _ in packed) + formats + bytes(kind for _, _, kind in packed)
        )
        if keeper is None or name is None:
            self.shm = SharedMemory(name, create=True, size=len(content))
        else:
            self.shm = SharedMemory._kept_by(keeper, name, len(content))
        self._memory[: len(content)] = content

    @property
    def _memory(self) -> memoryview:
        memory = self.shm.buf
        if memory is None:
            raise ValueError("the list's memory is closed")
        return memory

    def _place(self, position: int) -> tuple[int, int, int, int]:
        """Where an item begins, how much room it has, and where its format and its code are."""
        position += self._length if position < 0 else 0
        if not 0 <= position < self._length:
            raise IndexError("index out of range")
        first = _WORD * (2 + self._length)
        begin, end = struct.unpack_from("qq", self._memory, _WORD * (1 + position))
        (last,) = struct.unpack_from("q", self._memory, _WORD * (1 + self._length))
        formats = first + last
        codes = formats + _WORD * self._length
        return first + begin, end - begin, formats + _WORD * position, codes + position

    def _format_at(self, at: int) -> str:
        (code,) = struct.unpack_from("8s", self._memory, at)
        return str(code.rstrip(b"\x00"), "ascii")

    def __getitem__(self, position: int) -> Any:
        begin, _, format_at, code_at = self._place(position)
        (item,) = struct.unpack_from(self._format_at(format_at), self._memory, begin)
        code = self._memory[code_at]
        if code == _NONE:
            return None
        if code == _AS_IT_IS:
            return item
        raw = item.rstrip(b"\x00")
        return raw.decode() if code == _DECODE else raw

    def __setitem__(self, position: int, value: Any) -> None:
        begin, room, format_at, code_at = self._place(position)
        code, raw, kind = _pack(value)
        if len(raw) > room:
            raise ValueError(f"the item needs {len(raw)} bytes, and there are {room} at this place")
        if kind in (_DECODE, _STRIP):
            # It has all of the room, so that what comes later may use it.
            code, raw = f"{room}s", raw.ljust(room, b"\x00")
        struct.pack_into("8s", self._memory, format_at, code.encode())
        self._memory[code_at] = kind
        self._memory[begin : begin + len(raw)] = raw

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        return (self[position] for position in range(self._length))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)}, name={self.shm.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_list, (self.shm.name,)

    @property
    def format(self) -> str:
        """How all items are packed, in the notation of `struct`."""
        places = (self._place(position) for position in range(self._length))
        return "".join(self._format_at(format_at) for _, _, format_at, _ in places)

    def count(self, value: Any) -> int:
        """Return how many items are equal to a value."""
        return sum(value == item for item in self)

    def index(self, value: Any) -> int:
        """Return the position of the first item that is equal to a value.

        Raises:
            ValueError: There is none.
        """
        for position, item in enumerate(self):
            if value == item:
                return position
        raise ValueError(f"{value!r} is not in the list")

    __class_getitem__ = classmethod(types.GenericAlias)  # type: ignore[var-annotated]


def _open_list(name: str) -> ShareableList:
    return ShareableList(name=name)
