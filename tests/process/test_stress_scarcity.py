"""Descriptors or processes run out, or are not there: what cannot be started is an error at the call, nothing
is half-started, and later everything works.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostilework import METHODS, PATIENCE

PROGRAMS = str(Path(__file__).with_name("scarcity.py"))


def run(*words, before=()):
    """Run one of the programs; answer what it says."""
    return subprocess.run(
        [*before, sys.executable, PROGRAMS, *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=False,
    )


def assert_over(done):
    assert (done.stdout, done.returncode) == ("over\n", 0), done.stderr


@pytest.mark.parametrize(
    ("method", "server"),
    [("fork", "none"), ("spawn", "none"), ("forkserver", "running"), ("forkserver", "new")],
)
def test_a_start_without_descriptors_is_refused_and_leaves_nothing(method, server):
    assert_over(run("start_without_descriptors", method, server))


@pytest.mark.parametrize("left", [0, 1, 2, 5, 8])
@pytest.mark.parametrize("method", METHODS)
def test_a_pool_heals_that_had_no_descriptors_for_workers(method, left):
    assert_over(run("pool_without_descriptors", method, left))


@pytest.mark.parametrize("method", METHODS)
def test_a_start_without_processes_is_refused_and_leaves_nothing(method):
    assert_over(run("start_without_processes", method))


@pytest.mark.parametrize("closed", ["0", "1", "2", "01", "12", "012"])
@pytest.mark.parametrize("method", METHODS)
def test_everything_works_without_standard_streams(method, closed):
    assert_over(run("without_standard_streams", method, closed))


def test_everything_works_without_shared_memory_in_the_file_system():
    unshare = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--mount"]
    hide = [*unshare, "sh", "-c", 'mount -t tmpfs -o ro,mode=000 none /dev/shm && exec "$@"', "sh"]
    try:
        subprocess.run([*hide, "true"], check=True, capture_output=True, timeout=PATIENCE)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no mount namespaces here: {error}")
    assert_over(run("without_shared_memory", before=hide))
