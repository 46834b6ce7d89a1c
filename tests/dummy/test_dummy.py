"""Threads with the interface of processes."""

from __future__ import annotations

import array
import builtins
import queue
import sys
import threading
from importlib.util import find_spec
from types import ModuleType

import pytest

from billiard import dummy
from billiard.dummy import DummyProcess, active_children, current_process


def in_thread(function):
    """Call in a thread that is no `DummyProcess`; answer what it returns or raises."""
    outcome = []

    def run():
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return outcome[0]


def test_the_names_are_those_of_threads():
    for name in ("Lock", "RLock", "Semaphore", "BoundedSemaphore", "Event"):
        assert getattr(dummy, name) is getattr(threading, name)
    assert dummy.current_process is threading.current_thread
    assert dummy.Queue is dummy.JoinableQueue is queue.Queue
    assert dummy.Process is DummyProcess
    assert (dummy.dict, dummy.list) == (builtins.dict, builtins.list)
    assert issubclass(DummyProcess, threading.Thread)


def test_what_has_nothing_to_do_does_nothing():
    assert dummy.freeze_support() is None
    assert dummy.shutdown() is None


def test_a_manager_is_the_module():
    manager = dummy.Manager()
    assert manager is dummy
    assert manager.dict(a=1) == {"a": 1}
    assert manager.list((1, 2)) == [1, 2]


def test_a_condition_is_a_class_of_its_own_and_warns_of_nothing():
    condition = dummy.Condition()
    assert isinstance(condition, threading.Condition)
    assert type(condition) is not threading.Condition
    with condition:
        condition.notify_all()
    lock = dummy.Lock()
    assert dummy.Condition(lock)._lock is lock


def test_a_namespace_takes_attributes_and_shows_the_public_ones():
    space = dummy.Namespace(b=1, a="x", _c=3, self=4)
    space.d = [5]
    assert (space.a, space.b, space._c, space.self) == ("x", 1, 3, 4)
    assert repr(space) == "Namespace(a='x', b=1, d=[5], self=4)"
    assert repr(dummy.Namespace()) == "Namespace()"


def test_a_value_may_be_anything():
    value = dummy.Value("i", 3)
    value.value += 1
    assert value.value == 4
    assert repr(value) == "<Value('i', 4)>"
    value.value = value
    assert value.value is value
    assert dummy.Value("d", 1.5, lock=False).value == 1.5


def test_an_array_is_an_array():
    assert dummy.Array("i", [1, 2]) == array.array("i", [1, 2])
    assert dummy.Array("d", (x / 2 for x in range(3)), lock=False).tolist() == [0, 0.5, 1]


def test_the_pipe_is_the_one_of_processes(monkeypatch):
    # A stand-in: what it does is told elsewhere, here only where it comes from.
    module = ModuleType("billiard.connection")
    module.Pipe = object()
    monkeypatch.setitem(sys.modules, "billiard.connection", module)
    assert dummy.Pipe is module.Pipe


def test_there_is_no_pipe_where_processes_have_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "billiard.connection", None)
    with pytest.raises(AttributeError, match=r"module 'billiard\.dummy' has no attribute 'Pipe'") as caught:
        dummy.Pipe  # noqa: B018
    assert isinstance(caught.value.__cause__, ImportError)


def test_there_are_no_other_names():
    with pytest.raises(AttributeError, match=r"module 'billiard\.dummy' has no attribute 'Barrier'"):
        dummy.Barrier  # noqa: B018


def test_what_is_exported():
    """The pipe with the rest, wherever there is one."""
    wanted = """
        BoundedSemaphore Condition Event JoinableQueue Lock Manager Pool Process Queue RLock Semaphore
        active_children current_process freeze_support
    """
    pipe = ["Pipe"] if find_spec("billiard.connection") else []
    assert sorted(dummy.__all__) == sorted([*wanted.split(), *pipe])


# --- processes that are threads ---


