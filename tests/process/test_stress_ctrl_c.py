"""Ctrl-C in a terminal, which the program and all its children get.

The parent says so once, no other traceback shows, and everybody ends. ``BILLIARD_CHAOS=4`` makes it four
times as many random moments; the seed is in the name of the test.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import time

import pytest
from hostilework import CHAOS, METHODS, PATIENCE, Tree

#: From 3.13 on, the interpreter colours what it shows in a terminal.
PLAIN = {"PYTHON_COLORS": "0"}
#: What is waited for when the keys are pressed, and how long it takes at most until that has begun.
SCENES = {
    "join daemon": 0.05,
    "join child": 0.05,
    "map_": 0.05,
    "with_map": 0.05,
    "get": 0.05,
    "start_many": 0.3,
    "start_pool": 0.3,
    "initialize": 0.05,
}


class Terminal:
    """A program that runs in a terminal of its own.

    Attributes:
        tree: The program.
        shown: What the terminal shows.
    """

    def __init__(self, folder, *words, environment=()):
        self._keys, inside = os.openpty()
        try:
            self.tree = Tree(
                folder,
                *words,
                environment={**PLAIN, **dict(environment)},
                stdin=inside,
                stdout=inside,
                stderr=inside,
            )
        finally:
            os.close(inside)
        self.shown = ""
        self._deadline = time.monotonic() + PATIENCE

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        os.close(self._keys)
        self.tree.__exit__(*exc_info)

    def until_shown(self, text):
        while text not in self.shown:
            assert self._read(), f"the program has ended:\n{self.shown}"

    def press(self, delay):
        time.sleep(delay)
        os.write(self._keys, b"\x03")

    def until_over(self):
        """Read until nobody has the terminal any more; answer how the program has ended."""
        while self._read():
            pass
        self.tree.ends()
        return self.tree.program.returncode

    def _read(self):
        left = self._deadline - time.monotonic()
        assert select.select([self._keys], [], [], max(0.0, left))[0], (
            f"this shows after {PATIENCE} s, and {self.tree.processes()} run:\n{self.shown}"
        )
        got = b""
        # The kernel's way to say that nobody is at the other end.
        with contextlib.suppress(OSError):
            got = os.read(self._keys, 65536)
        self.shown += got.decode()
        return got


def _is_one_keyboard_interrupt(shown):
    """Whether the terminal shows one traceback, with this error, and no other."""
    words = ("Traceback (most recent call last)", "\nKeyboardInterrupt", "Error:", "ignored", "exited with")
    return [shown.count(text) for text in words] == [1, 1, 0, 0, 0]


@pytest.mark.parametrize("seed", range(CHAOS))
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("method", METHODS)
def test_ctrl_c_shows_one_traceback_and_ends_everybody(tmp_path, method, scene, seed):
    chance = random.Random(f"{method} {scene} {seed}")
    name, *details = scene.split()
    with Terminal(tmp_path, name, method, *details) as terminal:
        terminal.until_shown("ready")
        terminal.press(chance.uniform(0, SCENES[scene]))
        assert terminal.until_over() == -signal.SIGINT
        assert _is_one_keyboard_interrupt(terminal.shown), terminal.shown


def test_ctrl_c_ends_a_program_whose_fork_server_is_loading(tmp_path):
    (tmp_path / "endless_module.py").write_text(
        "import os, time\nos.write(1, b'importing')\ntime.sleep(600)\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    with Terminal(tmp_path, "preloading", environment={"PYTHONPATH": path}) as terminal:
        terminal.until_shown("importing")
        terminal.press(0)
        assert terminal.until_over() == -signal.SIGINT
        assert _is_one_keyboard_interrupt(terminal.shown), terminal.shown


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("name", "end"), [("catch_in_join", "over 1"), ("catch_in_map", "over")])
def test_ctrl_c_is_one_exception_that_can_be_caught(tmp_path, method, name, end):
    with Terminal(tmp_path, name, method) as terminal:
        terminal.until_shown("ready")
        terminal.press(0.02)
        assert terminal.until_over() == 0
        assert terminal.shown.replace("^C", "").split("\r\n") == ["ready", "caught", end, ""]


@pytest.mark.parametrize("method", METHODS)
def test_ctrl_c_again_and_again_while_the_program_exits(tmp_path, method):
    with Terminal(tmp_path, "leave", method) as terminal:
        terminal.until_shown("ready")
        for _ in range(5):
            # Once it is gone, so is its terminal.
            with contextlib.suppress(OSError):
                terminal.press(0.02)
        terminal.until_over()
        # The interpreter shows what has ended its own exit.
        assert terminal.shown.count("Traceback") <= 1, terminal.shown
