//! Conditions. Whoever waits or notifies holds a lock, which is the caller's business; nothing here is left to those who
//! sleep, so nobody who dies asleep is missed.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::ledger::Ledger;
use super::waiter::{Rest, Waiter};
use super::watch::Announced;
use super::{Lock, SyncError, cannot_wait, check_size, wake};
use crate::arena::Cell;
use crate::failpoint;
use crate::primitives::Word;
use crate::sys::{Deadline, Life, Wait, futex, now};

/// How many grants are there to be taken, how many wait, and the first ticket that may take none.
const WORD: usize = 0;
/// The next ticket.
const NEXT: usize = 8;
/// When it was last looked whether some who wait are dead.
const LOOKED: usize = 16;
/// Whether some may sleep for longer than the death of a holder may stay unnoticed.
const DEEP: usize = 24;
/// Always zero: those who sleep hear here that somebody was killed who was about to wake them.
const BELL: usize = 32;
const LEDGER: usize = 64;
/// So many processes may wait at a time and be missed when they die. One more that dies may have one notification too many
/// wake somebody, or stay for the next one to come.
const ROWS: usize = 119;
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

/// The word, in parts. Whoever waits and dies may stay counted until that is noticed; nobody who lives is ever missed.
#[derive(Clone, Copy)]
struct State {
    /// 24 bits of the first ticket that was drawn too late for the grants that are there.
    limit: u32,
    /// 20 bits: more threads than that do not wait.
    waiting: u32,
    /// As many bits.
    grants: u32,
}

const COUNT_BITS: u32 = 20;
const COUNT: u32 = (1 << COUNT_BITS) - 1;
const TICKET: u32 = (1 << 24) - 1;

impl State {
    const fn of(word: u64) -> Self {
        Self {
            limit: (word >> (2 * COUNT_BITS)) as u32,
            waiting: (word >> COUNT_BITS) as u32 & COUNT,
            grants: word as u32 & COUNT,
        }
    }

    const fn word(self) -> u64 {
        (self.limit as u64) << (2 * COUNT_BITS) | (self.waiting as u64) << COUNT_BITS | self.grants as u64
    }

    /// Whether there is a grant that this ticket may take.
    const fn serves(self, ticket: u32) -> bool {
        let ahead = self.limit.wrapping_sub(ticket) & TICKET;
        self.grants > 0 && ahead != 0 && ahead <= TICKET / 2
    }
}

/// Changes the state; `None` leaves it. Answers the state before.
fn change(word: &impl Word<u64>, next: impl Fn(State) -> Option<State>) -> Option<State> {
    let mut seen = word.load(Acquire);
    loop {
        let wanted = next(State::of(seen))?.word();
        match word.compare_exchange(seen, wanted, AcqRel, Acquire) {
            Ok(_) => return Some(State::of(seen)),
            Err(now) => seen = now,
        }
    }
}

/// One more waits.
fn line_up(word: &impl Word<u64>) {
    change(word, |state| Some(State { waiting: (state.waiting + 1).min(COUNT), ..state }));
}

/// One less does, and takes nothing.
fn step_out(word: &impl Word<u64>) {
    change(word, |state| Some(State { waiting: state.waiting.saturating_sub(1), ..state }));
}

/// Takes a grant for a ticket and leaves the line. Whether there was one.
fn take(word: &impl Word<u64>, ticket: u32) -> bool {
    let taken = change(word, |state| {
        let next =
            State { waiting: state.waiting.saturating_sub(1), grants: state.grants.wrapping_sub(1), ..state };
        state.serves(ticket).then_some(next)
    });
    taken.is_some()
}

