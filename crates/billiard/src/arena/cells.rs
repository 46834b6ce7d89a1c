//! Cells: pieces of shared memory, many of them in one segment with one descriptor. `README.md` tells who gets whose memory.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use super::classes::size_of;
use super::rooms::house;
use super::segment::{File, LINE, Segment};
use crate::sys::{Identity, descriptor, forks, me};

/// Why there is no cell.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CellError {
    /// What was received is no segment of cells, or the cell lies outside of it.
    #[error("this is not shared memory of a compatible version of this package")]
    NotOurs,
    /// Somebody has closed the segment's descriptor.
    #[error("the descriptor of the shared memory was closed, so that it cannot be sent; keep it open")]
    Closed,
    /// The system refused.
    #[error("cannot {doing}")]
    Os {
        /// What.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

pub(super) fn cannot(doing: &'static str) -> impl FnOnce(io::Error) -> CellError {
    move |source| CellError::Os { doing, source }
}

/// How a cell got here.
#[derive(Debug)]
enum Origin {
    /// This process, or the one that it was forked from, has made it.
    Made { by: Identity, forks: u64, sent: AtomicBool },
    /// Another process has sent it.
    Received,
}

/// A piece of shared memory. Whoever has a handle of it may use it, in whatever process: the one that made it, its forked
/// children, and those that were sent a [`Parcel`].
///
/// # Fork
/// A child's copy is as good as the original. Dropping it frees nothing.
#[derive(Debug)]
pub struct Cell {
    /// Where it begins in this process, so that the way to its words is short.
    base: NonNull<u8>,
    segment: Arc<Segment>,
    at: usize,
    len: usize,
    origin: Origin,
}

// SAFETY: `base` points into the mapping that `segment` keeps, which belongs to no thread; what lies there is only ever
// seen as atomics.
unsafe impl Send for Cell {}
// SAFETY: as above.
unsafe impl Sync for Cell {}

/// What another process must be told to use a cell: a descriptor, which it must be given, and where the cell lies.
#[derive(Clone, Copy, Debug)]
pub struct Parcel<'cell> {
    /// The segment.
    pub fd: BorrowedFd<'cell>,
    /// Where the cell begins in it.
    pub at: usize,
    /// How long it is.
    pub len: usize,
}

impl Cell {
    /// A cell of at least `len` bytes, all of them zero.
    ///
    /// # Errors
    /// No memory or descriptor is left.
    pub fn new(len: usize) -> Result<Self, CellError> {
        let (cell, zero) = Self::take(len)?;
        if !zero {
            // SAFETY: the cell has so many bytes, and nobody else knows it yet: what children may use is never given out again.
            unsafe { cell.base.write_bytes(0, cell.len) };
        }
        Ok(cell)
    }

    /// A cell of at least `len` bytes, in which may be what this process has had there before.
    ///
    /// # Errors
    /// No memory or descriptor is left.
    pub fn uncleared(len: usize) -> Result<Self, CellError> {
        Self::take(len).map(|(cell, _)| cell)
    }

    /// A cell, and whether it is known to be zero.
    fn take(len: usize) -> Result<(Self, bool), CellError> {
        let len =
            size_of(len).ok_or_else(|| cannot("make shared memory")(io::ErrorKind::OutOfMemory.into()))?;
        let mut house = house();
        let forks = forks();
        let (segment, at, zero) = house.take(len)?;
        drop(house);
        let origin = Origin::Made { by: me(), forks, sent: AtomicBool::new(false) };
        Ok((Self::over(segment, at, len, origin), zero))
    }

    fn over(segment: Arc<Segment>, at: usize, len: usize, origin: Origin) -> Self {
        let base = NonNull::new(segment.map.pointer(at, len)).expect("a mapping does not begin at zero");
        Self { base, segment, at, len, origin }
    }

