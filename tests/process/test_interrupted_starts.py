"""A signal handler that raises may end a start at any instant: then there is a child that the program knows,
or none.
"""

from __future__ import annotations

import signal
from pathlib import Path

import hostilework
import pytest

PROGRAM = """
import os, random, signal, sys, time
import billiard

class Enough(Exception):
    pass

def stay():
    time.sleep(600)

fired = False

def raising(number, frame):
    global fired
    fired = True
    raise Enough

# What is raised inside a weak reference's callback goes nowhere: then the start goes on.
sys.unraisablehook = lambda unraisable: None

def children():
    listed = open(f"/proc/self/task/{os.getpid()}/children").read().split()
    return sorted(int(pid) for pid in listed)

def attempt(context, latest):
    '''Start a process, and be interrupted at a random instant. Returns whether the process was started.'''
    global fired
    process = context.Process(target=stay)
    started = fired = False
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, latest))
        process.start()
        started = True
        while not fired:
            time.sleep(0.001)
    except Enough:
        pass
    if not started and process._popen is None:
        assert process not in billiard.active_children()
        return False
    assert process in billiard.active_children()
    process.kill()
    process.join()
    return True

def main(method, times):
    context = billiard.get_context(method)
    # How long a start takes, once everything is loaded.
    for _ in range(2):
        begun = time.monotonic()
        process = context.Process(target=stay)
        process.start()
        took = time.monotonic() - begun
        process.kill()
        process.join()
    others = children()
    signal.signal(signal.SIGALRM, raising)
    begun = sum(attempt(context, 1.5 * took) for _ in range(times))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    deadline = time.monotonic() + 10
    while family(context) and time.monotonic() < deadline:
        time.sleep(0.01)
    print(children() == others or (children(), others), family(context), 0 < begun < times)

def family(context):
    '''Who still runs `stay`: with a fork server it is nobody's child here.'''
    from billiard import forkserver
    if context.get_start_method() != "forkserver":
        return []
    server = forkserver._forkserver._child.pid
    return open(f"/proc/{server}/task/{server}/children").read().split()

if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
"""


@pytest.mark.parametrize(("method", "times"), [("fork", 300), ("spawn", 100), ("forkserver", 300)])
def test_an_interrupted_start_leaves_nobody(script, method, times):
    done = script(PROGRAM, method, str(times))
    assert (done.stdout, done.stderr) == ("True [] True\n", "")


UNCAUGHT = """
import os, signal, sys, time
import billiard
from billiard import popen_fork

def stay():
    time.sleep(600)

def interrupted(self, child, watch, take=popen_fork.Popen._take):
    take(self, child, watch)
    print(child.pid, flush=True)
    raise KeyboardInterrupt

if __name__ == "__main__":
    popen_fork.Popen._take = interrupted
    billiard.get_context(sys.argv[1]).Process(target=stay).start()
"""


def test_a_program_that_ends_by_it_leaves_nobody(script, method):
    done = script(UNCAUGHT, method)
    assert done.returncode == -signal.SIGINT
    assert done.stderr.endswith("KeyboardInterrupt\n")
    hostilework.until(lambda: not Path(f"/proc/{int(done.stdout)}").exists())
