"""Who hears of a pool's workers and jobs, and what happens if they raise."""

import os
import signal

import pytest
from poolwork import double, pid

from billiard.pool import EX_OK, EX_RECYCLE, Pool


def tell_exit(path, number, code):
    with open(path, "a") as file:
        file.write(f"{number} {code}\n")


class Exits:
    """A callable for `on_process_exit` that knows its file."""

    def __init__(self, path):
        self.path = path

    def __call__(self, number, code):
        tell_exit(self.path, number, code)

    def lines(self):
        with open(self.path) as file:
            return sorted(tuple(map(int, line.split())) for line in file)


def test_ups_and_downs_are_told(make_pool, until):
    ups, downs = [], []
    pool = make_pool(2, on_process_up=ups.append, on_process_down=downs.append, maxtasksperchild=1)
    assert ups == pool._pool
    pool.map(double, range(4), 1)
    until(lambda: len(downs) == 4)
    pool.close()
    pool.join()
    assert [worker.exitcode for worker in downs[:4]] == [EX_RECYCLE] * 4
    assert sorted(w.name for w in ups) == sorted(w.name for w in downs)


@pytest.mark.parametrize("hook", ["on_process_up", "on_process_down", "on_timeout_set", "on_timeout_cancel"])
@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_a_hook_that_raises_ends_nothing(make_pool, caplog, hook, error):
    caplog.set_level("CRITICAL")
    raising = []

    def call(*_):
        if raising:
            raise error("hook")

    pool = make_pool(1, maxtasksperchild=1, putlocks=True, **{hook: call})
    raising.append(True)
    for i in range(5):
        assert pool.apply(double, (i,)) == 2 * i
    pool.close()
    pool.join()


@pytest.mark.usefixtures("leak_census")
def test_a_hook_that_raises_at_once_is_the_constructors_error():
    def call(_):
        raise ValueError("hook")

    with pytest.raises(ValueError, match="hook"):
        Pool(2, on_process_up=call)


def test_hooks_may_be_set_later(make_pool, until):
    pool, ups = make_pool(1), []
    pool.on_process_up = ups.append
    os.kill(pool._pool[0].pid, signal.SIGKILL)
    until(lambda: ups)
    assert ups == pool._pool


def test_limit_hooks_hear_of_every_job(make_pool):
    told = []
    pool = make_pool(
        1,
        on_timeout_set=lambda *args: told.append(("set", *args)),
        on_timeout_cancel=lambda *args: told.append(("cancel", *args)),
    )
    plain, limited = (
        pool.apply_async(double, (1,)),
        pool.apply_async(double, (2,), soft_timeout=50, timeout=60),
    )
    pool.close()
    pool.join()
    assert told == [
        ("set", plain, None, None),
        ("cancel", plain),
        ("set", limited, 50, 60),
        ("cancel", limited),
    ]


def test_the_exit_hook_runs_in_the_worker_with_its_code(make_pool, tmp_path, until):
    exits = Exits(str(tmp_path / "exits"))
    pool = make_pool(1, on_process_exit=exits, maxtasksperchild=1)
    recycled = pool.apply(pid)
    until(lambda: os.path.exists(exits.path))
    second = pool._pool[0]
    pool.close()
    pool.join()
    codes = dict(exits.lines())
    assert codes.pop(recycled) == EX_RECYCLE
    assert set(codes.values()) <= {EX_OK}
    assert second.exitcode in (EX_OK, EX_RECYCLE)
