"""The fork server: what it loads, what becomes of it, and what that means for its children."""

from __future__ import annotations

import logging.handlers
import os
import select
import signal
import sys
import threading

import kinwork
import processwork
import pytest

import billiard
from billiard import forkserver, util

#: How long what must happen may take on a machine that is busy, in seconds.
PATIENCE = 30.0


@pytest.fixture
def server(leak_census, monkeypatch):  # noqa: ARG001
    """A fork server for one test."""
    server = forkserver.ForkServer()
    monkeypatch.setattr(forkserver, "_forkserver", server)
    yield server
    server._stop()


@pytest.fixture
def ctx(server):  # noqa: ARG001
    return billiard.get_context("forkserver")


# --- what it loads ---


@pytest.mark.parametrize("bad", ["__main__", [1], ["a", 2], 5, None, b"ab", [None]])
def test_a_bad_list_is_refused_when_it_is_given(server, bad):
    server.set_forkserver_preload(["good"])
    with pytest.raises(TypeError):
        server.set_forkserver_preload(bad)
    assert server._preload_modules == ["good"]


@pytest.mark.parametrize("good", [["a"], ("a", "b"), [], iter(["a", "b"])])
def test_any_series_of_names_is_a_list(server, good):
    names = list(good) if isinstance(good, (list, tuple)) else ["a", "b"]
    server.set_forkserver_preload(good)
    assert server._preload_modules == names


def test_the_main_module_is_loaded_unless_told_otherwise(server, monkeypatch):
    assert server._preload_modules == ["__main__"]
    monkeypatch.setattr(forkserver, "set_forkserver_preload", server.set_forkserver_preload)
    for context in (billiard, billiard.get_context("fork")):
        context.set_forkserver_preload(["colorsys"])
        assert server._preload_modules == ["colorsys"]
        server.set_forkserver_preload(["__main__"])


COUNTED = """
import billiard, os
with open("imports", "a") as file:
    print(__name__, file=file)
def show():
    print(os.environ["MP_MAIN_FILE"], flush=True)
if __name__ == "__main__":
    context = billiard.get_context("forkserver")
    if os.environ.get("PRELOAD") == "nothing":
        context.set_forkserver_preload([])
    for _ in range(3):
        child = context.Process(target=show)
        child.start()
        child.join()
"""


@pytest.mark.parametrize(("preload", "imports"), [("main", 1), ("nothing", 3)])
def test_the_main_module_is_imported_once_for_all_children(script, tmp_path, preload, imports):
    done = script(COUNTED, PRELOAD=preload)
    assert (done.stdout, done.stderr) == (f"{tmp_path / 'program.py'}\n" * 3, "")
    assert (tmp_path / "imports").read_text().split() == ["__main__"] + ["__mp_main__"] * imports


def test_modules_that_do_not_load_are_left_alone(script, tmp_path):
    bad = {
        "raises": "raise ImportError('in vain')",
        "leaves": "import sys; sys.exit(3)",
        "interrupts": "raise KeyboardInterrupt",
        "starts": "import billiard\nbilliard.get_context('forkserver').Process(target=int).start()",
    }
    for name, source in bad.items():
        (tmp_path / f"{name}.py").write_text(f"open('tried', 'a').write('{name} ')\n{source}\n")
    (tmp_path / "good.py").write_text("open('tried', 'a').write('good ')\n")
    done = script(
        """
        import billiard, sys
        def show(): print([name for name in sys.argv[1:] if name in sys.modules], flush=True)
        if __name__ == "__main__":
            context = billiard.get_context("forkserver")
            context.set_forkserver_preload([*sys.argv[1:], "nowhere", "__main__"])
            for _ in range(2):
                child = context.Process(target=show)
                child.start()
                child.join()
        """,
        *bad,
        "good",
    )
    assert (done.stdout, done.stderr) == ("['good']\n" * 2, "")
    assert (tmp_path / "tried").read_text().split() == [*bad, "good"]


def test_what_it_is_told_later_is_loaded_too(ctx, server):
    server.set_forkserver_preload([])
    assert _loaded(ctx, "colorsys") is False
    pid = server._child.pid
    server.set_forkserver_preload(["colorsys"])
    assert _loaded(ctx, "colorsys") is True
    # What is loaded stays loaded.
    server.set_forkserver_preload([])
    assert _loaded(ctx, "colorsys") is True
    assert server._child.pid == pid


def _loaded(ctx, name):
    child = ctx.Process(target=kinwork.leave_if_loaded, args=(name,))
    child.start()
    child.join()
    code = child.exitcode
    child.close()
    return code == 3


# --- what becomes of it ---


def test_it_is_started_once_and_when_it_is_needed(ctx, server):
    assert server._child is None
    server.ensure_running()
    pid = server._child.pid
    server.ensure_running()
    child = ctx.Process(target=int)
    child.start()
    child.join()
    child.close()
    assert server._child.pid == pid


