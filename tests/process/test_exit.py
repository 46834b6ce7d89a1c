"""How processes end: exit codes, and what happens to children."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

import billiard
from billiard.util import Finalize

pytestmark = pytest.mark.usefixtures("leak_census")


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("target", "args", "code"),
    [
        (int, (), 0),
        (sys.exit, (), 0),
        (sys.exit, (None,), 0),
        (_raise, (SystemExit,), 0),
        (sys.exit, (3,), 3),
        (sys.exit, (True,), 1),
        (sys.exit, (-1,), 255),
        (sys.exit, (300,), 44),
        (sys.exit, (2**70 + 5,), 5),
        (sys.exit, ("text",), 1),
        (sys.exit, (3.5,), 1),
        (sys.exit, ([],), 1),
        (_raise, (SystemExit(1, 2),), 1),
        (_raise, (ValueError("x"),), 1),
        (_raise, (KeyboardInterrupt(),), 1),
        (os._exit, (7,), 7),
        (os.kill, None, -9),
    ],
)
def test_exit_codes_are_the_interpreters(target, args, code):
    child = billiard.Process(
        target=(lambda: os.kill(os.getpid(), 9)) if args is None else target, args=args or ()
    )
    child.start()
    child.join()
    assert child.exitcode == code


def test_a_crash_is_printed_once_under_the_processs_name(capfd):
    child = billiard.Process(target=_raise, args=(ValueError("unlikely text"),), name="Sisyphus")
    child.start()
    child.join()
    printed = capfd.readouterr().err
    assert printed.startswith("Process Sisyphus:\nTraceback")
    assert printed.count("unlikely text") == 1


def test_a_text_given_to_exit_is_printed(capfd):
    child = billiard.Process(target=sys.exit, args=("farewell",))
    child.start()
    child.join()
    assert capfd.readouterr().err == "farewell\n"


def test_a_child_waits_for_its_threads(capfd):
    def child():
        def late():
            time.sleep(0.1)
            os.write(1, b"done")

        threading.Thread(target=late).start()
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()

    started = billiard.Process(target=child)
    started.start()
    started.join()
    assert started.exitcode == 0
    assert capfd.readouterr().out == "done"


def test_finalizers_of_a_child_run_by_priority(capfd):
    def child():
        for priority in (-5, 10, 0):
            Finalize(None, os.write, (1, b"%d " % priority), exitpriority=priority)

    started = billiard.Process(target=child)
    started.start()
    started.join()
    assert capfd.readouterr().out == "10 0 -5 "


def test_at_exit_daemons_are_terminated_and_others_joined(program):
    done = program(
        """
        import billiard, time
        from billiard.util import Finalize
        def slow():
            time.sleep(0.2)
            print("joined", flush=True)
        daemon = billiard.Process(target=time.sleep, args=(1000,), daemon=True)
        daemon.start()
        billiard.Process(target=slow).start()
        Finalize(None, lambda: print("pools", daemon.is_alive(), flush=True), exitpriority=0)
        Finalize(None, lambda: print("rest", daemon.is_alive(), flush=True), exitpriority=-5)
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "pools True\njoined\nrest False\n"


@pytest.mark.parametrize("package", ["billiard", "multiprocessing"])
def test_a_child_ends_its_own_children_at_its_exit(program, package):
    done = program(
        f"""
        import billiard, {package}, os, time
        reader, writer = os.pipe()
        def child():
            grandchild = billiard.Process(target=time.sleep, args=(1000,), daemon=True)
            grandchild.start()
            os.write(writer, b"%d" % grandchild.pid)
        middle = {package}.get_context("fork").Process(target=child)
        middle.start()
        middle.join()
        pid = int(os.read(reader, 20))
        try:
            os.kill(pid, 0)
            print("alive")
        except ProcessLookupError:
            print("gone", middle.exitcode)
        """
    )
    assert (done.stdout, done.stderr) == ("gone 0\n", "")


def test_a_child_leaves_its_parents_children_alone(program):
    done = program(
        """
        import billiard, multiprocessing, time
        fork = multiprocessing.get_context("fork")
        theirs = fork.Process(target=time.sleep, args=(1000,), daemon=True)
        theirs.start()
        ours = billiard.Process(target=time.sleep, args=(1000,), daemon=True)
        ours.start()
        child = billiard.Process(target=int)
        child.start()
        child.join()
        other = fork.Process(target=int)
        other.start()
        other.join()
        print(child.exitcode, other.exitcode, theirs.is_alive(), ours.is_alive())
        """
    )
    assert (done.stdout, done.stderr) == ("0 0 True True\n", "")


def test_a_plain_fork_has_no_children_and_ends_none(program):
    done = program(
        """
        import billiard, os, sys, time
        ours = billiard.Process(target=time.sleep, args=(1000,), daemon=True)
        ours.start()
        pid = os.fork()
        if pid == 0:
            assert billiard.active_children() == []
            sys.exit(0)
        print(os.waitpid(pid, 0)[1], ours.is_alive())
        """
    )
    assert (done.stdout, done.stderr) == ("0 True\n", "")


def test_a_daemon_may_have_children_and_ends_them(program):
    done = program(
        """
        import billiard, os, time
        def daemon(writer):
            billiard.Process(target=time.sleep, args=(0.1,)).start()
            os.write(writer, b"k")
        reader, writer = os.pipe()
        child = billiard.Process(target=daemon, args=(writer,), daemon=True)
        child.start()
        print(os.read(reader, 1).decode())
        child.join()
        print(child.exitcode)
        """
    )
    assert (done.stdout, done.stderr) == ("k\n0\n", "")


def test_closing_every_descriptor_in_a_child_harms_nobody(program):
    done = program(
        """
        import billiard, os, time
        from billiard.compat import close_open_fds
        others = [billiard.Process(target=time.sleep, args=(1000,), daemon=True) for _ in range(3)]
        for other in others:
            other.start()
        def beat():
            global others
            close_open_fds([1, 2])
            mine = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
            others = None
            import gc; gc.collect()
            for number in mine:
                os.fstat(number)
            time.sleep(0.05)
            print("beat", flush=True)
        child = billiard.Process(target=beat)
        child.start()
        child.join()
        print(child.exitcode, [other.is_alive() for other in others])
        """
    )
    assert (done.stdout, done.stderr) == ("beat\n0 [True, True, True]\n", "")