/// Gives up to `most` grants to those with tickets below `limit`. How many, and whether everybody has one now.
fn grant(word: &impl Word<u64>, limit: u32, most: u32) -> (u32, bool) {
    let given = |state: State| most.min(state.waiting.saturating_sub(state.grants));
    let before = change(word, |state| Some(State { limit, grants: state.grants + given(state), ..state }));
    before.map_or((0, false), |before| {
        let given = given(before);
        (given, before.grants + given == before.waiting)
    })
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
        Ledger::new(&self.cell, LEDGER)
    }

    fn state(&self) -> State {
        State::of(self.word().load(Acquire))
    }

    fn bell(&self) -> &AtomicU32 {
        self.cell.word32(BELL)
    }

    /// Lines up. The caller holds the lock, releases it next, and then calls [`Condition::sleep`].
    #[must_use]
    pub fn enter(&self) -> Ticket {
        let who = Life::own();
        // Counted first and noted after: who dies in between is counted for ever, which costs a needless wake-up at most.
        line_up(self.word());
        failpoint::pass("condition.entered");
        self.ledger().add(who);
        Ticket { number: self.cell.word32(NEXT).fetch_add(1, AcqRel) & TICKET, who }
    }

    /// Takes a grant, if there is one for this ticket, and with it leaves the line.
    fn take(&self, ticket: &Ticket) -> bool {
        if !self.state().serves(ticket.number) {
            return false;
        }
        // The other way round than in `enter`, for the same reason.
        self.ledger().subtract(ticket.who, false);
        failpoint::pass("condition.taking");
        let taken = take(self.word(), ticket.number);
        failpoint::pass("condition.taken");
        if !taken {
            self.ledger().add(ticket.who);
        }
        taken
    }

    /// Sleeps until a grant was taken. The caller does not hold the lock. However it ends, the caller acquires the lock
    /// next, and then calls [`Condition::leave`]. `lock` is what those who notify hold, if it is a [`Lock`].
    ///
    /// # Errors
    /// The system refuses to let the caller wait.
    ///
    /// # Blocking
    /// Until a notification, the deadline, or a signal handler has run.
    pub fn sleep(&self, ticket: &Ticket, deadline: Deadline, lock: Option<&Lock>) -> Result<Wait, SyncError> {
        let mut waiter = Waiter::with_bell(self.bell());
        let mut told = false;
        loop {
            // Before the look: what comes after it changes the word.
            let seen = self.word().load(Acquire);
            let served = self.take(ticket);
            if told {
                // Whoever was killed may have owed it to others too; and those of us who are killed next, to the rest.
                self.wake_the_granted(lock);
            }
            if served {
                return Ok(Wait::Ready(()));
            }
            if waiter.is_deep() {
                // SYNC(condition.deep): said before the word is looked at by the kernel, so that a notification which comes
                // later knows it.
                self.cell.word32(DEEP).store(1, SeqCst);
            }
            let rest = waiter.sleep(self.futex(), seen as u32, self.bell(), deadline).map_err(cannot_wait)?;
            told = rest == Rest::Look;
            match rest {
                Rest::Woken => {
                    failpoint::pass("condition.woken");
                    if let Some(lock) = lock
                        && !self.state().serves(ticket.number)
                    {
                        // Moved to the lock, woken by its release, and the grant is another's: so is the lock.
                        lock.pass_wake_up_on();
                    }
                }
                Rest::Look => {}
                Rest::TimedOut => return Ok(Wait::TimedOut),
                Rest::Interrupted => return Ok(Wait::Interrupted),
            }
        }
    }

    /// Wakes those who sleep although there are grants, wherever they do.
    fn wake_the_granted(&self, lock: Option<&Lock>) {
        let grants = self.state().grants;
        if grants > 0 {
            wake(self.futex(), grants);
            if let Some(lock) = lock {
                lock.pass_wake_up_on();
            }
        }
    }

    /// Leaves the line. The caller holds the lock again.
    ///
    /// Args: `served`, whether [`Condition::sleep`] was done. Answers whether a grant was taken: one may have been given
    /// between the end of the sleep and the lock.
    pub fn leave(&self, ticket: &Ticket, served: bool) -> bool {
        if served || self.take(ticket) {
            return true;
        }
        self.ledger().subtract(ticket.who, false);
        step_out(self.word());
        false
    }

    /// Gives one grant to each of up to `most` who wait. The caller holds `lock`, or another kind of lock.
    ///
    /// Whoever is woken needs the lock first of all, which the caller still has. So sleepers are not woken but moved to the
    /// lock, and its release wakes one after the other; unless some may be asleep for so long that they would not notice
    /// in time that the caller was killed before it has released the lock.
    pub fn notify(&self, most: u32, lock: Option<&Lock>) {
        let state = self.state();
        if state.waiting == 0 || most == 0 {
            return;
        }
        // Grants that nobody takes may be those of the dead, of whom it is not known yet.
        if state.grants > 0 && self.may_look() {
            self.strike_the_dead();
        }
        // Relaxed: tickets are drawn under the lock, which the caller holds.
        let limit = self.cell.word32(NEXT).load(Relaxed) & TICKET;
        let _announced = Announced::of(self.bell());
        let (given, all) = grant(self.word(), limit, most);
        failpoint::pass("condition.granted");
        if given == 0 {
            return;
        }
        // SYNC(condition.deep): pairs with the store in `sleep`. Said until there is nobody left of whom it may be true.
        let deep = self.cell.word32(DEEP).load(SeqCst) != 0;
        if deep && all {
            self.cell.word32(DEEP).store(0, SeqCst);
        }
        if let Some(lock) = lock.filter(|lock| !deep && lock.is_held_here()) {
            let now = self.word().load(Acquire) as u32;
            // Refused when the word has changed since: some are awake.
            if futex::requeue(self.futex(), now, lock.waiting_room(), given).is_ok() {
                return;
            }
        }
        // One more than needed: should one of them be killed as it wakes up, another takes its place.
        wake(self.futex(), given + 1);
    }

    fn strike_the_dead(&self) {
        let struck = u32::try_from(self.ledger().strike_the_dead()).unwrap_or(COUNT);
        if struck > 0 {
            change(self.word(), |state| {
                let waiting = state.waiting.saturating_sub(struck);
                Some(State { waiting, grants: state.grants.min(waiting), ..state })
            });
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

    /// How many wait, of whom it is not known that they are dead.
    #[must_use]
    pub fn sleepers(&self) -> u32 {
        self.strike_the_dead();
        self.state().waiting
    }

    /// How many grants are there that nobody has taken yet.
    #[must_use]
    pub fn grants(&self) -> u32 {
        self.strike_the_dead();
        self.state().grants
    }
}

/// Every interleaving of waiting, giving up and notifying. `make loom`.
#[cfg(all(test, loom))]
mod interleavings {
    use loom::sync::Mutex;
    use loom::sync::atomic::AtomicU64;

    use super::super::model::{Beds, together};
    use super::*;

    /// A condition, and its lock, which guards the next ticket.
    struct Model {
        word: AtomicU64,
        beds: Beds,
        next: Mutex<u32>,
    }

    fn model() -> Model {
        Model { word: AtomicU64::new(0), beds: Beds::new(), next: Mutex::new(0) }
    }

    impl Model {
        fn enter(&self) -> u32 {
            let mut next = self.next.lock().unwrap();
            line_up(&self.word);
            *next += 1;
            *next - 1
        }

        fn sleep(&self, ticket: u32) {
            loop {
                let seen = self.word.load(Acquire);
                if take(&self.word, ticket) {
                    return;
                }
                // The futex has 32 bits of the word.
                self.beds.sleep(|| self.word.load(Acquire) as u32 == seen as u32);
            }
        }

        fn notify(&self, most: u32) {
            let next = self.next.lock().unwrap();
            if State::of(self.word.load(Acquire)).waiting == 0 {
                return;
            }
            let (given, _) = grant(&self.word, *next, most);
            if given > 0 {
                self.beds.wake(given as usize + 1);
            }
        }
    }

    #[test]
    fn nobody_who_was_notified_sleeps_on() {
        let make = || {
            let model = model();
            // Both wait already.
            model.enter();
            model.enter();
            model
        };
        together(
            3,
            make,
            |model, n| match n {
                0 => {
                    model.notify(1);
                    model.notify(1);
                }
                ticket => model.sleep(ticket as u32 - 1),
            },
            |model| assert_eq!(model.word.load(Acquire) & u64::from(COUNT), 0),
        );
    }

    #[test]
    fn a_grant_is_not_for_those_who_come_after_it() {
        let make = || {
            let model = model();
            // The first one waits already.
            model.enter();
            model
        };
        together(
            2,
            make,
            |model, n| {
                if n == 0 {
                    model.sleep(0);
                } else {
                    model.notify(1);
                    let ticket = model.enter();
                    assert!(!take(&model.word, ticket));
                    step_out(&model.word);
                }
            },
            |model| assert_eq!(State::of(model.word.load(Acquire)).waiting, 0),
        );
    }
}
