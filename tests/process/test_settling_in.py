"""What of its parent's state a child has, and what it has of its own, under each start method."""

from __future__ import annotations

import io
import logging
import random
import signal
import threading

import kinwork
import pytest

from billiard import util

#: For what only a copy of its parent can have.
ONLY_COPIES = pytest.mark.parametrize("method", ["fork"], indirect=True)


def test_random_numbers_of_children_differ(ask):
    random.seed(1)
    assert len({ask(kinwork.draw) for _ in range(3)} | {random.random()}) == 4


@ONLY_COPIES
def test_a_logging_lock_that_somebody_holds_is_free_in_the_child(ask):
    handler = logging.StreamHandler(io.StringIO())
    logger = logging.getLogger("billiard.tests")
    logger.addHandler(handler)
    held, release = threading.Event(), threading.Event()

    def hold():
        with handler.lock:
            held.set()
            release.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        assert ask(kinwork.log_something, "billiard.tests") is True
    finally:
        release.set()
        holder.join()
        logger.removeHandler(handler)


def test_signals_of_a_child_are_open(ask):
    assert ask(kinwork.signals) == (set(), "default_int_handler", signal.SIG_DFL)


class Thing:
    def __init__(self):
        self.seen = []


@ONLY_COPIES
def test_hooks_see_the_child(ask):
    thing = Thing()
    util.register_after_fork(thing, kinwork.note_where)
    names, registered = ask(kinwork.look_at, thing, name="n")
    # The finalizers of the parent are gone by then.
    assert names == [("n", True, 0)]
    assert registered is True
    assert thing.seen == []


@ONLY_COPIES
def test_a_child_that_is_started_at_exit_has_an_exit_of_its_own(script, method):
    done = script(
        """
        import billiard, sys
        from billiard import util
        def child():
            print(util.is_exiting(), flush=True)
            util.Finalize(None, print, ("end of the child",), exitpriority=0)
        def start():
            print(util.is_exiting(), flush=True)
            process = billiard.get_context(sys.argv[1]).Process(target=child)
            process.start()
            process.join()
            print(process.exitcode, flush=True)
        if __name__ == "__main__":
            util.Finalize(None, start, exitpriority=10)
        """,
        method,
    )
    assert (done.stdout.split("\n"), done.stderr) == (["True", "False", "end of the child", "0", ""], "")


def test_the_package_logs_the_beginning_and_the_end(script, original_script, method):
    source = """
    import billiard, logging, sys
    if __name__ == "__main__":
        billiard.log_to_stderr(logging.INFO)
        process = billiard.get_context(sys.argv[1]).Process(target=int, name="n")
        process.start()
        process.join()
        print(process.pid, flush=True)
    """
    for run in (script, original_script):
        done = run(source, method)
        lines = [line for line in done.stderr.splitlines() if line.startswith("[INFO/n]")]
        pid = done.stdout.strip()
        assert lines[0] == f"[INFO/n] child process {pid} calling self.run()"
        assert lines[-1] == f"[INFO/n] process {pid} exiting with exitcode 0"
