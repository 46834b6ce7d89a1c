"""What a child that is no copy of its parent is told of it, and when."""

from __future__ import annotations

import logging
import os
import sys

import kinwork
import pytest

import billiard
from billiard import process, spawn, util


@pytest.fixture(params=["spawn", "forkserver"])
def method(request):
    """The name of a start method whose children are no copies."""
    return request.param


KEYS = """
import billiard
from billiard import spawn
if __name__ == "__main__":
    print(*sorted(spawn.get_preparation_data("n")))
    billiard.get_logger()
    print(*sorted(spawn.get_preparation_data("n")))
"""


def test_what_is_told(script, original_script):
    ours, theirs = (
        [set(line.split()) for line in run(KEYS).stdout.splitlines()] for run in (script, original_script)
    )
    assert [mine - his for mine, his in zip(ours, theirs, strict=True)] == [{"parent_name"}] * 2
    assert [his - mine for mine, his in zip(ours, theirs, strict=True)] == [set()] * 2


def test_the_values_of_what_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(util, "_logger", None)
    monkeypatch.setattr(sys, "path", ["", "/somewhere"])
    monkeypatch.setattr(sys, "argv", ["program", "argument"])
    monkeypatch.chdir(tmp_path)
    told = spawn.get_preparation_data("n")
    assert told["name"] == "n"
    assert told["authkey"] is billiard.current_process().authkey
    assert told["log_to_stderr"] is util._log_to_stderr
    assert told["sys_path"] == [process.ORIGINAL_DIR, "/somewhere"]
    assert told["sys_argv"] == ["program", "argument"]
    assert (told["orig_dir"], told["dir"]) == (process.ORIGINAL_DIR, str(tmp_path))
    assert told["start_method"] == billiard.get_start_method()
    util.get_logger().setLevel(13)
    assert spawn.get_preparation_data("n")["log_level"] == 13
    logging.getLogger("multiprocessing").setLevel(logging.NOTSET)


# A child tells of itself while it imports the main module, which comes last.
SEEN = """
import billiard, multiprocessing, os, sys
from billiard import process, spawn, util
def tell():
    me = billiard.current_process()
    print(me.name, bytes(me.authkey), util._log_to_stderr, util._logger.level, sys.path[0], sys.argv[1:],
          os.getcwd(), process.ORIGINAL_DIR, billiard.get_start_method(), __name__,
          me is multiprocessing.current_process(), getattr(me, "_inheriting", False), flush=True)
if __name__ == "__main__":
    billiard.current_process().authkey = b"key"
    util.log_to_stderr(35)
    billiard.set_start_method("spawn")
    billiard.set_forkserver_preload([])
    sys.path.insert(0, "/first")
    sys.argv.append("more")
    os.chdir("/")
    child = billiard.get_context(sys.argv[1]).Process(target=tell, name="n")
    child.start()
    child.join()
else:
    tell()
"""


def test_everything_is_in_place_when_the_main_module_is_imported(script, original_script, method, tmp_path):
    ours, theirs = (run(SEEN, method) for run in (script, original_script))
    assert (ours.stdout, ours.stderr) == (theirs.stdout, "")
    first, second = ours.stdout.splitlines()
    where = f"b'key' True 35 /first ['{method}', 'more'] / {tmp_path}"
    # The object comes after that, and its class may ask for a start method of its own.
    assert first == f"n {where} spawn __mp_main__ False True"
    assert second == f"n {where} {method} __mp_main__ True False"


def test_it_is_applied_in_this_order():
    told = ["name", "authkey", "log_to_stderr", "log_level", "sys_path", "sys_argv", "dir", "orig_dir"]
    told += ["start_method", "init_main_from_name", "init_main_from_path"]
    assert [name for name in spawn._PREPARATIONS if name in told] == told


