//! Who looks after a holder on behalf of all who wait: see *Who watches* in `README.md`.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

use super::wake;
use crate::failpoint;
use crate::sys::robust::{self, Here, OWNER, WAITERS};

/// The calling thread's announcement that it owes the sleepers of a word a wake-up, or takes one from them: if it is killed
/// meanwhile, the kernel wakes one of them.
#[derive(Debug)]
pub(super) struct Announced {
    here: Option<Here>,
}

impl Announced {
    /// KERNEL: without a robust list nobody is told, and sleepers find out when they look for themselves.
    #[inline]
    pub(super) fn of(word: &AtomicU32) -> Self {
        let here = robust::here().ok();
        if let Some(here) = here {
            here.announce_word(word);
        }
        Self { here }
    }
}

impl Drop for Announced {
    #[inline]
    fn drop(&mut self) {
        if let Some(here) = self.here {
            here.retract();
        }
    }
}

/// What somebody who waits has to do about the watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Post {
    /// It is ours from now on: look at once.
    Taken,
    /// It is ours: look from time to time.
    Kept,
    /// Another thread has it: sleep while the watch is this, and look from time to time only in case.
    Others(u32),
    /// Nobody can be told of a watcher's death, so everybody looks.
    Nobodys,
}

/// One thread's part in a watch, which is a word with the number of the thread that keeps it.
#[derive(Debug)]
pub(super) struct Watcher {
    announced: Announced,
    keeps: bool,
}

impl Watcher {
    pub(super) fn of(watch: &AtomicU32) -> Self {
        Self { announced: Announced::of(watch), keeps: false }
    }

    /// Takes the watch if nobody has it.
    pub(super) fn stand(&mut self, watch: &AtomicU32) -> Post {
        let Some(here) = self.announced.here else { return Post::Nobodys };
        // That others sleep is always said: it is they whom the kernel wakes in our place.
        let mine = here.tid() | WAITERS;
        loop {
            // SYNC(watch): who finds a watcher sleeps only as long as the word stays so.
            let seen = watch.load(Acquire);
            if self.keeps && seen == mine {
                return Post::Kept;
            }
            self.keeps = false;
            if seen & OWNER != 0 && seen & OWNER != here.tid() {
                return Post::Others(seen);
            }
            if watch.compare_exchange(seen, mine, AcqRel, Acquire).is_ok() {
                self.keeps = true;
                failpoint::pass("watch.taken");
                return Post::Taken;
            }
        }
    }

    /// Stops waiting, and has another one take the watch over.
    pub(super) fn leave(self, watch: &AtomicU32) {
        let Some(here) = self.announced.here else { return };
        if self.keeps && watch.compare_exchange(here.tid() | WAITERS, 0, AcqRel, Acquire).is_ok() {
            // Killed here, the kernel wakes one: the word is announced, and nobody's.
            failpoint::pass("watch.left");
            wake(watch, 1);
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;

    #[test]
    fn one_keeps_the_watch_and_hands_it_over() {
        let watch = AtomicU32::new(0);
        let mut first = Watcher::of(&watch);
        assert_eq!(first.stand(&watch), Post::Taken);
        assert_eq!(first.stand(&watch), Post::Kept);
        let kept = watch.load(SeqCst);
        std::thread::scope(|scope| {
            let other = std::thread::Builder::new().spawn_scoped(scope, || {
                let mut second = Watcher::of(&watch);
                let post = second.stand(&watch);
                second.leave(&watch);
                post
            });
            assert_eq!(other.unwrap().join().unwrap(), Post::Others(kept));
        });
        assert_eq!(watch.load(SeqCst), kept, "not its watch");
        first.leave(&watch);
        assert_eq!(watch.load(SeqCst), 0);
    }

    #[test]
    fn the_watch_of_the_dead_is_taken() {
        let watch = AtomicU32::new(robust::DIED | WAITERS);
        let mut next = Watcher::of(&watch);
        assert_eq!(next.stand(&watch), Post::Taken);
        // Somebody of another namespace who has our number takes it away, and we notice.
        watch.store(5 | WAITERS, SeqCst);
        assert_eq!(next.stand(&watch), Post::Others(5 | WAITERS));
        next.leave(&watch);
        assert_eq!(watch.load(SeqCst), 5 | WAITERS);
    }
}
