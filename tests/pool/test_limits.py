"""Soft and hard time limits."""

import os
import signal
import time

import pytest
from poolwork import double, gate, identity, pid, sleep, spin

import billiard
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

SHORT = 0.1


def cleans_up(path):
    try:
        spin()
    except SoftTimeLimitExceeded:
        with open(path, "w") as file:
            file.write("cleaned")
        return "cleaned"


def stubborn(path):
    while True:
        try:
            spin()
        except SoftTimeLimitExceeded:
            with open(path, "a") as file:
                file.write("soft\n")


def ignores_terminate(path):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    gate(path)


def with_signals_blocked():
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    time.sleep(60)


def about(seconds):
    """Run for about so long, and return how it went; never longer than it takes to notice a limit."""
    try:
        # Python 3.13 leaves the jump back of a loop out of the `try` that the loop stands in.
        return watch_the_clock(time.monotonic() + seconds)
    except SoftTimeLimitExceeded:
        return "soft"


def watch_the_clock(deadline):
    while time.monotonic() < deadline:
        pass
    return "done"


def finds_a_late_signal():
    """A task without a limit: a soft limit that strikes here was meant for another."""
    total = 0
    for i in range(300):
        total += i
    return total


def deep_one():
    deep_two()


def deep_two():
    spin()


def spin_if_three(x):
    if x == 3:
        spin()
    return x


def test_a_soft_limit_is_raised_inside_the_task(pool):
    before = time.monotonic()
    with pytest.raises(SoftTimeLimitExceeded) as caught:
        pool.apply_async(spin, soft_timeout=SHORT).get()
    assert time.monotonic() - before >= SHORT
    assert str(caught.value) == "SoftTimeLimitExceeded()"
    assert "in spin" in str(caught.value.__cause__)


def test_a_soft_limit_interrupts_a_sleep_and_spares_the_worker(make_pool):
    pool = make_pool(1)
    worker = pool.apply(pid)
    with pytest.raises(SoftTimeLimitExceeded):
        pool.apply_async(sleep, soft_timeout=SHORT).get()
    assert pool.apply(pid) == worker


def test_a_soft_limit_can_be_caught_to_clean_up(pool, tmp_path):
    path = tmp_path / "trace"
    assert pool.apply_async(cleans_up, (str(path),), soft_timeout=SHORT).get() == "cleaned"
    assert path.read_text() == "cleaned"


def test_a_soft_limit_fires_once(make_pool, tmp_path):
    pool, path = make_pool(1), tmp_path / "trace"
    with pytest.raises(TimeLimitExceeded):
        pool.apply_async(stubborn, (str(path),), soft_timeout=SHORT, timeout=5 * SHORT).get()
    assert path.read_text() == "soft\n"


def test_a_hard_limit_ends_task_and_worker(make_pool):
    pool = make_pool(1)
    worker, before = pool.apply(pid), time.monotonic()
    with pytest.raises(TimeLimitExceeded) as caught:
        pool.apply_async(spin, timeout=SHORT).get()
    assert time.monotonic() - before >= SHORT
    assert caught.value.args == (SHORT,)
    assert str(caught.value) == f"TimeLimitExceeded({SHORT},)"
    assert caught.value.pid == worker
    assert pool.apply(pid) != worker


def test_a_whole_limit_is_shown_as_a_whole_number(pool):
    with pytest.raises(TimeLimitExceeded) as caught:
        pool.apply_async(spin, timeout=1.0).get()
    assert str(caught.value) == "TimeLimitExceeded(1,)"


@pytest.mark.parametrize("function", [spin, sleep, with_signals_blocked])
def test_a_hard_limit_gets_through_to_everything(pool, function):
    with pytest.raises(TimeLimitExceeded):
        pool.apply_async(function, timeout=SHORT).get()
    assert pool.map(double, range(4)) == [0, 2, 4, 6]


def test_a_worker_that_ignores_the_request_is_killed(make_pool, tmp_path, until):
    pool, path = make_pool(1), tmp_path / "never"
    result = pool.apply_async(ignores_terminate, (str(path),), timeout=SHORT)
    with pytest.raises(TimeLimitExceeded):
        result.get()
    worker = int((tmp_path / "never.began").read_text())
    until(lambda: not os.path.exists(f"/proc/{worker}"))
    assert pool.apply(double, (1,)) == 2


def test_the_error_says_where_the_task_was(pool):
    # Asked just before the limit, a worker may not get to answer in time on a machine that is too busy.
    for _ in range(30):
        with pytest.raises(TimeLimitExceeded) as caught:
            pool.apply_async(deep_one, timeout=3 * SHORT).get()
        stack = caught.value.last_stack
        if stack is not None and "in deep_one" in stack:
            break
    assert stack.index("in spin") < stack.index("in deep_two") < stack.index("in deep_one")


def test_the_soft_limit_comes_before_the_hard_one(pool, tmp_path):
    order, path = [], tmp_path / "trace"
    result = pool.apply_async(
        stubborn,
        (str(path),),
        soft_timeout=SHORT,
        timeout=4 * SHORT,
        timeout_callback=lambda *, soft, timeout: order.append((soft, timeout)),
    )
    with pytest.raises(TimeLimitExceeded):
        result.get()
    pool.close()
    pool.join()
    assert order == [(True, SHORT), (False, 4 * SHORT)]
    assert path.read_text() == "soft\n"


