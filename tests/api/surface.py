"""Compares a module with what `surface.json` says of its original."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ClassMethodDescriptorType, ModuleType
from typing import Any

#: The folder with what this program needs.
HERE = str(Path(__file__).parent)

#: Stands for a default that cannot be compared: that there is one is enough.
ANY = object()

Entry = dict[str, Any]
Parameters = list[tuple[str, inspect._ParameterKind, object]]
Problems = Iterator[tuple[str, str]]


def load() -> dict[str, Entry]:
    """What is expected of each module."""
    loaded: dict[str, Entry] = json.loads(Path(HERE, "surface.json").read_text())
    return loaded


def problems(module: ModuleType, expected: Entry) -> dict[str, str]:
    """Everything that a user of the original would miss in a module.

    Returns:
        The dotted name inside the module, and in words what is wrong with it.
    """
    found: dict[str, str] = {}
    for name, entry in expected["names"].items():
        for path, problem in _problems_of(module, name, entry):
            found.setdefault(path, problem)
    exported = getattr(module, "__all__", ())
    for name in expected["all"].split():
        if name not in exported:
            found.setdefault(name, "not in __all__")
    return found


def _problems_of(module: ModuleType, name: str, entry: Entry) -> Problems:
    try:
        live = getattr(module, name)
    except AttributeError:
        yield name, "missing"
        return
    if target := entry.get("is"):
        if live is not resolve(target):
            yield name, f"is not {target}"
    elif not _KINDS[entry["kind"]](live):
        yield name, f"no {entry['kind']}: {live!r}"
    else:
        yield from _differences(name, live, entry)


def _differences(name: str, live: Any, entry: Entry) -> Problems:
    if "value" in entry and live != decode(entry["value"]):
        yield name, f"is {live!r}, not {decode(entry['value'])!r}"
    for base in entry.get("bases", ()):
        # A base that cannot be seen from here, such as a private one of another Python, is no promise.
        if not issubclass(live, resolve(base, live)):
            yield name, f"no {base}"
    if "signature" in entry and (problem := differs(entry["signature"], live)):
        yield name, problem
    for member, described in entry.get("members", {}).items():
        if problem := _problem_of_member(live, member, described):
            yield f"{name}.{member}", problem


_KINDS: dict[str, Callable[[Any], bool]] = {
    "class": inspect.isclass,
    "exception": lambda live: inspect.isclass(live) and issubclass(live, BaseException),
    "function": inspect.isroutine,
    "bound_method": inspect.ismethod,
    "const": lambda live: not callable(live),
    "object": lambda live: not inspect.isclass(live),
}


_WRAPPERS: dict[str, Any] = {
    "staticmethod": staticmethod,
    "classmethod": (classmethod, ClassMethodDescriptorType),
}


def _problem_of_member(owner: type, name: str, entry: Entry) -> str | None:
    try:
        raw = inspect.getattr_static(owner, name)
    except AttributeError:
        return "missing"
    if entry["kind"] in ("property", "data_descriptor", "attribute"):
        return _problem_of_data(owner, name, raw, entry)
    if entry["kind"] == "class":
        return None if inspect.isclass(raw) else f"no class: {raw!r}"
    return _problem_of_method(owner, name, raw, entry)


def _problem_of_method(owner: type, name: str, raw: Any, entry: Entry) -> str | None:
    if not callable(getattr(owner, name)):
        return f"not callable: {raw!r}"
    kind = entry["kind"]
    found = next((it for it, types in _WRAPPERS.items() if isinstance(raw, types)), "method")
    if kind in (*_WRAPPERS, "method") and kind != found:
        return f"a {found}, not a {kind}"
    if "signature" not in entry:
        return None
    # Without a method's first parameter: a function in C has one of another kind, and may stand in.
    return differs(entry["signature"], getattr(raw, "__func__", raw), skip=found != "staticmethod")


def _problem_of_data(owner: type, name: str, raw: Any, entry: Entry) -> str | None:
    if inspect.isroutine(raw) and not inspect.isdatadescriptor(raw):
        return "a method, not a value"
    if entry.get("settable") and isinstance(raw, property) and raw.fset is None:
        return "cannot be assigned"
    if "value" not in entry or inspect.isdatadescriptor(raw):
        return None
    value, live = decode(entry["value"]), getattr(owner, name)
    if name == "__all__":
        return None if set(value) <= set(live) else f"lacks {sorted(set(value) - set(live))}"
    return None if live == value else f"is {live!r}, not {value!r}"


def resolve(path: str, otherwise: Any = None) -> Any:
    """The object with a dotted name, or ``otherwise`` where there is none."""
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            found = getattr(found, part, otherwise)
        return found
    return otherwise


def decode(value: Any) -> Any:
    """A value as it was before it was written as JSON."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "repr":
        return resolve(content)
    if kind == "bytes":
        return content.encode("latin-1")
    if kind == "dict":
        return {decode(key): decode(item) for key, item in content}
    return {"tuple": tuple, "list": list, "set": set, "frozenset": frozenset}[kind](map(decode, content))


def differs(expected: str, live: Any, skip: int = 0) -> str | None:
    """Say in which way something is called otherwise than the original.

    Args:
        expected: The original's signature.
        live: What is called.
        skip: How many parameters the call itself supplies.
    """
    try:
        signature = inspect.signature(live)
    except (TypeError, ValueError):
        return f"has no signature; expected {expected}"
    wanted = _parameters_of(expected)[skip:]
    found = [(it.name, it.kind, it.default) for it in signature.parameters.values()][skip:]
    # What is new and can only be given by name is in nobody's way.
    names = {name for name, _, _ in wanted}
    found = [it for it in found if it[1] is not inspect.Parameter.KEYWORD_ONLY or it[0] in names]
    if len(found) == len(wanted) and all(map(_agree, wanted, found)):
        return None
    bare = [it.replace(annotation=inspect.Parameter.empty) for it in signature.parameters.values()]
    return f"takes {inspect.Signature(bare)}, not {expected}"


def _agree(wanted: tuple[Any, ...], found: tuple[Any, ...]) -> bool:
    default = wanted[2]
    same = found[2] is not inspect.Parameter.empty if default is ANY else default == found[2]
    return wanted[:2] == found[:2] and same


def _parameters_of(signature: str) -> Parameters:
    arguments = ast.parse(f"def it{signature}: ...").body[0].args  # type: ignore[attr-defined]
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    found: Parameters = []
    for at, (argument, default) in enumerate(zip(positional, defaults, strict=True)):
        only = at < len(arguments.posonlyargs)
        kind = inspect.Parameter.POSITIONAL_ONLY if only else inspect.Parameter.POSITIONAL_OR_KEYWORD
        found.append((argument.arg, kind, _default_of(default)))
    if arguments.vararg:
        found.append((arguments.vararg.arg, inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.empty))
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        found.append((argument.arg, inspect.Parameter.KEYWORD_ONLY, _default_of(default)))
    if arguments.kwarg:
        found.append((arguments.kwarg.arg, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.empty))
    return found


def _default_of(node: ast.expr | None) -> object:
    if node is None:
        return inspect.Parameter.empty
    value = ast.literal_eval(node)
    return ANY if value is ... else value
