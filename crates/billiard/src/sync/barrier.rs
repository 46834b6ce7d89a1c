//! Barriers.

use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::ledger::Ledger;
use super::waiter::{Rest, Waiter};
use super::{Outcome, SyncError, cannot_wait, check_size, wake};
use crate::arena::Cell;
use crate::failpoint;
use crate::sys::{Deadline, Life};

/// How many have arrived, and below, to sleep on: the number of the round, how the last eight rounds have ended, the state.
const WORD: usize = 0;
const WATCH: usize = 8;
const LEDGER: usize = 64;
const ROWS: usize = 12;
const SIZE: usize = LEDGER + Ledger::size(ROWS);

const STATE: u64 = 3;
const PAST_SHIFT: u32 = 2;
const PAST: u64 = 0xff << PAST_SHIFT;
const ROUND_SHIFT: u32 = 10;
const ROUND: u64 = u32::MAX as u64 & !(PAST | STATE);
const ARRIVED: u64 = 1 << 32;

const FILLING: u64 = 0;
const OPENING: u64 = 1;
const BROKEN: u64 = 2;

/// The word of the next round, with nobody there yet. `reset`: the round that ends has not come to its regular end.
const fn next_round(word: u64, reset: bool) -> u64 {
    let round = (word & ROUND).wrapping_add(1 << ROUND_SHIFT) & ROUND;
    let past = ((word & PAST) << 1 | (reset as u64) << PAST_SHIFT) & PAST;
    round | past | FILLING
}

/// Whether the round `then`, which is over, has come to its regular end.
const fn ended_well(word: u64, then: u64) -> bool {
    let since = ((word & ROUND).wrapping_sub(then) & ROUND) >> ROUND_SHIFT;
    // Whoever is still asleep after eight more rounds sees the last one that is remembered.
    let bit = if since > 8 { 7 } else { since.wrapping_sub(1) };
    word >> PAST_SHIFT & 1 << bit == 0
}

/// What a barrier is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierState {
    /// Waiting until all have arrived.
    Filling,
    /// All have arrived, and the last one is about to open it.
    Opening,
    /// Of no use until it is reset.
    Broken,
}

/// What became of an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The last one: everybody waits for [`Barrier::open`] or [`Barrier::abort`].
    Last(u32),
    /// One of those who wait: see [`Barrier::wait`].
    Waits {
        /// How many were there before.
        index: u32,
        /// The round to wait for.
        round: u32,
    },
    /// The round before is not over.
    Later(u32),
    /// The barrier is broken.
    Broken,
}

/// A place where a number of threads of any processes wait for each other, again and again.
///
/// If a process dies while it waits here, the barrier breaks: those who wait learn of it within 100 ms, instead of going on
/// without it.
#[derive(Debug)]
pub struct Barrier {
    cell: Cell,
}

impl Barrier {
    /// A barrier where nobody waits.
    ///
    /// # Errors
    /// No memory or descriptor is left.
    pub fn new() -> Result<Self, SyncError> {
        Ok(Self { cell: Cell::new(SIZE)? })
    }

    /// The barrier in a cell that was received.
    ///
    /// # Errors
    /// The cell is too small for a barrier.
    pub fn from_cell(cell: Cell) -> Result<Self, SyncError> {
        check_size(&cell, SIZE)?;
        Ok(Self { cell })
    }

    /// Where it lives, to be sent to other processes.
    #[must_use]
    pub const fn cell(&self) -> &Cell {
        &self.cell
    }

    fn word(&self) -> &AtomicU64 {
        self.cell.word64(WORD)
    }

    fn futex(&self) -> &AtomicU32 {
        self.cell.low_half(WORD)
    }

