//! How somebody waits: asleep on a word, waking up by himself only when something may have gone
//! wrong that nobody tells. `README.md` (*Who watches*) has the reasons.

use std::io;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use super::wake;
use crate::sys::{Deadline, Moment, futex, now, poll::Woken};

/// How often whoever watches looks after the holder: its death is noticed within this time.
const LOOK: Duration = Duration::from_millis(40);
/// So much later than promised a look may come before somebody else watches.
const GRACE: Duration = Duration::from_millis(25);
/// The first time that a waiter sleeps, whoever watches.
const FIRST: Duration = Duration::from_millis(80);
/// The longest time between two looks of a waiter who relies on another one.
const RELYING: Duration = Duration::from_secs(2);
/// The same where no holder can die.
const UNWATCHED: Duration = Duration::from_secs(10);
/// Since when somebody who is overtaken again and again is hungry.
const HUNGER: Duration = Duration::from_millis(2);
/// The bit of the watch word that says that somebody relies on the watch.
const RELIED: u64 = 1;

/// How a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Somebody has woken us, or the word has changed.
    Woken,
    /// Nobody has; look whether all is well.
    Look,
    /// The deadline has passed.
    TimedOut,
    /// A signal handler has run.
    Interrupted,
}

/// One wait of one thread.
#[derive(Debug)]
pub(super) struct Waiter {
    began: Option<Moment>,
    slept: bool,
    slice: Duration,
    /// The watch that we have promised to keep, as it is in the word; zero: none.
    watch: u64,
}

impl Waiter {
    pub(super) const fn new() -> Self {
        Self { began: None, slept: false, slice: FIRST, watch: 0 }
    }

    /// Whether it has been asleep.
    pub(super) const fn has_slept(&self) -> bool {
        self.slept
    }

    /// Whether it has been overtaken for too long.
    pub(super) fn is_hungry(&self) -> bool {
        self.slept && self.began.is_some_and(|began| now().since(began) > HUNGER)
    }

    /// One who has been asleep elsewhere, and with others.
    pub(super) const fn returning() -> Self {
        Self { slept: true, ..Self::new() }
    }

    /// Whether its next sleep may take long.
    pub(super) fn is_deep(&self) -> bool {
        self.slice > FIRST
    }

    /// Sleeps while `word` is `expected`, where nobody's death can leave us asleep for ever.
    pub(super) fn sleep(&mut self, word: &AtomicU32, expected: u32, deadline: Deadline) -> io::Result<Rest> {
        let slice = self.slice;
        self.slice = (slice * 2).min(UNWATCHED);
        self.sleep_for(word, expected, deadline, slice)
    }

    /// Sleeps while `word` is `expected`; one of all who sleep so keeps watch.
    pub(super) fn sleep_watching(
        &mut self,
        watch: &AtomicU64,
        word: &AtomicU32,
        expected: u32,
        deadline: Deadline,
    ) -> io::Result<Rest> {
        let slice = self.stand(watch);
        self.sleep_for(word, expected, deadline, slice)
    }

    fn sleep_for(
        &mut self,
        word: &AtomicU32,
        expected: u32,
        deadline: Deadline,
        slice: Duration,
    ) -> io::Result<Rest> {
        self.began.get_or_insert_with(now);
        Ok(match futex::wait(word, expected, deadline.or_after(slice))? {
            Woken::Ready => {
                self.slept = true;
                Rest::Woken
            }
            Woken::TimedOut if deadline.passed() => Rest::TimedOut,
            Woken::TimedOut => {
                self.slept = true;
                Rest::Look
            }
            Woken::Interrupted => Rest::Interrupted,
        })
    }

    /// How long to sleep: until the next look if we keep watch, and we do if nobody else does.
    fn stand(&mut self, watch: &AtomicU64) -> Duration {
        loop {
            let now = now();
            // Relaxed: the watch orders nothing, it only says when somebody is going to look.
            let seen = watch.load(Relaxed);
            let mine = self.watch != 0 && seen & !RELIED == self.watch;
            let (next, slice) = if mine || seen & !RELIED < now.0 {
                ((now.after(LOOK + GRACE).0 & !RELIED) | (seen & RELIED), LOOK)
            } else if self.slice == FIRST {
                // A holder that dies meanwhile is noticed in time, even if the watch leaves without a word.
                (seen, FIRST)
            } else {
                (seen | RELIED, self.slice)
            };
            if next == seen || watch.compare_exchange(seen, next, AcqRel, Relaxed).is_ok() {
                self.watch = if slice == LOOK { next & !RELIED } else { 0 };
                if slice != LOOK {
                    self.slice = (slice * 2).min(RELYING);
                }
                return slice;
            }
        }
    }

    /// Stops waiting. If others rely on our watch, one of them is woken to keep it.
    pub(super) fn leave(&mut self, watch: &AtomicU64, word: &AtomicU32) {
        while self.watch != 0 {
            let seen = watch.load(Relaxed);
            if seen & !RELIED != self.watch {
                self.watch = 0;
            } else if watch.compare_exchange(seen, 0, AcqRel, Relaxed).is_ok() {
                self.watch = 0;
                if seen & RELIED != 0 {
                    wake(word, 1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_keeps_watch_others_rely_on_it_and_it_hands_over() {
        let watch = AtomicU64::new(0);
        let (mut first, mut second) = (Waiter::new(), Waiter::new());
        assert_eq!(first.stand(&watch), LOOK);
        assert_eq!(second.stand(&watch), FIRST);
        assert_eq!(watch.load(Relaxed) & RELIED, 0, "the first sleep relies on nobody");
        assert_eq!(first.stand(&watch), LOOK);
        assert_eq!(second.stand(&watch), FIRST * 2);
        assert_eq!(watch.load(Relaxed) & RELIED, RELIED);
        assert_eq!(first.stand(&watch), LOOK);
        assert_eq!(watch.load(Relaxed) & RELIED, RELIED, "kept over a look");
        for _ in 0..20 {
            assert!(second.stand(&watch) <= RELYING);
        }
        let word = AtomicU32::new(0);
        second.leave(&watch, &word);
        assert_ne!(watch.load(Relaxed), 0, "not its watch");
        first.leave(&watch, &word);
        assert_eq!(watch.load(Relaxed), 0);
        assert_eq!(second.stand(&watch), LOOK);
    }

    #[test]
    fn a_watch_whose_keeper_does_not_look_is_taken_over() {
        let late = now().0 - 1;
        let watch = AtomicU64::new(late | RELIED);
        let mut next = Waiter::new();
        assert_eq!(next.stand(&watch), LOOK);
        assert_eq!(watch.load(Relaxed) & RELIED, RELIED, "those who relied still do");
    }
}
