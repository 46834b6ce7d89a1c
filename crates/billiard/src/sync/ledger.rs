//! What each process has taken, so that it is known of the dead.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::arena::Cell;
use crate::sys::Life;

/// How many rows have ever been in use comes first.
const HEAD: usize = 8;
/// A row is a process, and in the bits that a life leaves free a count; zero if it is nobody's.
const ROW: usize = 8;
const ONE: u64 = 1 << Life::FREE_SHIFT;
const COUNT: u64 = !Life::BITS;

/// Counts by process, in the rest of a cell. A row belongs to a process only while its count is above zero: so the number of
/// rows limits how many processes can have something in their name at the same moment. What more of them take is not noted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ledger<'cell> {
    cell: &'cell Cell,
    at: usize,
}

const fn count(row: u64) -> u64 {
    (row & COUNT) >> Life::FREE_SHIFT
}

fn is_of(row: u64, who: Life) -> bool {
    row & Life::BITS == who.word()
}

impl<'cell> Ledger<'cell> {
    /// The ledger from `at` to the end of the cell.
    pub(super) const fn new(cell: &'cell Cell, at: usize) -> Self {
        Self { cell, at }
    }

    /// How many bytes so many rows take.
    pub(super) const fn size(rows: usize) -> usize {
        HEAD + rows * ROW
    }

    fn used(&self) -> &'cell AtomicU32 {
        self.cell.word32(self.at)
    }

    fn room(&self) -> usize {
        (self.cell.len() - self.at - HEAD) / ROW
    }

    /// The rows that have ever been in use; there are hardly ever many.
    fn rows(&self) -> impl Iterator<Item = &'cell AtomicU64> {
        let (cell, at) = (self.cell, self.at + HEAD);
        let used = (self.used().load(Acquire) as usize).min(self.room());
        (0..used).map(move |row| cell.word64(at + row * ROW))
    }

    /// Changes a row as long as `next` says how. Whether it was changed.
    fn change(row: &AtomicU64, next: impl Fn(u64) -> Option<u64>) -> bool {
        // Relaxed: the exchange decides.
        let mut seen = row.load(Relaxed);
        while let Some(wanted) = next(seen) {
            match row.compare_exchange(seen, wanted, AcqRel, Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Notes one more of the calling process.
    pub(super) fn add(&self, me: Life) {
        let own = |seen| (is_of(seen, me) && seen & COUNT != COUNT).then_some(seen + ONE);
        let free = |seen| (seen == 0).then_some(me.word() + ONE);
        while !self.rows().any(|row| Self::change(row, own))
            && !self.rows().any(|row| Self::change(row, free))
        {
            // Relaxed: a row that is zero is nobody's, whoever counts it as used.
            let used = self.used().load(Relaxed);
            if used as usize >= self.room() {
                return;
            }
            let _ = self.used().compare_exchange(used, used + 1, AcqRel, Relaxed);
        }
    }

    /// Notes one less: of the calling process, or of another one if that has none and `others` is allowed.
    pub(super) fn subtract(&self, me: Life, others: bool) {
        let less = |seen| match count(seen) {
            0 => None,
            1 => Some(0),
            _ => Some(seen - ONE),
        };
        let own = |seen| is_of(seen, me).then(|| less(seen)).flatten();
        let _ = self.rows().any(|row| Self::change(row, own))
            || (others && self.rows().any(|row| Self::change(row, less)));
    }

    fn total(&self, of: impl Fn(Life) -> bool) -> u64 {
        let rows = self.rows().map(|row| row.load(Acquire));
        rows.filter(|&row| Life::from_word(row).is_some_and(&of)).map(count).sum()
    }

    /// What is noted of the calling process.
    pub(super) fn of(&self, me: Life) -> u64 {
        self.total(|who| who == me)
    }

    /// What is noted of processes that are dead.
    pub(super) fn of_the_dead(&self) -> u64 {
        self.total(Life::is_over)
    }

    /// Strikes out what is noted of processes that are dead, and answers how much that was.
    pub(super) fn strike_the_dead(&self) -> u64 {
        let mut struck = 0;
        for row in self.rows() {
            let seen = row.load(Acquire);
            // Refused when somebody else strikes it out.
            if Life::from_word(seen).is_some_and(Life::is_over)
                && row.compare_exchange(seen, 0, AcqRel, Relaxed).is_ok()
            {
                struck += count(seen);
            }
        }
        struck
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    fn life(pid: u64) -> Life {
        Life::from_word(pid | 7 << 32).unwrap()
    }

    #[test]
    fn rows_belong_to_those_who_have_something() {
        let cell = Cell::new(Ledger::size(3)).unwrap();
        let ledger = Ledger::new(&cell, 0);
        let room = ledger.room() as u64;
        assert!(room >= 3);
        // One after the other they need one row.
        for pid in 1..=2 * room {
            ledger.add(life(pid));
            assert_eq!(ledger.of(life(pid)), 1);
            ledger.subtract(life(pid), false);
        }
        assert_eq!(ledger.used().load(Relaxed), 1);
        // At the same time they need one each, and one too many is not noted.
        (1..=room + 1).for_each(|pid| ledger.add(life(pid)));
        assert_eq!((ledger.of(life(room)), ledger.of(life(room + 1))), (1, 0));
        ledger.subtract(life(room + 1), false);
        assert_eq!(ledger.of(life(1)), 1, "nothing of others is struck out");
        ledger.subtract(life(room + 1), true);
        assert_eq!((1..=room).map(|pid| ledger.of(life(pid))).sum::<u64>(), room - 1);
    }

    #[test]
    fn a_count_that_fills_its_row_goes_on_in_another() {
        let cell = Cell::new(Ledger::size(4)).unwrap();
        let (ledger, me) = (Ledger::new(&cell, 0), Life::own());
        (0..2000).for_each(|_| ledger.add(me));
        assert_eq!(ledger.of(me), 2000);
        (0..1999).for_each(|_| ledger.subtract(me, false));
        assert_eq!((ledger.of(me), ledger.of_the_dead()), (1, 0));
    }

    #[test]
    fn the_dead_are_struck_out_once() {
        let cell = Cell::new(Ledger::size(4)).unwrap();
        let (ledger, me) = (Ledger::new(&cell, 0), Life::own());
        // Nobody began before the machine did, with the number of one who runs.
        let dead = Life::from_word(me.word() ^ 1 << 32).unwrap();
        ledger.add(dead);
        ledger.add(me);
        ledger.add(dead);
        assert_eq!(ledger.of_the_dead(), 2);
        assert_eq!(ledger.strike_the_dead(), 2);
        assert_eq!((ledger.strike_the_dead(), ledger.of(me)), (0, 1));
    }
}
