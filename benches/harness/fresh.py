"""Runs small programs in interpreters of their own, as users run theirs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).resolve().parents[1] / "programs"

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""Packages are installed compiled; one that is used from its source tree is compiled by the first run."""


def run(*arguments: str, out: Any = subprocess.DEVNULL) -> None:
    """Run the interpreter to its end.

    Raises:
        CalledProcessError: It failed; what it says goes to our own standard error.
    """
    command = [sys.executable, *arguments]
    subprocess.run(command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=out, check=True)


def answer(program: str, *arguments: str) -> Any:
    """Run one of the programs and take the JSON that it prints."""
    # A file, not a pipe: a server that outlives the program would keep a pipe open.
    with tempfile.TemporaryFile("w+") as out:
        run(str(PROGRAMS / program), *arguments, out=out)
        out.seek(0)
        return json.load(out)
