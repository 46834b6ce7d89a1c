//! Events.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use super::waiter::{Rest, Waiter};
use super::watch::Announced;
use super::{SyncError, cannot_wait, check_size, wake};
use crate::arena::Cell;
use crate::failpoint;
use crate::primitives::Word;
use crate::sys::{Deadline, Wait};

const WORD: usize = 0;
/// Always zero: those who sleep hear here that somebody was killed who was about to wake them.
const BELL: usize = 8;
const SIZE: usize = 64;

const SET: u32 = 1;
/// Somebody may be asleep.
const WAITERS: u32 = 2;
/// Above: how often it was set.
const ONCE: u32 = 4;

/// How often an event had been set at some moment.
#[derive(Clone, Copy, Debug)]
pub struct Since(u32);

/// Sets it. Whether there may be sleepers to wake; `owing` is called before the caller owes them that.
fn set(word: &impl Word<u32>, mut owing: impl FnMut()) -> bool {
    let mut seen = word.load(Relaxed);
    loop {
        if seen & WAITERS != 0 {
            owing();
        }
        if seen & SET != 0 {
            // Whoever has set it wakes the others, and may have died before; nobody sleeps once nobody is flagged.
            return seen & WAITERS != 0;
        }
        let next = (seen | SET).wrapping_add(ONCE);
        // SYNC(event.set): what was done before is seen by those who find it set.
        match word.compare_exchange(seen, next, AcqRel, Relaxed) {
            Ok(_) => return seen & WAITERS != 0,
            Err(now) => seen = now,
        }
    }
}

/// All who slept are awake; who comes now finds it set.
fn all_are_awake(word: &impl Word<u32>) {
    let seen = word.load(Relaxed);
    // The flag of one who has come after a `clear` is on another round.
    if seen & SET != 0 {
        // Refused when somebody was faster; then the next `set` makes a call too many.
        let _ = word.compare_exchange(seen, seen & !WAITERS, AcqRel, Relaxed);
    }
}

/// Looks whether it is set, or was since `first`. If not, says that the caller is about to sleep, and answers the word to
/// sleep on.
fn look(word: &impl Word<u32>, first: u32) -> Option<u32> {
    loop {
        // SYNC(event.set): pairs with the exchange in `set`.
        let seen = word.load(Acquire);
        if seen & SET != 0 || (seen ^ first) & !(SET | WAITERS) != 0 {
            return None;
        }
        let wanted = seen | WAITERS;
        if seen == wanted || word.compare_exchange(seen, wanted, AcqRel, Relaxed).is_ok() {
            return Some(wanted);
        }
    }
}

/// A flag between processes and threads that can be waited for.
#[derive(Debug)]
pub struct Event {
    cell: Cell,
}

impl Event {
    /// An event that is not set.
    ///
    /// # Errors
    /// No memory or descriptor is left.
    pub fn new() -> Result<Self, SyncError> {
        Ok(Self { cell: Cell::new(SIZE)? })
    }

    /// The event in a cell that was received.
    ///
    /// # Errors
    /// The cell is too small for an event.
    pub fn from_cell(cell: Cell) -> Result<Self, SyncError> {
        check_size(&cell, SIZE)?;
        Ok(Self { cell })
    }

    /// Where it lives, to be sent to other processes.
    #[must_use]
    pub const fn cell(&self) -> &Cell {
        &self.cell
    }

    fn word(&self) -> &AtomicU32 {
        self.cell.word32(WORD)
    }

    fn bell(&self) -> &AtomicU32 {
        self.cell.word32(BELL)
    }

