"""Modules that workers find loaded: who loads them, when, and how often."""

from __future__ import annotations

import itertools
import os
import sys

import poolwork
import pytest
import startworks as works

import billiard
from billiard import forkserver
from billiard.pool import Pool

_numbers = itertools.count()


class Recorded:
    """Modules that note, each time they are imported, which process imports them."""

    def __init__(self, folder):
        self.folder = folder
        self.log = folder / "imports"
        self.log.touch()

    def module(self, then="", name=None):
        """Write a module. Its name is new, since a fork server does not load anything twice."""
        name = name or f"recorded_{next(_numbers)}"
        path = self.folder / (name.replace(".", "/") + ".py")
        path.parent.mkdir(exist_ok=True)
        note = f"import os\nwith open({str(self.log)!r}, 'a') as file:\n"
        path.write_text(note + f"    file.write(f'{name} {{os.getpid()}}\\n')\n{then}")
        return name

    def lines(self):
        return self.log.read_text().splitlines()


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield Recorded(tmp_path)
    for name in set(sys.modules) - before:
        if name.startswith("recorded_"):
            del sys.modules[name]


def loader(method, worker):
    """The process that loads a module."""
    return {"fork": os.getpid(), "forkserver": forkserver._forkserver._child.pid, "spawn": worker}[method]


def test_a_module_is_loaded_once_where_it_is_shared_and_before_the_initializer(start, method, recorded):
    name = recorded.module()
    pool = start(1, works.note, (str(recorded.log),), maxtasksperchild=1, preload=[name])
    told = [pool.apply(works.is_loaded, (name,)) for _ in range(3)]
    pool.close()
    pool.join()
    assert [loaded for loaded, _ in told] == [True] * 3
    workers = [pid for _, pid in told]
    lines = recorded.lines()
    assert [line for line in lines if line.startswith("init ")][:3] == [f"init {pid}" for pid in workers]
    imports = [line for line in lines if line.startswith(name)]
    if method == "spawn":
        assert imports[:3] == [f"{name} {pid}" for pid in workers]
        assert all(lines.index(f"{name} {pid}") < lines.index(f"init {pid}") for pid in workers)
    else:
        assert imports == [f"{name} {loader(method, None)}"]
        assert lines[0] == imports[0]


def test_modules_of_a_package(start, method, recorded):
    package = recorded.module(name=f"recorded_package_{method}.__init__").rpartition(".")[0]
    inner, other = recorded.module(name=f"{package}.inner"), recorded.module()
    pool = start(1, preload=(name for name in (inner, other)))
    loaded, worker = pool.apply(works.is_loaded, (package, inner, other))
    assert loaded
    pid = loader(method, worker)
    assert recorded.lines() == [f"{package}.__init__ {pid}", f"{inner} {pid}", f"{other} {pid}"]


def test_pools_add_to_what_the_fork_server_has_loaded(make_pool, recorded, fork_server):  # noqa: ARG001
    context = billiard.get_context("forkserver")
    server = forkserver._forkserver._child.pid
    first, second = recorded.module(), recorded.module()
    one = make_pool(1, context=context, preload=[first])
    two = make_pool(1, context=context, preload=[first, second])
    assert one.apply(works.is_loaded, (first,))[0]
    assert two.apply(works.is_loaded, (first, second))[0]
    assert forkserver._forkserver._child.pid == server
    assert recorded.lines() == [f"{first} {server}", f"{second} {server}"]


STARTS_THE_SERVER = """
import os, sys
import billiard
from billiard import forkserver
import startworks

if __name__ == "__main__":
    pool = billiard.get_context("forkserver").Pool(2, preload=sys.argv[1:])
    assert all(loaded for loaded, _ in pool.map(startworks.is_loaded, sys.argv[1:] * 2, chunksize=1))
    first = forkserver._forkserver._child
    print(first.pid)
    # Its successor loads them too.
    os.kill(first.pid, 9)
    first.wait(30)
    os.kill(pool._pool[0].pid, 9)
    os.kill(pool._pool[1].pid, 9)
    assert all(loaded for loaded, _ in pool.map(startworks.is_loaded, sys.argv[1:] * 2, chunksize=1))
    print(forkserver._forkserver._child.pid)
"""


def test_a_fork_server_that_is_started_later_or_again_loads_them(script, recorded):
    name = recorded.module()
    done = script(STARTS_THE_SERVER, name)
    assert done.returncode == 0, done.stderr
    assert recorded.lines() == [f"{name} {pid}" for pid in done.stdout.split()]


@pytest.mark.usefixtures("leak_census")
@pytest.mark.parametrize(
    ("then", "error"),
    [("import no_such_module", ImportError), ("raise ArithmeticError('broken')", ArithmeticError)],
)
def test_a_copy_of_this_process_needs_what_can_be_loaded_here(recorded, then, error):
    with pytest.raises(error):
        Pool(1, preload=[recorded.module(then)], context=billiard.get_context("fork"))
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        Pool(1, preload=["no_such_module"], context=billiard.get_context("fork"))


def test_what_the_fork_server_cannot_load_is_left_to_the_workers(make_pool, recorded, fork_server):  # noqa: ARG001
    server = forkserver._forkserver._child.pid
    name = recorded.module(f"if os.getpid() == {server}: raise SystemExit(7)")
    pool = make_pool(1, context=billiard.get_context("forkserver"), preload=[name])
    assert pool.apply(works.is_loaded, (name,)) == (True, pool._pool[0].pid)
    assert recorded.lines() == [f"{name} {server}", f"{name} {pool._pool[0].pid}"]
    assert forkserver._forkserver._child.pid == server


def test_a_module_that_starts_a_thread(start, method, recorded):
    """The thread lives where the module was loaded, and not in copies of that process."""
    name = recorded.module(
        "import threading\nover = threading.Event()\n"
        "thread = threading.Thread(target=over.wait, daemon=True)\nthread.start()\n"
    )
    pool = start(2, preload=[name])
    assert pool.map(works.thread_lives, [name] * 4, chunksize=1) == [method == "spawn"] * 4
    os.kill(pool.apply(poolwork.pid), 9)
    assert pool.map(poolwork.double, range(20), chunksize=1) == [2 * x for x in range(20)]
    if method == "fork":
        sys.modules[name].over.set()
        sys.modules[name].thread.join()


@pytest.mark.usefixtures("leak_census")
@pytest.mark.parametrize("names", ["os", b"os", 5, [1], ["os", None], [["os"]]])
def test_preload_takes_a_list_of_names(method, names):
    with pytest.raises(TypeError, match=r"preload|not iterable"):
        Pool(1, preload=names, context=billiard.get_context(method))
