//! Semaphores that know what the dead have taken.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::ledger::Ledger;
use super::waiter::{Rest, Waiter};
use super::{Outcome, SyncError, cannot_wait, check_size, wake};
use crate::arena::Cell;
use crate::failpoint;
use crate::sys::{Deadline, Life};

/// The value, and in the highest bit whether somebody may be asleep.
const WORD: usize = 0;
const MAXIMUM: usize = 8;
const LEDGER: usize = 64;
const ROWS: usize = 12;
const SIZE: usize = LEDGER + Ledger::size(ROWS);

const WAITERS: u32 = 1 << 31;

/// A counting semaphore between processes and threads. Any thread of any process may release it.
///
/// What a process has taken when it dies stays taken: only the program knows whether it may be given back.
/// [`Semaphore::abandoned`] tells how much that is, of up to twelve processes that hold something at a time.
#[derive(Debug)]
pub struct Semaphore {
    cell: Cell,
}

impl Semaphore {
    /// The largest value that a semaphore may have.
    pub const MOST: u32 = i32::MAX as u32;

    /// A semaphore with a value that [`Semaphore::release`] never raises above `maximum`.
    ///
    /// # Errors
    /// [`SyncError::Value`] if there is no such semaphore; or no memory or descriptor is left.
    pub fn new(value: u32, maximum: u32) -> Result<Self, SyncError> {
        if maximum > Self::MOST || value > maximum {
            return Err(SyncError::Value { value, most: maximum.min(Self::MOST) });
        }
        let cell = Cell::new(SIZE)?;
        // Relaxed: nobody else knows the cell yet.
        cell.word32(MAXIMUM).store(maximum, Relaxed);
        cell.word32(WORD).store(value, Relaxed);
        Ok(Self { cell })
    }

    /// The semaphore in a cell that was received.
    ///
    /// # Errors
    /// The cell is too small for a semaphore.
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

    const fn ledger(&self) -> Ledger<'_> {
        Ledger::new(&self.cell, LEDGER, ROWS)
    }

    /// The value now.
    #[must_use]
    pub fn value(&self) -> u32 {
        self.word().load(Acquire) & !WAITERS
    }

    /// The largest value it may have.
    #[must_use]
    pub fn maximum(&self) -> u32 {
        self.cell.word32(MAXIMUM).load(Relaxed) & !WAITERS
    }

    fn take(&self, slept: bool) -> Result<(), u32> {
        let mut seen = self.word().load(Relaxed);
        if seen & !WAITERS == 0 {
            return Err(seen);
        }
        // Noted first: a process that dies in between has taken one less than it says, never one more.
        let me = Life::own();
        self.ledger().add(me);
        failpoint::pass("semaphore.noted");
        loop {
            if seen & !WAITERS == 0 {
                self.ledger().subtract(me, false);
                return Err(seen);
            }
            let next = (seen - 1) | if slept { WAITERS } else { 0 };
            // SYNC(semaphore.release): what was done before the release is seen by whoever takes it.
            match self.word().compare_exchange(seen, next, Acquire, Relaxed) {
                Ok(_) => {
                    failpoint::pass("semaphore.taken");
                    return Ok(());
                }
                Err(now) => seen = now,
            }
        }
    }

    /// Takes one if there is one.
    pub fn try_acquire(&self) -> bool {
        self.take(false).is_ok()
    }

    /// Waits until it has taken one.
    ///
    /// # Errors
    /// The system refuses to let the caller wait.
    ///
    /// # Blocking
    /// Until somebody releases one, the deadline, or a signal handler has run.
    pub fn acquire(&self, deadline: Deadline) -> Result<Outcome, SyncError> {
        let mut waiter = Waiter::new();
        loop {
            let Err(seen) = self.take(waiter.has_slept()) else { return Ok(Outcome::Done(())) };
            let wanted = seen | WAITERS;
            // Relaxed: nothing is told but the flag itself.
            let told = self.word().compare_exchange(seen, wanted, Relaxed, Relaxed);
            if seen != wanted && told.is_err() {
                continue;
            }
            match waiter.sleep(self.word(), wanted, deadline).map_err(cannot_wait)? {
                Rest::Woken => failpoint::pass("semaphore.woken"),
                Rest::Look => {}
                // Whoever has released one may have been killed before it woke anybody.
                Rest::TimedOut if self.take(true).is_ok() => return Ok(Outcome::Done(())),
                Rest::TimedOut => return Ok(Outcome::TimedOut),
                Rest::Interrupted => return Ok(Outcome::Interrupted),
            }
        }
    }

    /// Gives one back, whoever has taken it.
    ///
    /// # Errors
    /// [`SyncError::ReleasedTooOften`] if the value is at its maximum.
    pub fn release(&self) -> Result<(), SyncError> {
        let most = self.maximum();
        let mut seen = self.word().load(Relaxed);
        loop {
            if seen & !WAITERS >= most {
                return Err(SyncError::ReleasedTooOften);
            }
            // SYNC(semaphore.release): pairs with the exchange in `take`.
            match self.word().compare_exchange(seen, seen + 1, AcqRel, Relaxed) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        failpoint::pass("semaphore.released");
        self.ledger().subtract(Life::own(), true);
        if seen & WAITERS != 0 {
            // Every release wakes, until there is nobody to wake: the flag is one for all who sleep.
            failpoint::pass("semaphore.waking");
            if wake(self.word(), 1) == 0 {
                // Refused when anything has happened since. Whoever is about to sleep has to set the flag again.
                let _ = self.word().compare_exchange(seen + 1, (seen + 1) & !WAITERS, Release, Relaxed);
            }
        }
        Ok(())
    }

    /// How many this process has taken and not given back.
    #[must_use]
    pub fn held_here(&self) -> u64 {
        self.ledger().of(Life::own())
    }

    /// How many processes that are dead had taken and not given back. Giving them back takes them off this number.
    #[must_use]
    pub fn abandoned(&self) -> u64 {
        self.ledger().of_the_dead()
    }
}