def test_it_may_be_killed_at_any_time(ctx, server, pipe):
    # Its children live on, how they end is still known, and the next start makes a new one.
    (reader, writer), (released, release) = pipe(), pipe()
    staying, leaving = (
        ctx.Process(target=processwork.stay, args=(writer,)),
        ctx.Process(target=kinwork.leave_when_released, args=(writer, processwork.Descriptor(released), 7)),
    )
    for child in (staying, leaving):
        child.start()
        assert os.read(reader, 1) == b"r"
    first = server._child
    first.signal(signal.SIGKILL)
    first.wait()
    assert staying.is_alive()
    assert leaving.is_alive()
    os.write(release.fd, b"r")
    assert select.select([leaving.sentinel], [], [], PATIENCE)[0]
    leaving.join()
    staying.kill()
    staying.join()
    later = ctx.Process(target=processwork.leave, args=(4,))
    later.start()
    later.join()
    assert later.exitcode == 4
    assert server._child.pid != first.pid
    codes = leaving.exitcode, staying.exitcode
    for child in (staying, leaving, later):
        child.close()
    known = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 15)
    assert codes == ((7, -signal.SIGKILL) if known else (255, 255))


def test_a_child_has_a_server_of_its_own(ask):
    told = ask(kinwork.start_another, "forkserver", name="n")
    assert told["parents"] == (os.getpid(), told["pid"])
    assert told["code"] == 5
    assert told["names"] == ["ForkServerProcess", f"{told['identity'][0]}:1"]


def test_a_copy_of_this_process_has_a_server_of_its_own(ctx, server):
    server.ensure_running()
    pid = server._child.pid
    copy = billiard.get_context("fork").Process(target=kinwork.use_another_server, args=(server, pid))
    copy.start()
    copy.join()
    assert copy.exitcode == 5
    copy.close()
    child = ctx.Process(target=processwork.leave, args=(6,))
    child.start()
    child.join()
    assert (child.exitcode, server._child.pid) == (6, pid)
    child.close()


def test_a_module_that_ends_it_is_named(ctx, server, tmp_path, monkeypatch):
    (tmp_path / "fatal.py").write_text("import os; os._exit(9)")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    server.set_forkserver_preload(["fatal"])
    child = ctx.Process(target=int)
    monkeypatch.setattr(util.get_logger(), "handlers", [handler := logging.handlers.BufferingHandler(10)])
    child.start()
    told = [record.getMessage() for record in handler.buffer]
    assert [line.partition("; ")[2] for line in told] == ["it is tried once more", "children will load it"]
    assert all("ended with exit code 9 while it was loading fatal" in line for line in told)
    # No other server tries that.
    assert "fatal" not in server._preload_modules
    child.join()
    assert child.exitcode == 0
    child.close()


def test_a_module_that_ends_it_once_is_loaded_all_the_same(ctx, server, tmp_path, monkeypatch):
    (tmp_path / "moody.py").write_text(
        "import os, pathlib\nseen = pathlib.Path(__file__ + '.seen')\n"
        "if not seen.exists():\n    seen.touch()\n    os._exit(9)\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr(util.get_logger(), "handlers", [handler := logging.handlers.BufferingHandler(10)])
    server.set_forkserver_preload(["moody"])
    child = ctx.Process(target=kinwork.fail_unless_loaded, args=("moody",))
    child.start()
    child.join()
    assert (child.exitcode, len(handler.buffer)) == (0, 1)
    child.close()


def test_many_threads_may_need_it_first(ctx, server):
    codes = []

    def start(code):
        child = ctx.Process(target=processwork.leave, args=(code,))
        child.start()
        child.join()
        codes.append(child.exitcode)
        child.close()

    starters = [threading.Thread(target=start, args=(code,)) for code in range(10)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
    assert sorted(codes) == list(range(10))
    assert server._child is not None


def test_its_exit_is_watched_once(server):
    for _ in range(3):
        server.ensure_running()
        server._stop()
    ours = [
        finalizer
        for finalizer in util._finalizer_registry.values()
        if getattr(finalizer._callback, "__self__", None) is server
    ]
    assert len(ours) == 1
    ours[0].cancel()


def test_it_ignores_interrupts_and_its_children_do_not(ctx, server, pipe):
    server.ensure_running()
    reader, writer = pipe()
    os.kill(server._child.pid, signal.SIGINT)
    child = ctx.Process(target=processwork.stay, args=(writer,))
    child.start()
    assert os.read(reader, 1) == b"r"
    child.interrupt()
    child.join()
    assert child.exitcode == 1
    child.close()
    assert server._child.poll() is None


def test_it_ends_with_the_program(script):
    done = script(
        """
        import billiard
        from billiard import forkserver
        if __name__ == "__main__":
            forkserver.ensure_running()
            print(forkserver._forkserver._child.pid)
        """
    )
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
