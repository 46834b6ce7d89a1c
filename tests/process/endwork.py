"""Children that end, each in its own way."""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import processwork

import billiard
from billiard import util


def fail_while_logging(path, handler):
    if handler == "stderr":
        util.log_to_stderr()
    elif handler == "file":
        util.get_logger().addHandler(logging.FileHandler(path))
    else:
        util.get_logger()
    raise ValueError("unlikely text")


def print_and_fail():
    print("before")
    raise ValueError("unlikely text")


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError


def fail_speechless(kind, end):
    """End by an exception that cannot be told of; a finalizer says that the end was reached."""
    util.Finalize(None, processwork.say, (end,), exitpriority=0)
    if kind == "closed":
        sys.stderr.close()
    elif kind == "missing":
        sys.stderr = None
    elif kind == "strange":
        sys.stderr = object()
    raise Unspeakable if kind == "unspeakable" else SystemExit(object()) if kind == "exit" else ValueError


def _say_later(text, seconds=0.05):
    time.sleep(seconds)
    print(text, flush=True)


def leave_threads_behind():
    """End while threads run: one that starts another, and a daemon."""

    def early():
        _say_later("early")
        threading.Thread(target=_say_later, args=("late",)).start()

    threading.Thread(target=early).start()
    threading.Thread(target=_say_later, args=("daemon", 1000), daemon=True).start()
    print("main thread", flush=True)


def leave_work_behind():
    ThreadPoolExecutor(1).submit(_say_later, "worked")
    print("main thread", flush=True)


def fail_beside_a_thread():
    """Crash while a thread runs that does not end."""
    threading.Thread(target=time.sleep, args=(1000,)).start()
    raise ValueError("unlikely text")


def _say(text):
    print(text, end=" ", flush=True)


def leave_much_behind():
    """End with a thread, finalizers, `atexit` functions, a daemon and another child."""

    def wait_for_the_daemon():
        daemon.join()
        _say("ended")

    def say_late(text):
        time.sleep(0.1)
        _say(text)

    threading.Thread(target=say_late, args=("thread",)).start()
    for priority in (-5, 10, -100, 0):
        util.Finalize(None, _say, (priority,), exitpriority=priority)
    atexit.register(_say, "first")
    atexit.register(_say, "second")
    fork = billiard.get_context("fork")
    daemon = fork.Process(target=time.sleep, args=(1000,), daemon=True)
    daemon.start()
    fork.Process(target=say_late, args=("joined",)).start()
    # It waits for the daemon, which has been terminated by then.
    util.Finalize(None, wait_for_the_daemon, exitpriority=-2)


def end_with_a_finalizer(how):
    util.Finalize(None, print, ("finalizer",), exitpriority=0)
    if how == "exit":
        sys.exit(0)
    if how == "crash":
        raise ValueError


def end_with_a_bad_finalizer():
    util.Finalize(None, divmod, (1, 0), exitpriority=1)
    util.Finalize(None, print, ("next",), exitpriority=0)


def start_a_daemon(method):
    daemon = billiard.get_context(method).Process(target=time.sleep, args=(1000,), daemon=True)
    daemon.start()
    return daemon.pid


def codes_of_children(method):
    context = billiard.get_context(method)
    children = [context.Process(target=processwork.leave, args=(3,), daemon=flag) for flag in (True, False)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    return [child.exitcode for child in children]


def finalizers():
    return list(util._finalizer_registry)


def stay_in_a_thread(end):
    threading.Thread(target=processwork.stay, args=(end,)).start()
