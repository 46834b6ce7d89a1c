"""Children that have relatives."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.util
import os
import pickle
import random
import select
import signal
import sys
import time

import processwork

import billiard
from billiard import forkserver, util
from billiard.compat import close_open_fds, mem_rss


def leave_a_grandchild(method, end, released):
    """End while a child runs that waits for something."""
    context = billiard.get_context(method)
    context.Process(target=wait_for_release, args=(end, released), daemon=False).start()
    os._exit(3)


def wait_for_release(end, released):
    os.read(released.fd, 1)
    processwork.say(end, b"e")


def close_all_and_stay(end):
    close_open_fds([end.fd])
    processwork.stay(end)


def _refusal(use):
    try:
        use()
    except Exception as error:
        return type(error).__name__
    return None


def misuse(running, fresh):
    """Use another process's objects. The exit code tells how often that was accepted."""
    refused = (running.join, running.is_alive, fresh.start, fresh.join)
    accepted = sum(_refusal(use) != "AssertionError" for use in refused)
    accepted += repr(running) != f"<{type(running).__name__}({running.name}, unknown daemon)>"
    # Signals do not get there, and nothing is known.
    running.kill()
    running.terminate()
    sys.exit(accepted + (running.exitcode is not None))


def own_misuse():
    me = billiard.current_process()
    return [
        _refusal(use)
        for use in (me.start, me.join, me.terminate, lambda: me.sentinel, lambda: pickle.dumps(me))
    ]


class Holder:
    """Holds what cannot be pickled."""

    def __init__(self, held):
        self.held = held

    def hold(self): ...


def use_descriptors(descriptors, rest):
    for one in descriptors:
        processwork.say(one)
    return (
        len({one.fd for one in descriptors}),
        {os.get_inheritable(one.fd) for one in descriptors},
        len(rest),
    )


def descriptors():
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append((int(number), os.readlink(f"/proc/self/fd/{number}")))
        except OSError:
            continue  # the one that listed the folder
    return found


def inherited():
    try:
        return len(forkserver.get_inherited_fds())
    except RuntimeError:
        return None


def size_and_memory(given):
    return len(given), mem_rss() * 1024


def environment(*names):
    return [os.environ.get(name) for name in names]


def fail_unless_loaded(module):
    assert module in sys.modules


def fail_if_set(name):
    sys.exit(name in os.environ)


def leave_if_loaded(name):
    sys.exit(3 if name in sys.modules else 4)


def leave_when_released(end, released, code):
    processwork.say(end)
    os.read(released.fd, 1)
    sys.exit(code)


def use_another_server(server, pid):
    """Start a child of a fork server in a copy of the process that has started one."""
    child = billiard.get_context("forkserver").Process(target=processwork.leave, args=(5,))
    child.start()
    child.join()
    sys.exit(child.exitcode if server._child.pid != pid else 1)


def start_another(method):
    """Start children, and tell how that went."""
    me, context = billiard.current_process(), billiard.get_context(method)
    reader, writer = os.pipe()
    child = context.Process(target=processwork.tell, args=(processwork.Descriptor(writer), parents_pid))
    child.start()
    os.close(writer)
    with open(reader, "rb") as file:
        seen = pickle.load(file)
    child.join()
    other = context.Process(target=processwork.leave, args=(5,))
    other.start()
    other.join()
    return {
        "pid": me.pid,
        "identity": me._identity,
        "parents": (parents_pid(), seen),
        "code": other.exitcode,
        "names": child.name.split("-"),
    }


def parents_pid():
    return billiard.parent_process().pid


def describe_parent():
    parent = billiard.parent_process()
    return {
        "name": parent.name,
        "pid": parent.pid,
        "ident": parent.ident,
        "alive": parent.is_alive(),
        "repr": repr(parent),
        "both packages": multiprocessing.parent_process() is parent,
        "misuse": [_refusal(use) for use in (parent.start, parent.terminate, parent.kill)],
    }


def wait_for_parent(timeout):
    parent = billiard.parent_process()
    began = time.monotonic()
    parent.join(timeout)
    waited = time.monotonic() - began
    return waited, parent.is_alive(), select.select([parent.sentinel], [], [], 0)[0]


def start_a_witness(method, end, released, way):
    """Start a process that waits for the end of this one, and end when told to."""
    context = billiard.get_context(method)
    context.Process(target=witness, args=(end, way), daemon=False).start()
    os.read(released.fd, 1)
    os._exit(0)


def witness(end, way):
    """Wait for the end of the parent, and say so."""
    parent = billiard.parent_process()
    if way == "closed":
        # Without its descriptor nobody can tell how the parent has ended, so its children are told to end
        # too. This one has something to say first.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        close_open_fds([end.fd])
    processwork.say(end)
    if way == "sentinel":
        select.select([parent.sentinel], [], [])
    else:
        parent.join(None if way == "closed" else way)
    processwork.say(end, b"alive" if parent.is_alive() else b"gone")


def close_all_and_wait(end, timeout):
    """Close every descriptor, and say whether a wait for the parent is as long as it should be."""
    sentinel = billiard.parent_process().sentinel
    close_open_fds([end.fd])
    # What is opened now gets the number of the parent's sentinel in the end, and is always readable.
    while os.open(os.devnull, os.O_RDONLY) < sentinel:
        pass
    waited, alive, _ = wait_for_parent(timeout)
    processwork.say(end, b"alive" if alive and waited >= timeout else b"wrong")


def start_chain(methods, target, daemon, end):
    """Start a child that runs the target, or one that starts it in turn, for each of the methods."""
    first, *others = methods
    rest = (others, target, daemon, end)
    what, args = (be_link, rest) if others else (target, (end,))
    billiard.get_context(first).Process(target=what, args=args, daemon=daemon).start()


def be_link(*rest):
    start_chain(*rest)
    time.sleep(1000)


def stay_known(end):
    processwork.say(end, b"%d" % os.getpid())
    time.sleep(1000)


def stay_although_asked(end):
    """Ignore the polite request to end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stay_known(end)


def is_current_in_both():
    me = billiard.current_process()
    return [
        multiprocessing.current_process() is me,
        multiprocessing.parent_process() is billiard.parent_process(),
        multiprocessing.active_children() == billiard.active_children() == [],
    ]


def leave_finalizers_of_both():
    multiprocessing.util.Finalize(None, print, ("theirs 2",), exitpriority=2)
    for priority in (1, 3):
        util.Finalize(None, print, (f"ours {priority}",), exitpriority=priority)


def draw():
    return random.random()


def log_something(name):
    logging.getLogger(name).warning("something")
    return True


def signals():
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return mask, signal.getsignal(signal.SIGINT).__name__, signal.getsignal(signal.SIGTERM)


def note_where(thing):
    me = billiard.current_process()
    thing.seen.append((me.name, me is multiprocessing.current_process(), len(util._finalizer_registry)))


def look_at(thing):
    """What the hooks have noted, and whether they would run in a child of this process."""
    return thing.seen, thing in util._afterfork_registry.values()
