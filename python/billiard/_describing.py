"""What is sent to a child that is not a copy of its parent, and why it cannot be sent."""

from __future__ import annotations

import io
import pickle
import sys

from . import reduction, spawn
from ._serializers import pickler_for, refused_by
from .context import set_spawning_popen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .process import BaseProcess


def describe(
    popen: Any, obj: BaseProcess, sign: int | None, environment: dict[bytes, bytes | None] | None = None
) -> bytes:
    """Pickle what a child has to know, and its process object.

    Args:
        popen: The child's handle; it collects the descriptors that go along.
        obj: The process object.
        sign: The end of the sentinel pipe that the child is to keep open, where processes have no
            descriptors.
        environment: What is to change in the child's environment; ``None`` for a value takes it away.

    Raises:
        pickle.PicklingError: Something in the process object cannot be sent; the text says what.
        RuntimeError: This process is still importing the main module of its parent.
    """
    told = spawn.get_preparation_data(obj._name)
    told["daemon"] = obj.daemon
    buffer = io.BytesIO()
    set_spawning_popen(popen)
    try:
        notebook = getattr(obj, "_notebook", None)
        if notebook is not None:
            told["last_words"] = popen.DupFd(popen.duplicate_for_child(notebook))
        if sign is not None:
            told["sign_of_life"] = popen.DupFd(popen.duplicate_for_child(sign))
        changes = {**(environment or {}), **getattr(obj, "_environment", {})}
        if changes:
            told["environment"] = changes
        reduction.dump(told, buffer)
        start = buffer.tell()
        try:
            pickler_for(obj._serializer)(buffer, None).dump(obj)
        except Exception as error:
            reason = refused_by(error)[0]
            if _can_be_sent(obj):
                # A signal handler has raised it: it is for the program.
                raise reason from None
            raise _explained(obj, error) from reason
    finally:
        set_spawning_popen(None)
    why = _why_main_stays_behind(told)
    if why:
        _refuse_what_main_defines(buffer.getbuffer()[start:], why)
    return buffer.getvalue()


def _can_be_sent(obj: BaseProcess) -> bool:
    try:
        pickler_for(obj._serializer)(io.BytesIO(), None).dump(obj)
    except Exception:
        return False
    return True


def _explained(obj: BaseProcess, error: Exception) -> pickle.PicklingError:
    from ._tasks import culprit

    path, reason = culprit(f"{type(obj).__name__} {obj.name!r}", obj, error)
    return pickle.PicklingError(f"cannot send {path} to the child: {type(reason).__name__}: {reason}")


def _why_main_stays_behind(told: dict[str, Any]) -> str | None:
    """Why a child that is told this does not have what the main module defines; ``None`` if it has."""
    if spawn.is_frozen():
        return None
    for key, stays_behind in spawn.STAYS_BEHIND.items():
        if key in told:
            return "which children do not import: it is there to be run" if stays_behind(told[key]) else None
    how = "an interactive session" if hasattr(sys, "ps1") else "as with python -c"
    return f"which has no file that a child could import ({how})"


def _refuse_what_main_defines(pickled: Any, why: str) -> None:
    if b"__main__" not in bytes(pickled):
        return
    for module, name in _globals_of(pickled):
        if module == "__main__":
            raise pickle.PicklingError(
                f"{name!r} is defined in __main__, {why}; move it to a module, or start the process from a "
                'context with serializer="cloudpickle"'
            )


def _globals_of(pickled: Any) -> list[tuple[str, str]]:
    """The module-level objects that a pickle refers to, as (module, name)."""
    import pickletools

    found, memo, texts = [], [], ["", ""]
    last = ""
    for opcode, arg, _ in pickletools.genops(bytes(pickled)):
        if opcode.name == "MEMOIZE":
            memo.append(last)
            continue
        if opcode.name == "STACK_GLOBAL":
            found.append((texts[-2], texts[-1]))
        if "GET" in opcode.name and isinstance(arg, int):
            last = memo[arg] if arg < len(memo) else ""
        else:
            last = arg if isinstance(arg, str) else ""
        if last:
            texts = [texts[-1], last]
    return found
