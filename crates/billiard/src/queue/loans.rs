//! Rows of segments that no message refers to: a process writes to them before it puts, or reads from them after it got. They are on
//! loan to it, so that a sweep leaves them alone as long as it lives, and takes them when it does not.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::time::Duration;

use super::layout::{AT_LOANED, AT_LOANS, AT_LOOKED, LOANS};
use super::writers::is_alive;
use crate::arena::Mapping;
use crate::sys::now;

/// While there are loans, whoever comes by looks this often whether those who have them live.
const LOOK: Duration = Duration::from_millis(100);

/// Which lock the loan is taken under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Put,
    Get,
}

/// A row of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) first: u64,
    pub(super) count: u64,
}

const fn mask(side: Side) -> usize {
    AT_LOANED + side as usize * 8
}

const fn entry(side: Side, number: u32) -> usize {
    AT_LOANS + (side as usize * LOANS + number as usize) * 32
}

/// Enters a loan to a process. Under the lock of that side. `None`: there is no place for another one.
pub(super) fn enter(map: &Mapping, side: Side, (pid, start): (u64, u64), row: Row) -> Option<u32> {
    let taken = map.word64(mask(side));
    let number = (!taken.load(Acquire)).trailing_zeros();
    if number as usize == LOANS {
        return None;
    }
    let at = entry(side, number);
    // Relaxed: the bit makes it count.
    for (word, value) in [pid, start, row.first, row.count].into_iter().enumerate() {
        map.word64(at + word * 8).store(value, Relaxed);
    }
    // SYNC(queue.loan): pairs with `rows`.
    taken.fetch_or(1 << number, AcqRel);
    Some(number)
}

/// Ends a loan. No lock is needed.
pub(super) fn end(map: &Mapping, side: Side, number: u32) {
    // SYNC(queue.loan): what was done with the row was done before, giving it back included.
    map.word64(mask(side)).fetch_and(!(1 << number), AcqRel);
}

fn of_side(map: &Mapping, side: Side) -> impl Iterator<Item = (u32, (u64, u64), Row)> {
    let mut left = map.word64(mask(side)).load(Acquire);
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let number = left.trailing_zeros();
        left &= left - 1;
        // Relaxed: made visible by the bit.
        let word = |word: usize| map.word64(entry(side, number) + word * 8).load(Relaxed);
        Some((number, (word(0), word(1)), Row { first: word(2), count: word(3) }))
    })
}

/// The rows that the living have. Forgets the loans of the dead. Under both locks.
pub(super) fn rows(map: &Mapping) -> Vec<Row> {
    let mut rows = Vec::new();
    for side in [Side::Put, Side::Get] {
        for (number, (pid, start), row) in of_side(map, side) {
            if is_alive(pid, start) {
                rows.push(row);
            } else {
                end(map, side, number);
            }
        }
    }
    rows
}

/// Whether somebody has died with a loan; looked up now and then. A loan that ends meanwhile may be taken for one of another process:
/// that only makes for a sweep too many.
#[inline]
pub(super) fn somebody_died(map: &Mapping) -> bool {
    // Relaxed: nothing hangs on when it is noticed.
    let any = [Side::Put, Side::Get].iter().any(|side| map.word64(mask(*side)).load(Relaxed) != 0);
    any && look(map)
}

#[cold]
fn look(map: &Mapping) -> bool {
    let (looked, time) = (map.word64(AT_LOOKED), now());
    let last = looked.load(Relaxed);
    if time.0.wrapping_sub(last) < LOOK.as_nanos() as u64 {
        return false;
    }
    looked.store(time.0, Relaxed);
    [Side::Put, Side::Get]
        .into_iter()
        .any(|side| of_side(map, side).any(|(_, (pid, start), _)| !is_alive(pid, start)))
}
