"""What a `SyncManager`'s server makes for those who ask for a namespace, a value or an array."""

from __future__ import annotations

import array

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Namespace:
    """A bag of attributes.

    Args:
        **kwds: The first of them.
    """

    def __init__(self, /, **kwds: Any) -> None:
        self.__dict__.update(kwds)

    def __repr__(self) -> str:
        shown = sorted(f"{name}={value!r}" for name, value in vars(self).items() if name[:1] != "_")
        return f"{type(self).__name__}({', '.join(shown)})"


class Value:
    """A single value, of any type.

    Args:
        typecode: What others make of it; nothing here depends on it.
        value: The value.
        lock: Ignored: the server does one thing at a time.
    """

    def __init__(self, typecode: Any, value: Any, lock: Any = True) -> None:  # noqa: ARG002
        self._typecode = typecode
        self._value = value

    def get(self) -> Any:
        """The value."""
        return self._value

    def set(self, value: Any) -> None:
        """Set the value."""
        self._value = value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._typecode!r}, {self._value!r})"

    value = property(get, set)


def Array(typecode: str, sequence: Any, lock: Any = True) -> array.array[Any]:  # noqa: ARG001
    """Make an array of numbers.

    Args:
        typecode: Their type, as for `array.array`.
        sequence: The numbers.
        lock: Ignored: the server does one thing at a time.
    """
    return array.array(typecode, sequence)


for _item in (Namespace, Value, Array):
    _item.__module__ = "billiard.managers"
