//! Events.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use super::waiter::{Rest, Waiter};
use super::{Outcome, SyncError, cannot_wait, check_size, wake};
use crate::arena::Cell;
use crate::failpoint;
use crate::sys::Deadline;

const WORD: usize = 0;
const SIZE: usize = 64;

const SET: u32 = 1;
/// Somebody may be asleep.
const WAITERS: u32 = 2;
/// Above: how often it was set.
const ONCE: u32 = 4;

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

    /// Whether it is set.
    #[inline]
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.word().load(Acquire) & SET != 0
    }

    /// Sets it and wakes all who wait.
    pub fn set(&self) {
        let mut seen = self.word().load(Relaxed);
        loop {
            if seen & SET != 0 {
                // Whoever has set it wakes the others, and may have died before; nobody sleeps once nobody is flagged.
                if seen & WAITERS == 0 {
                    return;
                }
                break;
            }
            let next = (seen | SET).wrapping_add(ONCE);
            // SYNC(event.set): what was done before is seen by those who find it set.
            match self.word().compare_exchange(seen, next, AcqRel, Relaxed) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        failpoint::pass("event.set");
        if seen & WAITERS != 0 {
            wake(self.word(), i32::MAX as u32);
            // Everybody is awake; who comes now finds it set. The flag of one who comes after a `clear` is on another round.
            let seen = self.word().load(Relaxed);
            if seen & SET != 0 {
                // Refused when somebody was faster; then the next `set` makes a call too many.
                let _ = self.word().compare_exchange(seen, seen & !WAITERS, AcqRel, Relaxed);
            }
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
    /// Until it is set, the deadline, or a signal handler has run.
    pub fn wait(&self, deadline: Deadline) -> Result<Outcome, SyncError> {
        let mut waiter = Waiter::new();
        let first = self.word().load(Acquire);
        loop {
            // SYNC(event.set): pairs with the exchange in `set`.
            let seen = self.word().load(Acquire);
            if seen & SET != 0 || (seen ^ first) & !(SET | WAITERS) != 0 {
                return Ok(Outcome::Done(()));
            }
            let wanted = seen | WAITERS;
            if seen != wanted && self.word().compare_exchange(seen, wanted, AcqRel, Relaxed).is_err() {
                continue;
            }
            match waiter.sleep(self.word(), wanted, deadline).map_err(cannot_wait)? {
                Rest::Woken | Rest::Look => {}
                // Whoever has set it may have been killed before it woke anybody: one more look.
                Rest::TimedOut if self.word().load(Acquire) == wanted => return Ok(Outcome::TimedOut),
                Rest::TimedOut => {}
                Rest::Interrupted => return Ok(Outcome::Interrupted),
            }
        }
    }
}
