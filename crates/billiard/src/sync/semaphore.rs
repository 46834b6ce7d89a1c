//! Semaphores that know what the dead have taken.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::ledger::Ledger;
use super::waiter::{Rest, Waiter};
use super::watch::Announced;
use super::{SyncError, cannot_wait, check_size, wake};
use crate::arena::Cell;
use crate::failpoint;
use crate::primitives::Word;
use crate::sys::{Deadline, Life, Wait};

/// The value, and in the highest bit whether somebody may be asleep.
const WORD: usize = 0;
const MAXIMUM: usize = 8;
/// Always zero: those who sleep hear here that somebody was killed who was about to wake one.
const BELL: usize = 16;
const LEDGER: usize = 64;
/// So many processes are noted at a time, and as many more as the value lets in.
const LEAST_ROWS: usize = 55;
const MOST_ROWS: usize = 1015;

const WAITERS: u32 = 1 << 31;

/// Takes one if there is one. `slept`: the caller has been asleep, so that others may be as well.
fn take(word: &impl Word<u32>, slept: bool) -> Result<(), u32> {
    let mut seen = word.load(Relaxed);
    loop {
        if seen & !WAITERS == 0 {
            return Err(seen);
        }
        let next = (seen - 1) | if slept { WAITERS } else { 0 };
        // SYNC(semaphore.release): what was done before the release is seen by whoever takes it.
        match word.compare_exchange(seen, next, Acquire, Relaxed) {
            Ok(_) => return Ok(()),
            Err(now) => seen = now,
        }
    }
}

/// Says that the caller is about to sleep. Answers the word to sleep on; `Err`: it is not as `seen` any more.
fn announce(word: &impl Word<u32>, seen: u32) -> Result<u32, ()> {
    let wanted = seen | WAITERS;
    if seen == wanted {
        return Ok(wanted);
    }
    // Relaxed: nothing is told but the flag itself.
    word.compare_exchange(seen, wanted, Relaxed, Relaxed).map(|_| wanted).map_err(|_| ())
}

/// Gives one back if there are fewer than `most`. Answers the word as it was, or as it is. `owing` is called before the
/// caller owes anybody a wake-up.
fn give(word: &impl Word<u32>, most: u32, mut owing: impl FnMut()) -> Result<u32, u32> {
    let mut seen = word.load(Relaxed);
    loop {
        if seen & !WAITERS >= most {
            return Err(seen);
        }
        if seen & WAITERS != 0 {
            owing();
        }
        // SYNC(semaphore.release): pairs with the exchange in `take`.
        match word.compare_exchange(seen, seen + 1, AcqRel, Relaxed) {
            Ok(_) => return Ok(seen),
            Err(now) => seen = now,
        }
    }
}

/// Nobody was asleep when one was given back to what was `seen`.
fn nobody_sleeps(word: &impl Word<u32>, seen: u32) {
    // Refused when anything has happened since. Whoever is about to sleep has to set the flag again.
    let _ = word.compare_exchange(seen + 1, (seen + 1) & !WAITERS, Release, Relaxed);
}

