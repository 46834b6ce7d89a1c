//! What the models of this room share: beds in place of futexes, and threads that loom interleaves in every way. Loom
//! reports a sleeper whom nobody wakes as a deadlock.

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// Where those lie who sleep on one word: looking at the word and falling asleep is one step, as in the kernel.
pub(super) struct Beds {
    asleep: Mutex<usize>,
    told: Condvar,
}

impl Beds {
    pub(super) fn new() -> Self {
        Self { asleep: Mutex::new(0), told: Condvar::new() }
    }

    /// Sleeps if the word is as expected at that moment.
    pub(super) fn sleep(&self, as_expected: impl FnOnce() -> bool) {
        let mut asleep = self.asleep.lock().unwrap();
        if as_expected() {
            *asleep += 1;
            drop(self.told.wait(asleep).unwrap());
        }
    }

    /// Wakes up to `most`; answers how many there were.
    pub(super) fn wake(&self, most: usize) -> usize {
        let mut asleep = self.asleep.lock().unwrap();
        let count = most.min(*asleep);
        *asleep -= count;
        (0..count).for_each(|_| self.told.notify_one());
        count
    }
}

/// Has `count` threads do something with one object, in every order; `check` looks at it afterwards.
pub(super) fn together<M: Send + Sync + 'static>(
    count: u64,
    make: impl Fn() -> M + Send + Sync + 'static,
    body: impl Fn(&M, u64) + Copy + Send + Sync + 'static,
    check: impl Fn(&M) + Send + Sync + 'static,
) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let object = Arc::new(make());
        let others: Vec<_> = (1..count)
            .map(|n| {
                let object = Arc::clone(&object);
                thread::spawn(move || body(&object, n))
            })
            .collect();
        body(&object, 0);
        for other in others {
            other.join().unwrap();
        }
        check(&object);
    });
}
