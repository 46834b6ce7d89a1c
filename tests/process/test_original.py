"""The same program on both packages: where nothing was decided otherwise, it prints the same."""

from __future__ import annotations

import pytest

PRELUDE = """
import billiard, os, pickle, signal, sys, time
from billiard import common, compat, context, einfo, exceptions, process, reduction, util
def tell(use):
    try:
        print(repr(use()))
    except BaseException as error:
        print(type(error).__name__)
"""

LIFE = """
child = billiard.Process(target=time.sleep, args=(1000,), name="n", daemon=True, unknown=1)
for use in (child.join, child.is_alive, child.start, child.start, child.is_alive, child.close):
    tell(use)
tell(lambda: child)
tell(lambda: setattr(child, "daemon", False))
tell(lambda: setattr(child, "name", 3))
tell(lambda: setattr(child, "authkey", "x"))
tell(lambda: child.exitcode)
tell(lambda: child.join(0))
tell(lambda: child.join(-1))
tell(lambda: os.fstat(child.sentinel) is not None)
tell(lambda: child._popen.poll())
tell(lambda: child._popen.wait(timeout=0.01))
tell(lambda: child._popen.method)
tell(lambda: child._popen.duplicate_for_child(7))
child.terminate()
child.join()
tell(lambda: child)
tell(lambda: (child.exitcode, child._popen.returncode, child._popen.poll()))
tell(child.terminate)
child.close()
tell(lambda: child)
for use in (child.start, child.terminate, child.join, child.is_alive, child.close):
    tell(use)
tell(lambda: billiard.Process(group=1))
tell(lambda: billiard.Process().sentinel)
tell(lambda: billiard.Process(args=[1], kwargs=[("a", 1)])._kwargs)
"""

EXITS = """
def end(how):
    sys.stderr = open(os.devnull, "w")
    how()
def fail():
    raise ValueError
hows = [int, fail, lambda: os._exit(7), lambda: os.kill(os.getpid(), 9)]
for code in (3, -1, 300, True, 3.5):
    hows.append(lambda code=code: sys.exit(code))
for how in hows:
    child = billiard.Process(target=end, args=(how,))
    child.start()
    child.join()
    print(child.exitcode)
"""

SMALL = """
for status in (0, 1, 155, None, -1, -6, -9, -15, -200):
    tell(lambda: common.human_status(status))
state = common.restart_state(2, 10)
for now in (5, 6, 7, 8, 20, 21, 22):
    tell(lambda: (state.step(now), state.R, state.T))
for kind in (exceptions.TimeLimitExceeded, exceptions.SoftTimeLimitExceeded, exceptions.WorkerLostError,
             exceptions.Terminated, exceptions.RestartFreqExceeded, exceptions.CoroStop):
    for args in ((), (5,), ("a", 2)):
        error = kind(*args)
        tell(lambda: (str(error), error, kind.__module__, pickle.loads(pickle.dumps(error)).args))
tell(lambda: billiard.get_context("x"))
tell(lambda: billiard.get_context("fork").set_start_method("fork"))
tell(lambda: billiard.get_start_method(allow_none=True))
tell(lambda: billiard.get_start_method())
tell(lambda: billiard.set_start_method("fork"))
tell(lambda: context.assert_spawning(1))
tell(lambda: pickle.dumps(billiard.current_process().authkey))
tell(billiard.current_process)
tell(lambda: list(compat.uniq("abca")))
tell(lambda: [compat.maybe_fileno(it) for it in (3, None, "x", sys.__stdout__)])
tell(lambda: common.signum("SIGNONE"))
tell(lambda: sorted(common.TERMSIGS_FULL))
tell(lambda: util.set_pdeathsig("x"))
tell(lambda: type(reduction.ForkingPickler.dumps(1)))
"""

TRACEBACKS = """
import inspect, traceback
def fail(depth):
    if depth:
        fail(depth - 1)
    __traceback_hide__ = True
    {}["x"]
for depth in (0, 3, 200):
    try:
        fail(depth)
    except KeyError:
        info = einfo.ExceptionInfo()
    for one in (info, pickle.loads(pickle.dumps(info))):
        print(one.type, one.internal, type(one.exception).__name__, str(one))
        print("".join(traceback.format_exception(one.type, None, one.tb)))
        print(repr(str(one.exception)), repr(str(one.exception.__cause__)))
        link, count = one.tb, 0
        while link is not None:
            count += 1
            link = link.tb_next
        print(count, inspect.istraceback(one.tb), inspect.isframe(one.tb.tb_frame))
        frame = one.tb.tb_frame
        for name in ("f_builtins f_locals f_back f_trace f_exc_traceback f_exc_type f_exc_value f_lineno "
                     "f_restricted f_globals").split():
            print(name, getattr(frame, name))
        for name in ("co_filename co_name co_argcount co_cellvars co_firstlineno co_flags co_freevars "
                     "co_code co_lnotab co_nlocals co_stacksize co_varnames").split():
            print(name, getattr(frame.f_code, name))
"""


@pytest.mark.parametrize(
    "source", [LIFE, EXITS, SMALL, TRACEBACKS], ids=["life", "exits", "small", "tracebacks"]
)
def test_the_same_program_prints_the_same(program, original, source):
    ours, theirs = program(PRELUDE + source), original(PRELUDE + source)
    assert theirs.stderr == ""
    assert ours.stderr == ""
    assert ours.stdout == theirs.stdout
