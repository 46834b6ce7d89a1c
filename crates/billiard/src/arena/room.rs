//! A room: a segment in which this process allocates cells, and what is free in it.

use std::array;
use std::io;
use std::sync::Arc;

use super::CellError;
use super::classes::{CLASSES, class_of, size_in};
use super::gaps::Gaps;
use super::segment::{LINE, Segment};
use crate::failpoint;
use crate::sys::memfd;

/// How much is given memory at a time.
pub(super) const CHUNK: usize = 64 << 10;

/// A segment in which this process allocates.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) segment: Arc<Segment>,
    pub(super) gaps: Gaps,
    /// Where free cells begin, by class.
    bins: [Vec<usize>; CLASSES],
    /// Bytes in them.
    pub(super) binned: usize,
    pub(super) live: usize,
    /// Bytes that nobody gets any more, since a child may still use them.
    pub(super) retired: usize,
}

impl Room {
    pub(super) fn create(len: usize) -> Result<Self, CellError> {
        let segment = Arc::new(Segment::create(len)?);
        Ok(Self {
            segment,
            gaps: Gaps::over(LINE as u64, (len - LINE) as u64),
            bins: array::from_fn(|_| Vec::new()),
            binned: 0,
            live: 0,
            retired: 0,
        })
    }

    /// A free cell of a class.
    pub(super) fn take_kept(&mut self, class: usize) -> Option<usize> {
        let at = self.bins[class].pop()?;
        self.binned -= size_in(class);
        Some(at)
    }

    /// Whether there is room for `len` bytes that has memory behind it already.
    pub(super) fn is_warm(&self, len: usize) -> bool {
        self.gaps.has_warm(len as u64)
    }

    /// Room for `len` bytes: where, and whether they are known to be zero. It has memory behind it already, if there is such.
    pub(super) fn take(&mut self, len: usize) -> io::Result<Option<(usize, bool)>> {
        let Some((at, backed)) = self.gaps.take(len as u64) else { return Ok(None) };
        if !backed {
            let more = self.gaps.take_bare(at + len as u64, CHUNK.saturating_sub(len) as u64);
            let all = len as u64 + more;
            failpoint::pass("arena.backing");
            if let Err(error) = memfd::back(&*self.segment.fd, at, all) {
                self.gaps.put_back(at, all, false);
                return Err(error);
            }
            if more > 0 {
                self.gaps.put_back(at + len as u64, more, true);
            }
        }
        Ok(Some((at as usize, !backed)))
    }

    /// Counts a cell that was taken.
    pub(super) fn lend(&mut self) -> Arc<Segment> {
        self.live += 1;
        failpoint::pass("arena.taken");
        Arc::clone(&self.segment)
    }

    pub(super) fn put_back(&mut self, at: usize, len: usize) {
        match class_of(len) {
            Some(class) => {
                self.bins[class].push(at);
                self.binned += len;
            }
            None => self.gaps.put_back(at as u64, len as u64, true),
        }
    }

    /// Merges the free cells that are kept by class with what is around them.
    pub(super) fn merge(&mut self) {
        for (class, places) in self.bins.iter_mut().enumerate() {
            for at in places.drain(..) {
                self.gaps.put_back(at as u64, size_in(class) as u64, true);
            }
        }
        self.binned = 0;
    }

    /// Gives the memory behind a free range back to the system.
    pub(super) fn cool(&mut self, at: u64, len: u64) {
        if self.gaps.carve(at, len) {
            // KERNEL: without the means to punch holes the memory just stays.
            let backed = memfd::release(&*self.segment.fd, at, len).is_err();
            failpoint::pass("arena.released");
            self.gaps.put_back(at, len, backed);
        }
    }

    pub(super) const fn warm(&self) -> u64 {
        self.gaps.warm() + self.binned as u64
    }

    /// Nobody knows of any cell in it, and nobody ever will.
    pub(super) const fn is_vacant(&self) -> bool {
        self.live == 0 && self.retired == 0
    }
}
