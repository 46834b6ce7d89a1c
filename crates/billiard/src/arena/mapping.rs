//! A mapped range of shared memory. Others write to it at any time, so it is only ever seen as atomics, or copied.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU32, AtomicU64};

use memmap2::{MmapOptions, MmapRaw};

use super::streaming::{self, STREAM};
use crate::sys::pages;
use crate::sys::robust::Block;
use crate::sys::stream::{Piece, Room};

/// A mapping of a shared-memory descriptor. Offsets count from its start; one outside of it is a bug and panics.
#[derive(Debug)]
pub struct Mapping {
    map: MmapRaw,
}

impl Mapping {
    /// Maps `len` bytes of `fd`, beginning at `offset` (a multiple of the page size).
    pub fn new(fd: impl AsFd, offset: u64, len: usize) -> io::Result<Self> {
        let map = MmapOptions::new().offset(offset).len(len).map_raw(fd.as_fd().as_raw_fd())?;
        Ok(Self { map })
    }

    /// How many bytes are mapped.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether nothing is mapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.len() == 0
    }

    fn check(&self, offset: usize, len: usize) {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.map.len());
        assert!(inside, "offset {offset}+{len} lies outside a mapping of {} bytes", self.map.len());
    }

    fn at(&self, offset: usize) -> *mut u8 {
        // SAFETY: every caller has checked that `offset` lies inside the mapping.
        unsafe { self.map.as_mut_ptr().add(offset) }
    }

    /// A 32-bit word shared with other processes.
    #[must_use]
    pub fn word32(&self, offset: usize) -> &AtomicU32 {
        self.check(offset, 4);
        assert!(offset.is_multiple_of(4), "a word must be aligned");
        // SAFETY: in bounds and aligned (the mapping starts at a page); it lives as long as `self`; every process touches
        // this word through atomics only.
        unsafe { AtomicU32::from_ptr(self.at(offset).cast()) }
    }

    /// A 64-bit word shared with other processes.
    #[must_use]
    pub fn word64(&self, offset: usize) -> &AtomicU64 {
        self.check(offset, 8);
        assert!(offset.is_multiple_of(8), "a word must be aligned");
        // SAFETY: as for `word32`.
        unsafe { AtomicU64::from_ptr(self.at(offset).cast()) }
    }

    /// A word whose owner's death the kernel announces, with the room around it.
    pub(crate) fn block(&self, offset: usize) -> &Block {
        self.check(offset, size_of::<Block>());
        assert!(offset.is_multiple_of(align_of::<Block>()), "a block must be aligned");
        // SAFETY: in bounds and aligned (the mapping starts at a page); it lives as long as `self`; it is made of atomics.
        unsafe { &*self.at(offset).cast() }
    }

    /// Copies bytes out.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        self.check(offset, into.len());
        // SAFETY: the source is in bounds, the target is exclusively ours, and they cannot overlap: no slice of the mapping
        // exists.
        unsafe { std::ptr::copy_nonoverlapping(self.at(offset), into.as_mut_ptr(), into.len()) }
    }

    /// Appends `len` bytes of the mapping to `into`.
    pub fn read_to(&self, offset: usize, len: usize, into: &mut Vec<u8>) {
        self.check(offset, len);
        into.reserve(len);
        let end = into.len();
        // SAFETY: `reserve` made room for `len` bytes behind `end`.
        let target = unsafe { into.as_mut_ptr().add(end) };
        // SAFETY: the source is in bounds, the target was reserved, and they do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(self.at(offset), target, len) }
        // SAFETY: the bytes up to the new length were just written.
        unsafe { into.set_len(end + len) }
    }

    /// Copies bytes in.
    pub fn write(&self, offset: usize, from: &[u8]) {
        self.check(offset, from.len());
        // SAFETY: the target is in bounds and cannot overlap with a slice of ours.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), self.at(offset), from.len()) }
    }

    /// Copies in what others may write meanwhile.
    pub(crate) fn write_piece(&self, offset: usize, from: Piece<'_>) {
        self.check(offset, from.len());
        let (from, to, len) = (from.start(), self.at(offset), from.len());
        if len >= STREAM && (to as usize).abs_diff(from as usize) >= len {
            // SAFETY: as below; and they do not overlap.
            unsafe { streaming::copy(from, to, len) };
            return;
        }
        // SAFETY: the source is readable, by the invariant of `Piece`; the target is in bounds. A copy of what others write
        // meanwhile is torn, which is their affair.
        unsafe { std::ptr::copy(from, to, len) }
    }

    /// Fills the next `len` bytes of the room.
    pub(crate) fn fill(&self, offset: usize, len: usize, room: &mut Room<'_>) {
        self.check(offset, len);
        assert!(len <= room.left(), "no more than there is room for");
        // SAFETY: the source is in bounds; the target is writable, by the invariant of `Room`.
        unsafe { std::ptr::copy(self.at(offset), room.start(), len) }
        room.skip(len);
    }

    /// Has a large range that is about to be written mapped at once. There must be memory behind it.
    pub(crate) fn populate(&self, offset: usize, len: usize) {
        self.check(offset, len);
        // SAFETY: in bounds, and writable as all of the mapping.
        pages::populate(&unsafe { Room::at(self.at(offset), len) });
    }

    /// Where a range lies in this process, for handing a view to a program. What is read there may change at any time.
    #[must_use]
    pub fn pointer(&self, offset: usize, len: usize) -> *mut u8 {
        self.check(offset, len);
        self.at(offset)
    }
}
