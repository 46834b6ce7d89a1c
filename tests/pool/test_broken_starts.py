"""Workers that cannot begin: the pool breaks, says why, once, and starts only so many of them."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import poolwork
import pytest
import startworks as works

import billiard
from billiard import _service
from billiard.einfo import RemoteTraceback
from billiard.exceptions import RestartFreqExceeded
from billiard.pool import Pool, Worker

#: Behind the first workers, so many are tried one by one.
MOST_RETRIES = 6


@pytest.fixture(autouse=True)
def quiet(caplog):
    """The pool logs every worker that it loses."""
    caplog.set_level("CRITICAL")


@pytest.fixture
def only_here(monkeypatch):
    """A module that no child can import: a class for pools, and a serializer."""
    module = types.ModuleType("only_here")
    monkeypatch.setitem(sys.modules, "only_here", module)
    worker = type("Worker", (Worker,), {"__module__": "only_here"})
    module.Worker, module.Pool = worker, type("Pool", (Pool,), {"Worker": worker})
    for name in ("dumps", "loads"):
        function = types.FunctionType(getattr(works, name).__code__, vars(works), name)
        function.__module__ = "only_here"
        setattr(module, name, function)
    return module


def initializer(function, *args):
    return {"initializer": function, "initargs": args}


#: What no worker survives, and what the pool has to say about it.
ANYWHERE = {
    "raises": (initializer(works.refuse, "no database"), ["in refuse", "LookupError: no database"]),
    "raises what cannot be sent": (initializer(works.raise_local, "no way"), ["in raise_local", "no way"]),
    "exits well": (initializer(works.leave, 0), ["in leave", "SystemExit: 0"]),
    "exits with a text": (initializer(works.leave, "because"), ["in leave", "SystemExit: because"]),
    "crashes": (initializer(works.crash), ["Fatal Python error: Segmentation fault", "in crash_here"]),
    "hook raises": ({"kind": works.RefusingPool}, ["in on_loop_start", " is no good"]),
}
#: The same of workers that have to read what they need.
ELSEWHERE = {
    "argument cannot be read": (initializer(works.remember, works.Unreadable()), ["ValueError", "no number"]),
    "module is missing": ({"preload": ["no_such_module"]}, ["No module named 'no_such_module'"]),
}


def test_a_pool_says_why_no_worker_can_begin(start, method, only_here, capfd):
    cases = dict(ANYWHERE)
    if method != "fork":
        missing = ["ModuleNotFoundError: No module named 'only_here'"]
        cases.update(ELSEWHERE)
        cases["class is missing"] = {"kind": only_here.Pool}, missing
        # It is read when all the rest has been, and the descriptor for last words has an owner already.
        cases["serializer is missing"] = {"serializer": (only_here.dumps, only_here.loads)}, missing
    # All at once, since each takes its time to give up.
    ups = {name: [] for name in cases}
    pools = {
        name: start(2, on_process_up=ups[name].append, **options) for name, (options, _) in cases.items()
    }
    for name, pool in pools.items():
        why = reason(pool)
        for text in cases[name][1]:
            assert text in why, name
        assert 2 < len(ups[name]) <= 2 + MOST_RETRIES, name
        with pytest.raises(RestartFreqExceeded):
            pool.maintain_pool()
    # Only what a worker has logged itself, as programs are used to.
    err = capfd.readouterr().err
    assert err.count("Traceback") == err.count("Pool process")


def reason(pool):
    """What stands behind the error that every call of a broken pool raises."""
    with pytest.raises(RestartFreqExceeded) as caught:
        pool.apply_async(poolwork.double, (1,)).get(60)
    assert "cannot be started" in str(caught.value)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    for call in (pool.map, pool.imap, pool.map_async):
        with pytest.raises(RestartFreqExceeded) as later:
            call(poolwork.double, [1])
        assert str(later.value.__cause__) == str(caught.value.__cause__)
    return str(caught.value.__cause__)


def test_jobs_that_wait_for_a_first_worker_end_when_there_is_none(start):
    pool = start(1, works.refuse, ("no database",))
    results = [pool.apply_async(poolwork.double, (x,)) for x in range(10)]
    stream = pool.imap(poolwork.double, range(3))
    mapped = pool.map_async(poolwork.double, range(10))
    for result in [*results, mapped]:
        with pytest.raises(RestartFreqExceeded):
            result.get(60)
    with pytest.raises(RestartFreqExceeded):
        next(stream)


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"initializer": lambda: 0}, r"\.initializer"),
        ({"initializer": print, "initargs": [1, {"a": threading.Lock()}]}, r"\.initargs\[1\]\['a'\]"),
        ({"on_process_exit": lambda *_: 0}, r"\.on_exit"),
    ],
)
@pytest.mark.usefixtures("fork_server", "leak_census")
def test_what_cannot_be_sent_to_a_worker_is_the_constructors_error(method, options, named):
    with pytest.raises(pickle.PicklingError, match=rf"cannot send .*PoolWorker-.*{named} to the child: "):
        Pool(2, context=billiard.get_context(method), **options)


# --- programs ---------------------------------------------------------------------------------

PIPES = {"capture_output": True, "text": True}

UNGUARDED = """
import os, sys
import billiard
from billiard import _service

with open(sys.argv[2], "a") as file:
    file.write(f"{os.getpid()} ")

def double(x):
    return 2 * x

pool = billiard.get_context(sys.argv[1]).Pool(2)
print(pool.map(double, range(4)))
"""

CATCHES_AND_EXITS = """
import os, sys
import billiard
from billiard import _service

with open(sys.argv[2], "a") as file:
    file.write(f"{os.getpid()} ")

pool = None
try:
    pool = billiard.get_context(sys.argv[1]).Pool(2)
except RuntimeError:
    pass
if pool is None:
    sys.exit("it did not work")
print(pool.map(abs, range(4)))
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_program_that_makes_a_pool_whenever_it_is_imported(script_file, tmp_path, method):
    programs = {"unguarded": UNGUARDED, "exits": CATCHES_AND_EXITS}
    reasons = {"unguarded": 'if __name__ == "__main__":', "exits": "SystemExit: it did not work"}
    paths = {name: script_file(source, name) for name, source in programs.items()}

    def run(name, *what):
        imports = str(tmp_path / what[0].replace("/", "_")) + name
        command = [sys.executable, *what, method, imports]
        return name, imports, subprocess.run(command, cwd=tmp_path, timeout=60, check=False, **PIPES)

    # All at once, since each takes its time to give up.
    with ThreadPoolExecutor() as threads:
        runs = [threads.submit(run, name, path) for name, path in paths.items()]
        runs += [threads.submit(run, name, "-m", name) for name in programs]
    for name, imports, done in [run.result() for run in runs]:
        assert (done.returncode, done.stdout) == (1, "")
        # One error: the pool's, and behind it the workers'.
        assert done.stderr.count("RestartFreqExceeded") == done.stderr.count(reasons[name]) == 1, done.stderr
        assert done.stderr.count("Traceback (most recent call last)") == 2, done.stderr
        exits = re.findall("^Process '.*' exited with", done.stderr, re.MULTILINE)
        assert len(exits) <= 2 + MOST_RETRIES
        # The program itself, the fork server, and the workers.
        assert len(Path(imports).read_text().split()) <= 2 + 2 + MOST_RETRIES


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.usefixtures("leak_census")
def test_a_construction_that_is_interrupted_at_its_end_leaves_nothing(make_pool, monkeypatch, after):
    def start(thread, before=_service.PoolThread.start):
        if after:
            before(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(_service.PoolThread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        make_pool(2)
