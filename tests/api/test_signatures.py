"""The original's surface is all here: names, kinds, bases, values, signatures.

What may differ is listed in `ALLOWED`, with the reason. More than the original has is always allowed: other
names, parameters that can only be given by keyword.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import surface

SURFACE = surface.load()

VERSION = "versions go on where the original's end"

_POOL_ARGUMENTS = "takes all that the class takes, of which the original forgot the last five"
_ONE_SIGNATURE = "the same in every context: forcing a concrete one is a ValueError, no TypeError"

#: Module -> name in it -> why it may differ.
ALLOWED: dict[str, dict[str, str]] = {
    "billiard": {
        "VERSION": VERSION,
        "__version__": VERSION,
        "Pool": _POOL_ARGUMENTS,
        "set_start_method": _ONE_SIGNATURE,
    },
    "billiard._ext": {
        "supports_exec": "there is an extension, which the original's wheels have not",
    },
    "billiard.process": {
        "BaseProcess._Popen": "the original's has no room for the process object, so that it can only fail",
    },
    "billiard.context": {
        "BaseContext.Pool": _POOL_ARGUMENTS,
        "BaseContext.set_start_method": _ONE_SIGNATURE,
        "DefaultContext.set_start_method": _ONE_SIGNATURE,
    },
    "billiard.reduction": {
        "ForkingPickler": "names its parameters; all that could be given still can",
    },
    "billiard.synchronize": {
        "Condition.notify": "takes a count, as the standard library's does",
        "sem_unlink": "there is no name to remove",
    },
    "billiard.managers": {
        "ConditionProxy.notify": "takes a count, as the standard library's does",
        "DictProxy.has_key": "works, so that it takes what it works with",
    },
    "billiard.forkserver": {
        "connect_to_new_process": "a child is told everything as it is asked for, nothing afterwards",
    },
    "billiard.pool": {
        "LaxBoundedSemaphore.release": "takes the count that the class it inherits from takes",
    },
}
if sys.version_info < (3, 11):
    ALLOWED["billiard.einfo"] = {
        f"{kind}.co_positions": "code positions came with Python 3.11"
        for kind in ("_Code", "_Frame", "_Object", "_Truncated")
    }


@pytest.mark.parametrize("module", SURFACE)
def test_nothing_of_the_original_is_missing(module):
    found = surface.problems(importlib.import_module(module), SURFACE[module])
    allowed = ALLOWED.get(module, {})
    wrong = [f"{name}: {problem}" for name, problem in found.items() if name not in allowed]
    wrong += [f"{name}: agrees by now, so it is no exception any more" for name in set(allowed) - set(found)]
    assert not wrong, "\n".join(wrong)


def test_exceptions_are_for_modules_that_are_compared():
    assert set(ALLOWED) <= set(SURFACE)


THE_ORIGINAL = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
import surface
for module, expected in surface.load().items():
    print(*surface.problems(importlib.import_module(module), expected).items())
"""


def test_the_original_is_what_is_described(original):
    done = original(THE_ORIGINAL, surface.HERE)
    assert done.stderr == ""
    # The one name that its later version has given up.
    assert done.stdout.split("\n") == [
        "('closerange', 'missing')" if module == "billiard.compat" else "" for module in [*SURFACE, "end"]
    ]


class Sample:
    """What the comparison is tried on."""

    value = 1

    def method(self, a, b=2, *, more=None):
        """Has one more than expected, by keyword only."""

    @staticmethod
    def static(a):
        """Needs no object."""

    @property
    def fixed(self):
        return 1


def sample(a, b=(), *rest, **kwargs):
    """Takes some of everything."""


MODULE: Any = SimpleNamespace(
    __all__=["Sample"],
    Sample=Sample,
    sample=sample,
    ERROR=40,
    NAMES={"a"},
    Failure=KeyError,
    dumps=pickle.dumps,
)


