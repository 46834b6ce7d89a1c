"""What is refused, at the call, with the name and the value."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import poolwork
import pytest

import billiard
from billiard.pool import Pool, Worker


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("processes", 0, ValueError),
        ("processes", -1, ValueError),
        ("processes", True, TypeError),
        ("processes", 1.5, TypeError),
        ("processes", "2", TypeError),
        ("maxtasksperchild", 0, ValueError),
        ("maxtasksperchild", -3, ValueError),
        ("maxtasksperchild", True, TypeError),
        ("maxtasksperchild", 2.0, TypeError),
        ("timeout", -1, ValueError),
        ("timeout", True, TypeError),
        ("timeout", "1", TypeError),
        ("soft_timeout", -0.5, ValueError),
        ("soft_timeout", False, TypeError),
        ("lost_worker_timeout", True, TypeError),
        ("max_memory_per_child", True, TypeError),
        ("max_memory_per_child", -1, ValueError),
        ("max_restarts", True, TypeError),
        ("max_restarts", -1, ValueError),
        ("max_restart_freq", True, TypeError),
    ],
)
@pytest.mark.usefixtures("leak_census")
def test_a_constructor_names_the_number_that_it_refuses(
    option: str, value: object, error: type[Exception]
) -> None:
    with pytest.raises(error, match=option) as refused:
        Pool(**{"processes": 1, option: value})
    assert repr(value) in str(refused.value)


@pytest.mark.usefixtures("leak_census")
@pytest.mark.parametrize("option", ["initializer", "on_process_exit"])
def test_a_constructor_refuses_what_cannot_be_called(option: str) -> None:
    with pytest.raises(TypeError, match=f"{option} must be a callable"):
        Pool(1, **{option: 42})


def test_a_constructor_ignores_options_that_it_does_not_know(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(1, proc_alive_timeout=4.0, sched_strategy=4)
    assert pool.apply(poolwork.double, (2,)) == 4


@pytest.mark.usefixtures("leak_census")
def test_the_factory_takes_every_option_of_the_class() -> None:
    with billiard.Pool(1, synack=False, max_memory_per_child=10**9, enable_timeouts=True) as pool:
        assert pool.apply(poolwork.double, (2,)) == 4


@pytest.mark.parametrize("chunksize", [0, -1])
@pytest.mark.parametrize("method", ["map", "map_async", "starmap", "starmap_async", "imap", "imap_unordered"])
def test_a_chunk_has_at_least_one_item(pool: Pool, method: str, chunksize: int) -> None:
    with pytest.raises(ValueError, match=rf"chunksize must be at least 1, not {chunksize}"):
        getattr(pool, method)(poolwork.double, [1], chunksize)


@pytest.mark.parametrize("chunksize", [True, 1.0, "1"])
def test_a_chunk_size_is_an_int(pool: Pool, chunksize: object) -> None:
    with pytest.raises(TypeError, match="chunksize must be an int"):
        pool.map(poolwork.double, [1], chunksize)


@pytest.mark.parametrize("buffersize", [0, -1])
def test_look_ahead_is_at_least_one(pool: Pool, buffersize: int) -> None:
    with pytest.raises(ValueError, match="buffersize"):
        pool.imap(poolwork.double, [1], buffersize=buffersize)


@pytest.mark.parametrize("method", ["map", "starmap", "imap", "imap_unordered"])
def test_what_cannot_be_iterated_is_refused(pool: Pool, method: str) -> None:
    with pytest.raises(TypeError, match="not iterable"):
        getattr(pool, method)(poolwork.double, 3)
    assert pool.apply(poolwork.double, (2,)) == 4


@pytest.mark.parametrize("timeout", ["1", object(), [1]])
def test_a_wait_takes_seconds(pool: Pool, timeout: Any) -> None:
    result = pool.apply_async(poolwork.double, (2,))
    with pytest.raises(TypeError):
        result.get(timeout)
    with pytest.raises(TypeError):
        result.wait(timeout)
    assert result.get() == 4


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, 10**6])
def test_a_wait_without_an_end_is_no_error(pool: Pool, timeout: float) -> None:
    assert pool.apply_async(poolwork.double, (2,)).get(timeout) == 4


def test_nan_is_no_time(pool: Pool) -> None:
    nan = float("nan")
    done = pool.apply_async(poolwork.double, (2,))
    assert done.get() == 4
    calls: list[Callable[[], object]] = [
        lambda: done.get(nan),
        lambda: done.wait(nan),
        lambda: pool.apply_async(poolwork.sleep, (1,)).get(nan),
        lambda: pool.imap(poolwork.sleep, [1]).next(nan),
        lambda: pool.apply_async(poolwork.double, (2,), timeout=nan),
        lambda: pool.apply_async(poolwork.double, (2,), soft_timeout=nan),
        lambda: billiard.Pool(1, timeout=nan),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="not nan"):
            call()


def test_a_negative_timeout_looks_and_returns(pool: Pool) -> None:
    result = pool.apply_async(poolwork.sleep, (5,))
    with pytest.raises(billiard.TimeoutError):
        result.get(-1)
    result.wait(-1)
    assert not result.ready()


@pytest.mark.parametrize("method", ["grow", "shrink"])
@pytest.mark.parametrize(("n", "error"), [(-1, ValueError), (True, TypeError), (1.5, TypeError)])
def test_a_pool_grows_and_shrinks_by_a_count(pool: Pool, method: str, n: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"\bn must be"):
        getattr(pool, method)(n)
    assert pool._processes == 2


def test_a_call_with_arguments_that_do_not_fit_fails_that_job_only(pool: Pool) -> None:
    with pytest.raises(TypeError, match=re.escape("double()")):
        pool.apply(poolwork.double, (1, 2, 3))
    with pytest.raises(TypeError):
        pool.apply(42)  # type: ignore[arg-type]
    assert pool.apply(poolwork.double, (2,)) == 4


def test_a_signal_that_does_not_exist_harms_nobody(pool: Pool) -> None:
    worker = pool._pool[0].pid
    pool.terminate_job(worker, 999)
    pool.terminate_job(2**22 + 1)
    assert pool.apply(poolwork.double, (2,)) == 4


@pytest.mark.parametrize("maxtasks", [0, -1, True, 1.5])
def test_a_worker_has_a_share_of_at_least_one(maxtasks: Any) -> None:
    with pytest.raises(ValueError, match="maxtasksperchild"):
        Worker(None, None, maxtasks=maxtasks)
