"""What programs define in their main module: in a file, on the command line, typed in."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: How a program gets to the interpreter.
WAYS = ("command", "script", "stdin", "interactive")

#: Defines and uses everything that may be defined. It works without a guard where no child imports it.
PROGRAM = """
import os, sys
import billiard

factor = 3

class Pair:
    def __init__(self, a, b):
        self.a, self.b = a, b

class Refused(Exception):
    pass

def scale(x):
    return factor * x

def swap(pair):
    return Pair(pair.b, pair.a)

def refuse(x):
    raise Refused(x)

def begin(value):
    os.environ["BEGUN"] = str(value * factor)

def begun():
    return os.environ["BEGUN"]

def caught(pool):
    try:
        pool.apply(refuse, (4,))
    except Refused as error:
        return error.args

def work(**options):
    method, chosen = os.environ["METHOD"], os.environ["CHOSEN"]
    by = {"serializer": "cloudpickle"} if chosen == "pool" else {}
    context = billiard.get_context(method, serializer=None if by else "cloudpickle")
    with context.Pool(2, begin, (5,), **by) as pool:
        swapped = pool.apply(swap, (Pair(1, 2),))
        print(type(swapped) is Pair, swapped.a, swapped.b)
        print(pool.map(scale, range(3)), list(pool.imap(lambda x: scale(x) + factor, range(3))))
        print(caught(pool), pool.apply(begun))
    other = context.Process(target=begin, args=(7,), **by)
    other.start()
    other.join()
    print(other.exitcode)

if __name__ == "__main__":
    work()

"""

TOLD = """\
True 2 1
[0, 3, 6] [3, 6, 9]
(4,) 15
0
"""


@pytest.fixture
def run(script_file, monkeypatch):
    """Give a program to the interpreter in one of the ways."""

    def run(source, way, **environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        arguments = {
            "command": ["-c", source],
            "script": [script_file(source)],
            "stdin": ["-"],
            "interactive": ["-i", "-q", "-"],
        }[way]
        typed = source if way in ("stdin", "interactive") else ""
        command = [sys.executable, *arguments]
        return subprocess.run(command, input=typed, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.mark.parametrize("chosen", ["pool", "context"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_what_a_program_defines_is_sent_by_value(run, way, method, chosen):
    done = run(PROGRAM, way, METHOD=method, CHOSEN=chosen)
    assert (done.returncode, done.stdout) == (0, TOLD), done.stderr
    # An interactive interpreter prompts there.
    assert set(done.stderr) <= (set(">. \n") if way == "interactive" else set())


BY_NAME = """
import os
import billiard

class Refused(Exception):
    pass

def scale(x):
    if x < 0: raise Refused(x)
    return 3 * x

def main():
    with billiard.get_context(os.environ["METHOD"]).Pool(2, scale, (1,)) as pool:
        print(pool.map(scale, range(3)))
        try:
            pool.apply(scale, (-1,))
        except Refused as error:
            print(error.args)

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("how", ["script", "module"])
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_what_is_in_a_file_is_found_by_name(script_file, tmp_path, monkeypatch, method, how):
    path = script_file(BY_NAME)
    monkeypatch.setenv("METHOD", method)
    monkeypatch.chdir(tmp_path)
    what = [path] if how == "script" else ["-m", "program"]
    command = [sys.executable, *what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 3, 6]\n(-1,)\n", "")


TYPED_IN = """
import os
import billiard

def scale(x):
    return 3 * x

context = billiard.get_context(os.environ["METHOD"])

def refused(make):
    try:
        make()
    except Exception as error:
        print(type(error).__name__, error)

refused(lambda: context.Process(target=scale, args=(1,)).start())
refused(lambda: context.Pool(1, scale, (1,)))
pool = context.Pool(1)
refused(lambda: pool.apply(scale, (1,)))
print(pool.apply(abs, (-1,)))
pool.terminate()
"""


@pytest.mark.parametrize("way", ["command", "stdin", "interactive"])
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_what_was_typed_in_cannot_be_sent_by_name(run, way, method):
    done = run(TYPED_IN, way, METHOD=method)
    process, pool, job, last = done.stdout.splitlines()
    for line in (process, pool):
        assert line.startswith("PicklingError 'scale' is defined in __main__, which has no file")
        assert 'serializer="cloudpickle"' in line
        assert ("interactive" in line) == (way == "interactive")
    assert job.startswith("AttributeError")
    assert "'scale'" in job
    assert last == "1"
