//! Locks that survive their holders.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::waiter::{Rest, Waiter};
use super::word::{self, Given};
use super::{SyncError, cannot_wait, check_size, wake};
use crate::arena::Cell;
use crate::failpoint;
use crate::sys::thread::number;
use crate::sys::{Deadline, Life, Wait, now};

const WORD: usize = 0;
/// The thread that looks after the holder for all who wait.
const WATCH: usize = 8;
/// The thread that holds it; zero while it is being taken and when it is free.
const THREAD: usize = 16;
/// How often the holder of a recursive lock has it.
const DEPTH: usize = 24;
/// The last process that died with it.
const ABANDONED: usize = 32;
/// When somebody who does not wait has last looked after the holder.
const LOOKED: usize = 40;
const SIZE: usize = 64;

/// How often those who do not wait look after the holder, in nanoseconds: looking takes longer than all the rest.
const LOOK_AGAIN: u64 = 20_000_000;

/// How a lock was acquired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// It was free, or became free.
    Regularly,
    /// Its holder has died with it. What the lock protects may be half done.
    Abandoned {
        /// Who that was.
        pid: i32,
    },
}

/// Something that is the calling thread's alone, in all processes.
#[inline]
fn thread(me: Life) -> u64 {
    // The number's low bits go where a life has its high ones. Never zero, which says that it is nobody's.
    number().rotate_left(16) ^ me.word() | 1
}

/// A lock between processes and threads. Any thread of any process may release it.
///
/// If its holder dies, the lock goes to whoever waits for it, or asks next.
#[derive(Debug)]
pub struct Lock {
    cell: Cell,
}

impl Lock {
    /// A lock that nobody holds.
    ///
    /// # Errors
    /// No memory or descriptor is left.
    pub fn new() -> Result<Self, SyncError> {
        Ok(Self { cell: Cell::new(SIZE)? })
    }

    /// The lock in a cell that was received.
    ///
    /// # Errors
    /// The cell is too small for a lock.
    pub fn from_cell(cell: Cell) -> Result<Self, SyncError> {
        check_size(&cell, SIZE)?;
        Ok(Self { cell })
    }

    /// Where it lives, to be sent to other processes.
    #[must_use]
    pub const fn cell(&self) -> &Cell {
        &self.cell
    }

    #[inline]
    fn word(&self) -> &AtomicU64 {
        self.cell.word64(WORD)
    }

    fn futex(&self) -> &AtomicU32 {
        self.cell.low_half(WORD)
    }

    #[inline]
    fn note_thread(&self, thread: u64) {
        // Relaxed: the word orders it; whoever is not the holder only asks whether it is itself.
        self.cell.word64(THREAD).store(thread, Relaxed);
    }

    /// Takes the lock if it is free.
    #[inline]
    pub fn try_fast(&self) -> bool {
        let me = Life::own();
        // SYNC(lock.release): everything that was done under the lock happens before this.
        let word = self.word();
        // Relaxed: only a look, which spares the holder an exchange that would fail.
        let taken = word.load(Relaxed) == 0 && word.compare_exchange(0, me.word(), Acquire, Relaxed).is_ok();
        if taken {
            self.note_thread(thread(me));
        }
        taken
    }

    /// Takes the lock if it is free, or if its holder is dead. Does not wait.
    pub fn try_acquire(&self) -> Option<Acquired> {
        let me = Life::own();
        let seen = match word::take(self.word(), me, false) {
            Ok(()) => {
                failpoint::pass("lock.taken");
                self.note_thread(thread(me));
                return Some(Acquired::Regularly);
            }
            Err(seen) => seen,
        };
        self.inherit_now_and_then(seen, me)
    }

    /// Takes the lock over from `seen`, if that is dead and nobody has looked just now.
    fn inherit_now_and_then(&self, seen: u64, me: Life) -> Option<Acquired> {
        let looked = self.cell.word64(LOOKED);
        let now = now().0;
        // Relaxed: two who look at once do no harm.
        if now.wrapping_sub(looked.load(Relaxed)) < LOOK_AGAIN {
            return None;
        }
        looked.store(now, Relaxed);
        self.inherit(seen, me)
    }

