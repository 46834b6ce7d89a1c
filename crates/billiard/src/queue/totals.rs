//! How many bytes were put and got altogether, for queues with a bound in bytes. A total belongs to a mark; since a mark is one word, the
//! total of the next one is written beside that of the current one, and counts once the mark is stored.

use std::sync::atomic::Ordering::{Acquire, Release};

use super::layout::Mark;
use crate::arena::Mapping;

/// The places of two pairs, behind a mark: for how many messages, and how many bytes these had.
const fn places(mark_at: usize) -> [usize; 2] {
    [mark_at + 16, mark_at + 32]
}

/// The total that belongs to the current mark. Under the lock of those who move it, or anywhere: then it is one that was true
/// at some instant of the call.
pub(super) fn current(map: &Mapping, mark_at: usize) -> u64 {
    loop {
        let before = map.word64(mark_at).load(Acquire);
        let count = u64::from(Mark::unpack(before).count);
        let total = places(mark_at)
            .into_iter()
            .find(|at| map.word64(*at).load(Acquire) == count)
            .map(|at| map.word64(at + 8).load(Acquire));
        // Changed meanwhile, the place may be in use for the next mark already.
        match total {
            Some(total) if map.word64(mark_at).load(Acquire) == before => return total,
            _ => std::hint::spin_loop(),
        }
    }
}

/// Says which total will belong to the mark that is stored next. Under the lock of those who move it.
pub(super) fn prepare(map: &Mapping, mark_at: usize, next: Mark, total: u64) {
    let count = Mark::unpack(map.word64(mark_at).load(Acquire)).count;
    let [one, other] = places(mark_at);
    let at = if map.word64(one).load(Acquire) == u64::from(count) { other } else { one };
    // In this order: killed in between, the place belongs to no mark that counts.
    map.word64(at + 8).store(total, Release);
    map.word64(at).store(u64::from(next.count), Release);
}