def test_a_process_runs_its_target_with_its_arguments():
    told = []
    process = DummyProcess(
        None, lambda *args, **kwargs: told.append((args, kwargs)), "name", (1, 2), {"c": 3}
    )
    assert process.name == "name"
    process.start()
    process.join()
    assert told == [((1, 2), {"c": 3})]


def test_the_exit_code_is_known_at_the_end():
    go = threading.Event()
    process = DummyProcess(target=go.wait, args=(30,))
    assert process.exitcode is None
    process.start()
    assert process.exitcode is None
    go.set()
    process.join()
    assert process.exitcode == 0
    with pytest.raises(AttributeError):
        process.exitcode = 1


@pytest.mark.parametrize("error", [KeyError, SystemExit])
def test_the_exit_code_is_0_whatever_happens(monkeypatch, error):
    monkeypatch.setattr(threading, "excepthook", lambda *_: None)

    def fail():
        raise error(3)

    process = DummyProcess(target=fail)
    process.start()
    process.join()
    assert process.exitcode == 0


def test_it_is_started_once():
    process = DummyProcess(target=int)
    process.start()
    process.join()
    with pytest.raises(RuntimeError):
        process.start()


def test_a_process_that_cannot_be_started_has_no_exit_code(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    process = DummyProcess(target=int)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            process.start()
    assert process.exitcode is None
    assert process not in active_children()


def test_only_the_thread_that_made_it_may_start_it():
    process = DummyProcess(target=int)
    error = in_thread(process.start)
    assert isinstance(error, AssertionError)
    assert "thread that made it" in str(error)
    process.start()
    process.join()


def test_a_thread_that_is_not_the_main_one_may_have_processes():
    def start():
        told = []
        process = DummyProcess(target=lambda: told.append(current_process()))
        process.start()
        process.join()
        return told == [process] and process.exitcode == 0

    assert in_thread(start) is True


def test_active_children_are_those_of_the_calling_thread_that_run():
    go = threading.Event()

    def start():
        assert active_children() == []
        process = DummyProcess(target=go.wait, args=(30,))
        process.start()
        return active_children(), process

    mine = DummyProcess(target=go.wait, args=(30,))
    mine.start()
    theirs, other = in_thread(start)
    assert theirs == [other]
    assert mine in active_children()
    assert other not in active_children()
    go.set()
    mine.join()
    other.join()
    assert mine not in active_children()


def test_a_child_that_nobody_holds_is_forgotten():
    process = DummyProcess(target=int)
    process.start()
    process.join()
    before = len(current_process()._children)
    del process
    assert len(current_process()._children) == before - 1


@pytest.mark.parametrize("module", ["billiard.dummy", "billiard.pool"])
def test_importing_notes_children_on_the_importing_thread(program, module):
    done = program(
        """
        import sys, threading
        def load():
            __import__(sys.argv[1])
        thread = threading.Thread(target=load)
        thread.start()
        thread.join()
        print(type(thread._children).__name__, hasattr(threading.main_thread(), "_children"))
        """,
        module,
    )
    assert (done.stdout, done.stderr) == ("WeakKeyDictionary False\n", "")


SAME = """
import threading
from billiard import dummy
print(dummy.Namespace(b=1, _x=2, a="c"), dummy.Array("i", [1, 2]), dummy.Manager() is dummy)
process = dummy.Process(target=print, args=("in",))
print(process.exitcode, process.name.split("-")[0], dummy.active_children())
process.start()
process.join()
print(process.exitcode, dummy.active_children(), process._parent is dummy.current_process())
try: process.start()
except RuntimeError as error: print(error)
other = dummy.Process(target=print)
def start(process):
    try: process.start()
    except AssertionError: print("AssertionError")
    else: process.join()
for process in (other, None):
    def run(process=process): start(process or dummy.Process(target=print, args=("its own",)))
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
print(type(dummy.current_process()._children).__name__)
"""


def test_it_does_what_the_original_does(program, original):
    ours, theirs = program(SAME), original(SAME)
    assert ours.stderr == theirs.stderr == ""
    assert ours.stdout == theirs.stdout