    /// The cell that another process has sent. The descriptor was given to this process under the number `fd` and is taken
    /// over, unless the segment is here already.
    ///
    /// # Errors
    /// [`CellError::NotOurs`] for what was not made by [`Cell::parcel`].
    pub fn receive(fd: RawFd, at: usize, len: usize) -> Result<Self, CellError> {
        let doing = "receive shared memory";
        let lent = descriptor::lend(fd).map_err(cannot(doing))?;
        let file = File::of(lent).map_err(cannot(doing))?;
        let mut house = house();
        let segment = match house.known(|segment| segment.file == file) {
            Some(segment) => {
                // Many cells come with one descriptor, and it may come under several numbers.
                if segment.fd.as_raw_fd() != fd {
                    drop(descriptor::claim(fd).map_err(cannot(doing))?);
                }
                segment
            }
            None => {
                let segment = Arc::new(Segment::open(descriptor::claim(fd).map_err(cannot(doing))?, file)?);
                house.welcome(&segment);
                segment
            }
        };
        drop(house);
        let fits = at >= LINE && at.checked_add(len).is_some_and(|end| end <= segment.map.len());
        if !fits || len == 0 || !at.is_multiple_of(LINE) || !len.is_multiple_of(LINE) {
            return Err(CellError::NotOurs);
        }
        Ok(Self::over(segment, at, len, Origin::Received))
    }

