"""The parent is killed at random moments. Nobody outlives it, and nothing of it is left.

The randomness is seeded; the seed is in the name of the test. ``BILLIARD_CHAOS=4`` makes it 150 moments.
"""

from __future__ import annotations

import os
import random
import threading
import time

import pytest
from hostilework import CHAOS, METHODS, PATIENCE, Tree, pid, sleep, until

import billiard
from billiard.forkserver import _forkserver

SCENES = [
    ("starting",),
    ("pool", "sleep"),
    ("pool", "busy"),
    ("pool", "idle"),
    ("pool", "deaf"),
    ("pool", "hold_the_interpreter"),
    ("initializing",),
    ("processes", "sleep"),
    ("processes", "busy"),
    ("family",),
]


@pytest.fixture
def census(leak_census):  # noqa: ARG001
    """Count what is left after the fork server has gone."""
    yield
    _forkserver._stop()


@pytest.fixture
def endless(tmp_path):
    """Where a module is found whose import never ends."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "endless_module.py").write_text(
        "import os, time\nos.write(1, b'importing\\n')\ntime.sleep(600)\n"
    )
    path = [str(tmp_path / "modules"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path)}


@pytest.mark.parametrize("seed", range(CHAOS))
@pytest.mark.parametrize("scene", SCENES, ids="-".join)
@pytest.mark.parametrize("method", METHODS)
def test_nobody_outlives_a_parent_that_is_killed(tmp_path, method, scene, seed):
    chance = random.Random(f"{method} {scene} {seed}")
    name, *details = scene
    with Tree(tmp_path, name, method, *details) as tree:
        tree.expect("ready")
        time.sleep(chance.uniform(0, 0.3 if name == "starting" else 0.05))
        tree.program.kill()
        tree.ends()


@pytest.mark.parametrize("daemon", ["daemon", "no daemon"])
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_child_that_is_importing_does_not_outlive_its_parent(tmp_path, endless, method, daemon):
    with Tree(tmp_path, "importing", method, daemon, environment=endless) as tree:
        assert {tree.program.stdout.readline(), tree.program.stdout.readline()} == {"ready\n", "importing\n"}
        tree.program.kill()
        tree.ends()


def test_a_fork_server_that_is_loading_does_not_outlive_its_owner(tmp_path, endless):
    with Tree(tmp_path, "preloading", environment=endless) as tree:
        tree.expect("ready", "importing")
        tree.program.kill()
        tree.ends()


@pytest.mark.parametrize("method", METHODS)
def test_children_outlive_the_thread_that_started_them(method, census):  # noqa: ARG001
    """Asking the kernel for a signal at the parent's death would mean the death of that thread."""
    context = billiard.get_context(method)
    children, pools = [], []

    def start():
        children.extend(context.Process(target=sleep, daemon=daemon) for daemon in (True, False))
        for child in children:
            child.start()
        pools.append(context.Pool(2))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    until(lambda: str(thread.native_id) not in os.listdir("/proc/self/task"))
    pool = pools.pop()
    workers = {worker.pid for worker in pool._pool}
    try:
        assert {pool.apply_async(pid).get(PATIENCE) for _ in range(20)} <= workers
        assert {worker.pid for worker in pool._pool} == workers
        assert all(child.is_alive() for child in children)
    finally:
        pool.terminate()
        pool.join()
        for child in children:
            child.kill()
            child.join()
