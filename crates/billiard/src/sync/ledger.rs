//! What each process has taken, so that it is known of the dead.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use crate::arena::Cell;
use crate::sys::Life;

/// A row is a process and a count.
const ROW: usize = 16;

/// Counts by process, in a part of a cell. There is room for so many processes with something in their name at a time; what
/// more of them take is not noted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ledger<'cell> {
    cell: &'cell Cell,
    at: usize,
    rows: usize,
}

impl<'cell> Ledger<'cell> {
    /// The ledger of `rows` rows at `at`.
    pub(super) const fn new(cell: &'cell Cell, at: usize, rows: usize) -> Self {
        Self { cell, at, rows }
    }

    /// How many bytes so many rows take.
    pub(super) const fn size(rows: usize) -> usize {
        rows * ROW
    }

    fn who(&self, row: usize) -> &'cell AtomicU64 {
        self.cell.word64(self.at + row * ROW)
    }

    fn count(&self, row: usize) -> &'cell AtomicU64 {
        self.cell.word64(self.at + row * ROW + 8)
    }

    fn row_of(&self, who: Life) -> Option<usize> {
        // Relaxed: a row that is ours was made ours by this process.
        (0..self.rows).find(|&row| self.who(row).load(Relaxed) == who.word())
    }

    /// A row for this process: its own, a free one, or that of a dead process which had nothing.
    fn claim(&self, me: Life) -> Option<usize> {
        if let Some(row) = self.row_of(me) {
            return Some(row);
        }
        let free = |row: usize| self.who(row).compare_exchange(0, me.word(), AcqRel, Relaxed).is_ok();
        (0..self.rows).find(|&row| free(row)).or_else(|| {
            (0..self.rows).find(|&row| {
                let seen = self.who(row).load(Acquire);
                let dead = Life::from_word(seen).is_none_or(Life::is_over);
                dead && self.count(row).load(Acquire) == 0
                    && self.who(row).compare_exchange(seen, me.word(), AcqRel, Relaxed).is_ok()
            })
        })
    }

    /// Notes one more of the calling process.
    pub(super) fn add(&self, me: Life) {
        if let Some(row) = self.claim(me) {
            self.count(row).fetch_add(1, AcqRel);
        }
    }

    /// Notes one less: of the calling process, or of another one if that has none and `others` is allowed.
    pub(super) fn subtract(&self, me: Life, others: bool) {
        let less = |row: usize| {
            let count = self.count(row);
            let mut seen = count.load(Acquire);
            while seen > 0 {
                match count.compare_exchange(seen, seen - 1, AcqRel, Acquire) {
                    Ok(_) => return true,
                    Err(now) => seen = now,
                }
            }
            false
        };
        if self.row_of(me).is_some_and(less) || !others {
            return;
        }
        let _ = (0..self.rows).find(|&row| less(row));
    }

    /// What is noted of the calling process.
    pub(super) fn of(&self, me: Life) -> u64 {
        self.row_of(me).map_or(0, |row| self.count(row).load(Acquire))
    }

    /// What is noted of processes that are dead.
    pub(super) fn of_the_dead(&self) -> u64 {
        self.dead_rows().map(|row| self.count(row).load(Acquire)).sum()
    }

    /// Strikes out what is noted of processes that are dead, and answers how much that was.
    pub(super) fn strike_the_dead(&self) -> u64 {
        let mut struck = 0;
        for row in self.dead_rows() {
            let count = self.count(row).load(Acquire);
            // Refused when somebody else strikes it out. The row stays the dead one's until somebody claims it.
            if self.count(row).compare_exchange(count, 0, AcqRel, Relaxed).is_ok() {
                struck += count;
            }
        }
        struck
    }

    fn dead_rows(&self) -> impl Iterator<Item = usize> {
        (0..self.rows).filter(|&row| {
            let noted = self.count(row).load(Acquire) > 0;
            noted && Life::from_word(self.who(row).load(Acquire)).is_some_and(Life::is_over)
        })
    }
}