    /// Whether it is set.
    #[inline]
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.word().load(Acquire) & SET != 0
    }

    /// Sets it and wakes all who wait.
    pub fn set(&self) {
        let mut announced = None;
        let owing = || _ = announced.get_or_insert_with(|| Announced::of(self.bell()));
        let owes = set(self.word(), owing);
        failpoint::pass("event.set");
        if owes {
            wake(self.word(), i32::MAX as u32);
            all_are_awake(self.word());
        }
    }

    /// Takes it back.
    pub fn clear(&self) {
        // Those who are flagged are about to wake up, or will be woken by the next `set`.
        self.word().fetch_and(!SET, AcqRel);
    }

    /// Waits until it is set, even if it is cleared again at once.
    ///
    /// # Errors
    /// The system refuses to let the caller wait.
    ///
    /// # Blocking
    /// Until it is set, the deadline, or a signal wants to be handled.
    pub fn wait(&self, deadline: Deadline) -> Result<Wait, SyncError> {
        self.wait_since(self.now(), deadline)
    }

    /// What [`Event::wait_since`] asks for.
    #[must_use]
    pub fn now(&self) -> Since {
        Since(self.word().load(Acquire))
    }

    /// Waits until it is set, or was since then: for whoever waits again after an interruption.
    ///
    /// # Errors
    /// The system refuses to let the caller wait.
    ///
    /// # Blocking
    /// As for [`Event::wait`].
    pub fn wait_since(&self, since: Since, deadline: Deadline) -> Result<Wait, SyncError> {
        let mut waiter = Waiter::with_bell(self.bell());
        while let Some(wanted) = look(self.word(), since.0) {
            match waiter.sleep(self.word(), wanted, self.bell(), deadline).map_err(cannot_wait)? {
                Rest::Woken => failpoint::pass("event.woken"),
                Rest::Look if self.word().load(Acquire) == wanted => {}
                // Whoever has set it was killed before it woke anybody.
                Rest::Look => {
                    failpoint::pass("event.told");
                    wake(self.word(), i32::MAX as u32);
                }
                Rest::TimedOut if self.word().load(Acquire) == wanted => return Ok(Wait::TimedOut),
                Rest::TimedOut => {}
                Rest::Interrupted => return Ok(Wait::Interrupted),
            }
        }
        Ok(Wait::Ready(()))
    }
}

/// Every interleaving of waiting, setting and clearing. `make loom`.
#[cfg(all(test, loom))]
mod interleavings {
    use loom::sync::atomic::{AtomicBool, AtomicU32};

    use super::super::model::{Beds, together};
    use super::*;

    struct Model {
        word: AtomicU32,
        beds: Beds,
        told: AtomicBool,
    }

    fn model() -> Model {
        Model { word: AtomicU32::new(0), beds: Beds::new(), told: AtomicBool::new(false) }
    }

    impl Model {
        fn wait(&self, since: u32) {
            while let Some(wanted) = look(&self.word, since) {
                self.beds.sleep(|| self.word.load(Relaxed) == wanted);
            }
        }

        fn set(&self) {
            if set(&self.word, || {}) {
                self.beds.wake(usize::MAX);
                all_are_awake(&self.word);
            }
        }
    }

    #[test]
    fn all_who_wait_go_on_and_see_what_was_done_before() {
        together(
            3,
            model,
            |model, n| {
                if n == 0 {
                    // Relaxed: the event orders it.
                    model.told.store(true, Relaxed);
                    model.set();
                } else {
                    model.wait(0);
                    assert!(model.told.load(Relaxed));
                }
            },
            |model| assert_eq!(model.word.load(Relaxed) & SET, SET),
        );
    }

    #[test]
    fn one_that_is_taken_back_at_once_was_seen_and_the_next_one_wakes_too() {
        together(
            3,
            model,
            |model, n| {
                if n == 0 {
                    model.set();
                    model.word.fetch_and(!SET, AcqRel);
                    model.set();
                } else {
                    // Those who come between the two wait for the second.
                    model.wait(model.word.load(Acquire));
                }
            },
            |_| (),
        );
    }

    #[test]
    fn whoever_waits_has_seen_one_that_is_taken_back() {
        together(
            3,
            model,
            |model, n| {
                if n == 0 {
                    model.set();
                    model.word.fetch_and(!SET, AcqRel);
                } else {
                    model.wait(0);
                }
            },
            |_| (),
        );
    }
}
