"""What other processes do in the tests of managers."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import billiard
from billiard.managers import BaseManager, SharedMemoryManager, SyncManager


class Counter:
    """Counts, fails, and makes others like it."""

    def __init__(self, start: int = 0) -> None:
        self.number = start

    def add(self, by: int = 1) -> int:
        self.number += by
        return self.number

    def fail(self) -> None:
        raise LookupError("nothing there")

    def another(self) -> Counter:
        return Counter(self.number)

    def unsendable(self) -> Any:
        return lambda: None

    def _private(self) -> str:
        return "private"


def squares(count: int) -> Any:
    for number in range(count):
        yield number * number


class Counters(BaseManager):
    """Serves counters."""


Counters.register("Counter", Counter, method_to_typeid={"another": "Hidden"})
Counters.register("Private", Counter, exposed=("_private",))
Counters.register("Hidden", create_method=False)


class Generators(SyncManager):
    """Serves generators."""


Generators.register("squares", squares, SyncManager._registry["Iterator"][-1])


def count(shared: Any, key: str, times: int) -> None:
    shared[key] = 0
    for _ in range(times):
        shared[key] += 1


def use_everything(shared: Any, numbers: Any, queue: Any, lock: Any, event: Any) -> None:
    with lock:
        shared["child"] = os.getpid()
        numbers.append(3)
    queue.put(("from", "child"))
    event.wait()


def hold(lock: Any, told: Any) -> None:
    lock.acquire()
    told.send("held")
    signal.pause()


def wait_for(lock: Any, told: Any) -> None:
    told.send("waits")
    lock.acquire()


def keep(proxy: Any, told: Any) -> None:
    assert len(proxy) == 0
    told.send("kept")
    signal.pause()


def start_and_tell(told: Any) -> None:
    manager = SyncManager()
    manager.start()
    told.send(manager._process.pid)
    signal.pause()


def set_up(what: Any) -> None:
    globals()["PREPARED"] = what


def prepared() -> list[Any]:
    return [globals().get("PREPARED")]


SyncManager.register("prepared", prepared, SyncManager._registry["list"][-1])


def refuse() -> None:
    raise RuntimeError("not today")


def leave() -> None:
    os._exit(3)


def make_from_proxy(counter: Any, told: Any) -> None:
    told.send(counter.another().add(10))


def is_gone(pid: int, patience: float = 30.0) -> bool:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


def make_memory(manager, writer):
    """Make memory for a manager and end; tell its names."""
    memory, numbers = manager.SharedMemory(8), manager.ShareableList([1])
    memory.buf[:4] = b"made"
    writer.send((memory.name, numbers.shm.name))


def own_memory(method, writer):
    """Have a manager of memory, tell its server's process id and the names, and wait to be killed."""
    manager = SharedMemoryManager(ctx=billiard.get_context(method))
    manager.start()
    writer.send((manager._process.pid, manager.SharedMemory(8).name, manager.ShareableList([1]).shm.name))
    threading.Event().wait()
