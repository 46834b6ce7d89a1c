//! The word of a lock: who holds it, and whether somebody waits. `README.md` has the states.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::primitives::Word;
use crate::sys::Life;

/// Somebody may be asleep.
pub(super) const WAITERS: u64 = 1 << 22;
/// Somebody has been overtaken for too long: the next to release must not let go of the lock but reserve it.
pub(super) const HUNGRY: u64 = 1 << 23;
/// Free, but only for those who were asleep.
pub(super) const RESERVED: u64 = 1 << 24;

const _: () = assert!((WAITERS | HUNGRY | RESERVED) & Life::BITS == 0);

/// Takes the lock if it is free. `slept`: the caller has been asleep, so that others may be as well.
#[inline]
pub(super) fn take(word: &impl Word<u64>, me: Life, slept: bool) -> Result<(), u64> {
    let mut seen = word.load(Relaxed);
    loop {
        if seen & Life::BITS != 0 || (seen & RESERVED != 0 && !slept) {
            return Err(seen);
        }
        let flags = if slept { WAITERS } else { seen & WAITERS };
        // SYNC(lock.release): everything that was done under the lock happens before this.
        match word.compare_exchange(seen, me.word() | flags, Acquire, Relaxed) {
            Ok(_) => return Ok(()),
            Err(now) => seen = now,
        }
    }
}

/// Takes the lock over from a holder that is dead, if it is still as `seen`.
pub(super) fn inherit(word: &impl Word<u64>, seen: u64, me: Life) -> bool {
    // Whoever waits goes on waiting.
    word.compare_exchange(seen, me.word() | WAITERS, Acquire, Relaxed).is_ok()
}

/// Says that the caller is about to sleep. Answers the word to sleep on; `Err`: it is not as `seen` any more.
pub(super) fn announce(word: &impl Word<u64>, seen: u64, hungry: bool) -> Result<u64, ()> {
    let held = seen & Life::BITS != 0;
    let wanted = seen | WAITERS | if hungry && held { HUNGRY } else { 0 };
    if wanted == seen {
        return Ok(seen);
    }
    // Relaxed: nothing is told but the flags themselves.
    word.compare_exchange(seen, wanted, Relaxed, Relaxed).map(|_| wanted).map_err(|_| ())
}

/// Says that somebody may be asleep, for a lock that the caller holds.
pub(super) fn flag(word: &impl Word<u64>) {
    let mut seen = word.load(Relaxed);
    // Relaxed: nothing is told but the flag itself.
    while seen & WAITERS == 0 {
        match word.compare_exchange(seen, seen | WAITERS, Relaxed, Relaxed) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
}

/// What whoever has released the lock has to do yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// Nothing.
    Quietly,
    /// Wake somebody.
    ToAnyone,
    /// Wake somebody; if nobody sleeps, call [`unreserve`].
    ToSleeper,
}

/// Lets go of the lock, whoever holds it. `Err`: nobody does.
#[inline]
pub(super) fn give(word: &impl Word<u64>) -> Result<Given, ()> {
    let mut seen = word.load(Relaxed);
    loop {
        if seen & Life::BITS == 0 {
            return Err(());
        }
        let next = if seen & HUNGRY == 0 { 0 } else { RESERVED | WAITERS };
        // SYNC(lock.release): pairs with the exchanges in `take` and `inherit`.
        match word.compare_exchange(seen, next, Release, Relaxed) {
            Ok(_) if seen & WAITERS == 0 => return Ok(Given::Quietly),
            Ok(_) if next == 0 => return Ok(Given::ToAnyone),
            Ok(_) => return Ok(Given::ToSleeper),
            Err(now) => seen = now,
        }
    }
}

/// Lets everybody have a lock again that was reserved for sleepers, of whom there were none.
pub(super) fn unreserve(word: &impl Word<u64>) {
    // Refused when somebody has taken it meanwhile. Release, as the lock may be taken from here.
    let _ = word.compare_exchange(RESERVED | WAITERS, 0, Release, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn a_reserved_lock_is_for_those_who_slept() {
        let me = Life::own();
        let word = AtomicU64::new(0);
        assert_eq!(take(&word, me, false), Ok(()));
        assert_eq!(take(&word, me, true), Err(me.word()));
        let wanted = announce(&word, me.word(), true).unwrap();
        assert_eq!(wanted, me.word() | WAITERS | HUNGRY);
        assert_eq!(give(&word), Ok(Given::ToSleeper));
        assert_eq!(take(&word, me, false), Err(RESERVED | WAITERS));
        assert_eq!(take(&word, me, true), Ok(()));
        assert_eq!(give(&word), Ok(Given::ToAnyone));
        assert_eq!(give(&word), Err(()));
        word.store(RESERVED | WAITERS, Relaxed);
        unreserve(&word);
        assert_eq!(take(&word, me, false), Ok(()));
        assert!(!inherit(&word, 0, me));
        assert!(inherit(&word, me.word(), me));
        assert_eq!(give(&word), Ok(Given::ToAnyone));
    }
}

/// Every interleaving of taking, sleeping and giving. `make loom`.
#[cfg(all(test, loom))]
mod interleavings {
    use loom::sync::atomic::{AtomicU32, AtomicU64};

    use super::super::model::{Beds, together};
    use super::*;

    struct Model {
        word: AtomicU64,
        beds: Beds,
        inside: AtomicU32,
    }

    impl Model {
        fn new() -> Self {
            Self { word: AtomicU64::new(0), beds: Beds::new(), inside: AtomicU32::new(0) }
        }

        fn acquire(&self, me: Life, hungry: bool) {
            let mut slept = false;
            loop {
                let Err(seen) = take(&self.word, me, slept) else { return };
                let Ok(wanted) = announce(&self.word, seen, hungry && slept) else { continue };
                self.beds.sleep(|| self.word.load(Relaxed) as u32 == wanted as u32);
                slept = true;
            }
        }

        fn release(&self) {
            match give(&self.word).unwrap() {
                Given::Quietly => {}
                Given::ToAnyone => drop(self.beds.wake(1)),
                Given::ToSleeper => {
                    if self.beds.wake(1) == 0 {
                        unreserve(&self.word);
                    }
                }
            }
        }
    }

    fn take_turns(hungry: bool) {
        let body = move |model: &Model, n: u64| {
            model.acquire(Life::from_word((n + 1) | 1 << 32).unwrap(), hungry);
            // Two at once, or one that does not see what the other did, lose a count. Relaxed: the lock orders it.
            let seen = model.inside.load(Relaxed);
            model.inside.store(seen + 1, Relaxed);
            model.release();
        };
        together(3, Model::new, body, |model| assert_eq!(model.inside.load(Relaxed), 3));
    }

    #[test]
    fn three_take_turns() {
        take_turns(false);
    }

    #[test]
    fn three_take_turns_when_sleepers_are_hungry() {
        take_turns(true);
    }
}
