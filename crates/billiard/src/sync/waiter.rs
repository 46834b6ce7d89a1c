//! How somebody waits: asleep on a word, waking up by himself only when something may have gone
//! wrong that nobody tells. `README.md` (*Who watches*, *Bells*) has the reasons.

use std::io;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use super::watch::{Announced, Post, Watcher};
use crate::sys::futex::{self, Roused};
use crate::sys::{Deadline, Moment, now};

/// The first sleep, whoever watches: what has gone wrong meanwhile is found at its end. Busy objects never get further.
const FIRST: Duration = Duration::from_millis(25);
/// How often whoever watches looks after the holder: its death is noticed within this time.
const LOOK: Duration = Duration::from_millis(40);
/// The longest time between two looks of a waiter who relies on another one.
const RELYING: Duration = Duration::from_secs(2);
/// The same where it relies on another one of whose death nobody tells.
const RELYING_BLINDLY: Duration = Duration::from_millis(80);
/// The longest time between two looks of a waiter who has a bell.
const LONGEST: Duration = Duration::from_secs(10);
/// Since when somebody who is overtaken again and again is hungry.
const HUNGER: Duration = Duration::from_millis(2);

/// How a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Somebody has woken us, or the word has changed.
    Woken,
    /// Nobody has; or somebody is dead who might have. Look whether all is well, with the others too.
    Look,
    /// The deadline has passed.
    TimedOut,
    /// A signal wants to be handled.
    Interrupted,
}

/// One wait of one thread.
#[derive(Debug)]
pub(super) struct Waiter {
    began: Option<Moment>,
    slept: bool,
    /// The first sleep is over.
    deep: bool,
    slice: Duration,
    watcher: Option<Watcher>,
    _bell: Option<Announced>,
}

impl Waiter {
    /// One who waits where somebody has to watch.
    pub(super) const fn new() -> Self {
        Self { began: None, slept: false, deep: false, slice: LOOK, watcher: None, _bell: None }
    }

    /// One who waits where nobody's death matters but of those who change the word, and who hears of it by a bell.
    pub(super) fn with_bell(bell: &AtomicU32) -> Self {
        Self { _bell: Some(Announced::of(bell)), ..Self::new() }
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
    pub(super) fn returning() -> Self {
        Self { slept: true, ..Self::new() }
    }

    /// Whether its next sleep may take long.
    pub(super) const fn is_deep(&self) -> bool {
        self.deep
    }

    /// Sleeps while `word` is `expected`, and until `bell` is rung.
    pub(super) fn sleep(
        &mut self,
        word: &AtomicU32,
        expected: u32,
        bell: &AtomicU32,
        deadline: Deadline,
    ) -> io::Result<Rest> {
        if !self.deep {
            return self.sleep_on(&[(word, expected)], deadline, FIRST);
        }
        // KERNEL: who cannot hear the bell looks, more and more rarely: all that can be found is a process that was killed
        // between two instructions.
        self.slice = if futex::waits_on_several() { LONGEST } else { (self.slice * 2).min(LONGEST) };
        self.sleep_on(&[(word, expected), (bell, 0)], deadline, self.slice)
    }

    /// Sleeps while `word` is `expected`; one of all who sleep so keeps watch.
    pub(super) fn sleep_watching(
        &mut self,
        watch: &AtomicU32,
        word: &AtomicU32,
        expected: u32,
        deadline: Deadline,
    ) -> io::Result<Rest> {
        let only = (word, expected);
        if !self.deep {
            return self.sleep_on(&[only], deadline, FIRST);
        }
        let (slice, second) = match self.watcher.get_or_insert_with(|| Watcher::of(watch)).stand(watch) {
            Post::Taken => return Ok(Rest::Look),
            Post::Kept | Post::Nobodys => return self.sleep_on(&[only], deadline, LOOK),
            Post::Others(_) if !futex::waits_on_several() => (RELYING_BLINDLY, only),
            Post::Others(seen) => (RELYING, (watch, seen)),
        };
        let rest = self.sleep_on(&[only, second], deadline, slice)?;
        if rest == Rest::Look
            && let Some(watcher) = &mut self.watcher
        {
            // We may be the one whom the last watcher has told: whatever else has woken us, we leave no sooner than we have
            // told the next one.
            watcher.stand(watch);
        }
        Ok(rest)
    }

    fn sleep_on(
        &mut self,
        words: &[(&AtomicU32, u32)],
        deadline: Deadline,
        slice: Duration,
    ) -> io::Result<Rest> {
        self.began.get_or_insert_with(now);
        let roused = futex::wait_on(words, deadline.or_after(slice))?;
        self.slept |= roused != Roused::Interrupted;
        Ok(match roused {
            Roused::By(0) | Roused::Changed => Rest::Woken,
            Roused::By(_) => Rest::Look,
            Roused::TimedOut if deadline.passed() => Rest::TimedOut,
            Roused::TimedOut => {
                self.deep = true;
                Rest::Look
            }
            Roused::Interrupted => Rest::Interrupted,
        })
    }

    /// Stops waiting. If it keeps the watch, another one does so from now on.
    pub(super) fn leave(&mut self, watch: &AtomicU32) {
        if let Some(watcher) = self.watcher.take() {
            watcher.leave(watch);
        }
    }
}
