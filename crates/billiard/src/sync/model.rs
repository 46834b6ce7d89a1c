//! What the models of this room share: beds in place of futexes, and threads that loom interleaves in every way. Loom
//! reports a sleeper whom nobody wakes as a deadlock.

use std::collections::VecDeque;

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// Where those lie who sleep on one word: looking at the word and falling asleep is one step, as in the kernel, and they are
/// woken in the order in which they came.
#[derive(Default)]
pub(super) struct Beds {
    sleepers: Mutex<VecDeque<Arc<Bed>>>,
}

struct Bed {
    woken: Mutex<bool>,
    told: Condvar,
}

impl Beds {
    pub(super) fn new() -> Self {
        Self { sleepers: Mutex::new(VecDeque::new()) }
    }

    /// Sleeps if the word is as expected at that moment.
    pub(super) fn sleep(&self, as_expected: impl FnOnce() -> bool) {
        let mut sleepers = self.sleepers.lock().unwrap();
        if !as_expected() {
            return;
        }
        let bed = Arc::new(Bed { woken: Mutex::new(false), told: Condvar::new() });
        sleepers.push_back(Arc::clone(&bed));
        drop(sleepers);
        let mut woken = bed.woken.lock().unwrap();
        while !*woken {
            woken = bed.told.wait(woken).unwrap();
        }
    }

    /// Wakes up to `most`; answers how many there were.
    pub(super) fn wake(&self, most: usize) -> usize {
        let mut sleepers = self.sleepers.lock().unwrap();
        let count = most.min(sleepers.len());
        for bed in sleepers.drain(..count) {
            *bed.woken.lock().unwrap() = true;
            bed.told.notify_one();
        }
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