    const fn ledger(&self) -> Ledger<'_> {
        Ledger::new(&self.cell, LEDGER, ROWS)
    }

    /// Changes the word; `None` from `next` leaves it. Answers the word before.
    fn change(&self, next: impl Fn(u64) -> Option<u64>) -> (u64, bool) {
        let mut seen = self.word().load(Acquire);
        while let Some(wanted) = next(seen) {
            match self.word().compare_exchange(seen, wanted, AcqRel, Acquire) {
                Ok(_) => return (seen, true),
                Err(now) => seen = now,
            }
        }
        (seen, false)
    }

    fn wake_all(&self) {
        failpoint::pass("barrier.changed");
        wake(self.futex(), i32::MAX as u32);
    }

    /// Arrives as one of `parties`.
    pub fn arrive(&self, parties: u32) -> Arrival {
        let me = Life::own();
        // Noted first, so that nobody counts who is not known.
        self.ledger().add(me);
        failpoint::pass("barrier.noted");
        let (before, arrived) = self.change(|seen| {
            let last = (seen >> 32) + 1 >= u64::from(parties);
            (seen & STATE == FILLING).then(|| (seen + ARRIVED) | if last { OPENING } else { FILLING })
        });
        if !arrived {
            self.ledger().subtract(me, false);
            return if before & STATE == BROKEN { Arrival::Broken } else { Arrival::Later(before as u32) };
        }
        failpoint::pass("barrier.arrived");
        let index = (before >> 32) as u32;
        if index.saturating_add(1) >= parties {
            return Arrival::Last(index);
        }
        Arrival::Waits { index, round: before as u32 & ROUND as u32 }
    }

    /// Lets all who have arrived go on, and begins a new round. The caller has arrived last. False: somebody has broken
    /// the barrier meanwhile.
    pub fn open(&self) -> bool {
        failpoint::pass("barrier.opening");
        let (_, opened) = self.change(|seen| (seen & STATE == OPENING).then(|| next_round(seen, false)));
        if opened {
            self.wake_all();
        }
        self.ledger().subtract(Life::own(), false);
        opened
    }

    /// Waits for the end of a round, after [`Arrival::Waits`]. `Done(false)`: the barrier was broken or reset.
    ///
    /// However it ends, unless it is interrupted, the caller is not waiting any more; if the deadline has passed, the
    /// barrier is broken.
    ///
    /// # Errors
    /// The system refuses to let the caller wait.
    ///
    /// # Blocking
    /// Until the round ends, the deadline, or a signal handler has run.
    pub fn wait(&self, round: u32, deadline: Deadline) -> Result<Outcome<bool>, SyncError> {
        let then = u64::from(round);
        let outcome = self.wait_while(|seen| seen & ROUND == then && seen & STATE != BROKEN, deadline)?;
        Ok(match outcome {
            Outcome::Interrupted => Outcome::Interrupted,
            Outcome::TimedOut => {
                self.give_up();
                Outcome::TimedOut
            }
            Outcome::Done(seen) => {
                self.ledger().subtract(Life::own(), false);
                // A round that is over stays as it ended, whatever has happened to the next one.
                Outcome::Done(seen & ROUND != then && ended_well(seen, then))
            }
        })
    }

    /// Waits until the state that [`Arrival::Later`] has found is over.
    ///
    /// # Errors
    /// The system refuses to let the caller wait.
    ///
    /// # Blocking
    /// As for [`Barrier::wait`].
    pub fn wait_for_turn(&self, seen: u32, deadline: Deadline) -> Result<Outcome, SyncError> {
        let outcome = self.wait_while(|now| now as u32 == seen, deadline)?;
        Ok(match outcome {
            Outcome::Done(_) => Outcome::Done(()),
            Outcome::TimedOut => Outcome::TimedOut,
            Outcome::Interrupted => Outcome::Interrupted,
        })
    }

    fn wait_while(&self, same: impl Fn(u64) -> bool, deadline: Deadline) -> Result<Outcome<u64>, SyncError> {
        let mut waiter = Waiter::new();
        let watch = self.cell.word64(WATCH);
        let outcome = loop {
            let seen = self.word().load(Acquire);
            if !same(seen) {
                break Outcome::Done(seen);
            }
            let rest = waiter.sleep_watching(watch, self.futex(), seen as u32, deadline);
            match rest.map_err(cannot_wait)? {
                Rest::Woken => {}
                Rest::Look => self.break_if_one_is_dead(),
                Rest::TimedOut => break Outcome::TimedOut,
                Rest::Interrupted => break Outcome::Interrupted,
            }
        };
        waiter.leave(watch, self.futex());
        Ok(outcome)
    }

    fn break_if_one_is_dead(&self) {
        if self.ledger().strike_the_dead() > 0 {
            self.abort();
        }
    }

    /// Stops waiting for the end of a round, as if the caller had never arrived.
    pub fn withdraw(&self, round: u32) {
        self.change(|seen| {
            let waits = seen & ROUND == u64::from(round) && seen & STATE == FILLING && seen >= ARRIVED;
            waits.then(|| seen - ARRIVED)
        });
        self.ledger().subtract(Life::own(), false);
    }

    /// Stops waiting, and breaks the barrier.
    pub fn give_up(&self) {
        self.ledger().subtract(Life::own(), false);
        self.abort();
    }

    /// Breaks the barrier: all who wait or will arrive learn of it, until it is reset.
    pub fn abort(&self) {
        let broken = |seen| (seen & u64::from(u32::MAX) & !STATE) | BROKEN;
        if self.change(|seen| (seen & STATE != BROKEN).then(|| broken(seen))).1 {
            self.wake_all();
        }
    }

    /// Begins anew. All who wait learn that it was broken. A round that is about to end well does so.
    pub fn reset(&self) {
        let begun = self.change(|seen| {
            let begins = seen & STATE == BROKEN || (seen & STATE == FILLING && seen >= ARRIVED);
            begins.then(|| next_round(seen, true))
        });
        if begun.1 {
            self.wake_all();
        }
    }

    /// What the barrier is doing.
    #[must_use]
    pub fn state(&self) -> BarrierState {
        match self.word().load(Acquire) & STATE {
            FILLING => BarrierState::Filling,
            OPENING => BarrierState::Opening,
            _ => BarrierState::Broken,
        }
    }

    /// How many have arrived and wait.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        (self.word().load(Acquire) >> 32) as u32
    }
}