    /// Takes the lock over from `seen`, if that is dead.
    fn inherit(&self, seen: u64, me: Life) -> Option<Acquired> {
        let holder = Life::from_word(seen)?;
        if !holder.is_over() {
            return None;
        }
        // Told first: whoever dies in between has only said what is true.
        self.cell.word64(ABANDONED).store(holder.word(), Release);
        failpoint::pass("lock.inheriting");
        let taken = word::inherit(self.word(), seen, me);
        failpoint::pass("lock.inherited");
        taken.then(|| {
            self.note_thread(thread(me));
            Acquired::Abandoned { pid: holder.pid() }
        })
    }

    /// Waits until the caller has the lock.
    ///
    /// # Errors
    /// The system refuses to let the caller wait.
    ///
    /// # Blocking
    /// Until the holder releases it or is found dead, within 100 ms; until the deadline; or until a signal handler has run.
    pub fn acquire(&self, deadline: Deadline) -> Result<Wait<Acquired>, SyncError> {
        self.acquire_as(Waiter::new(), deadline)
    }

    /// Like [`Lock::acquire`], for one who has slept at a condition and may have been moved to this lock, with others.
    ///
    /// # Errors
    /// The system refuses to let the caller wait.
    pub fn acquire_returning(&self, deadline: Deadline) -> Result<Wait<Acquired>, SyncError> {
        self.acquire_as(Waiter::returning(), deadline)
    }

    fn acquire_as(&self, mut waiter: Waiter, deadline: Deadline) -> Result<Wait<Acquired>, SyncError> {
        let me = Life::own();
        let outcome = self.wait(me, &mut waiter, deadline);
        waiter.leave(self.cell.word32(WATCH));
        if let Ok(Wait::Ready(Acquired::Regularly)) = outcome {
            self.note_thread(thread(me));
        }
        outcome
    }

    fn wait(&self, me: Life, waiter: &mut Waiter, deadline: Deadline) -> Result<Wait<Acquired>, SyncError> {
        loop {
            let Err(seen) = word::take(self.word(), me, waiter.has_slept()) else {
                failpoint::pass("lock.taken");
                return Ok(Wait::Ready(Acquired::Regularly));
            };
            let Ok(wanted) = word::announce(self.word(), seen, waiter.is_hungry()) else { continue };
            let watch = self.cell.word32(WATCH);
            let rest = waiter.sleep_watching(watch, self.futex(), wanted as u32, deadline);
            match rest.map_err(cannot_wait)? {
                Rest::Woken => failpoint::pass("lock.woken"),
                Rest::Look => {
                    // Relaxed: the exchange that follows decides.
                    if let Some(acquired) = self.inherit(self.word().load(Relaxed), me) {
                        return Ok(Wait::Ready(acquired));
                    }
                }
                // Whoever has released it may have been killed before it woke anybody; and those who wait for moments only,
                // again and again, never come to look.
                Rest::TimedOut => {
                    let acquired = match word::take(self.word(), me, true) {
                        Ok(()) => Some(Acquired::Regularly),
                        Err(seen) => self.inherit_now_and_then(seen, me),
                    };
                    return Ok(acquired.map_or(Wait::TimedOut, Wait::Ready));
                }
                Rest::Interrupted => return Ok(Wait::Interrupted),
            }
        }
    }

    /// Releases the lock, whoever holds it.
    ///
    /// # Errors
    /// [`SyncError::ReleasedTooOften`] if nobody does.
    #[inline]
    pub fn release(&self) -> Result<(), SyncError> {
        self.note_thread(0);
        failpoint::pass("lock.releasing");
        match word::give(self.word()) {
            Ok(Given::Quietly) => Ok(()),
            Ok(given) => {
                self.pass_on(given);
                Ok(())
            }
            Err(()) => Err(SyncError::ReleasedTooOften),
        }
    }

    #[cold]
    fn pass_on(&self, given: Given) {
        failpoint::pass("lock.released");
        if wake(self.futex(), 1) == 0 && given == Given::ToSleeper {
            word::unreserve(self.word());
        }
    }

    /// The word to move sleepers of a condition to. The caller holds the lock.
    pub(super) fn waiting_room(&self) -> &AtomicU32 {
        word::flag(self.word());
        self.futex()
    }

    /// Wakes another sleeper, instead of the caller that was woken for nothing.
    pub(super) fn pass_wake_up_on(&self) {
        wake(self.futex(), 1);
    }

    /// Who holds the lock.
    #[must_use]
    pub fn holder(&self) -> Option<Life> {
        // Relaxed: true at some instant, whatever the order.
        Life::from_word(self.word().load(Relaxed))
    }

    /// Whether a thread of this process holds the lock.
    #[must_use]
    pub fn is_held_here(&self) -> bool {
        self.holder() == Some(Life::own())
    }

