"""What happens at the end of a process: its threads, its finalizers, its children."""

from __future__ import annotations

import os
import signal

import endwork
import processwork
import pytest

from billiard.util import Finalize


def test_threads_are_waited_for_except_daemons(output):
    assert output(endwork.leave_threads_behind) == ("main thread\nearly\nlate\n", "")


def test_threads_of_an_executor_finish_their_work(output):
    assert output(endwork.leave_work_behind) == ("main thread\nworked\n", "")


def test_a_thread_can_start_a_process_that_waits_for_its_own_threads(script, method):
    done = script(
        """
        import billiard, sys, threading, time
        def late(): time.sleep(0.05); print("late")
        def child(): threading.Thread(target=late).start(); print("child")
        def start():
            process = billiard.get_context(sys.argv[1]).Process(target=child)
            process.start()
            process.join()
            print(process.exitcode)
        if __name__ == "__main__":
            starter = threading.Thread(target=start)
            starter.start()
            starter.join()
        """,
        method,
    )
    assert (done.stdout, done.stderr) == ("child\nlate\n0\n", "")


def test_a_crash_is_told_before_threads_are_waited_for(start, pipe):
    reader, writer = pipe()
    another = processwork.Descriptor(os.dup(writer.fd))
    child = start(processwork.speak_into, another, writer, endwork.fail_beside_a_thread)
    os.close(another.fd)
    assert os.read(reader, 1000).startswith(b"Process ")
    assert child.is_alive()


def test_the_order_of_the_end(output):
    # What does with children (priority 0 and above) before the children; they before the rest; what the child
    # has registered with `atexit` last.
    out, err = output(endwork.leave_much_behind)
    assert (out, err) == ("thread 10 0 joined ended -5 -100 second first ", "")


def test_what_the_parent_has_registered_stays_with_it(script):
    done = script(
        """
        import atexit, billiard, os, sys
        from billiard.util import Finalize
        def child():
            print("child")
            atexit.register(print, "registered by the child")
        if __name__ == "__main__":
            atexit.register(print, "end of the parent")
            Finalize(None, print, ("finalizer of the parent",), exitpriority=5)
            for method in billiard.get_all_start_methods():
                process = billiard.get_context(method).Process(target=child)
                process.start()
                process.join()
                print(process.exitcode, flush=True)
        """
    )
    assert done.stderr == ""
    assert done.stdout == (
        "child\nregistered by the child\n0\n" * 3 + "end of the parent\nfinalizer of the parent\n"
    )


def test_what_a_main_module_registers_in_a_child_runs_there(script):
    # The fork server has not loaded it here, so that each of its children does, after it was forked.
    done = script(
        """
        import atexit, billiard, os
        atexit.register(print, "end of", __name__)
        if __name__ == "__main__":
            billiard.set_forkserver_preload([])
            for method in ("spawn", "forkserver"):
                process = billiard.get_context(method).Process(target=int)
                process.start()
                process.join()
        """
    )
    assert (done.stdout, done.stderr) == ("end of __mp_main__\nend of __mp_main__\nend of __main__\n", "")


@pytest.mark.parametrize("how", ["return", "exit", "crash"])
def test_finalizers_run_however_the_child_ends(output, how):
    out, err = output(endwork.end_with_a_finalizer, how)
    assert out == "finalizer\n"
    assert ("Traceback" in err) == (how == "crash")


def test_a_finalizer_that_fails_does_not_stop_the_others(output):
    out, err = output(endwork.end_with_a_bad_finalizer)
    assert out == "next\n"
    assert err.count("ZeroDivisionError") == 1


AT_EXIT = """
import billiard, os, sys, time
def slow():
    time.sleep(0.1)
    print("joined", flush=True)
def main(method):
    context = billiard.get_context(method)
    daemon = context.Process(target=time.sleep, args=(1000,), daemon=True)
    daemon.start()
    context.Process(target=slow).start()
    return daemon.pid
if __name__ == "__main__":
    print(main(sys.argv[1]), flush=True)
    sys.exit(5 if sys.argv[2] == "exit" else 1 / 0)
"""


def _gone(pid):
    """Tell whether no process has that number, not even one that has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    os.close(descriptor)
    return False


@pytest.mark.parametrize("how", ["exit", "crash"])
def test_at_its_exit_a_program_terminates_daemons_and_joins_the_others(script, method, how):
    done = script(AT_EXIT, method, how)
    pid, joined, rest = done.stdout.split("\n")
    assert (joined, rest) == ("joined", "")
    assert _gone(int(pid))
    assert done.returncode == {"exit": 5, "crash": 1}[how]
    assert ("Traceback" in done.stderr) == (how == "crash")


def test_so_does_a_child(ask, method):
    pid = ask(endwork.start_a_daemon, method)
    assert _gone(pid)


def test_a_daemon_may_have_children_of_any_kind(ask, method):
    assert ask(endwork.codes_of_children, method, daemon=True) == [3, 3]


BOTH_PACKAGES = """
import billiard, multiprocessing, sys, time
if __name__ == "__main__":
    theirs = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,), daemon=True)
    theirs.start()
    child = billiard.get_context(sys.argv[1]).Process(target=int)
    child.start()
    child.join()
    print(child.exitcode, theirs.is_alive())
"""


def test_the_standard_librarys_daemons_are_left_alone(script, method):
    done = script(BOTH_PACKAGES, method)
    assert (done.stdout, done.stderr) == ("0 True\n", "")


def test_finalizers_of_the_parent_are_not_in_the_child(ask):
    mine = Finalize(None, print, exitpriority=-5)
    try:
        assert ask(endwork.finalizers) == []
    finally:
        mine.cancel()


def test_terminate_ends_a_child_whose_threads_go_on(staying):
    child = staying(endwork.stay_in_a_thread)
    child.terminate()
    child.join()
    assert child.exitcode == -signal.SIGTERM


def test_a_child_ends_at_once_beside_idle_threads_of_its_parent(script):
    # The copies of their objects are still waited for by the standard library's own exit function.
    done = script(
        """
        import billiard, time
        from concurrent.futures import ThreadPoolExecutor
        if __name__ == "__main__":
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(time.sleep, [0.01] * 8))
                child = billiard.Process(target=print, args=("child",))
                child.start()
                child.join(30)
                print(child.exitcode)
        """
    )
    assert (done.stdout, done.stderr) == ("child\n0\n", "")
