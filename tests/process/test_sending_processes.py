"""How a process object, and the descriptors that go along, reach a child that is no copy of its parent."""

from __future__ import annotations

import os
import pickle
import threading

import kinwork
import processwork
import pytest

import billiard
from billiard import forkserver, process
from billiard.context import get_spawning_popen


@pytest.fixture(params=["spawn", "forkserver"])
def method(request):
    """The name of a start method whose children are no copies."""
    return request.param


def unimportable():
    return lambda: None


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"target": unimportable()}, "._target"),
        ({"args": (1, threading.Lock())}, "._args[1]"),
        ({"kwargs": {"deep": [{"er": threading.Lock()}]}}, "._kwargs['deep'][0]['er']"),
        ({"target": kinwork.Holder(threading.Lock()).hold}, "._target"),
    ],
)
def test_what_cannot_be_sent_is_named(ctx, given, path):
    child = ctx.Process(name="n", **given)
    with pytest.raises(pickle.PicklingError) as caught:
        child.start()
    text = str(caught.value)
    assert text.startswith(f"cannot send {type(child).__name__} 'n'{path} to the child: ")
    assert caught.value.__cause__ is not None
    # Nothing was started; the census of `ctx` finds what was left behind.
    assert (child._popen, child.pid, child.exitcode) == (None, None, None)
    assert child not in process._children
    assert get_spawning_popen() is None
    assert "initial" in repr(child)


def test_a_start_that_was_refused_can_be_repeated(ctx):
    child = ctx.Process(target=unimportable())
    with pytest.raises(pickle.PicklingError):
        child.start()
    child._target, child._args = processwork.leave, (3,)
    child.start()
    child.join()
    assert child.exitcode == 3
    child.close()


def test_what_cannot_be_received_ends_the_child_with_its_traceback(script, method):
    done = script(
        """
        import billiard, sys
        class Refuses:
            def __init__(self, how): self.how = how
            def __reduce__(self): return refuse, (self.how,)
        def refuse(how): sys.exit(7) if how == "exit" else 1 / 0
        if __name__ == "__main__":
            for how in ("crash", "exit"):
                child = billiard.get_context(sys.argv[1]).Process(target=int, args=(Refuses(how),), name=how)
                child.start()
                child.join()
                print(child.exitcode)
        """,
        method,
    )
    assert done.stdout == "1\n7\n"
    assert done.stderr.startswith("Process crash:\nTraceback")
    assert done.stderr.count("ZeroDivisionError") == 1
    assert "Process exit" not in done.stderr


TYPED_IN = """
import billiard, os, sys
def own(): pass
for target in (own, print):
    child = billiard.get_context(sys.argv[1]).Process(target=target, args=("arrived",))
    child._args = () if target is own else child._args
    try:
        child.start()
        child.join()
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.parametrize("way", ["command", "input", "package", "folder"])
def test_what_children_do_not_import_is_refused(script, method, tmp_path, way):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(TYPED_IN)
    command = {
        "command": ("-c", TYPED_IN),
        "input": ("-",),
        "package": ("-m", "package"),
        "folder": ("package",),
    }[way]
    done = script("", method, command=command, stdin=TYPED_IN if way == "input" else "")
    refused, arrived, rest = done.stdout.split("\n")
    assert refused.startswith("PicklingError 'own' is defined in __main__, which ")
    assert ("it is there to be run" in refused) == (way in ("package", "folder"))
    assert (arrived, rest, done.stderr) == ("arrived", "", "")


def test_keys_are_for_children_only(ask):
    key = billiard.current_process().authkey
    with pytest.raises(TypeError, match="security"):
        pickle.dumps(key)
    assert ask(bytes, key) == bytes(key)


# --- descriptors ---


# One more is what `ask` hears the answer through.
@pytest.mark.parametrize("count", [1, 249])
@pytest.mark.parametrize("size", [0, 100_000])
def test_descriptors_go_along(ask, pipe, count, size):
    reader, writer = pipe()
    mine = [processwork.Descriptor(os.dup(writer.fd)) for _ in range(count)]
    assert ask(kinwork.use_descriptors, mine, bytes(size)) == (count, {False}, size)
    for one in mine:
        os.close(one.fd)
    assert os.read(reader, 1000) == b"r" * count


def test_a_fork_server_passes_on_no_more_than_it_can(pipe, ctx, method):
    many = [pipe()[1] for _ in range(forkserver.MAXFDS_TO_SEND - 4)]
    child = ctx.Process(target=kinwork.use_descriptors, args=(many, b""))
    if method == "forkserver":
        with pytest.raises(ValueError, match="too many fds"):
            child.start()
        assert child._popen is None
    else:
        child.start()
        child.join()
        assert child.exitcode == 0
        child.close()


def test_numbers_of_descriptors_that_go_along(ctx, pipe, method, monkeypatch):
    seen = []

    class Noted(processwork.Descriptor):
        def __reduce__(self):
            popen = get_spawning_popen()
            seen.append((self.fd, popen.duplicate_for_child(self.fd), popen.duplicate_for_child(self.fd)))
            return int, ()

    monkeypatch.setattr(kinwork, "Noted", Noted, raising=False)
    child = ctx.Process(target=int, args=())
    child.note = Noted(pipe()[1].fd)
    child.start()
    child.join()
    child.close()
    fd = child.note.fd
    assert seen == [(fd, fd, fd) if method == "spawn" else (fd, 0, 0)]


def test_a_child_has_its_own_descriptors_and_no_others(ask, pipe):
    # Neither what the parent has opened, nor what it let children inherit without saying so.
    os.set_inheritable(pipe()[0], True)
    told = dict(ask(kinwork.descriptors))
    assert {0, 1, 2} <= set(told)
    others = [target for number, target in told.items() if number > 2]
    # The one to answer through, the pipe and the page that tell of signals, the parent, and standard input if
    # that has a number of its own.
    assert sum(target.startswith("pipe:") for target in others) == 1 + 2
    assert sum("pidfd" in target for target in others) == 1
    assert len(others) == 5 + ("/dev/null" in others)


def test_only_a_fork_servers_children_have_inherited_descriptors(ask, method):
    with pytest.raises(RuntimeError, match="not started by a fork server"):
        forkserver.get_inherited_fds()
    assert ask(kinwork.inherited) == (None if method == "spawn" else 1)


def test_a_descriptor_that_is_not_open_is_an_error_here(ctx):
    # A number that nothing gets meanwhile.
    child = ctx.Process(target=processwork.say, args=(processwork.Descriptor(9_999),))
    with pytest.raises(OSError, match="Bad file descriptor"):
        child.start()
    assert child._popen is None


def test_what_was_sent_is_not_kept_twice(ask, staying):
    size = 64 * 2**20
    staying()  # Nothing of it is measured; the server, if there is one, has imported all it needs by then.
    received, resident = ask(kinwork.size_and_memory, bytes(size))
    assert received == size
    assert resident < 1.6 * size


def test_many_threads_start_processes(ctx):
    codes = []

    def start(code):
        child = ctx.Process(target=processwork.leave, args=(code,))
        child.start()
        child.join()
        codes.append(child.exitcode)
        child.close()

    starters = [threading.Thread(target=start, args=(code,)) for code in range(8)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
    assert sorted(codes) == list(range(8))
