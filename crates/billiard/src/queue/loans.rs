//! Rows of segments that no message refers to: a process writes to them before it puts, or reads from them after it got. They are on
//! loan to it, so that a sweep leaves them alone as long as it lives, and takes them when it does not.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::time::Duration;

use super::layout::{AT_LOANED, AT_LOANS, AT_LOOKED, LOANS_TO_GET, LOANS_TO_PUT, MAPPED, MOST_SPAN, SEGMENT};
use super::writers::is_alive;
use crate::arena::Mapping;
use crate::sys::now;

/// While there are loans, whoever comes by looks this often whether those who have them live.
const LOOK: Duration = Duration::from_millis(100);
/// Loans that those who get may keep as long as they like; the others are for copies.
const KEPT: usize = LOANS_TO_GET - 64;
/// Segments that may be kept of those that are mapped, and altogether.
const NEAR_KEPT: u64 = MAPPED / SEGMENT / 2;
const ALL_KEPT: u64 = MOST_SPAN / SEGMENT / 2;

/// Which lock the loan is taken under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Put,
    Get,
}

impl Side {
    /// The numbers of its loans.
    const fn numbers(self) -> (usize, usize) {
        match self {
            Self::Put => (0, LOANS_TO_PUT),
            Self::Get => (LOANS_TO_PUT, LOANS_TO_PUT + LOANS_TO_GET),
        }
    }
}

const _: () = assert!(LOANS_TO_PUT.is_multiple_of(64) && LOANS_TO_GET.is_multiple_of(64));

/// A row of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) first: u64,
    pub(super) count: u64,
}

/// The word that tells of 64 loans, and the bit of one in it.
fn bit(map: &Mapping, number: usize) -> (&AtomicU64, u64) {
    (map.word64(AT_LOANED + number / 64 * 8), 1 << (number % 64))
}

const fn entry(number: usize) -> usize {
    AT_LOANS + number * 32
}

/// Enters a loan to a process. Under the lock of that side. `None`: there is no place for another one.
pub(super) fn enter(map: &Mapping, side: Side, (pid, start): (u64, u64), row: Row) -> Option<usize> {
    let (first, end) = side.numbers();
    let number = (first..end).step_by(64).find_map(|number| {
        let free = !bit(map, number).0.load(Acquire);
        (free != 0).then(|| number + free.trailing_zeros() as usize)
    })?;
    let at = entry(number);
    // Relaxed: the bit makes it count.
    for (word, value) in [pid, start, row.first, row.count].into_iter().enumerate() {
        map.word64(at + word * 8).store(value, Relaxed);
    }
    let (word, bit) = bit(map, number);
    // SYNC(queue.loan): pairs with `rows`.
    word.fetch_or(bit, AcqRel);
    Some(number)
}

/// Ends a loan. No lock is needed.
pub(super) fn end(map: &Mapping, number: usize) {
    let (word, bit) = bit(map, number);
    // SYNC(queue.loan): what was done with the row was done before, giving it back included.
    word.fetch_and(!bit, AcqRel);
}

fn of_side(map: &Mapping, side: Side) -> impl Iterator<Item = (usize, (u64, u64), Row)> {
    let (first, end) = side.numbers();
    (first..end).step_by(64).flat_map(move |number| {
        let mut left = bit(map, number).0.load(Acquire);
        std::iter::from_fn(move || {
            let number = (left != 0).then(|| number + left.trailing_zeros() as usize)?;
            left &= left - 1;
            // Relaxed: made visible by the bit.
            let word = |word: usize| map.word64(entry(number) + word * 8).load(Relaxed);
            Some((number, (word(0), word(1)), Row { first: word(2), count: word(3) }))
        })
    })
}

fn all(map: &Mapping) -> impl Iterator<Item = (usize, (u64, u64), Row)> {
    of_side(map, Side::Put).chain(of_side(map, Side::Get))
}

/// Tells whether a process is alive, and does not ask for the same one again.
fn census() -> impl FnMut((u64, u64)) -> bool {
    let mut known = Vec::new();
    move |process| {
        if let Some((_, alive)) = known.iter().find(|(of, _)| *of == process) {
            return *alive;
        }
        let alive = is_alive(process.0, process.1);
        known.push((process, alive));
        alive
    }
}

/// The rows that the living have. Forgets the loans of the dead. Under both locks.
pub(super) fn rows(map: &Mapping) -> Vec<Row> {
    let (mut rows, mut is_alive) = (Vec::new(), census());
    for (number, process, row) in all(map) {
        if is_alive(process) {
            rows.push(row);
        } else {
            end(map, number);
        }
    }
    rows
}

/// Whether nobody has one.
pub(super) fn are_none(map: &Mapping, side: Side) -> bool {
    of_side(map, side).next().is_none()
}

/// Whether whoever has got a message may keep its row, so that there is enough left for others: of places for loans, and of the segments
/// that are mapped. A loan that is the only one may, however large it is: what stays one is not collected. Without a lock it is a good
/// guess: where it is wrong, others copy under a lock, or put where it takes longer.
pub(super) fn may_keep(map: &Mapping) -> bool {
    let near =
        |row: Row| (MAPPED / SEGMENT).clamp(row.first, row.first.saturating_add(row.count)) - row.first;
    let (count, near, all) = of_side(map, Side::Get)
        .fold((0, 0, 0_u64), |(count, so_near, all), (.., row)| {
            (count + 1, so_near + near(row), all.saturating_add(row.count))
        });
    count <= 1 || (count <= KEPT && near <= NEAR_KEPT && all <= ALL_KEPT)
}

/// Whether somebody has died with a loan; looked up now and then. A loan that ends meanwhile may be taken for one of another process:
/// that only makes for a sweep too many.
#[inline]
pub(super) fn somebody_died(map: &Mapping) -> bool {
    // Relaxed: nothing hangs on when it is noticed.
    let any =
        (0..LOANS_TO_PUT + LOANS_TO_GET).step_by(64).any(|number| bit(map, number).0.load(Relaxed) != 0);
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
    let mut is_alive = census();
    all(map).any(|(_, process, _)| !is_alive(process))
}