/// A counting semaphore between processes and threads. Any thread of any process may release it.
///
/// What a process has taken when it dies stays taken: only the program knows whether it may be given back.
/// [`Semaphore::abandoned`] tells how much that is. It knows of 55 processes that hold something at the same moment, and of as
/// many more as the first value lets in, up to 1015.
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
        let rows = LEAST_ROWS.saturating_add(value as usize).min(MOST_ROWS);
        let cell = Cell::new(LEDGER + Ledger::size(rows))?;
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
        check_size(&cell, LEDGER + Ledger::size(LEAST_ROWS))?;
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
        Ledger::new(&self.cell, LEDGER)
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

    fn bell(&self) -> &AtomicU32 {
        self.cell.word32(BELL)
    }

    fn take(&self, slept: bool) -> Result<(), u32> {
        let seen = self.word().load(Relaxed);
        if seen & !WAITERS == 0 {
            return Err(seen);
        }
        // Noted first: a process that dies in between has taken one less than it says, never one more.
        let me = Life::own();
        self.ledger().add(me);
        failpoint::pass("semaphore.noted");
        let taken = take(self.word(), slept).inspect_err(|_| self.ledger().subtract(me, false));
        failpoint::pass("semaphore.taken");
        taken
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
    pub fn acquire(&self, deadline: Deadline) -> Result<Wait, SyncError> {
        // Not before it is needed: the value may be there.
        let Err(mut seen) = self.take(false) else { return Ok(Wait::Ready(())) };
        let mut waiter = Waiter::with_bell(self.bell());
        loop {
            let mut rest = Rest::Woken;
            if let Ok(wanted) = announce(self.word(), seen) {
                rest = waiter.sleep(self.word(), wanted, self.bell(), deadline).map_err(cannot_wait)?;
                failpoint::pass("semaphore.woken");
            }
            if rest == Rest::Interrupted {
                return Ok(Wait::Interrupted);
            }
            match self.take(waiter.has_slept()) {
                Ok(()) => {
                    // Who was killed has woken nobody for what it has given back, and the bell may have been for another.
                    if rest == Rest::Look && self.value() > 0 {
                        wake(self.word(), 1);
                    }
                    return Ok(Wait::Ready(()));
                }
                Err(_) if rest == Rest::TimedOut => return Ok(Wait::TimedOut),
                Err(now) => seen = now,
            }
        }
    }

    /// Gives one back, whoever has taken it.
    ///
    /// # Errors
    /// [`SyncError::ReleasedTooOften`] if the value is at its maximum.
    pub fn release(&self) -> Result<(), SyncError> {
        let word = self.word();
        let mut announced = None;
        let owing = || _ = announced.get_or_insert_with(|| Announced::of(self.bell()));
        let seen = give(word, self.maximum(), owing).map_err(|_| SyncError::ReleasedTooOften)?;
        failpoint::pass("semaphore.released");
        self.ledger().subtract(Life::own(), true);
        if seen & WAITERS != 0 {
            // Every release wakes, until there is nobody to wake: the flag is one for all who sleep.
            failpoint::pass("semaphore.waking");
            if wake(word, 1) == 0 {
                nobody_sleeps(word, seen);
            }
        }
        drop(announced);
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

/// Every interleaving of taking, sleeping and giving back. `make loom`.
#[cfg(all(test, loom))]
mod interleavings {
    use loom::sync::atomic::AtomicU32;

    use super::super::model::{Beds, together};
    use super::*;

    struct Model {
        word: AtomicU32,
        beds: Beds,
        inside: AtomicU32,
    }

    impl Model {
        fn acquire(&self) {
            let mut slept = false;
            loop {
                let Err(seen) = take(&self.word, slept) else { return };
                let Ok(wanted) = announce(&self.word, seen) else { continue };
                self.beds.sleep(|| self.word.load(Relaxed) == wanted);
                slept = true;
            }
        }

        fn release(&self) {
            let seen = give(&self.word, 1000, || {}).unwrap();
            if seen & WAITERS != 0 && self.beds.wake(1) == 0 {
                nobody_sleeps(&self.word, seen);
            }
        }
    }

    fn model(value: u32) -> Model {
        Model { word: AtomicU32::new(value), beds: Beds::new(), inside: AtomicU32::new(0) }
    }

    #[test]
    fn a_semaphore_of_one_excludes() {
        together(
            3,
            || model(1),
            |model, _| {
                model.acquire();
                // Two at once, or one that does not see what the other did, lose a count. Relaxed: the semaphore orders it.
                let seen = model.inside.load(Relaxed);
                model.inside.store(seen + 1, Relaxed);
                model.release();
            },
            |model| assert_eq!(model.inside.load(Relaxed), 3),
        );
    }

    #[test]
    fn as_many_get_through_as_are_let() {
        together(
            3,
            || model(0),
            |model, n| {
                if n == 0 {
                    model.release();
                    model.release();
                } else {
                    model.acquire();
                }
            },
            |model| assert_eq!(model.word.load(Relaxed) & !WAITERS, 0),
        );
    }
}