def test_limits_count_from_the_beginning_of_the_task_not_of_the_wait(make_pool, tmp_path, until):
    pool, go = make_pool(1), tmp_path / "go"
    first = pool.apply_async(gate, (str(go),))
    queued = [pool.apply_async(identity, (i,), timeout=SHORT, soft_timeout=SHORT) for i in range(20)]
    until((tmp_path / "go.began").exists)
    with pytest.raises(billiard.TimeoutError):
        queued[0].get(timeout=3 * SHORT)
    go.touch()
    assert first.get()
    assert [q.get() for q in queued] == list(range(20))


def test_limits_of_the_pool_hold_for_every_job(make_pool):
    with pytest.raises(SoftTimeLimitExceeded):
        make_pool(1, soft_timeout=SHORT).apply(spin)
    with pytest.raises(TimeLimitExceeded):
        make_pool(1, timeout=SHORT).apply(spin)


def test_a_job_may_have_limits_of_its_own(make_pool):
    pool = make_pool(1, timeout=60, soft_timeout=60)
    with pytest.raises(SoftTimeLimitExceeded):
        pool.apply_async(spin, soft_timeout=SHORT).get()
    with pytest.raises(TimeLimitExceeded):
        pool.apply_async(spin, timeout=SHORT).get()


def test_zero_means_no_limit_for_this_job(make_pool):
    pool = make_pool(1, timeout=SHORT, soft_timeout=SHORT / 2)
    assert pool.apply_async(about, (4 * SHORT,), timeout=0, soft_timeout=0).get() == "done"
    assert pool.apply_async(about, (4 * SHORT,), timeout=0, soft_timeout=None).get() == "soft"
    with pytest.raises(TimeLimitExceeded):
        pool.apply_async(spin, soft_timeout=0).get()


@pytest.mark.parametrize("limit", [{"timeout": SHORT}, {"soft_timeout": SHORT}])
def test_limits_hold_for_maps_chunk_by_chunk(make_pool, limit):
    pool = make_pool(2, **limit)
    error = SoftTimeLimitExceeded if "soft_timeout" in limit else TimeLimitExceeded
    with pytest.raises(error):
        pool.map(spin_if_three, range(8), chunksize=1)
    with pytest.raises(error):
        pool.starmap(spin, [(60,)])
    assert pool.map(double, range(100)) == [2 * i for i in range(100)]


@pytest.mark.parametrize("kind", ["imap", "imap_unordered"])
@pytest.mark.parametrize("limit", [{"timeout": SHORT}, {"soft_timeout": SHORT}])
def test_limits_hold_for_streams_item_by_item(make_pool, kind, limit):
    pool = make_pool(2, **limit)
    results, got, errors = getattr(pool, kind)(spin_if_three, range(8)), [], []
    while True:
        try:
            got.append(next(results))
        except StopIteration:
            break
        except (SoftTimeLimitExceeded, TimeLimitExceeded) as error:
            errors.append(type(error))
            assert kind == "imap_unordered" or got == [0, 1, 2]
    assert errors == [SoftTimeLimitExceeded if "soft_timeout" in limit else TimeLimitExceeded]
    assert sorted(got) == [0, 1, 2, 4, 5, 6, 7]


def test_a_soft_limit_that_passes_as_its_task_ends_never_hits_the_next_one(make_pool):
    pool = make_pool(2)
    limit = 0.003
    for round in range(60):
        around = [
            pool.apply_async(about, (limit + (i - 10) * 0.00005 + round * 0.000002,), soft_timeout=limit)
            if i % 2
            else pool.apply_async(finds_a_late_signal)
            for i in range(20)
        ]
        for i, result in enumerate(around):
            try:
                value = result.get()
            except SoftTimeLimitExceeded:
                assert i % 2, "a task without a limit was interrupted"
            else:
                assert value in (("done", "soft") if i % 2 else (44850,))
    assert pool.did_start_ok(), "a worker died of a signal that came between two tasks"


def test_a_hard_limit_that_passes_as_its_task_ends_never_costs_another_task(make_pool):
    pool = make_pool(2)
    limit = 0.004
    for round in range(30):
        results = [
            pool.apply_async(about, (limit - 0.0002 + i % 5 * 0.0001,), timeout=limit)
            if i % 2
            else pool.apply_async(finds_a_late_signal)
            for i in range(10)
        ]
        for i, result in enumerate(results):
            try:
                result.get()
            except TimeLimitExceeded:
                assert i % 2, f"round {round}: a task without a limit was ended"


def test_many_limits_at_once(make_pool):
    pool = make_pool(2)
    results = [pool.apply_async(double, (i,), timeout=60, soft_timeout=50) for i in range(5000)]
    assert [r.get() for r in results] == [2 * i for i in range(5000)]


def test_a_soft_limit_signal_sent_by_hand_interrupts_the_task(make_pool, tmp_path, until):
    pool = make_pool(1)
    result = pool.apply_async(gate, (str(tmp_path / "never"),))
    until((tmp_path / "never.began").exists)
    os.kill(pool._pool[0].pid, signal.SIGUSR1)
    with pytest.raises(SoftTimeLimitExceeded):
        result.get()
    os.kill(pool._pool[0].pid, signal.SIGUSR1)  # between two tasks: nothing
    assert pool.apply(double, (2,)) == 4
    assert pool.did_start_ok()