def test_a_part_of_it_will_do(script):
    done = script(
        """
        import os, sys
        from billiard import process, spawn
        spawn.prepare({})
        spawn.prepare({"name": "n", "dir": "/", "sys_argv": ["a"], "log_to_stderr": False, "log_level": None})
        print(process.current_process().name, os.getcwd(), sys.argv)
        """
    )
    assert (done.stdout, done.stderr) == ("n / ['a']\n", "")


def test_the_environment_is_the_childs(ask, monkeypatch):
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "no.such.module")
    monkeypatch.delenv("DJANGO_PROJECT_DIR", raising=False)
    before = dict(os.environ)
    assert ask(kinwork.environment, "MULTIPROCESSING_FORKING_DISABLE", "DJANGO_PROJECT_DIR") == ["1", None]
    assert dict(os.environ) == before
    assert "MULTIPROCESSING_FORKING_DISABLE" not in os.environ


def test_a_fork_keeps_its_environment():
    assert os.environ.get("MULTIPROCESSING_FORKING_DISABLE") is None
    child = billiard.get_context("fork").Process(
        target=kinwork.fail_if_set, args=("MULTIPROCESSING_FORKING_DISABLE",)
    )
    child.start()
    child.join()
    assert child.exitcode == 0
    child.close()


LOGGING = """
import billiard, logging, sys
def child():
    logger = billiard.get_logger()
    logger.info("heard")
    print(logger.level, len(logger.handlers), logger._rudimentary_setup, flush=True)
if __name__ == "__main__":
    process = billiard.get_context(sys.argv[1]).Process(target=child, name="n")
    process.start()
    process.join()
"""


@pytest.mark.parametrize("file", [False, True])
def test_logging_can_be_set_up_by_the_environment(script, original_script, method, tmp_path, file):
    env = {"_MP_FORK_LOGLEVEL_": "20", "_MP_FORK_LOGFORMAT_": "%(processName)s says %(message)s"}
    if file:
        env["_MP_FORK_LOGFILE_"] = str(tmp_path / "log")
    for run in (script, original_script):
        done = run(LOGGING, method, **env)
        assert done.stdout == "20 1 True\n"
        logged = (tmp_path / "log").read_text() if file else done.stderr
        assert logged.count("n says heard\n") == 1
        assert "n says child process " in logged
        assert "n says process " in logged
        if file:
            (tmp_path / "log").unlink()


REMOVED = """
import os, sys, tempfile
folder = tempfile.mkdtemp()
os.chdir(folder)
if sys.argv[2] == "before":
    os.rmdir(folder)
import billiard
from billiard import process
if sys.argv[2] == "after":
    os.rmdir(folder)
for name in ("fork", sys.argv[1]):
    child = billiard.get_context(name).Process(target=print, args=("child",))
    child.start()
    child.join()
    print(child.exitcode, flush=True)
print(process.ORIGINAL_DIR == (None if sys.argv[2] == "before" else folder))
"""


BARE = """
import os, tempfile
folder = tempfile.mkdtemp()
os.chdir(folder)
os.rmdir(folder)
import socket
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_folder_that_is_gone_is_no_obstacle(script, method, when):
    if "SystemError" in script("", command=("-c", BARE)).stderr:
        pytest.skip("this interpreter cannot import its own modules there: 3.13.0 cannot, 3.13.1 can")
    done = script("", method, when, command=("-c", REMOVED))
    assert (done.stdout, done.stderr) == ("child\n0\n" * 2 + "True\n", "")


def test_the_start_method_of_the_default_context_is_settled_by_telling_it(script, original_script, method):
    source = """
    import billiard, sys
    if __name__ == "__main__":
        child = billiard.get_context(sys.argv[1]).Process(target=int)
        print(billiard.get_start_method(allow_none=True))
        child.start()
        child.join()
        print(billiard.get_start_method(allow_none=True))
    """
    ours, theirs = (run(source, method) for run in (script, original_script))
    assert ours.stdout == theirs.stdout == "None\nfork\n"
