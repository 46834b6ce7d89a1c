"""Without a folder for shared memory, and so without ``shm_open`` and ``sem_open``, all of it works."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, os, sys
import billiard
from billiard.pool import shared

def asked_of_the_library(function, *rest):
    library = ctypes.CDLL(None, use_errno=True)
    function = getattr(library, function, None) or getattr(ctypes.CDLL("librt.so.1"), function)
    function.restype = ctypes.c_void_p
    return function(b"/billiard-attempt", os.O_CREAT | os.O_RDWR, 0o600, *rest)

def work(value, array, queue, simple, joinable, lock, event):
    with value.get_lock():
        value.value += 1
    array[1] = 2.5
    queue.put(b"x" * 300_000)
    simple.put("simple")
    assert joinable.get() == "task"
    joinable.task_done()
    with lock:
        event.set()

def add(position):
    return shared()["numbers"][position] + 1

if __name__ == "__main__":
    # What the original and the standard library are made of.
    assert asked_of_the_library("sem_open", 1) is None
    assert ctypes.c_int(asked_of_the_library("shm_open")).value == -1
    ctx = billiard.get_context(sys.argv[1])
    things = (
        ctx.Value("i", 1), ctx.Array("d", 3), ctx.Queue(), ctx.SimpleQueue(), ctx.JoinableQueue(),
        ctx.Lock(), ctx.Event(),
    )
    value, array, queue, simple, joinable, lock, event = things
    joinable.put("task")
    child = ctx.Process(target=work, args=things)
    child.start()
    assert len(queue.get(timeout=30)) == 300_000
    assert simple.get() == "simple"
    joinable.join()
    assert event.wait(30)
    child.join()
    assert (child.exitcode, value.value, list(array)) == (0, 2, [0.0, 2.5, 0.0])
    with ctx.Pool(2, shared={"numbers": [1, 2, 3]}) as pool:
        assert pool.map(add, range(3)) == [2, 3, 4]
    with ctx.Manager() as manager:
        served = manager.dict(key=1)
        served["other"] = 2
        assert dict(served) == {"key": 1, "other": 2}
    print("all of it works")
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_everything_shared_works_without_a_folder_for_it(method, tmp_path):
    unshare = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--mount"]
    hide = [*unshare, "sh", "-c", 'mount -t tmpfs -o ro,mode=000 none /dev/shm && exec "$@"', "sh"]
    try:
        subprocess.run([*hide, "true"], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no mount namespaces here: {error}")
    file = tmp_path / "without.py"
    file.write_text(PROGRAM)
    command = [*hide, sys.executable, str(file), method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stderr, done.stdout) == ("", "all of it works\n")
