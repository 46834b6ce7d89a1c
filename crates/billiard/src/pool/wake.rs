//! How one side sleeps and the other one wakes it: a system call is made only if somebody sleeps, and nobody sleeps on
//! while there is something for him.
//!
//! Both protocols have the same heart. The sleeper says that it sleeps and *then* looks once more for what it waits for; the
//! other side publishes and *then* looks whether somebody sleeps. With a full fence between the two steps on both sides, at
//! least one of them sees the other.
//!
//! A worker sleeps for one parent ([`doze`], [`must_wake`]): the parent takes the word back as it rings, so it rings once. A
//! parent sleeps for many workers ([`set_waiter`], [`must_ring`]), any of which may be killed at any instant: none may
//! promise to ring on behalf of another. So each rings for itself, once per sleep, and the word is only the parent's to
//! change.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use crate::primitives::{Word, fence};

/// The sleeper says why it will sleep; it must look once more before it does.
#[inline]
pub(super) fn doze(asleep: &impl Word<u32>, reason: u32) {
    asleep.store(reason, SeqCst);
    // SYNC(seat.asleep): pairs with the fence in `must_wake`.
    fence(SeqCst);
}

/// The sleeper is awake.
#[inline]
pub(super) fn rise(asleep: &impl Word<u32>) {
    asleep.store(0, SeqCst);
}

/// Whether the one who has just published must ring for a sleeper that sleeps for this reason.
#[inline]
pub(super) fn must_wake(asleep: &impl Word<u32>, reason: u32) -> bool {
    // SYNC(seat.asleep): what was published before this fence is seen by a sleeper that set the word after we read it;
    // otherwise we see the word and ring.
    fence(SeqCst);
    // Relaxed: the fence orders it. The exchange decides: whoever has meanwhile risen, or sleeps for another reason, is left
    // alone.
    asleep.load(Relaxed) == reason && asleep.compare_exchange(reason, 0, SeqCst, Relaxed).is_ok()
}

/// Bits of the waiter's word that say who sleeps; above them, sleeps are counted. Zero: nobody.
const WHO: u64 = 3;

/// Says who of the parent sleeps from now on; whoever that is must look once more before it does.
#[inline]
pub(super) fn set_waiter(word: &impl Word<u64>, who: u64) {
    // Relaxed: only the parent writes the word, under the engine's lock.
    let before = word.load(Relaxed);
    if before & WHO == 0 && who == 0 {
        return;
    }
    word.store((before | WHO).wrapping_add(1) | who, SeqCst);
    // SYNC(hub.waiter): pairs with the fence in `must_ring`.
    fence(SeqCst);
}

/// Who must be rung for by the one who has just published. `rung` is its own memory of the sleep it has last rung for.
#[inline]
pub(super) fn must_ring(word: &impl Word<u64>, rung: &mut u64) -> Option<u64> {
    // SYNC(hub.waiter): either the parent sees what was published before this fence, or we see that it sleeps.
    fence(SeqCst);
    // Relaxed: the fence orders it.
    let sleep = word.load(Relaxed);
    if sleep & WHO == 0 || sleep == *rung {
        return None;
    }
    *rung = sleep;
    Some(sleep & WHO)
}

/// Every interleaving of both protocols; loom reports a sleeper whom nobody wakes as a deadlock. See `make loom`.
#[cfg(test)]
#[cfg(loom)]
mod interleavings {
    use loom::sync::atomic::{AtomicU32, AtomicU64};
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;
    use std::sync::atomic::Ordering::{Acquire, Release};

    use super::*;

    /// What an eventfd is to those who sleep on it.
    #[derive(Default)]
    struct Bell {
        rung: Mutex<bool>,
        changed: Condvar,
    }

    impl Bell {
        fn ring(&self) {
            *self.rung.lock().unwrap() = true;
            self.changed.notify_one();
        }

        fn sleep(&self) {
            let mut rung = self.rung.lock().unwrap();
            while !*rung {
                rung = self.changed.wait(rung).unwrap();
            }
        }

        fn clear(&self) {
            *self.rung.lock().unwrap() = false;
        }
    }

    const IDLE: u32 = 1;

    #[test]
    fn a_dozing_worker_is_woken_for_every_task() {
        loom::model(|| {
            let shared = Arc::new((AtomicU32::new(0), AtomicU32::new(0), Bell::default()));
            let parent = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let (asleep, tasks, bell) = &*shared;
                    for n in 1..=2 {
                        tasks.store(n, Release);
                        if must_wake(asleep, IDLE) {
                            bell.ring();
                        }
                    }
                })
            };
            let (asleep, tasks, bell) = &*shared;
            let mut seen = 0;
            while seen < 2 {
                doze(asleep, IDLE);
                if tasks.load(Acquire) == seen {
                    bell.sleep();
                }
                rise(asleep);
                bell.clear();
                seen = tasks.load(Acquire);
            }
            parent.join().unwrap();
        });
    }

    struct Hub {
        waiter: AtomicU64,
        published: [AtomicU32; 2],
        bell: Bell,
    }

    impl Hub {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                waiter: AtomicU64::new(0),
                published: [AtomicU32::new(0), AtomicU32::new(0)],
                bell: Bell::default(),
            })
        }

        /// The parent's wait until `done`, as the leader and the background thread do it.
        fn wait_until(&self, done: impl Fn() -> bool) {
            loop {
                set_waiter(&self.waiter, 2);
                if !done() {
                    self.bell.sleep();
                }
                set_waiter(&self.waiter, 0);
                self.bell.clear();
                if done() {
                    return;
                }
            }
        }
    }

    fn model(body: impl Fn() + Sync + Send + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(body);
    }

    #[test]
    fn a_waiting_parent_hears_of_every_result() {
        model(|| {
            let hub = Hub::new();
            let worker = {
                let hub = Arc::clone(&hub);
                thread::spawn(move || {
                    let mut rung = 0;
                    for n in 1..=2 {
                        hub.published[0].store(n, Release);
                        if must_ring(&hub.waiter, &mut rung).is_some() {
                            hub.bell.ring();
                        }
                    }
                })
            };
            for want in 1..=2 {
                hub.wait_until(|| hub.published[0].load(Acquire) >= want);
            }
            worker.join().unwrap();
        });
    }

    #[test]
    fn a_worker_that_dies_before_it_rings_costs_no_other_result() {
        model(|| {
            let hub = Hub::new();
            let killed = {
                let hub = Arc::clone(&hub);
                thread::spawn(move || {
                    hub.published[0].store(1, Release);
                    // It has decided to ring, and is killed here.
                    let _ = must_ring(&hub.waiter, &mut 0);
                })
            };
            let survivor = {
                let hub = Arc::clone(&hub);
                thread::spawn(move || {
                    hub.published[1].store(1, Release);
                    if must_ring(&hub.waiter, &mut 0).is_some() {
                        hub.bell.ring();
                    }
                })
            };
            hub.wait_until(|| hub.published[1].load(Acquire) == 1);
            killed.join().unwrap();
            survivor.join().unwrap();
        });
    }
}
