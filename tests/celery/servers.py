"""A Redis of our own: on a socket in a private folder, without a port and without a file."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType

import redis

PATIENCE = 30.0


class RedisServer:
    """A server that lives as long as the ``with`` block.

    Attributes:
        socket: Where it listens.
        client: A connection to its database 0.
    """

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        self._log = folder / "redis.log"
        self._folder = folder

    def __enter__(self) -> RedisServer:
        program = shutil.which("redis-server")
        if program is None:
            raise FileNotFoundError(
                "redis-server is not installed: `apt-get install redis-server`, or `make celery`"
            )
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "dir": str(self._folder),
            "logfile": str(self._log),
            "save": "",
            "appendonly": "no",
            "databases": "256",
        }
        arguments = [word for name, value in settings.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.client = redis.Redis(unix_socket_path=str(self.socket), socket_timeout=None)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.client.ping()
            except redis.ConnectionError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.__exit__(None, None, None)
                    raise RuntimeError(f"redis-server does not start: {self._log.read_text()}") from None
                time.sleep(0.01)
            else:
                return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self._process.terminate()
        self._process.wait(PATIENCE)

    def url(self, database: int) -> str:
        """Give the address of one of the databases, as Celery writes it."""
        return f"redis+socket://{self.socket}?virtual_host={database}"
