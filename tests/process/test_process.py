"""Process objects: life, names, states, misuse."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import random
import select
import signal
import sys
import threading
import time
import weakref

import processwork
import pytest

import billiard
from billiard import popen_fork, process, util

pytestmark = pytest.mark.usefixtures("leak_census")


def _started(target=time.sleep, args=(1000,), daemon=True):
    # A daemon, so that a test which fails does not leave pytest waiting for it.
    started = billiard.Process(target=target, args=args, daemon=daemon)
    started.start()
    return started


def _ended(child):
    child.kill()
    child.join()
    child.close()


def _answer(question):
    """Have a child compute something and report it through a pipe."""
    reader, writer = os.pipe()

    def tell():
        with open(writer, "wb") as file:
            pickle.dump(question(), file)

    child = _started(tell, (), daemon=False)
    os.close(writer)
    with open(reader, "rb") as file:
        answer = pickle.load(file)
    child.join()
    assert child.exitcode == 0
    return answer


def test_a_process_runs_its_target_with_its_arguments():
    reader, writer = os.pipe()
    child = billiard.Process(
        target=lambda *a, **k: os.write(writer, repr((a, k)).encode()), args=[1], kwargs={"b": 2}
    )
    assert (child.pid, child.exitcode, child.is_alive()) == (None, None, False)
    child.start()
    child.join()
    assert os.read(reader, 100) == b"((1,), {'b': 2})"
    assert (child.exitcode, child.is_alive()) == (0, False)
    os.close(reader)
    os.close(writer)


def test_a_subclass_may_override_run_and_take_attributes():
    class Mine(billiard.Process):
        def run(self):
            sys.exit(self.extra)

    child = Mine(daemon=True, unknown_keyword=1)
    child.extra = 5
    child.start()
    child.join()
    assert child.exitcode == 5
    assert weakref.ref(child)() is child
    assert child in {child}


def test_names_count_up_and_show_the_ancestors():
    first, second = billiard.Process(), billiard.Process()
    numbers = [int(child.name.rpartition("-")[2]) for child in (first, second)]
    assert numbers[1] == numbers[0] + 1
    assert first.name == f"Process-{numbers[0]}"
    assert billiard.get_context("fork").Process().name.startswith("ForkProcess-")
    parent, child = _answer(lambda: (billiard.current_process().name, billiard.Process().name))
    assert child == f"{parent}:1"


def test_the_child_is_the_current_process_of_both_packages():
    def ask():
        me = billiard.current_process()
        return (
            me is multiprocessing.current_process(),
            me.pid == os.getpid(),
            me.is_alive(),
            me._name,
            billiard.active_children(),
            multiprocessing.active_children(),
        )

    same, pid, alive, name, ours, theirs = _answer(ask)
    assert (same, pid, alive) == (True, True, True)
    assert name != "MainProcess"
    assert ours == theirs == []
    assert billiard.current_process()._name == "MainProcess"
    assert billiard.current_process() is not multiprocessing.current_process()


def test_the_child_knows_its_parent():
    def ask():
        parent = billiard.parent_process()
        parent.join(timeout=0.01)
        return parent.pid, parent.name, parent.is_alive(), parent.ident

    assert _answer(ask) == (os.getpid(), "MainProcess", True, os.getpid())
    assert billiard.parent_process() is None


def test_the_child_sees_its_parent_end(program):
    done = program(
        """
        import billiard, os, signal, sys, time
        def grandchild(writer):
            parent = billiard.parent_process()
            # Who outlives a parent that is killed is told to end; this one has something to say first.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(writer, b"r")
            parent.join()
            os.write(writer, b"alive" if parent.is_alive() else b"gone")
        def child(writer):
            billiard.Process(target=grandchild, args=(writer,)).start()
            time.sleep(1000)
        reader, writer = os.pipe()
        middle = billiard.Process(target=child, args=(writer,))
        middle.start()
        os.close(writer)
        assert os.read(reader, 1) == b"r"
        middle.kill()
        print(os.read(reader, 10).decode())
        """
    )
    assert (done.stdout, done.stderr, done.returncode) == ("gone\n", "", 0)


def test_standard_input_of_a_child_is_empty_and_finalizers_are_gone():
    util.Finalize(None, print, exitpriority=-5)
    try:
        assert _answer(lambda: (sys.stdin.read(), len(util._finalizer_registry))) == ("", 0)
    finally:
        for finalizer in list(util._finalizer_registry.values()):
            if finalizer._callback is print:
                finalizer.cancel()


def test_random_numbers_of_children_differ():
    random.seed(1)
    assert _answer(random.random) != _answer(random.random)


def test_hooks_run_in_registration_order_in_the_child():
    class Thing:
        def __init__(self):
            self.seen = []

    thing = Thing()
    util.register_after_fork(thing, lambda it: it.seen.append(1))
    util.register_after_fork(thing, lambda it: it.seen.append(2))
    assert _answer(lambda: thing.seen) == [1, 2]
    assert thing.seen == []


@pytest.mark.parametrize(
    ("end", "name", "code"),
    [("terminate", "SIGTERM", -15), ("kill", "SIGKILL", -9), ("terminate_controlled", "SIGTERM", -15)],
)
def test_a_process_can_be_ended(end, name, code):
    child = _started()
    assert child._controlled_termination is False
    getattr(child, end)()
    child.join()
    assert child.exitcode == code
    assert f"stopped[{name}]" in repr(child)
    assert child._controlled_termination is (end == "terminate_controlled")
    getattr(child, end)()  # of no effect, and no error


def test_interrupt_arrives_as_ctrl_c():
    ready, sign = os.pipe()

    def wait():
        try:
            os.write(sign, b"r")
            processwork.idle()
        except KeyboardInterrupt:
            sys.exit(42)

    child = _started(wait, ())
    os.read(ready, 1)
    child.interrupt()
    child.join()
    assert child.exitcode == 42
    os.close(ready)
    os.close(sign)


def test_join_waits_no_longer_than_told():
    child = _started()
    began = time.monotonic()
    for timeout in (0, -1, 0.05):
        assert child.join(timeout) is None
    assert time.monotonic() - began >= 0.05
    assert child.is_alive()
    _ended(child)


def test_the_sentinel_shows_the_end_and_is_closed_by_join():
    child = _started()
    poll = select.poll()
    duplicate = os.dup(child.sentinel)
    poll.register(duplicate, select.POLLIN)
    assert poll.poll(10) == []
    child.kill()
    assert poll.poll(10_000)
    child.join()
    assert poll.poll(0)
    os.close(duplicate)
    with pytest.raises(ValueError, match="joined"):
        _ = child.sentinel


def test_the_sentinel_does_not_wait_for_grandchildren():
    def child():
        billiard.Process(target=time.sleep, args=(5,)).start()
        os._exit(3)

    began = time.monotonic()
    middle = _started(child, ())
    middle.join()
    assert middle.exitcode == 3
    assert time.monotonic() - began < 4


def test_two_threads_may_join_one_process():
    child = _started()
    waiters = [threading.Thread(target=child.join) for _ in range(4)]
    for waiter in waiters:
        waiter.start()
    child.kill()
    for waiter in waiters:
        waiter.join()
    assert child.exitcode == -9


def test_reaped_by_somebody_else_is_ended_with_unknown_status():
    child = _started(os._exit, (3,))
    os.waitpid(child.pid, 0)
    child.join()
    assert child.exitcode == 255
    assert not child.is_alive()


def test_active_children_lists_the_living_only():
    living, ended = _started(), _started(os._exit, (0,))
    ended._popen.wait()
    assert billiard.active_children() == [living]
    assert living._children is process._children
    _ended(living)
    ended.join()
    assert billiard.active_children() == []


@pytest.mark.parametrize("state", ["initial", "started", "stopped", "closed", "unknown"])
def test_repr_says_the_state(state):
    child = billiard.Process(
        name="n", target=time.sleep, args=(1000 if state == "started" else 0,), daemon=True
    )
    if state in ("started", "stopped", "closed"):
        child.start()
        if state != "started":
            child.join()
        if state == "closed":
            child.close()
    shown = _answer(lambda: repr(child)) if state == "unknown" else repr(child)
    assert shown == f"<Process(n, {state} daemon)>"
    if state == "started":
        _ended(child)


def test_misuse_is_an_error_of_the_documented_type():
    child = billiard.Process(target=time.sleep, args=(1000,))
    with pytest.raises(AssertionError, match="group"):
        billiard.Process(group=1)
    with pytest.raises(AssertionError, match="started"):
        child.join()
    for end in (child.terminate, child.kill, child.interrupt):
        with pytest.raises(ValueError, match="not started"):
            end()
    with pytest.raises(ValueError, match="not started"):
        _ = child.sentinel
    with pytest.raises(AssertionError, match="string"):
        child.name = 3
    with pytest.raises(TypeError):
        child.authkey = "text"
    child.start()
    with pytest.raises(AssertionError, match="twice"):
        child.start()
    with pytest.raises(AssertionError, match="already started"):
        child.daemon = True
    with pytest.raises(ValueError, match="running"):
        child.close()
    _ended(child)
    child.close()
    for use in (
        child.start,
        child.terminate,
        child.join,
        child.is_alive,
        lambda: child.exitcode,
        lambda: child.pid,
    ):
        with pytest.raises(ValueError, match="closed"):
            use()
    with pytest.raises(NotImplementedError, match="start method"):
        process.BaseProcess().start()


def test_a_childs_object_is_of_no_use_to_its_sibling():
    other = _started()

    def ask():
        errors = []
        for use in (
            other.join,
            other.is_alive,
            billiard.Process.start.__get__(billiard.Process.__new__(billiard.Process)),
        ):
            try:
                use()
            except (AssertionError, AttributeError) as error:
                errors.append(type(error).__name__)
        other._popen.kill()
        return errors, other.exitcode

    errors, exitcode = _answer(ask)
    assert errors[:2] == ["AssertionError"] * 2
    assert exitcode is None
    assert other.is_alive()
    _ended(other)


def test_the_authentication_key_is_inherited_and_cannot_be_pickled():
    key = billiard.current_process().authkey
    assert isinstance(key, bytes)
    assert len(key) == 32
    child = billiard.Process()
    assert child.authkey == key
    child.authkey = b"other"
    assert billiard.current_process().authkey == key
    with pytest.raises(TypeError, match="security"):
        pickle.dumps(key)


def test_daemon_is_inherited_by_default():
    assert _answer(lambda: billiard.Process().daemon) is False
    reader, writer = os.pipe()
    child = _started(lambda: os.write(writer, b"%d" % billiard.Process().daemon), (), daemon=True)
    child.join()
    assert os.read(reader, 1) == b"1"
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("stream", ["stdout", "stderr", "stdin"])
@pytest.mark.parametrize("state", ["missing", "closed"])
def test_standard_streams_may_be_missing_or_closed(program, stream, state):
    how = f"sys.{stream} = None" if state == "missing" else f"sys.{stream}.close()"
    done = program(
        f"""
        import billiard, os, sys
        {how}
        child = billiard.Process(target=sys.exit, args=(9,))
        child.start()
        child.join()
        os._exit(child.exitcode)
        """
    )
    assert done.returncode == 9


def test_output_buffered_before_the_start_is_written_once(program):
    done = program(
        """
        import billiard, sys
        sys.stdout.write("once ")
        child = billiard.Process(target=print, args=("child",))
        child.start()
        child.join()
        """
    )
    assert done.stdout == "once child\n"


def test_no_descriptors_left_is_an_error_and_leaves_no_child(program):
    done = program(
        """
        import billiard, os, resource, time
        from billiard import popen_fork
        child = billiard.Process(target=time.sleep, args=(1000,))
        resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
        held = []
        try:
            while True:
                held.append(os.dup(0))
        except OSError:
            pass
        try:
            child.start()
        except OSError as error:
            print(error.errno)
        for number in held:
            os.close(number)
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            print("no child")
        """
    )
    assert (done.stdout, done.stderr) == ("24\nno child\n", "")


@pytest.fixture
def no_pidfd(monkeypatch):
    monkeypatch.setattr(popen_fork, "_PIDFD", False)


@pytest.mark.usefixtures("no_pidfd")
class TestWithoutProcessDescriptors:
    """The same on a kernel that has none."""

    def test_life_and_end(self):
        child = _started()
        assert select.select([child.sentinel], [], [], 0.01)[0] == []
        child.join(0.05)
        assert child.is_alive()
        child.kill()
        assert select.select([child.sentinel], [], [], 10)[0] == [child.sentinel]
        child.join()
        assert child.exitcode == -9

    def test_grandchildren_do_not_hold_the_sentinel(self):
        def child():
            billiard.Process(target=time.sleep, args=(5,)).start()
            os._exit(3)

        began = time.monotonic()
        middle = _started(child, ())
        assert select.select([middle.sentinel], [], [], 10)[0]
        middle.join()
        assert middle.exitcode == 3
        assert time.monotonic() - began < 4

    def test_dropping_the_object_closes_the_pipe(self):
        child = _started(os._exit, (0,))
        child._popen.wait()
        billiard.active_children()
        del child


@contextlib.contextmanager
def _signals(handler, every):
    """Have a signal arrive at the main thread again and again. (SIGALRM is the test timeout's own.)"""
    go, stop = threading.Event(), threading.Event()

    def send():
        go.wait()
        while not stop.wait(every):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        # Not earlier: an exception of the handler must find the sender's end in its way.
        go.set()
        yield
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        go.set()
        stop.set()
        sender.join()
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_handlers_exception_ends_a_wait():
    class Enough(Exception):
        pass

    def enough(*_):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        raise Enough

    child = _started()
    for _ in range(20):
        with pytest.raises(Enough), _signals(enough, 0.002):
            child.join()
    assert child.is_alive()
    _ended(child)


def test_a_signal_handler_that_returns_does_not_end_a_wait():
    seen = []
    child = _started(time.sleep, (0.2,))
    with _signals(lambda *_: seen.append(1), 0.01):
        child.join()
    assert child.exitcode == 0
    assert len(seen) > 1


def test_no_signal_is_lost_just_before_a_wait():
    # Each wait is ended by one signal, which comes at a random moment around its beginning.
    class Enough(Exception):
        pass

    def enough(*_):
        raise Enough

    def wait(go):
        go.set()
        child.join(30)
        pytest.fail("the signal did not end the wait")

    child = _started()
    before = signal.signal(signal.SIGUSR1, enough)
    main = threading.main_thread().ident
    try:
        for step in range(300):
            go = threading.Event()
            delay = step * 1e-6

            def send(go=go, delay=delay):
                go.wait()
                until = time.perf_counter() + delay
                while time.perf_counter() < until:
                    pass
                signal.pthread_kill(main, signal.SIGUSR1)

            sender = threading.Thread(target=send, daemon=True)
            sender.start()
            with pytest.raises(Enough):
                wait(go)
            sender.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    _ended(child)


def test_a_process_started_in_a_handler_during_a_wait_has_the_programs_signal_mask():
    masks, starting = [], []

    def start(*_):
        # Where a start takes longer than the signals are apart, handlers would pile up.
        if not starting:
            starting.append(True)
            masks.append(_answer(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ())))
            starting.clear()

    child = _started(time.sleep, (0.2,))
    with _signals(start, 0.02):
        child.join()
    assert masks
    assert all(mask == set() for mask in masks)
