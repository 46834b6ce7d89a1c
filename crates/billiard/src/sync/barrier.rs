//! Barriers.

use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::ledger::Ledger;
use super::waiter::{Rest, Waiter};
use super::{SyncError, cannot_wait, check_size, wake};
use crate::arena::Cell;
use crate::failpoint;
use crate::primitives::Word;
use crate::sys::{Deadline, Life, Wait};

/// How many have arrived, and below, to sleep on: the number of the round, how the last eight rounds have ended, the state.
const WORD: usize = 0;
/// The thread that looks after the others for all who wait.
const WATCH: usize = 8;
const LEDGER: usize = 64;
/// So many processes are missed when they die, and as many more as there are parties.
const LEAST_ROWS: usize = 23;
const MOST_ROWS: usize = 4095;

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

/// Changes the word; `None` from `next` leaves it. Answers the word before, and whether it was changed.
fn change(word: &impl Word<u64>, next: impl Fn(u64) -> Option<u64>) -> (u64, bool) {
    let mut seen = word.load(Acquire);
    while let Some(wanted) = next(seen) {
        // SYNC(barrier.open): what each has done before it arrives is seen by all when it is opened.
        match word.compare_exchange(seen, wanted, AcqRel, Acquire) {
            Ok(_) => return (seen, true),
            Err(now) => seen = now,
        }
    }
    (seen, false)
}

/// Arrives as one of `parties`.
fn arrive(word: &impl Word<u64>, parties: u32) -> Arrival {
    let (before, arrived) = change(word, |seen| {
        let last = (seen >> 32) + 1 >= u64::from(parties);
        (seen & STATE == FILLING).then(|| (seen + ARRIVED) | if last { OPENING } else { FILLING })
    });
    let index = (before >> 32) as u32;
    match before & STATE {
        BROKEN => Arrival::Broken,
        _ if !arrived => Arrival::Later(before as u32),
        _ if index.saturating_add(1) >= parties => Arrival::Last(index),
        _ => Arrival::Waits { index, round: (before & ROUND) as u32 },
    }
}

/// Ends the round that is being opened. Whether it was.
fn open(word: &impl Word<u64>) -> bool {
    change(word, |seen| (seen & STATE == OPENING).then(|| next_round(seen, false))).1
}

/// Whether those who arrived in the round `then` go on waiting.
const fn lasts(word: u64, then: u64) -> bool {
    word & ROUND == then && word & STATE != BROKEN
}

/// Whether a wait for the round `then` that is over has ended well.
const fn passed(word: u64, then: u64) -> bool {
    // A round that is over stays as it ended, whatever has happened to the next one.
    word & ROUND != then && ended_well(word, then)
}

