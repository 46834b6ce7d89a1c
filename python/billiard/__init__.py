"""Processes and process pools with time limits, exact loss detection and shared-memory speed.

The package has the interface of `multiprocessing`, with pools made for task queues. Its functions are the
methods of one context; ``get_context(name)`` gives a context for another way of starting processes.
"""

from __future__ import annotations

import sys

from . import context as _context
from .exceptions import (
    AuthenticationError,
    BufferTooShort,
    ProcessError,
    SoftTimeLimitExceeded,
    TimeLimitExceeded,
    TimeoutError,
    WorkerLostError,
)
from .process import active_children, current_process, parent_process

VERSION = (4, 4, 0, ".dev0")
__version__ = ".".join(map(str, VERSION[:3])) + str(VERSION[3])
__author__ = "R Oudkerk / Python Software Foundation"
__author_email__ = "python-dev@python.org"
__maintainer__ = "Asif Saif Uddin"
__contact__ = "auvipy@gmail.com"
__homepage__ = "https://github.com/celery/billiard"
__docformat__ = "restructuredtext"

__all__ = [
    "Array",
    "AuthenticationError",
    "Barrier",
    "BoundedSemaphore",
    "BufferTooShort",
    "Condition",
    "Event",
    "JoinableQueue",
    "Lock",
    "Manager",
    "Pipe",
    "Pool",
    "Process",
    "ProcessError",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "Semaphore",
    "SimpleQueue",
    "SoftTimeLimitExceeded",
    "TimeLimitExceeded",
    "TimeoutError",
    "Value",
    "WorkerLostError",
    "active_children",
    "allow_connection_pickling",
    "cpu_count",
    "current_process",
    "forking_enable",
    "forking_is_enabled",
    "freeze_support",
    "get_all_start_methods",
    "get_context",
    "get_logger",
    "get_start_method",
    "log_to_stderr",
    "parent_process",
    "set_executable",
    "set_forkserver_preload",
    "set_start_method",
    "usable_cpu_count",
]

#: Log levels between those of `logging`.
SUBDEBUG = 5
SUBWARNING = 25

_default = _context._default_context

Process = _context.Process
Pool = _default.Pool
Barrier = _default.Barrier
BoundedSemaphore = _default.BoundedSemaphore
Condition = _default.Condition
Event = _default.Event
Lock = _default.Lock
Manager = _default.Manager
RLock = _default.RLock
Semaphore = _default.Semaphore
Pipe = _default.Pipe
allow_connection_pickling = _default.allow_connection_pickling
Queue = _default.Queue
JoinableQueue = _default.JoinableQueue
SimpleQueue = _default.SimpleQueue
RawValue = _default.RawValue
RawArray = _default.RawArray
Value = _default.Value
Array = _default.Array
cpu_count = _default.cpu_count
usable_cpu_count = _default.usable_cpu_count
forking_enable = _default.forking_enable
forking_is_enabled = _default.forking_is_enabled
freeze_support = _default.freeze_support
get_all_start_methods = _default.get_all_start_methods
get_context = _default.get_context
get_logger = _default.get_logger
get_start_method = _default.get_start_method
log_to_stderr = _default.log_to_stderr
set_executable = _default.set_executable
set_forkserver_preload = _default.set_forkserver_preload
set_start_method = _default.set_start_method


def ensure_multiprocessing() -> None:
    """Return if processes can be started here.

    Raises:
        NotImplementedError: The native part of the package is missing.
    """
    try:
        from . import _billiard  # noqa: F401
    except ImportError as error:
        raise NotImplementedError("the native part of the package is missing") from error


# What is defined in the program's main module is pickled under this name by children that were started
# afresh.
if "__main__" in sys.modules:
    sys.modules["__mp_main__"] = sys.modules["__main__"]
