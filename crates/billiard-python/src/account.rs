//! How often a process has acquired what nobody owns.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use billiard::sys::Life;

/// A thread of this process, among all that run.
fn this_thread() -> u64 {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here) as u64)
}

/// What a process has done with a semaphore, of which nothing else tells whose it is.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// The process. A forked child has another account.
    of: AtomicU64,
    /// How often it was acquired more than released, through this object.
    count: AtomicI64,
    /// The thread that has acquired it last.
    thread: AtomicU64,
}

// Relaxed throughout: each thread asks for what it has done itself, and the rest is for show.
impl Account {
    pub(crate) fn book(&self, more: i64) {
        let me = Life::own().word();
        if self.of.swap(me, Ordering::Relaxed) != me {
            self.count.store(0, Ordering::Relaxed);
        }
        self.count.fetch_add(more, Ordering::Relaxed);
        if more > 0 {
            self.thread.store(this_thread(), Ordering::Relaxed);
        }
    }

    pub(crate) fn count(&self) -> i64 {
        let own = self.of.load(Ordering::Relaxed) == Life::own().word();
        if own { self.count.load(Ordering::Relaxed) } else { 0 }
    }

    pub(crate) fn is_mine(&self) -> bool {
        self.count() > 0 && self.thread.load(Ordering::Relaxed) == this_thread()
    }

    pub(crate) fn forget(&self) {
        self.count.store(0, Ordering::Relaxed);
    }
}
