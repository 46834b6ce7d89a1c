//! Bundles: bytes in several parts, written once and then sealed, for many processes that read them in place.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::sys::memfd;
use crate::sys::stream::Piece;

/// What the kernel's lists of mappings call it.
const LABEL: &str = "billiard-shared";
/// Parts begin at multiples of this, which suits every processor's vector instructions.
const ALIGNMENT: u64 = 64;
/// At most so much is written by one call, so that a signal does not wait for all of it.
const AT_ONCE: usize = 64 << 20;
/// At the very end: what this is, and how many parts there are.
const MAGIC: u64 = u64::from_le_bytes(*b"bundle 1");
const WORD: u64 = 8;
const FOOT: u64 = 2 * WORD;
/// What the table says of a part: where it begins and where it ends.
const ROW: u64 = 2 * WORD;

/// A bundle in the making.
///
/// ```
/// use billiard::arena::{Bundle, Packing};
/// use billiard::sys::stream::Piece;
///
/// let mut packing = Packing::new()?;
/// packing.append(&mut Piece::of(b"once for "))?;
/// packing.append(&mut Piece::of(b"everybody"))?;
/// packing.begin_part();
/// packing.append(&mut Piece::of(&[7; 1000]))?;
/// let bundle = packing.seal()?;
///
/// // Any process that was given the descriptor.
/// let contents = Bundle::receive(bundle.into_descriptor())?.open()?;
/// assert_eq!(contents.part(0), Some(b"once for everybody".as_slice()));
/// assert_eq!(contents.part(1), Some([7; 1000].as_slice()));
/// assert_eq!(contents.part(2), None);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Packing {
    fd: OwnedFd,
    parts: Vec<Range<u64>>,
}

impl Packing {
    /// With one part, of nothing.
    ///
    /// # Errors
    /// No memory or descriptor is left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { fd: memfd::growing_as(LABEL, 0)?, parts: vec![Range::default()] })
    }

    fn end(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.end)
    }

    /// Ends the last part, and begins another one.
    pub fn begin_part(&mut self) {
        let start = self.end().next_multiple_of(ALIGNMENT);
        self.parts.push(start..start);
    }

    /// Adds bytes to the last part: all of the piece, or the beginning of a very large one. Answers whether that was all; the
    /// piece is what is left.
    ///
    /// # Errors
    /// No memory is left.
    pub fn append(&mut self, piece: &mut Piece<'_>) -> io::Result<bool> {
        let now = piece.first(AT_ONCE);
        memfd::write_piece_at(self.fd.as_fd(), self.end(), now)?;
        piece.skip(now.len());
        if let Some(part) = self.parts.last_mut() {
            part.end += now.len() as u64;
        }
        Ok(piece.is_empty())
    }

    /// Nobody writes to it any more, in whatever process.
    ///
    /// # Errors
    /// No memory is left.
    pub fn seal(self) -> io::Result<Bundle> {
        let mut table = Vec::with_capacity(self.parts.len() * ROW as usize + FOOT as usize);
        for part in &self.parts {
            table.extend(part.start.to_le_bytes());
            table.extend(part.end.to_le_bytes());
        }
        table.extend((self.parts.len() as u64).to_le_bytes());
        table.extend(MAGIC.to_le_bytes());
        memfd::write_at(&self.fd, self.end(), &table)?;
        memfd::seal(&self.fd)?;
        Ok(Bundle { fd: self.fd })
    }
}

/// What can be opened in any process that has the descriptor. The memory goes with the last descriptor and the last [`Contents`].
///
/// # Fork
/// A child has the descriptor as well, and keeps the memory until it closes it or ends.
#[derive(Debug)]
pub struct Bundle {
    fd: OwnedFd,
}