@pytest.mark.parametrize(
    ("name", "entry", "problem"),
    [
        ("Sample", {"kind": "class", "bases": [], "signature": "()"}, None),
        ("Sample", {"kind": "class", "bases": ["threading.Thread"]}, "no threading.Thread"),
        ("Sample", {"kind": "class", "bases": ["no.such.Base"]}, None),
        ("Sample", {"kind": "function"}, "no function"),
        ("Sample", {"kind": "class", "signature": "(a)"}, "takes (), not (a)"),
        ("absent", {"kind": "const"}, "missing"),
        ("absent", {"is": "os.getpid"}, "missing"),
        ("sample", {"is": "os.getpid"}, "is not os.getpid"),
        ("dumps", {"is": "_pickle.dumps"}, None),
        ("ERROR", {"kind": "const", "value": 40}, None),
        ("ERROR", {"kind": "const", "value": 41}, "is 40, not 41"),
        ("ERROR", {"kind": "class"}, "no class"),
        ("NAMES", {"kind": "const", "value": {"set": ["a"]}}, None),
        ("NAMES", {"kind": "const", "value": {"list": ["a"]}}, "is {'a'}, not ['a']"),
        ("Failure", {"kind": "exception", "bases": ["builtins.LookupError"]}, None),
        ("Sample", {"kind": "exception"}, "no exception"),
        ("sample", {"kind": "bound_method"}, "no bound_method"),
        ("sample", {"kind": "function", "signature": "(a, b=(), *rest, **kwargs)"}, None),
        ("sample", {"kind": "function", "signature": "(a, b=..., *rest, **kwargs)"}, None),
        ("sample", {"kind": "function", "signature": "(a=..., b=(), *rest, **kwargs)"}, "takes"),
        ("sample", {"kind": "function", "signature": "(a, b=None, *rest, **kwargs)"}, "takes"),
        ("sample", {"kind": "function", "signature": "(a, c=(), *rest, **kwargs)"}, "takes"),
        ("sample", {"kind": "function", "signature": "(b=(), a=1, *rest, **kwargs)"}, "takes"),
        ("sample", {"kind": "function", "signature": "(a, b=(), *rest)"}, "takes"),
        ("sample", {"kind": "function", "signature": "(a, /, b=(), *rest, **kwargs)"}, "takes"),
        ("sample", {"kind": "function", "signature": "(a, b=(), *rest, c=1, **kwargs)"}, "takes"),
    ],
)
def test_a_difference_is_found(name, entry, problem):
    found = surface.problems(MODULE, {"all": "", "names": {name: entry}})
    assert list(found) == ([name] if problem else [])
    assert found.get(name, "").startswith(problem or "")


@pytest.mark.parametrize(
    ("member", "entry", "problem"),
    [
        ("method", {"kind": "method", "signature": "(me, a, b=2)"}, None),
        ("method", {"kind": "method", "signature": "(self, a)"}, "takes"),
        ("method", {"kind": "method", "signature": "(self, a, b=2, *, more=1)"}, "takes"),
        ("method", {"kind": "staticmethod", "signature": "(a)"}, "a method, not a staticmethod"),
        ("method", {"kind": "property"}, "a method, not a value"),
        ("static", {"kind": "staticmethod", "signature": "(a)"}, None),
        ("static", {"kind": "method", "signature": "(self, a)"}, "a staticmethod, not a method"),
        ("fixed", {"kind": "property"}, None),
        ("fixed", {"kind": "property", "settable": True}, "cannot be assigned"),
        ("fixed", {"kind": "attribute", "value": None}, None),
        ("fixed", {"kind": "method"}, "not callable"),
        ("value", {"kind": "attribute", "value": 1}, None),
        ("value", {"kind": "attribute", "value": 2}, "is 1, not 2"),
        ("value", {"kind": "class"}, "no class"),
        ("absent", {"kind": "method"}, "missing"),
    ],
)
def test_a_difference_in_a_class_is_found(member, entry, problem):
    expected = {"all": "", "names": {"Sample": {"kind": "class", "members": {member: entry}}}}
    found = surface.problems(MODULE, expected)
    assert list(found) == ([f"Sample.{member}"] if problem else [])
    assert found.get(f"Sample.{member}", "").startswith(problem or "")


def test_a_name_that_is_not_exported_is_found():
    found = surface.problems(MODULE, {"all": "Sample sample", "names": {}})
    assert found == {"sample": "not in __all__"}
    assert surface.problems(ModuleType("bare"), {"all": "x", "names": {}}) == {"x": "not in __all__"}
