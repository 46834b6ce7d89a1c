"""Threads that keep everything busy that a fork could find half-done."""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import queue
import random
import sys
import tempfile
import threading


class Hammer:
    """Keeps locks, logging, files, memory, imports, random numbers and the collector busy, a thread for each,
    as long as the context lasts.
    """

    def __init__(self):
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._queue = queue.Queue()
        self._files = [tempfile.TemporaryFile("w") for _ in range(2)]  # noqa: SIM115
        self._logger = logging.getLogger("hammer")
        self._logger.propagate = False
        self._handler = logging.StreamHandler(self._files[0])
        work = (self.locks, self.logs, self.prints, self.memory, self.imports, self.draws, self.collects)
        self._threads = [threading.Thread(target=self._again_and_again, args=(one,)) for one in work]

    def __enter__(self):
        self._logger.addHandler(self._handler)
        # They take turns often, so that each is found in the middle of something.
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-4)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join()
        sys.setswitchinterval(self._interval)
        self._logger.removeHandler(self._handler)
        for file in self._files:
            file.close()

    def _again_and_again(self, work):
        while not self._over.is_set():
            work()

    def locks(self):
        with self._lock:
            self._queue.put(None)
        self._queue.get()

    def logs(self):
        self._logger.warning("busy")
        logging.getLogger(f"hammer.{random.randrange(100)}")

    def prints(self):
        print("x" * 1000, file=self._files[1])

    def memory(self):
        small = [bytes(random.randrange(2000)) for _ in range(50)]
        large = bytearray(random.randrange(3 << 20))
        del small, large

    def imports(self):
        for name in ("colorsys", "stringprep", "there_is_no_such_module"):
            sys.modules.pop(name, None)
            with contextlib.suppress(ImportError):
                importlib.import_module(name)

    def draws(self):
        random.seed(random.random())

    def collects(self):
        gc.collect()
