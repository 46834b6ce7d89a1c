//! Where the messages lie: a sparse file of segments. The first ones are mapped and stay warm; what lies beyond is only
//! written and read, and goes back to the system as soon as it is read.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use super::layout::{AT_BACKED, AT_BITMAP, DATA, MAPPED, SEGMENT, WARM};
use super::loans::Row;
use super::warmth;
use crate::arena::{Mapping, Shelf};
use crate::sys::stream::{Piece, Room};
use crate::sys::{PerProcess, memfd};

/// Segments per word of the bitmap.
const BITS: u64 = 64;
/// Bits per page of the bitmap.
const PAGE_BITS: u64 = 4096 * 8;

#[derive(Debug)]
pub(super) struct Store {
    pub(super) fd: Arc<OwnedFd>,
    pub(super) map: Mapping,
    segments: u64,
    /// A bit for each mapped segment: whether this process has written to it.
    seen: PerProcess<[AtomicU64; SEEN]>,
    /// Mappings of rows that were used in place.
    pub(super) shelf: Arc<Shelf>,
}

const _: () = assert!(WARM.is_multiple_of(BITS));

/// As many words as there are bits for mapped segments.
const SEEN: usize = (MAPPED / SEGMENT / BITS) as usize;

/// The segment that an offset lies in.
pub(super) const fn segment_of(offset: u64) -> u64 {
    offset / SEGMENT
}

/// What must not be written to in the segment of an offset any more: its last word is for the jump to the next one.
pub(super) const fn limit_of(offset: u64) -> u64 {
    (segment_of(offset) + 1) * SEGMENT - 8
}

/// The word and the bit in it that tell whether there is memory behind a mapped segment.
const fn backed_at(segment: u64) -> (usize, u64) {
    (AT_BACKED + (segment / BITS * 8) as usize, 1 << (segment % BITS))
}

impl Store {
    pub(super) fn new(fd: Arc<OwnedFd>, span: u64) -> io::Result<Self> {
        let map = Mapping::new(&fd, 0, (DATA + MAPPED) as usize)?;
        Ok(Self { fd, map, segments: span / SEGMENT, seen: PerProcess::new(), shelf: Arc::default() })
    }

