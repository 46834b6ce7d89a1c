"""The same small event loop drives the original and us, and tells the same."""
# ruff: noqa: E501 -- a line of a program is as long as what it shows

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BENCHES = HERE.parents[2] / "benches"

COMMON = f"""
import os, signal, sys, time
sys.path[:0] = [{str(BENCHES)!r}, {str(HERE)!r}]
import loopworks
from harness.looppool import LoopPool
from billiard.einfo import ExceptionWithTraceback

def show(*values): print(*values, flush=True)
def outcome(result):
    pool.run_until(result.ready)
    if result._success: return result._value
    error = result._value.exception
    error = error.exc if isinstance(error, ExceptionWithTraceback) else error
    return type(error).__module__, type(error).__name__, str(error).replace(f"Job: {{result._job}}", "Job: N")
def told(): return [entry[0] for entry in pool.told]
def end(): sys.stdout.flush(); [os.kill(p.pid, signal.SIGKILL) for p in pool._pool if p._is_alive()]; os._exit(0)
"""

PROGRAMS = {
    "values": """
pool = LoopPool(2)
results = [pool.apply_async(loopworks.double, (number,)) for number in range(10)]
show([outcome(result) for result in results], pool._cache)
show(outcome(pool.apply_async(loopworks.fail, ("no",))))
show(len(outcome(pool.apply_async(loopworks.filled, (1_000_000,)))))
show(outcome(pool.apply_async(loopworks.size_of, (b"x" * 1_000_000,))))
name, index = outcome(pool.apply_async(loopworks.whoami))[1:]
show(name.rpartition("-")[0], index in (0, 1))
""",
    "callbacks": """
pool = LoopPool(1)
heard = []
result = pool.apply_async(loopworks.double, (1,), callback=heard.append, correlation_id="mine",
                          accept_callback=lambda pid, at: heard.append((pid == pool._pool[0].pid, type(at))))
show(outcome(result), heard, result.correlation_id, result._accepted, result._job)
failed = pool.apply_async(loopworks.fail, ("no",), error_callback=lambda info: heard.append(info.type))
outcome(failed)
show(heard[-1], repr(failed))
""",
    "lost": """
pool = LoopPool(1)
for function, args in ((loopworks.vanish, (3,)), (loopworks.die, ())):
    show(outcome(pool.apply_async(function, args)))
    pool.run_until(lambda: "down" in told())
    show(told())
    pool.told.clear()
os.kill(pool._pool[0].pid, signal.SIGSTOP)
result = pool.apply_async(loopworks.double, (1,))
pool._pool[0].kill() if hasattr(pool._pool[0], "kill") else os.kill(pool._pool[0].pid, signal.SIGKILL)
show(outcome(result), pool.did_start_ok())
""",
    "limits": """
pool = LoopPool(1, enable_timeouts=True)
heard = []
told_of = lambda soft, timeout: heard.append((soft, timeout))
where = os.path.join(sys.argv[1], "begun")
show(outcome(pool.apply_async(loopworks.endure, (where,), soft_timeout=1, timeout=30, timeout_callback=told_of)))
show(outcome(pool.apply_async(loopworks.hang, (where,), timeout=1, timeout_callback=told_of)))
show(heard, outcome(pool.apply_async(loopworks.double, (1,))))
""",
    "recycling": """
pool = LoopPool(1, maxtasksperchild=2)
pids = [outcome(pool.apply_async(loopworks.whoami))[0] for _ in range(6)]
show([pids.count(pid) for pid in dict.fromkeys(pids)])
""",
    "size": """
pool = LoopPool(1)
pool.run_until(lambda: pool.idle)
pool.grow(2)
show(pool._processes, len(pool._pool))
pool.maintain_pool()
for process in pool._pool[1:]: pool.by_out.get(process.outqR_fd) or pool.hear_up(process)
pool.run_until(lambda: len(pool.idle) == 3)
show([process.index for process in pool._pool])
pool.shrink(2)
pool.run_until(lambda: len(pool._pool) == 1)
show(pool._processes, [process._controlled_termination for process in pool._pool])
try: pool.shrink(2)
except ValueError: show("ValueError", pool._processes)
""",
    "ends": """
pool = LoopPool(2)
results = [pool.apply_async(loopworks.double, (number,)) for number in range(2)]
pool.run_until(lambda: all(result.ready() for result in results))
pool.close()
show(pool._state, pool.apply_async(loopworks.double, (1,)))
pool.join()
show([process.exitcode for process in pool._pool])
pool.terminate()
show(pool._state)
""",
    "revoked": """
pool = LoopPool(1)
where = os.path.join(sys.argv[1], "begun")
result = pool.apply_async(loopworks.hang, (where,))
pool.run_until(lambda: result.accepted() and os.path.exists(where))
pool.terminate_job(pool._pool[0].pid)
show(outcome(result), pool._pool[0]._controlled_termination if pool._pool else None)
""",
    "a word for each job": """
pool = LoopPool(1, synack=True)
kept, dropped, after = (pool.apply_async(loopworks.double, (number,)) for number in (1, 2, 3))
dropped._cancel()
show(outcome(kept), outcome(after))
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_tells_what_the_original_tells(
    name: str, program: Callable[..., object], original: Callable[..., object], tmp_path: Path
) -> None:
    for who in ("theirs", "ours"):
        (tmp_path / who).mkdir()
    source = COMMON + PROGRAMS[name] + "\nend()\n"
    theirs, ours = (run(source, tmp_path / who) for run, who in ((original, "theirs"), (program, "ours")))
    assert theirs.returncode == 0, theirs.stderr
    assert ours.returncode == 0, ours.stderr
    assert ours.stdout == theirs.stdout
