"""What a process is called and what it knows of itself and its relatives, under each start method."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import weakref

import processwork
import pytest

import billiard
from billiard import context, process

CLASSES = {"fork": "ForkProcess", "spawn": "SpawnProcess", "forkserver": "ForkServerProcess"}


def test_each_context_has_its_own_class(ctx, method):
    kind = ctx.Process
    assert kind is getattr(context, CLASSES[method])
    assert kind.__name__ == CLASSES[method]
    assert kind._start_method == method
    assert kind.__bases__ == (process.BaseProcess,)
    assert billiard.Process is context.Process
    assert billiard.Process._start_method is None
    assert process.Process is process.BaseProcess


def test_the_attributes_that_others_rely_on(ctx):
    args, kwargs = [1], {"a": 1}
    child = ctx.Process(target=print, args=args, kwargs=kwargs, unknown=1)
    args.append(2)
    kwargs.clear()
    assert (child._target, child._args, child._kwargs) == (print, (1,), {"a": 1})
    assert (child._popen, child._closed, child._controlled_termination) == (None, False, False)
    assert child._parent_pid == os.getpid()
    assert child._config == process.current_process()._config
    assert child._config is not process.current_process()._config
    assert (child._authkey, child._daemonic, child._tempdir) == (child.authkey, False, None)
    child.anything = 3
    assert weakref.ref(child)() is child
    assert hash(child) == object.__hash__(child)
    assert child in process._dangling
    for name in ("_authkey", "_daemonic", "_tempdir", "_counter", "_children", "pid", "exitcode", "sentinel"):
        with pytest.raises(AttributeError):
            setattr(child, name, None)


def test_names_count_up(ctx, method):
    children = [ctx.Process() for _ in range(3)]
    first = children[0]._identity[0]
    assert [child._identity for child in children] == [(first,), (first + 1,), (first + 2,)]
    assert [child.name for child in children] == [f"{CLASSES[method]}-{first + n}" for n in range(3)]
    assert next(process.current_process()._counter) == first + 3


def _relatives():
    me = billiard.current_process()
    return {
        "me": (
            type(me).__name__,
            me.name,
            me._identity,
            repr(me),
            me.daemon,
            me.pid == me.ident == os.getpid(),
        ),
        "children": [billiard.Process().name, billiard.Process()._identity, me._children],
        "config": sorted(me._config),
        "alive": (me.is_alive(), me._is_alive(), me.exitcode),
        "theirs": (multiprocessing.current_process() is me, multiprocessing.active_children()),
        "method": billiard.get_start_method(),
    }


def test_a_child_knows_itself(method, ask, staying):
    staying()  # a sibling, which is no child of the one that is asked
    told = ask(_relatives, name="Ariadne", daemon=True)
    kind, name, identity, shown, daemon, own = told["me"]
    assert (kind, name, daemon, own) == (CLASSES[method], "Ariadne", True, True)
    assert len(identity) == 1
    assert shown == f"<{CLASSES[method]}(Ariadne, started daemon)>"
    assert told["children"] == [f"Process-{identity[0]}:1", (*identity, 2), set()]
    assert told["config"] == ["authkey", "daemon", "semprefix"]
    assert told["alive"] == (True, True, None)
    assert told["theirs"] == (True, [])
    assert told["method"] == method


def _flag_of_a_child():
    return billiard.Process().daemon, billiard.Process(daemon=False).daemon


def test_daemon_is_inherited_unless_it_is_given(ask):
    assert ask(_flag_of_a_child, daemon=True) == (True, False)
    assert ask(_flag_of_a_child) == (False, False)


@pytest.mark.parametrize("name", [3, ("a", 1), "ä\udc80\n"])
def test_any_name_will_do(ask, name):
    assert ask(_own_name, name=name) == name


def _own_name():
    return billiard.current_process().name


@pytest.fixture
def default_context(ctx, monkeypatch):
    """The default context, set to a start method."""
    monkeypatch.setattr(context._default_context, "_actual_context", ctx)


@pytest.mark.usefixtures("default_context")
@pytest.mark.parametrize("kind", ["concrete", "default"])
def test_an_own_class_with_own_attributes(method, kind):
    own = processwork.OWN[method] if kind == "concrete" else processwork.OwnProcess
    child = own(daemon=True, unknown_keyword=1)
    assert child.name.startswith(f"{own.__name__}-")
    child.extra = 5
    child.start()
    child.join()
    assert (child.exitcode, child._popen.method) == (5, method)
    child.close()


@pytest.mark.usefixtures("default_context")
def test_the_default_class_starts_as_the_default_context_says_then(method):
    child = billiard.Process(target=processwork.leave, args=(4,))
    child.start()
    child.join()
    assert (child.exitcode, child._popen.method) == (4, method)
    child.close()


def _key():
    me = billiard.current_process()
    try:
        pickle.dumps(me.authkey)
    except TypeError:
        return type(me.authkey).__name__, bytes(me.authkey), bytes(billiard.Process().authkey)
    return None


def test_the_key_is_handed_on_and_kept_secret(ctx, ask):
    own = bytes(billiard.current_process().authkey)
    assert ask(_key) == ("AuthenticationString", own, own)
    child = ctx.Process()
    child.authkey = b"other"
    assert isinstance(child.authkey, process.AuthenticationString)
    assert bytes(billiard.current_process().authkey) == own
    with pytest.raises(TypeError):
        child.authkey = "text"
    with pytest.raises(TypeError, match="security"):
        pickle.dumps(child)


def test_a_key_of_its_own(ctx):
    reader, writer = os.pipe()
    child = ctx.Process(target=processwork.tell, args=(processwork.Descriptor(writer), _key))
    child.authkey = b"other"
    child.start()
    os.close(writer)
    with open(reader, "rb") as file:
        assert pickle.load(file) == ("AuthenticationString", b"other", b"other")
    child.join()
    child.close()


def test_repr_tells_the_state(ctx, start, staying, method):
    kind = CLASSES[method]
    assert repr(ctx.Process(name="n")) == f"<{kind}(n, initial)>"
    assert repr(ctx.Process(name="n", daemon=True)) == f"<{kind}(n, initial daemon)>"
    running = staying(name="n")
    assert repr(running) == f"<{kind}(n, started daemon)>"
    running.kill()
    running.join()
    assert repr(running) == f"<{kind}(n, stopped[SIGKILL] daemon)>"
    running.close()
    assert repr(running) == f"<{kind}(n, closed daemon)>"
    for code, state in ((0, "stopped"), (3, "stopped[3]")):
        ended = start(processwork.leave, code, name="n", daemon=False)
        ended.join()
        assert repr(ended) == f"<{kind}(n, {state})>"


def test_the_main_process():
    main = billiard.current_process()
    assert type(main).__name__ == "_MainProcess"
    assert (main.name, main._identity, main._parent_pid, main.daemon) == ("MainProcess", (), None, False)
    assert len(main.authkey) == 32
    assert main._config["semprefix"] == "/mp"
    assert main is not multiprocessing.current_process()
    assert repr(main) == "<_MainProcess(MainProcess, started)>"
    assert (main.is_alive(), main.pid, main.exitcode) == (True, os.getpid(), None)
    assert billiard.parent_process() is None
    main.close()
    assert main.is_alive()


def test_setting_the_current_process_sets_it_for_both_packages(monkeypatch):
    other = billiard.Process()
    monkeypatch.setattr(process, "_current_process", process._current_process)
    monkeypatch.setattr(multiprocessing.process, "_current_process", multiprocessing.process._current_process)
    process._set_current_process(other)
    assert billiard.current_process() is multiprocessing.current_process() is other