    /// What another process must be told.
    ///
    /// # Errors
    /// [`CellError::Closed`] if the program has closed the descriptor of the segment.
    pub fn parcel(&self) -> Result<Parcel<'_>, CellError> {
        if !self.segment.has_descriptor() {
            return Err(CellError::Closed);
        }
        if let Origin::Made { sent, .. } = &self.origin {
            sent.store(true, Release);
        }
        Ok(Parcel { fd: self.segment.fd.as_fd(), at: self.at, len: self.len })
    }

    /// How many bytes it has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none; never.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it lies in its segment: tells the cells of one segment apart.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.at
    }

    /// A 32-bit word of it.
    #[inline]
    #[must_use]
    pub fn word32(&self, offset: usize) -> &AtomicU32 {
        assert!(offset + 4 <= self.len && offset.is_multiple_of(4), "a word lies in its cell, aligned");
        // SAFETY: inside of the cell, as was just checked.
        let word = unsafe { self.base.add(offset) };
        // SAFETY: in bounds and aligned (cells begin at multiples of 64 in a mapping, which begins at a page); the mapping
        // lives as long as `self.segment`; every process touches words of cells through atomics only.
        unsafe { AtomicU32::from_ptr(word.as_ptr().cast()) }
    }

    /// A 64-bit word of it.
    #[inline]
    #[must_use]
    pub fn word64(&self, offset: usize) -> &AtomicU64 {
        assert!(offset + 8 <= self.len && offset.is_multiple_of(8), "a word lies in its cell, aligned");
        // SAFETY: inside of the cell, as was just checked.
        let word = unsafe { self.base.add(offset) };
        // SAFETY: as for `word32`.
        unsafe { AtomicU64::from_ptr(word.as_ptr().cast()) }
    }

    /// The half of the 64-bit word at `offset` that counts less, to sleep on: a futex has 32 bits.
    #[inline]
    #[must_use]
    pub fn low_half(&self, offset: usize) -> &AtomicU32 {
        self.word32(offset + if cfg!(target_endian = "little") { 0 } else { 4 })
    }

    /// Where it lies in this process, for handing a view to a program. What is read there may change at any time.
    #[must_use]
    pub fn pointer(&self) -> *mut u8 {
        self.base.as_ptr()
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        let Origin::Made { by, forks: made, sent } = &self.origin else { return };
        // FORK: only the process that made it gives it back.
        if !by.is_me() {
            return;
        }
        let mut house = house();
        let known = sent.load(Acquire) || forks() != *made;
        let gone = house.put_back(&self.segment, self.at, self.len, known);
        drop(house);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Forked, PidFd, exit_now, fork, memfd};
    use std::os::fd::IntoRawFd;
    use std::sync::atomic::Ordering::SeqCst;

    #[test]
    fn what_is_not_cleared_was_ours_and_what_is_cleared_is_zero() {
        let keep = (Cell::new(64).unwrap(), Cell::new(2000).unwrap());
        for len in [64, 5000, 300_000] {
            let first = Cell::new(len).unwrap();
            for offset in (0..first.len).step_by(8) {
                assert_eq!(first.word64(offset).swap(u64::MAX, SeqCst), 0);
            }
            drop(first);
            let second = Cell::uncleared(len).unwrap();
            assert!(len > 5000 || second.word64(0).load(SeqCst) == u64::MAX);
            drop(second);
            let third = Cell::new(len).unwrap();
            assert!((0..third.len).step_by(8).all(|offset| third.word64(offset).load(SeqCst) == 0));
        }
        drop(keep);
    }

    fn copy_of(parcel: &Parcel<'_>) -> RawFd {
        parcel.fd.try_clone_to_owned().unwrap().into_raw_fd()
    }

    #[test]
    fn cells_are_zero_lie_apart_and_are_used_again() {
        let first = Cell::new(100).unwrap();
        let second = Cell::new(1).unwrap();
        assert_eq!((first.len(), second.len()), (128, 64));
        assert!(Arc::ptr_eq(&first.segment, &second.segment));
        first.word64(120).store(u64::MAX, SeqCst);
        assert_eq!(second.word64(0).load(SeqCst), 0);
        let at = first.at;
        drop(first);
        let third = Cell::new(128).unwrap();
        assert_eq!((third.at, third.word64(120).load(SeqCst)), (at, 0));
    }

    #[test]
    fn what_a_child_may_know_is_not_used_again() {
        let keep = Cell::new(64).unwrap();
        let (forked, sent) = (Cell::new(64).unwrap(), Cell::new(64).unwrap());
        sent.parcel().unwrap();
        let at = sent.at;
        drop(sent);
        assert_ne!(Cell::new(64).unwrap().at, at);
        match fork().unwrap() {
            Forked::Child => exit_now(0),
            Forked::Parent(pid) => drop(PidFd::open(pid).unwrap().wait().unwrap()),
        }
        let at = forked.at;
        drop(forked);
        let next = Cell::new(64).unwrap();
        assert!(Arc::ptr_eq(&next.segment, &keep.segment));
        assert_ne!(next.at, at);
    }

    #[test]
    fn a_segment_goes_with_its_last_cell() {
        // Alone in its segment, and more than is kept for others.
        let large = Cell::uncleared(128 << 20).unwrap();
        let segment = Arc::downgrade(&large.segment);
        drop(large);
        assert!(segment.upgrade().is_none());
    }

    #[test]
    fn many_cells_share_a_descriptor_and_what_was_received_is_known_again() {
        let cell = Cell::new(64).unwrap();
        cell.word32(0).store(7, SeqCst);
        let parcel = cell.parcel().unwrap();
        let fd = copy_of(&parcel);
        let received = Cell::receive(fd, parcel.at, parcel.len).unwrap();
        assert!(Arc::ptr_eq(&received.segment, &cell.segment));
        assert_eq!(received.word32(0).load(SeqCst), 7);
        assert!(descriptor::lend(fd).is_err(), "the second descriptor is closed");
        let again = Cell::receive(parcel.fd.as_raw_fd(), parcel.at, parcel.len).unwrap();
        assert!(descriptor::lend(parcel.fd.as_raw_fd()).is_ok());
        drop((received, again));
        assert_eq!(cell.word32(0).load(SeqCst), 7);
    }

    #[test]
    fn what_is_no_cell_is_refused() {
        let cell = Cell::new(64).unwrap();
        let parcel = cell.parcel().unwrap();
        for (at, len) in [(0, 64), (1, 64), (64, 0), (64, 1), (1 << 40, 64), (usize::MAX - 63, 64)] {
            let refused = Cell::receive(copy_of(&parcel), at, len);
            assert!(matches!(refused, Err(CellError::NotOurs)), "{at} {len}");
        }
        let other = memfd::create(4096, 4096).unwrap().into_raw_fd();
        assert!(matches!(Cell::receive(other, 64, 64), Err(CellError::NotOurs)));
        assert!(matches!(Cell::receive(-1, 64, 64), Err(CellError::Os { .. })));
        assert!(matches!(Cell::new(usize::MAX), Err(CellError::Os { .. })));
    }

    #[test]
    fn a_child_allocates_in_segments_of_its_own_and_shares_what_it_inherited() {
        let cell = Cell::new(64).unwrap();
        match fork().unwrap() {
            Forked::Child => {
                let own = Cell::new(64).is_ok_and(|own| !Arc::ptr_eq(&own.segment, &cell.segment));
                cell.word32(4).store(if own { 1 } else { 2 }, SeqCst);
                drop(cell);
                exit_now(0)
            }
            Forked::Parent(pid) => drop(PidFd::open(pid).unwrap().wait().unwrap()),
        }
        assert_eq!(cell.word32(4).load(SeqCst), 1);
    }
}
