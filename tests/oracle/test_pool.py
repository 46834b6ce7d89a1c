"""The same program under the original and under us prints the same.

Programs run in a process of their own: the original is never imported here.
"""
# ruff: noqa: E501 -- a line of a program is as long as what it shows

import pytest

COMMON = """
import os, signal, time
from billiard.pool import Pool
import billiard

def double(x): return 2 * x
def add(a, b=0, *, c=0): return a + b + c
def fail(text): raise ValueError(text)
def fail_if_three(x):
    if x == 3: raise KeyError(x)
    return x
def leave(code): raise SystemExit(code)
def show(*values): print(*values, flush=True)
def tried(call, *args):
    try: return call(*args)
    except BaseException as error: return type(error).__name__, error.args
"""

PROGRAMS = {
    "values": """
pool = Pool(2)
show(pool.apply(double, (4,)), pool.apply(add, (1, 2), {"c": 3}), pool.apply(add, [1]))
show(pool.map(double, range(20)), pool.map(double, range(7), 3), pool.map(double, []))
show(pool.starmap(add, [(1, 2), (3,)]), pool.map_async(double, iter(range(4))).get())
show(list(pool.imap(double, range(9))), list(pool.imap(double, range(9), 4)))
show(sorted(pool.imap_unordered(double, range(9))))
""",
    "handles": """
pool = Pool(2)
result = pool.apply_async(double, (4,), correlation_id="mine")
show(result.get(), result.ready(), result.successful(), result.accepted(), result.wait(), result.correlation_id)
show(len(result.worker_pids()), result._worker_pid in [w.pid for w in pool._pool])
show(repr(result).replace(str(result._job), "N", 1), result._success, result._value)
show(tried(pool.apply_async(time.sleep, (1,)).get, 0)[0])
several = pool.map_async(double, range(81))
several.get()
show(several._chunksize, several._length, type(several).__name__)
""",
    "errors": """
pool = Pool(2)
show(tried(pool.apply, fail, ("no",)), tried(pool.map, fail, ["a"]))
show(tried(list, pool.imap(fail, ["a"])))
results, got = pool.imap(fail_if_three, range(5)), []
while True:
    try: got.append(next(results))
    except KeyError as error: got.append(error.args)
    except StopIteration: break
show(got)
try: pool.apply(fail, ("no",))
except ValueError as error: show(type(error.__cause__).__name__, "in fail" in str(error.__cause__))
for code in (None, 0, 3, "words"): show(tried(pool.apply, leave, (code,)))
info = pool.apply_async(fail, ("no",))
info.wait()
show(info._value.type, repr(info._value.exception), "in fail" in info._value.traceback, info._value.internal)
""",
    "callbacks": """
told = []
pool = Pool(1)
pool.apply_async(double, (1,), callback=lambda v: told.append(("done", v)),
                 accept_callback=lambda pid, at: told.append(("accept", pid == pool._pool[0].pid, type(at))))
pool.apply_async(fail, ("no",), error_callback=lambda i: told.append(("failed", type(i).__name__, i.type)))
pool.map_async(double, range(3), callback=lambda v: told.append(("map", v)))
pool.close()
pool.join()
for line in told: show(line)
""",
    "soft limit": """
def catches():
    try: time.sleep(30)
    except billiard.exceptions.SoftTimeLimitExceeded as error: return str(error), error.args
told = []
pool = Pool(1, soft_timeout=1)
show(pool.apply_async(catches, timeout_callback=lambda **k: told.append(sorted(k.items()))).get())
show(tried(pool.apply, time.sleep, (30,)), told)
""",
    "workers": """
pool = Pool(3)
show([(w.name.rpartition("-")[0], w.index, w.daemon) for w in pool._pool])
show(pool._processes, len(pool.process_sentinels), pool.did_start_ok(), pool.timeout, pool.readers, pool._state)
show(tried(pool.join)[0], pool.max_restarts, pool.lost_worker_timeout, pool.synack, pool.threads, pool.putlocks)
pool.close()
pool.join()
show(pool._state)
""",
    "recycling": """
pool = Pool(1, maxtasksperchild=2)
pids = [pool.apply(os.getpid) for _ in range(6)]
show([pids.count(p) for p in dict.fromkeys(pids)])
""",
    "initializer": """
def remember(*args): globals()["kept"] = args
def recall(): return kept
show(Pool(1, remember, (1, "two")).apply(recall))
show(tried(Pool, 1, 3)[0])
""",
    "put lock": """
semaphore = billiard.pool.LaxBoundedSemaphore(2)
steps = [semaphore._value]
for step in ("acquire", "release", "release", "grow", "acquire", "clear", "shrink"):
    getattr(semaphore, step)()
    steps.append((step, semaphore._value, semaphore._initial_value))
show(steps)
""",
    "constants": """
import billiard.pool as module
show(*(getattr(module, n) for n in "RUN CLOSE TERMINATE ACK READY TASK NACK DEATH EX_OK EX_FAILURE EX_RECYCLE".split()))
show(module.LOST_WORKER_TIMEOUT, module.SIG_SOFT_TIMEOUT, module.SIGKILL, module.TIMEOUT_MAX, module.MAXMEM_USED_FMT)
show(module.mapstar((double, [1, 2])), module.starmapstar((add, [(1, 2)])))
import inspect
for name in ("__init__", "apply", "apply_async", "map", "starmap", "map_async", "starmap_async", "grow", "shrink"):
    # What is ours alone can only be given by name.
    parameters = [p for p in inspect.signature(getattr(Pool, name)).parameters.values() if p.kind != p.KEYWORD_ONLY]
    show(name, [(p.name, p.default, p.kind) for p in parameters])
""",
}

#: Without the seconds that the original takes to end its pools. Workers end with the process that made them.
END = """
for child in billiard.active_children(): os.kill(child.pid, signal.SIGKILL)
os._exit(0)
"""


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_prints_what_the_original_prints(name, program, original):
    source = COMMON + PROGRAMS[name] + END
    theirs, ours = original(source), program(source)
    assert theirs.returncode == 0, theirs.stderr
    assert ours.returncode == 0, ours.stderr
    assert ours.stdout == theirs.stdout
