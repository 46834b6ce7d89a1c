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
    // Relaxed: the fence orders it; the swap decides.
    asleep.load(Relaxed) == reason && asleep.swap(0, SeqCst) != 0
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
