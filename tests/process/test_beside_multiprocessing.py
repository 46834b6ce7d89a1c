"""What the package shares with the standard library's, and what it does not, under each start method."""

from __future__ import annotations

import multiprocessing
import multiprocessing.util as theirs

import kinwork

import billiard
from billiard import process, util

SHARED = """
    Finalize ForkAwareLocal ForkAwareThreadLock get_temp_dir is_exiting register_after_fork
    _run_after_forkers _run_finalizers _exit_function _afterfork_registry _afterfork_counter
    _finalizer_registry _finalizer_counter
"""


def test_the_same_registries():
    for name in SHARED.split():
        assert getattr(util, name) is getattr(theirs, name)


def test_the_same_exceptions():
    for name in ("ProcessError", "BufferTooShort", "TimeoutError", "AuthenticationError"):
        assert getattr(billiard, name) is getattr(multiprocessing, name)


def test_main_processes_differ():
    assert billiard.current_process() is not multiprocessing.current_process()
    assert bytes(billiard.current_process().authkey) != bytes(multiprocessing.current_process().authkey)


def test_a_child_is_the_current_process_of_both(ask):
    assert ask(kinwork.is_current_in_both) == [True, True, True]


def test_hooks_of_either_package_run_in_children_in_order(script, method):
    # In a fresh interpreter, those that the main module registers when it is imported.
    done = script(
        """
        import billiard, multiprocessing.util, sys
        from billiard import util
        class Thing: pass
        thing = Thing()
        def tell(text): print(text, billiard.current_process().name, flush=True)
        util.register_after_fork(thing, lambda it: tell("first"))
        multiprocessing.util.register_after_fork(thing, lambda it: tell("second"))
        if __name__ == "__main__":
            billiard.set_forkserver_preload([])
            child = billiard.get_context(sys.argv[1]).Process(target=tell, args=("run",), name="n")
            child.start()
            child.join()
        """,
        method,
    )
    assert (done.stdout, done.stderr) == ("first n\nsecond n\nrun n\n", "")


def test_a_daemon_may_have_children_of_this_package_only(script, original_script, method):
    source = """
    import billiard, multiprocessing, sys
    def daemon():
        try:
            multiprocessing.get_context("fork").Process(target=int).start()
        except AssertionError as error:
            print("theirs:", error, flush=True)
        child = billiard.get_context("fork").Process(target=print, args=("ours",))
        child.start()
        child.join()
    if __name__ == "__main__":
        child = billiard.get_context(sys.argv[1]).Process(target=daemon, daemon=True)
        child.start()
        child.join()
        print(child.exitcode)
    """
    ours, theirs = (run(source, method) for run in (script, original_script))
    told = "theirs: daemonic processes are not allowed to have children\nours\n0\n"
    assert (ours.stdout, ours.stderr) == (theirs.stdout, "") == (told, "")


def test_a_child_of_the_standard_library_is_still_the_main_process(script, original_script, method):
    source = """
    import billiard, multiprocessing, os, sys, time
    def child():
        me = billiard.current_process()
        print(me.name, me.pid == os.getpid(), billiard.Process()._identity)
        if len(sys.argv) > 2:
            print(billiard.active_children())
        process = billiard.get_context(sys.argv[1]).Process(target=print, args=("grandchild",))
        process.start()
        process.join()
        print(process.exitcode, flush=True)
    if __name__ == "__main__":
        other = billiard.Process(target=time.sleep, args=(1000,), daemon=True)
        other.start()
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
        print(process.exitcode, other.is_alive())
        other.terminate()
        other.join()
    """
    ours, theirs = (run(source, method) for run in (script, original_script))
    assert (ours.stdout, ours.stderr) == (theirs.stdout, "")
    assert ours.stdout == "MainProcess True (2,)\ngrandchild\n0\n0 True\n"
    # Where the original has its parent's children, it has none.
    assert "\n[]\n" in script(source, method, "look").stdout


def test_the_two_do_not_see_each_others_children(ctx, staying):
    child = staying()
    other = multiprocessing.get_context("fork").Process(target=int)
    other.start()
    assert child not in multiprocessing.active_children()
    assert other not in billiard.active_children()
    assert billiard.active_children() == list(process._children) == [child]
    other.join()
    other.close()
    assert ctx.active_children() == [child]


def test_finalizers_of_both_run_in_one_order(output):
    assert output(kinwork.leave_finalizers_of_both) == ("ours 3\ntheirs 2\nours 1\n", "")