/// Whether it was not broken before.
fn break_it(word: &impl Word<u64>) -> bool {
    let broken = |seen| (seen & u64::from(u32::MAX) & !STATE) | BROKEN;
    change(word, |seen| (seen & STATE != BROKEN).then(|| broken(seen))).1
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
    /// A barrier where nobody waits, with room for `parties` processes whose death while they wait is noticed, and then some.
    ///
    /// # Errors
    /// No memory or descriptor is left.
    pub fn new(parties: u32) -> Result<Self, SyncError> {
        let rows = LEAST_ROWS.saturating_add(parties as usize).min(MOST_ROWS);
        Ok(Self { cell: Cell::new(LEDGER + Ledger::size(rows))? })
    }

    /// The barrier in a cell that was received.
    ///
    /// # Errors
    /// The cell is too small for a barrier.
    pub fn from_cell(cell: Cell) -> Result<Self, SyncError> {
        check_size(&cell, LEDGER + Ledger::size(LEAST_ROWS))?;
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
        Ledger::new(&self.cell, LEDGER)
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
        let arrival = arrive(self.word(), parties);
        if matches!(arrival, Arrival::Broken | Arrival::Later(_)) {
            self.ledger().subtract(me, false);
        } else {
            failpoint::pass("barrier.arrived");
        }
        arrival
    }

    /// Lets all who have arrived go on, and begins a new round. The caller has arrived last. False: somebody has broken
    /// the barrier meanwhile.
    pub fn open(&self) -> bool {
        failpoint::pass("barrier.opening");
        let opened = open(self.word());
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
    pub fn wait(&self, round: u32, deadline: Deadline) -> Result<Wait<bool>, SyncError> {
        let then = u64::from(round);
        let outcome = self.wait_while(|seen| lasts(seen, then), deadline)?;
        Ok(match outcome {
            Wait::Interrupted => Wait::Interrupted,
            Wait::TimedOut => {
                self.give_up();
                Wait::TimedOut
            }
            Wait::Ready(seen) => {
                self.ledger().subtract(Life::own(), false);
                Wait::Ready(passed(seen, then))
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
    pub fn wait_for_turn(&self, seen: u32, deadline: Deadline) -> Result<Wait, SyncError> {
        Ok(self.wait_while(|now| now as u32 == seen, deadline)?.map(|_| ()))
    }

    fn wait_while(&self, same: impl Fn(u64) -> bool, deadline: Deadline) -> Result<Wait<u64>, SyncError> {
        let mut waiter = Waiter::new();
        let watch = self.cell.word32(WATCH);
        let outcome = loop {
            let seen = self.word().load(Acquire);
            if !same(seen) {
                break Wait::Ready(seen);
            }
            let rest = waiter.sleep_watching(watch, self.futex(), seen as u32, deadline);
            match rest.map_err(cannot_wait)? {
                Rest::Woken => {}
                Rest::Look => self.break_if_one_is_dead(),
                Rest::TimedOut => break Wait::TimedOut,
                Rest::Interrupted => break Wait::Interrupted,
            }
        };
        waiter.leave(watch);
        Ok(outcome)
    }

    fn break_if_one_is_dead(&self) {
        if self.ledger().strike_the_dead() > 0 {
            self.abort();
        }
    }

    /// Stops waiting for the end of a round, as if the caller had never arrived.
    pub fn withdraw(&self, round: u32) {
        change(self.word(), |seen| {
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
        if break_it(self.word()) {
            self.wake_all();
        }
    }

    /// Begins anew. All who wait learn that it was broken. A round that is about to end well does so.
    pub fn reset(&self) {
        let begun = change(self.word(), |seen| {
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

/// Every interleaving of arriving, opening and breaking. `make loom`.
#[cfg(all(test, loom))]
mod interleavings {
    use loom::sync::atomic::{AtomicU32, AtomicU64};
    use std::sync::atomic::Ordering::Relaxed;

    use super::super::model::{Beds, together};
    use super::*;

    struct Model {
        word: AtomicU64,
        beds: Beds,
        /// What each party does before it arrives.
        done: [AtomicU32; 3],
        through: AtomicU32,
    }

    fn model() -> Model {
        let done = std::array::from_fn(|_| AtomicU32::new(0));
        Model { word: AtomicU64::new(0), beds: Beds::new(), done, through: AtomicU32::new(0) }
    }

    impl Model {
        fn sleep_while(&self, same: impl Fn(u64) -> bool) -> u64 {
            loop {
                let seen = self.word.load(Acquire);
                if !same(seen) {
                    return seen;
                }
                self.beds.sleep(|| self.word.load(Acquire) as u32 == seen as u32);
            }
        }

        /// Whether the barrier was passed.
        fn wait(&self, parties: u32) -> bool {
            loop {
                match arrive(&self.word, parties) {
                    Arrival::Broken => return false,
                    Arrival::Later(seen) => drop(self.sleep_while(|now| now as u32 == seen)),
                    Arrival::Last(_) => {
                        let opened = open(&self.word);
                        if opened {
                            self.beds.wake(usize::MAX);
                        }
                        return opened;
                    }
                    Arrival::Waits { round, .. } => {
                        let then = u64::from(round);
                        return passed(self.sleep_while(|seen| lasts(seen, then)), then);
                    }
                }
            }
        }

        fn abort(&self) {
            if break_it(&self.word) {
                self.beds.wake(usize::MAX);
            }
        }
    }

    #[test]
    fn nobody_goes_on_before_all_are_there_and_all_do() {
        together(
            3,
            model,
            |model, n| {
                // Relaxed: the barrier orders it.
                model.done[n as usize].store(1, Relaxed);
                assert!(model.wait(3));
                assert!(model.done.iter().all(|done| done.load(Relaxed) == 1));
            },
            |model| assert_eq!(model.word.load(Acquire) >> 32, 0),
        );
    }

    #[test]
    fn two_rounds_do_not_mix() {
        together(
            2,
            model,
            |model, n| {
                for round in 1..=2 {
                    model.done[n as usize].store(round, Relaxed);
                    assert!(model.wait(2));
                    assert!(model.done[1 - n as usize].load(Relaxed) >= round);
                }
            },
            |model| assert_eq!(model.word.load(Acquire) >> 32, 0),
        );
    }

    #[test]
    fn when_it_breaks_nobody_is_left_behind_and_all_of_a_round_agree() {
        together(
            3,
            model,
            |model, n| {
                if n == 2 {
                    model.abort();
                } else if model.wait(2) {
                    model.through.fetch_add(1, Relaxed);
                }
            },
            |model| assert_ne!(model.through.load(Relaxed), 1),
        );
    }
}
