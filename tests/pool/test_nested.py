"""Pools inside of workers and of other children: they work, and go with the process that has made them."""

from __future__ import annotations

import os
import signal

import poolwork
import pytest
import startworks as works
from chaosworks import is_alive

import billiard

METHODS = ["fork", "forkserver", "spawn"]


@pytest.fixture(autouse=True)
def quiet(caplog):
    """The pool logs every worker that it loses."""
    caplog.set_level("CRITICAL")


@pytest.mark.parametrize("inner", METHODS)
def test_a_worker_may_have_a_pool_of_its_own(start, inner):
    pool = start(2)
    assert pool.starmap(works.pool_in_here, [(inner, 2), (inner, 3)], chunksize=1) == [[0, 2], [0, 2, 4]]
    assert pool.apply(works.pool_in_here, (inner, 4)) == [0, 2, 4, 6]


@pytest.mark.parametrize("inner", METHODS)
def test_pools_of_a_worker_go_with_it(start, inner, until):
    """However it goes: killed, told to end, or because its own pool is over."""
    pool = start(1)
    for number in (signal.SIGKILL, signal.SIGTERM):
        family = pool.apply(works.keep_pool, (inner,))
        assert len(family) == (4 if inner == "forkserver" else 3)
        os.kill(family[0], number)
        until(lambda family=family: not any(map(is_alive, family)), f"{family} end")
    for end in ("terminate", "close"):
        other = start(1)
        family = other.apply(works.keep_pool, (inner,))
        getattr(other, end)()
        other.join()
        until(lambda family=family: not any(map(is_alive, family)), f"{family} end")
    assert pool.apply(poolwork.double, (1,)) == 2


def test_a_pool_three_deep(start, method):
    assert start(1).apply(works.pool_in_pools, (method, 3)) == [[[[0, 2]]]]


@pytest.mark.parametrize("inner", METHODS)
@pytest.mark.parametrize("daemon", [False, True])
@pytest.mark.usefixtures("leak_census")
def test_a_child_may_have_a_pool(method, inner, daemon, tmp_path, until):
    """And may leave it: it is ended at the child's exit."""
    told = tmp_path / "told"
    child = billiard.get_context(method).Process(
        target=works.tell_of_pool, args=(str(told), inner), daemon=daemon
    )
    child.start()
    child.join(60)
    assert child.exitcode == 0
    pid, *family = map(int, told.read_text().split())
    assert pid == child.pid
    assert len(family) == (3 if inner == "forkserver" else 2)
    until(lambda: not any(map(is_alive, family)), f"{family} end")


@pytest.mark.parametrize("inner", METHODS)
@pytest.mark.usefixtures("leak_census")
def test_a_pool_of_a_child_goes_with_it(method, inner, tmp_path, until):
    told = tmp_path / "told"
    child = billiard.get_context(method).Process(
        target=works.tell_of_pool, args=(str(told), inner, 600), daemon=True
    )
    child.start()
    until(lambda: told.exists() and told.read_text().endswith("\n"))
    family = list(map(int, told.read_text().split()))
    child.kill()
    child.join(60)
    until(lambda: not any(map(is_alive, family)), f"{family} end")
