//! Cells: small pieces of shared memory, many of them in one segment with one descriptor.
//!
//! Only the process that made a segment allocates in it; children that need cells of their own make segments of their own.
//! So no lock is shared, and a child that dies leaves no hole.
//!
//! When the process that made a cell lets go of it, children may still use it. Who cannot know the cell does not: one that
//! was never sent, and that is younger than the last fork, is allocated again at once. Every other cell is *retired*: nobody
//! gets its memory until nothing of its segment is in use here. Then the segment itself is let go of, and the kernel frees
//! it when the last child has; it counts mappings, whoever dies. So what is left of retired cells is at most the rest of a
//! segment for each cell that is still in use.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::segment::{File, Segment};
use crate::sys::{Identity, descriptor, forks, me};

/// What cells begin at and are multiples of: a line of the processor's cache, so that neighbours do not disturb each other.
pub(super) const LINE: usize = 64;
/// The size of the first segment; each further one is twice as large, up to [`LARGEST`].
const FIRST: usize = 64 << 10;
const LARGEST: usize = 1 << 20;

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

/// A segment in which this process allocates.
#[derive(Debug)]
struct Room {
    segment: Arc<Segment>,
    /// What can be allocated: begin and length.
    gaps: BTreeMap<usize, usize>,
    live: usize,
}

impl Room {
    fn take(&mut self, len: usize) -> Option<usize> {
        let (&at, &room) = self.gaps.iter().find(|(_, room)| **room >= len)?;
        self.gaps.remove(&at);
        if room > len {
            self.gaps.insert(at + len, room - len);
        }
        self.live += 1;
        Some(at)
    }

    fn put_back(&mut self, at: usize, len: usize) {
        let (mut at, mut len) = (at, len);
        if let Some((&before, &room)) = self.gaps.range(..at).next_back()
            && before + room == at
        {
            self.gaps.remove(&before);
            (at, len) = (before, room + len);
        }
        if let Some(room) = self.gaps.remove(&(at + len)) {
            len += room;
        }
        self.gaps.insert(at, len);
    }
}

#[derive(Debug, Default)]
struct House {
    rooms: Vec<Room>,
    /// Segments of others that are mapped here.
    guests: Vec<Weak<Segment>>,
    /// How large the next segment is.
    next: usize,
}

#[derive(Debug)]
struct Estate {
    owner: Identity,
    house: Mutex<House>,
}

/// What belongs to this process.
static ESTATE: AtomicPtr<Estate> = AtomicPtr::new(std::ptr::null_mut());

fn house() -> MutexGuard<'static, House> {
    let mut seen = ESTATE.load(Acquire);
    loop {
        // SAFETY: null, or made from a box below and never freed.
        if let Some(estate) = unsafe { seen.as_ref() }
            && estate.owner.is_me()
        {
            return estate.house.lock().unwrap_or_else(PoisonError::into_inner);
        }
        // FORK: the parent's may be locked for ever, and its segments are the parent's to allocate in. It is left as it is.
        let fresh = Box::into_raw(Box::new(Estate { owner: me(), house: Mutex::default() }));
        match ESTATE.compare_exchange(seen, fresh, AcqRel, Acquire) {
            Ok(_) => seen = fresh,
            Err(other) => {
                // SAFETY: made right above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(fresh) });
                seen = other;
            }
        }
    }
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
        let no_room = || cannot("make shared memory")(io::ErrorKind::OutOfMemory.into());
        let len = len.max(1).checked_next_multiple_of(LINE).ok_or_else(no_room)?;
        let mut house = house();
        let forks = forks();
        let found =
            house.rooms.iter_mut().rev().find_map(|room| Some((room.take(len)?, Arc::clone(&room.segment))));
        let (at, segment) = match found {
            Some((at, segment)) => (at, segment),
            None => {
                let usual = house.next.max(FIRST);
                let size = len.checked_add(LINE).and_then(|least| least.checked_next_multiple_of(4096));
                let size = size.ok_or_else(no_room)?.max(usual);
                let segment = Arc::new(Segment::create(size)?);
                let mut room = Room {
                    segment: Arc::clone(&segment),
                    gaps: BTreeMap::from([(LINE, size - LINE)]),
                    live: 0,
                };
                let at = room.take(len).expect("the segment was made large enough");
                house.rooms.push(room);
                house.next = (usual * 2).min(LARGEST);
                (at, segment)
            }
        };
        drop(house);
        for word in (0..len).step_by(8) {
            // Relaxed: nobody else knows the cell yet.
            segment.map.word64(at + word).store(0, Relaxed);
        }
        let origin = Origin::Made { by: me(), forks, sent: AtomicBool::new(false) };
        Ok(Self::over(segment, at, len, origin))
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
        house.guests.retain(|guest| guest.strong_count() > 0);
        let rooms = house.rooms.iter().map(|room| Arc::clone(&room.segment));
        let known =
            rooms.chain(house.guests.iter().filter_map(Weak::upgrade)).find(|known| known.file == file);
        let segment = match known {
            Some(segment) => {
                // Many cells come with one descriptor, and it may come under several numbers.
                if segment.fd.as_raw_fd() != fd {
                    drop(descriptor::claim(fd).map_err(cannot(doing))?);
                }
                segment
            }
            None => {
                let segment = Arc::new(Segment::open(descriptor::claim(fd).map_err(cannot(doing))?, file)?);
                house.guests.push(Arc::downgrade(&segment));
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
        if !File::of(&*self.segment.fd).is_ok_and(|file| file == self.segment.file) {
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
        let Some(index) = house.rooms.iter().position(|room| Arc::ptr_eq(&room.segment, &self.segment))
        else {
            return;
        };
        let room = &mut house.rooms[index];
        room.live -= 1;
        if !sent.load(Acquire) && forks() == *made {
            room.put_back(self.at, self.len);
        }
        if room.live == 0 {
            house.rooms.swap_remove(index);
            house.next = if house.rooms.is_empty() { FIRST } else { house.next };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Forked, PidFd, exit_now, fork, memfd};
    use std::os::fd::IntoRawFd;
    use std::sync::atomic::Ordering::SeqCst;

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
        // Large enough to be alone in a segment.
        let large = Cell::new(LARGEST * 2).unwrap();
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
