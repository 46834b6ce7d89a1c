//! Conditions. Whoever waits or notifies holds a lock, which is the caller's business; nothing here is left to those who
//! sleep, so nobody who dies asleep is missed.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::ledger::Ledger;
use super::waiter::{Rest, Waiter};
use super::{Outcome, SyncError, cannot_wait, check_size, wake};
use crate::arena::Cell;
use crate::failpoint;
use crate::sys::{Deadline, Life, now};

/// How many grants are there to be taken, and above them the first ticket that may take none.
const WORD: usize = 0;
/// The next ticket.
const NEXT: usize = 8;
/// When it was last looked whether some who wait are dead.
const LOOKED: usize = 16;
const LEDGER: usize = 64;
const ROWS: usize = 12;
const SIZE: usize = LEDGER + Ledger::size(ROWS);

/// How often at most it is looked whether some who wait are dead, in nanoseconds.
const LOOK_AGAIN: u64 = 20_000_000;

/// A condition between processes and threads: some wait, others notify them. Both need a lock that they hold meanwhile.
///
/// A notification is a *grant* that any one of those takes who were waiting when it was given. It is nobody's until it is
/// taken, so it cannot be lost with one who has died.
#[derive(Debug)]
pub struct Condition {
    cell: Cell,
}

/// One who waits.
#[derive(Debug)]
pub struct Ticket {
    number: u32,
    who: Life,
}

const fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

const fn pack(limit: u32, grants: u32) -> u64 {
    (limit as u64) << 32 | grants as u64
}

impl Condition {
    /// A condition that nobody waits for.
    ///
    /// # Errors
    /// No memory or descriptor is left.
    pub fn new() -> Result<Self, SyncError> {
        Ok(Self { cell: Cell::new(SIZE)? })
    }

    /// The condition in a cell that was received.
    ///
    /// # Errors
    /// The cell is too small for a condition.
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

    /// Lines up. The caller holds the lock, releases it next, and then calls [`Condition::sleep`].
    #[must_use]
    pub fn enter(&self) -> Ticket {
        let who = Life::own();
        self.ledger().add(who);
        failpoint::pass("condition.entered");
        Ticket { number: self.cell.word32(NEXT).fetch_add(1, AcqRel), who }
    }

    /// Takes a grant, if there is one for this ticket. `Err`: how many there are, for others.
    fn take(&self, ticket: &Ticket) -> Result<(), u32> {
        let mut seen = self.word().load(Acquire);
        loop {
            let (limit, grants) = unpack(seen);
            let may = limit.wrapping_sub(ticket.number).cast_signed() > 0;
            if grants == 0 || !may {
                return Err(grants);
            }
            match self.word().compare_exchange(seen, pack(limit, grants - 1), AcqRel, Acquire) {
                Ok(_) => {
                    failpoint::pass("condition.taken");
                    return Ok(());
                }
                Err(now) => seen = now,
            }
        }
    }

    /// Sleeps until a grant was taken. The caller does not hold the lock. However it ends, the caller acquires the lock
    /// next, and then calls [`Condition::leave`].
    ///
    /// # Errors
    /// The system refuses to let the caller wait.
    ///
    /// # Blocking
    /// Until a notification, the deadline, or a signal handler has run.
    pub fn sleep(&self, ticket: &Ticket, deadline: Deadline) -> Result<Outcome, SyncError> {
        let mut waiter = Waiter::new();
        loop {
            let Err(grants) = self.take(ticket) else { return Ok(Outcome::Done(())) };
            // Relaxed: a look; taking is another step.
            if waiter.spin(|| self.word().load(Relaxed) as u32 != grants) {
                continue;
            }
            match waiter.sleep(self.futex(), grants, deadline).map_err(cannot_wait)? {
                Rest::Woken => failpoint::pass("condition.woken"),
                Rest::Look => {}
                Rest::TimedOut => return Ok(Outcome::TimedOut),
                Rest::Interrupted => return Ok(Outcome::Interrupted),
            }
        }
    }

    /// Leaves the line. The caller holds the lock again.
    ///
    /// Args: `served`, whether [`Condition::sleep`] was done. Answers whether a grant was taken: one may have been given
    /// between the end of the sleep and the lock.
    pub fn leave(&self, ticket: Ticket, served: bool) -> bool {
        let served = served || self.take(&ticket).is_ok();
        self.ledger().subtract(ticket.who, false);
        served
    }

    /// Gives one grant to each of up to `most` who wait. The caller holds the lock.
    pub fn notify(&self, most: u32) {
        let waiting = u32::try_from(self.waiting()).unwrap_or(u32::MAX);
        if waiting == 0 {
            return;
        }
        let mut seen = self.word().load(Acquire);
        // Grants that nobody takes may be those of the dead, of whom it is not known yet.
        let mut waiting = waiting;
        if unpack(seen).1 > 0 && self.may_look() && self.ledger().strike_the_dead() {
            waiting = u32::try_from(self.waiting()).unwrap_or(u32::MAX);
        }
        // Relaxed: tickets are drawn under the lock, which the caller holds.
        let limit = self.cell.word32(NEXT).load(Relaxed);
        let given = loop {
            let grants = unpack(seen).1.min(waiting);
            let given = most.min(waiting - grants);
            match self.word().compare_exchange(seen, pack(limit, grants + given), AcqRel, Acquire) {
                Ok(_) => break given,
                Err(now) => seen = now,
            }
        };
        failpoint::pass("condition.granted");
        if given > 0 {
            // One more than needed: should one of them be killed as it wakes up, another takes its place.
            wake(self.futex(), given.saturating_add(1).min(i32::MAX as u32));
        }
    }

    fn may_look(&self) -> bool {
        let (looked, now) = (self.cell.word64(LOOKED), now().0);
        // Relaxed: two who look at once do no harm.
        let due = now.wrapping_sub(looked.load(Relaxed)) >= LOOK_AGAIN;
        if due {
            looked.store(now, Relaxed);
        }
        due
    }

    fn waiting(&self) -> u64 {
        self.ledger().total()
    }

    /// How many wait, of whom it is known that they live.
    #[must_use]
    pub fn sleepers(&self) -> u64 {
        self.ledger().strike_the_dead();
        self.waiting()
    }

    /// How many grants are there that nobody has taken yet.
    #[must_use]
    pub fn grants(&self) -> u32 {
        unpack(self.word().load(Acquire)).1
    }
}
