"""The native part of the package, under the name that the original has for it."""

import sys
from typing import Any

import _billiard

from . import ensure_multiprocessing
from .synchronize import ensure_SemLock

__all__ = ["ensure_SemLock", "ensure_multiprocessing"]

#: Children can be started afresh, and not only forked.
supports_exec = True
#: What there is on Windows only.
win32: Any = None

_ = _billiard, sys