impl Bundle {
    /// The bundle that another process has made.
    ///
    /// # Errors
    /// `InvalidData`: somebody could still write to it.
    pub fn receive(fd: OwnedFd) -> io::Result<Self> {
        if memfd::is_sealed(&fd)? { Ok(Self { fd }) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// What it holds. The descriptor is not needed any more for that.
    ///
    /// # Errors
    /// `InvalidData`: it is no bundle. No memory is left.
    pub fn open(&self) -> io::Result<Arc<Contents>> {
        Contents::of(self.fd.as_fd()).map(Arc::new)
    }

    /// Its descriptor, to be given to others.
    #[must_use]
    pub fn into_descriptor(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for Bundle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What a bundle holds, mapped into this process.
#[derive(Debug)]
pub struct Contents {
    start: *const u8,
    len: usize,
    parts: Vec<Range<usize>>,
}

// SAFETY: the mapping belongs to no thread, and nobody can write to it.
unsafe impl Send for Contents {}
// SAFETY: as above.
unsafe impl Sync for Contents {}

impl Contents {
    fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let len = usize::try_from(memfd::length(fd)?).map_err(|_| io::ErrorKind::OutOfMemory)?;
        if len == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // KERNEL: shared mappings of what is sealed against writing are refused before 6.7, private ones never. Nobody writes,
        // so the pages are the same.
        let (prot, flags) = (rustix::mm::ProtFlags::READ, rustix::mm::MapFlags::PRIVATE);
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, flags, fd, 0) }?;
        let mut contents = Self { start: start.cast(), len, parts: Vec::new() };
        contents.parts = contents.table().ok_or(io::ErrorKind::InvalidData)?;
        Ok(contents)
    }

    fn all(&self) -> &[u8] {
        // SAFETY: so many bytes are mapped for as long as `self` lives. They are sealed, as `memfd::length` and the maker of
        // every `Bundle` have checked: nobody writes to them, and the file does not become shorter.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    /// Where the parts are. `None`: this is no bundle.
    fn table(&self) -> Option<Vec<Range<usize>>> {
        let (rest, foot) = self.all().split_last_chunk::<{ FOOT as usize }>()?;
        let [count, magic] = words(foot);
        let size = usize::try_from(count.checked_mul(ROW)?).ok()?;
        if magic != MAGIC || size > rest.len() {
            return None;
        }
        let (bytes, table) = rest.split_at(rest.len() - size);
        let (rows, _) = table.as_chunks::<{ ROW as usize }>();
        rows.iter()
            .map(|row| {
                let [start, end] = words(row).map(|at| usize::try_from(at).unwrap_or(usize::MAX));
                (start <= end && end <= bytes.len()).then_some(start..end)
            })
            .collect()
    }

    /// How many parts there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.parts.len()
    }

    /// One of the parts. `None`: there are not so many.
    #[must_use]
    pub fn part(&self, index: usize) -> Option<&[u8]> {
        self.parts.get(index).map(|part| &self.all()[part.clone()])
    }
}

fn words(bytes: &[u8; 16]) -> [u64; 2] {
    let both = u128::from_le_bytes(*bytes);
    [both as u64, (both >> 64) as u64]
}

impl Drop for Contents {
    fn drop(&mut self) {
        // SAFETY: it was mapped so, and nobody has a slice of it any more: they borrow `self`.
        let done = unsafe { rustix::mm::munmap(self.start.cast_mut().cast(), self.len) };
        debug_assert!(done.is_ok(), "what was mapped can be unmapped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packed(parts: &[Vec<u8>]) -> Bundle {
        let mut packing = Packing::new().unwrap();
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                packing.begin_part();
            }
            // In two, as a pickler writes it.
            for half in part.chunks(part.len() / 2 + 1) {
                assert!(packing.append(&mut Piece::of(half)).unwrap());
            }
        }
        packing.seal().unwrap()
    }

    #[test]
    fn what_is_sealed_is_read_only_and_keeps_its_size() {
        let bundle = packed(&[vec![1; 10]]);
        let contents = bundle.open().unwrap();
        assert_eq!(rustix::io::pwrite(&bundle, b"x", 0), Err(rustix::io::Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&bundle, 0), Err(rustix::io::Errno::PERM));
        drop(bundle);
        assert_eq!(contents.part(0), Some([1; 10].as_slice()));
    }

    #[test]
    fn a_large_piece_is_taken_bit_by_bit() {
        let large = vec![3; AT_ONCE + 1];
        let mut packing = Packing::new().unwrap();
        let mut piece = Piece::of(&large);
        assert!(!packing.append(&mut piece).unwrap());
        assert_eq!(piece.len(), 1);
        assert!(packing.append(&mut piece).unwrap());
        let contents = packing.seal().unwrap().open().unwrap();
        assert_eq!(contents.part(0).map(<[u8]>::len), Some(large.len()));
    }

    #[test]
    fn what_could_still_be_written_to_is_refused() {
        for fd in [memfd::growing_as(LABEL, 100).unwrap(), memfd::create(4096, 4096).unwrap()] {
            let refused = Bundle::receive(fd).map(drop).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        }
    }

    fn opened(bytes: &[u8]) -> io::Result<Arc<Contents>> {
        let fd = memfd::growing_as(LABEL, 0).unwrap();
        memfd::write_at(&fd, 0, bytes).unwrap();
        memfd::seal(&fd).unwrap();
        Bundle::receive(fd).unwrap().open()
    }

    #[test]
    fn what_is_no_bundle_is_refused() {
        let foot = |count: u64| [count.to_le_bytes(), MAGIC.to_le_bytes()].concat();
        let row = |start: u64, end: u64| [start.to_le_bytes(), end.to_le_bytes()].concat();
        for bytes in [
            vec![],
            vec![0; 15],
            vec![0; 100],
            foot(1),
            foot(u64::MAX),
            foot(1 << 60),
            [row(0, 1), foot(1)].concat(),
            [vec![0; 64], row(3, 2), foot(1)].concat(),
            [vec![0; 64], row(0, 65), foot(1)].concat(),
            [vec![0; 64], row(u64::MAX, u64::MAX), foot(1)].concat(),
        ] {
            let refused = opened(&bytes).map(drop).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
        assert_eq!(opened(&foot(0)).unwrap().count(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn parts_come_out_as_they_went_in(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6)) {
            let contents = packed(&parts).open().unwrap();
            prop_assert_eq!(contents.count(), parts.len());
            for (index, part) in parts.iter().enumerate() {
                let found = contents.part(index).unwrap();
                prop_assert_eq!(found, part.as_slice());
                prop_assert!((found.as_ptr() as usize).is_multiple_of(ALIGNMENT as usize) || index == 0);
            }
        }

        #[test]
        fn whatever_is_sealed_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0..9_u64) {
            let bytes = [bytes, [count.to_le_bytes(), MAGIC.to_le_bytes()].concat()].concat();
            if let Ok(contents) = opened(&bytes) {
                for index in 0..contents.count() {
                    prop_assert!(contents.part(index).is_some());
                }
            }
        }
    }
}