    /// Whether the calling thread has acquired the lock, and nobody has released it.
    #[inline]
    #[must_use]
    pub fn is_mine(&self) -> bool {
        let me = Life::own();
        // Relaxed: only this thread writes what is compared here.
        self.holder() == Some(me) && self.cell.word64(THREAD).load(Relaxed) == thread(me)
    }

    /// The process that has last died with the lock, unless that was forgotten.
    #[must_use]
    pub fn abandoned_by(&self) -> Option<i32> {
        Life::from_word(self.cell.word64(ABANDONED).load(Acquire)).map(Life::pid)
    }

    /// Forgets who has died with the lock.
    pub fn forget_abandoned(&self) {
        self.cell.word64(ABANDONED).store(0, Release);
    }
}

/// A lock that the thread which holds it may acquire again, and that only this thread releases.
#[derive(Debug)]
pub struct RLock {
    lock: Lock,
}

impl RLock {
    /// A lock that nobody holds.
    ///
    /// # Errors
    /// No memory or descriptor is left.
    pub fn new() -> Result<Self, SyncError> {
        Ok(Self { lock: Lock::new()? })
    }

    /// The lock in a cell that was received.
    ///
    /// # Errors
    /// The cell is too small for a lock.
    pub fn from_cell(cell: Cell) -> Result<Self, SyncError> {
        Ok(Self { lock: Lock::from_cell(cell)? })
    }

    /// The lock without its recursion: who holds it, where it lives.
    #[must_use]
    pub const fn lock(&self) -> &Lock {
        &self.lock
    }

    fn depth_word(&self) -> &AtomicU32 {
        self.lock.cell.word32(DEPTH)
    }

    /// How often the holder has the lock; zero when it is free.
    #[must_use]
    pub fn depth(&self) -> u32 {
        // Relaxed: exact for the holder, who alone writes it; a look for others.
        self.lock.holder().map_or(0, |_| self.depth_word().load(Relaxed))
    }

    fn set_depth(&self, depth: u32) {
        // Relaxed: only the holder reads and writes it, and the lock orders its holders.
        self.depth_word().store(depth, Relaxed);
    }

    /// Takes the lock if it is free or the calling thread's.
    #[inline]
    pub fn try_fast(&self) -> bool {
        // A lock that is used by holding it for several accesses is acquired again more often than it is acquired; and an
        // exchange that fails takes the line of the word away from its holder.
        if self.lock.is_mine() {
            self.set_depth(self.depth() + 1);
            return true;
        }
        let taken = self.lock.try_fast();
        if taken {
            self.set_depth(1);
        }
        taken
    }

    /// Takes the lock if it is free, the calling thread's, or a dead process's. Does not wait.
    pub fn try_acquire(&self) -> Option<Acquired> {
        if self.try_fast() {
            return Some(Acquired::Regularly);
        }
        self.lock.try_acquire().inspect(|_| self.set_depth(1))
    }

    /// Waits until the caller has the lock, as for [`Lock::acquire`].
    ///
    /// # Errors
    /// The system refuses to let the caller wait.
    pub fn acquire(&self, deadline: Deadline) -> Result<Wait<Acquired>, SyncError> {
        if self.try_fast() {
            return Ok(Wait::Ready(Acquired::Regularly));
        }
        let outcome = self.lock.acquire(deadline)?;
        if matches!(outcome, Wait::Ready(_)) {
            self.set_depth(1);
        }
        Ok(outcome)
    }

    /// Releases the lock once.
    ///
    /// # Errors
    /// [`SyncError::NotOwned`] if the calling thread does not hold it.
    #[inline]
    pub fn release(&self) -> Result<(), SyncError> {
        if !self.lock.is_mine() {
            return Err(SyncError::NotOwned);
        }
        match self.depth() {
            0 | 1 => self.lock.release(),
            more => {
                self.set_depth(more - 1);
                Ok(())
            }
        }
    }

    /// Releases the lock however often the calling thread has it, and answers how often.
    ///
    /// # Errors
    /// [`SyncError::NotOwned`] if the calling thread does not hold it.
    pub fn release_all(&self) -> Result<u32, SyncError> {
        let depth = self.depth();
        self.set_depth(1);
        self.release().map(|()| depth)
    }

    /// Has the lock as often as before [`RLock::release_all`]. The calling thread has just acquired it.
    pub fn restore(&self, depth: u32) {
        self.set_depth(depth);
    }
}
