"""Barriers."""

from __future__ import annotations

import pickle
import threading
import time

import pytest
import syncwork

from billiard import synchronize


class Party:
    """A thread that waits at a barrier."""

    def __init__(self, barrier, timeout=None):
        self.result = None
        self._thread = threading.Thread(target=self._run, args=(barrier, timeout), daemon=True)
        self._thread.start()

    def _run(self, barrier, timeout):
        try:
            self.result = barrier.wait(timeout)
        except BaseException as error:
            self.result = type(error)

    def outcome(self):
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.result


def _waits(barrier, count):
    deadline = time.monotonic() + 30
    while barrier.n_waiting != count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_all_go_on_when_the_last_one_has_come(ctx):
    acted = []
    barrier = ctx.Barrier(3, action=lambda: acted.append(barrier._state))
    assert (barrier.parties, barrier.n_waiting, barrier.broken, barrier._state) == (3, 0, False, 0)
    for round_ in range(20):
        parties = [Party(barrier) for _ in range(2)]
        _waits(barrier, 2)
        assert barrier._count == 2
        assert len(acted) == round_
        assert barrier.wait() == 2
        assert {party.outcome() for party in parties} == {0, 1}
    assert acted == [1] * 20


def test_processes_go_on_together(ctx, start):
    barrier, passed = ctx.Barrier(4), ctx.Semaphore(0)
    for _ in range(3):
        start(syncwork.pass_barrier, barrier, 50, passed)
    for _ in range(50):
        barrier.wait(30)
        # Nobody is ahead by more than the round that is being filled.
        for _ in range(3):
            assert passed.acquire(timeout=30)
    assert passed.get_value() == 0


def test_who_waits_too_long_breaks_it(ctx):
    barrier = ctx.Barrier(3, timeout=0.05)
    patient = Party(barrier, 30)
    _waits(barrier, 1)
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()
    assert patient.outcome() is threading.BrokenBarrierError
    assert barrier.broken
    assert barrier.n_waiting == 0
    assert repr(barrier).endswith("broken>")
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()
    barrier.reset()
    assert not barrier.broken
    parties = [Party(barrier, 30) for _ in range(3)]
    assert {party.outcome() for party in parties} == {0, 1, 2}


def test_it_is_aborted_by_anybody(ctx, start):
    barrier = ctx.Barrier(3)
    parties = [Party(barrier) for _ in range(2)]
    _waits(barrier, 2)
    start(barrier.abort)
    assert {party.outcome() for party in parties} == {threading.BrokenBarrierError}
    assert barrier._state == -2


def test_a_reset_sends_those_who_wait_away(ctx):
    barrier = ctx.Barrier(3)
    barrier.reset()
    parties = [Party(barrier) for _ in range(2)]
    _waits(barrier, 2)
    barrier.reset()
    assert {party.outcome() for party in parties} == {threading.BrokenBarrierError}
    assert not barrier.broken
    parties = [Party(barrier) for _ in range(3)]
    assert {party.outcome() for party in parties} == {0, 1, 2}


def test_an_action_that_fails_breaks_it(ctx):
    barrier = ctx.Barrier(2, action=lambda: 1 / 0)
    party = Party(barrier)
    _waits(barrier, 1)
    with pytest.raises(ZeroDivisionError):
        barrier.wait()
    assert party.outcome() is threading.BrokenBarrierError
    assert barrier.broken


def test_the_death_of_one_who_waits_breaks_it(ctx, start):
    barrier, ready = ctx.Barrier(3), ctx.Semaphore(0)
    victim = start(syncwork.wait_for, barrier, ready)
    party = Party(barrier)
    _waits(barrier, 2)
    victim.kill()
    assert party.outcome() is threading.BrokenBarrierError
    assert barrier.broken
    barrier.reset()
    parties = [Party(barrier) for _ in range(3)]
    assert {party.outcome() for party in parties} == {0, 1, 2}


def test_one_party_waits_for_nobody(ctx):
    for parties in (0, 1):
        barrier = ctx.Barrier(parties)
        assert barrier.wait() == 0
        assert barrier.wait(timeout=1) == 0


def test_it_belongs_to_a_context_and_goes_to_children_only(ctx):
    with pytest.raises(AssertionError, match="context"):
        synchronize.Barrier(2)
    with pytest.raises(RuntimeError, match="Barrier objects should only be shared between processes"):
        pickle.dumps(ctx.Barrier(2))
    assert isinstance(ctx.Barrier(2), threading.Barrier)
    assert repr(ctx.Barrier(2)).endswith("waiters=0/2>")