    /// A message's header, or a jump.
    #[inline]
    pub(super) fn word(&self, offset: u64) -> io::Result<u64> {
        if offset + 8 <= MAPPED {
            // Relaxed: it was made visible by the mark that covers it.
            return Ok(self.map.word64((DATA + offset) as usize).load(Relaxed));
        }
        let mut bytes = [0; 8];
        memfd::read_at(self.fd.as_fd(), DATA + offset, &mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    #[inline]
    pub(super) fn set_word(&self, offset: u64, word: u64) -> io::Result<()> {
        if offset + 8 <= MAPPED {
            // Relaxed: published with the mark.
            self.map.word64((DATA + offset) as usize).store(word, Relaxed);
            return Ok(());
        }
        memfd::write_at(self.fd.as_fd(), DATA + offset, &word.to_ne_bytes())
    }

    #[inline]
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mapped = MAPPED.saturating_sub(offset).min(bytes.len() as u64);
        let (near, far) = bytes.split_at(mapped as usize);
        if !near.is_empty() {
            self.map.write((DATA + offset) as usize, near);
        }
        if far.is_empty() {
            return Ok(());
        }
        memfd::write_at(self.fd.as_fd(), DATA + offset + mapped, far)
    }

    pub(super) fn write_piece(&self, offset: u64, piece: Piece<'_>) -> io::Result<()> {
        let mapped = MAPPED.saturating_sub(offset);
        if piece.len() as u64 <= mapped {
            self.map.write_piece((DATA + offset) as usize, piece);
            return Ok(());
        }
        // With a system call all of it, as there is one anyway.
        memfd::write_piece_at(self.fd.as_fd(), DATA + offset, piece)
    }

    pub(super) fn fill(&self, offset: u64, room: &mut Room<'_>) -> io::Result<()> {
        let mapped = MAPPED.saturating_sub(offset);
        if room.left() as u64 <= mapped {
            self.map.fill((DATA + offset) as usize, room.left(), room);
            return Ok(());
        }
        memfd::fill_at(self.fd.as_fd(), DATA + offset, room)
    }

    /// Appends bytes to `into`.
    #[inline]
    pub(super) fn read(&self, offset: u64, len: u64, into: &mut Vec<u8>) -> io::Result<()> {
        let mapped = MAPPED.saturating_sub(offset).min(len);
        if mapped > 0 {
            self.map.read_to((DATA + offset) as usize, mapped as usize, into);
        }
        if mapped < len {
            memfd::read_to(self.fd.as_fd(), DATA + offset + mapped, (len - mapped) as usize, into)?;
        }
        Ok(())
    }

    /// Makes sure that mapped segments have memory behind them, so that touching it cannot fail. Whether some had none.
    pub(super) fn back(&self, first: u64, count: u64) -> io::Result<bool> {
        let end = (first + count).min(MAPPED / SEGMENT);
        let (mut segment, mut fresh) = (first, false);
        while segment < end {
            let from = segment;
            while segment < end && !self.is_backed(segment) {
                segment += 1;
            }
            if from == segment {
                segment += 1;
                continue;
            }
            fresh = true;
            // All that is missing in a row at once: each call of the kernel has its price.
            memfd::back(&self.fd, DATA + from * SEGMENT, (segment - from) * SEGMENT)?;
            for segment in from..segment {
                let (word, bit) = backed_at(segment);
                self.map.word64(word).fetch_or(bit, AcqRel);
            }
        }
        Ok(fresh)
    }

    /// Makes sure that a row has memory behind it, and that a large one that this process comes to for the first time, or whose memory
    /// is new, is mapped at once and not page by page.
    pub(super) fn back_row(&self, row: Row) -> io::Result<()> {
        let fresh = self.back(row.first, row.count)?;
        let seen = self.seen.get(|| [const { AtomicU64::new(0) }; SEEN]);
        let end = row.first + row.count;
        if end > MAPPED / SEGMENT {
            return Ok(());
        }
        let new = (row.first..end).fold(fresh, |new, segment| {
            let bit = 1 << (segment % BITS);
            // Relaxed: only what it costs hangs on it.
            new | (seen[(segment / BITS) as usize].fetch_or(bit, Relaxed) & bit == 0)
        });
        if new {
            self.map.populate((DATA + row.first * SEGMENT) as usize, (row.count * SEGMENT) as usize);
        }
        Ok(())
    }

    fn is_backed(&self, segment: u64) -> bool {
        let (word, bit) = backed_at(segment);
        // Relaxed: only changed under a lock that whoever uses the segment had to take.
        self.map.word64(word).load(Relaxed) & bit != 0
    }

    fn bits(&self, word: u64) -> &AtomicU64 {
        self.map.word64(AT_BITMAP + (word * 8) as usize)
    }

    /// Whether a range lies in segments that are taken: a length that comes from shared memory is not to be believed.
    #[inline]
    pub(super) fn has(&self, offset: u64, len: u64) -> bool {
        let (first, last) = (segment_of(offset), segment_of(offset + len));
        last < self.segments && (first == last || (first..=last).all(|segment| self.is_taken(segment)))
    }

    /// Whether all of a row is taken.
    pub(super) fn has_row(&self, row: Row) -> bool {
        let end = row.first.checked_add(row.count).filter(|end| *end <= self.segments);
        end.is_some_and(|end| (row.first..end).all(|segment| self.is_taken(segment)))
    }

    fn is_taken(&self, segment: u64) -> bool {
        self.bits(segment / BITS).load(Acquire) & 1 << (segment % BITS) != 0
    }

    /// Takes `count` segments in a row, the lowest that are free, for use at once. `None`: there is no such row.
    pub(super) fn take(&self, count: u64) -> io::Result<Option<u64>> {
        let first = self.reserve(count)?;
        if let Some(first) = first {
            self.back(first, count)?;
        }
        Ok(first)
    }

    /// The same, without seeing to memory behind them.
    pub(super) fn reserve(&self, count: u64) -> io::Result<Option<u64>> {
        let Some(first) = self.find(count) else { return Ok(None) };
        for segment in first..first + count {
            if segment >= PAGE_BITS {
                memfd::back(&self.fd, AT_BITMAP as u64 + segment / PAGE_BITS * 4096, 4096)?;
            }
            self.bits(segment / BITS).fetch_or(1 << (segment % BITS), AcqRel);
        }
        Ok(Some(first))
    }

    fn find(&self, count: u64) -> Option<u64> {
        let (mut first, mut row) = (0, 0);
        let mut segment = 0;
        while segment < self.segments {
            // Acquire: whoever has given a segment back has read what was in it before.
            let word = self.bits(segment / BITS).load(Acquire);
            if word == u64::MAX && segment.is_multiple_of(BITS) {
                (segment, row) = (segment + BITS, 0);
                continue;
            }
            if word & 1 << (segment % BITS) == 0 {
                if row == 0 {
                    first = segment;
                }
                row += 1;
                if row == count {
                    return Some(first);
                }
            } else {
                row = 0;
            }
            segment += 1;
        }
        None
    }

    /// Gives segments back that nothing refers to any more.
    pub(super) fn give_back(&self, first: u64, end: u64) -> io::Result<()> {
        let cold = first.max(WARM);
        if cold < end {
            for segment in cold..end.min(MAPPED / SEGMENT) {
                let (word, bit) = backed_at(segment);
                self.map.word64(word).fetch_and(!bit, AcqRel);
            }
            memfd::release(&self.fd, DATA + cold * SEGMENT, (end - cold) * SEGMENT)?;
        }
        self.let_go(Row { first, count: end - first });
        Ok(())
    }

    /// Gives a row back like `give_back`, but keeps the memory of what is mapped for a while: whoever sends a large message is
    /// likely to send another one, and fresh memory costs more than the copy. See `warmth`.
    pub(super) fn give_back_warm(&self, first: u64, end: u64) -> io::Result<()> {
        let kept = (MAPPED / SEGMENT).clamp(first, end);
        if kept > WARM {
            warmth::note(self);
        }
        self.let_go(Row { first, count: kept - first });
        if kept < end { self.give_back(kept, end) } else { Ok(()) }
    }

    /// The segments of a word that have memory although nobody has taken them, besides those that always keep theirs.
    fn kept_of(&self, word: u64) -> u64 {
        // Relaxed: whoever does something with them looks again, under the lock of those who put.
        let backed = self.map.word64(AT_BACKED + (word * 8) as usize).load(Relaxed);
        backed & !self.bits(word).load(Acquire)
    }

    /// How many of them there are.
    pub(super) fn kept(&self) -> u64 {
        (WARM / BITS..SEEN as u64).map(|word| u64::from(self.kept_of(word).count_ones())).sum()
    }

    /// Takes some of them in a row, so that their memory can be given back; the first `stay` are left alone. Under the lock of those
    /// who put.
    pub(super) fn take_kept(&self, mut stay: u64) -> Option<Row> {
        let is_kept = |segment: u64| self.kept_of(segment / BITS) & 1 << (segment % BITS) != 0;
        let mut kept = (WARM..MAPPED / SEGMENT).filter(|segment| is_kept(*segment));
        let first = kept.find(|_| {
            let goes = stay == 0;
            stay = stay.saturating_sub(1);
            goes
        })?;
        let end = (first..MAPPED / SEGMENT).find(|segment| !is_kept(*segment)).unwrap_or(MAPPED / SEGMENT);
        for segment in first..end {
            self.bits(segment / BITS).fetch_or(1 << (segment % BITS), AcqRel);
        }
        Some(Row { first, count: end - first })
    }

    /// Lets go of a row, whatever memory it has.
    pub(super) fn let_go(&self, row: Row) {
        for segment in row.first..row.first + row.count {
            self.bits(segment / BITS).fetch_and(!(1 << (segment % BITS)), AcqRel);
        }
    }

    /// Gives back every segment that is not `used`: what was taken by those who died before they used it, or who died before
    /// they gave it back. `used` is in ascending order.
    pub(super) fn sweep(&self, used: &[u64]) -> io::Result<()> {
        let mut used = used.iter().copied().peekable();
        let words = self.segments / BITS;
        for word in 0..words {
            let mut taken = self.bits(word).load(Acquire);
            while used.peek().is_some_and(|segment| segment / BITS == word) {
                taken &= !(1 << (used.next().expect("peeked above") % BITS));
            }
            while taken != 0 {
                let segment = word * BITS + u64::from(taken.trailing_zeros());
                taken &= taken - 1;
                self.give_back(segment, segment + 1)?;
            }
        }
        Ok(())
    }
}
