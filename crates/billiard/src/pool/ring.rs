//! A ring of messages from one process to another, in shared memory. One side produces, the other consumes; neither ever
//! waits for the other inside an operation, and a side that dies leaves nothing that the other could trip over.
//!
//! A record is a header of [`HEADER`] bytes and its payload, padded to eight. Its state word decides who owns the message:
//! the consumer *claims* it by compare-and-swap before it reads it, and until then the producer can *recall* it by the same
//! means. Exactly one of the two succeeds.

use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::arena::Mapping;
use crate::primitives::Word;

/// What a ring lies in: words that both sides see, and bytes between them.
pub(super) trait Memory {
    fn word32(&self, offset: usize) -> &impl Word<u32>;
    fn word64(&self, offset: usize) -> &impl Word<u64>;
    fn read_to(&self, offset: usize, len: usize, into: &mut Vec<u8>);
    fn write(&self, offset: usize, from: &[u8]);
}

impl Memory for Mapping {
    #[inline(always)]
    fn word32(&self, offset: usize) -> &impl Word<u32> {
        self.word32(offset)
    }

    #[inline(always)]
    fn word64(&self, offset: usize) -> &impl Word<u64> {
        self.word64(offset)
    }

    #[inline(always)]
    fn read_to(&self, offset: usize, len: usize, into: &mut Vec<u8>) {
        self.read_to(offset, len, into);
    }

    #[inline(always)]
    fn write(&self, offset: usize, from: &[u8]) {
        self.write(offset, from);
    }
}

const STATE: usize = 0;
const LEN: usize = 4;
const KEY: usize = 8;
const KIND: usize = 16;
const AUX: usize = 20;
const EXTRA: usize = 24;
pub(super) const HEADER: usize = 32;

const QUEUED: u32 = 0x51;
const CLAIMED: u32 = 0x52;
const RECALLED: u32 = 0x53;
/// The rest of the ring up to its end is unused.
const WRAP: u32 = 0x54;

/// Where a ring lies in its mapping.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Two words on cache lines of their own: how far the producer has written, and how far the consumer has read.
    pub(super) control: usize,
    pub(super) data: usize,
    /// A power of two.
    pub(super) capacity: usize,
}

impl Place {
    const fn tail(self) -> usize {
        self.control
    }

    const fn head(self) -> usize {
        self.control + 128
    }

    const fn at(self, position: u64) -> usize {
        self.data + (position as usize & (self.capacity - 1))
    }

    const fn to_end(self, position: u64) -> usize {
        self.capacity - (position as usize & (self.capacity - 1))
    }
}

/// What stands in a record besides its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) key: u64,
    pub(super) kind: u32,
    pub(super) aux: u32,
    pub(super) extra: u64,
}

/// Where a record was put; valid until the consumer has passed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position(u64);

/// The other side has written something that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("the shared ring is corrupt; its worker is retired")]
pub(super) struct Corrupt;

const fn size(payload: usize) -> usize {
    HEADER + payload.next_multiple_of(8)
}

/// The writing side.
#[derive(Debug)]
pub(super) struct Producer<M = Mapping> {
    map: Arc<M>,
    place: Place,
    tail: u64,
    head_seen: u64,
}

impl<M: Memory> Producer<M> {
    /// The producer of a ring that nobody has written to.
    pub(super) const fn new(map: Arc<M>, place: Place) -> Self {
        Self { map, place, tail: 0, head_seen: 0 }
    }

    /// The longest payload that always finds room in an empty ring.
    #[cfg(test)]
    const fn most(&self) -> usize {
        self.place.capacity / 2 - HEADER
    }

    /// Puts a message in; `None`: no room now.
    pub(super) fn push(&mut self, head: Head, parts: &[&[u8]]) -> Option<Position> {
        let len: usize = parts.iter().map(|p| p.len()).sum();
        let need = size(len);
        let to_end = self.place.to_end(self.tail);
        let skip = if to_end < need { to_end } else { 0 };
        let total = (skip + need) as u64;
        let capacity = self.place.capacity as u64;
        if (self.tail + total).wrapping_sub(self.head_seen) > capacity {
            // SYNC(ring.free): the consumer has finished reading whatever lies before its head.
            self.head_seen = self.map.word64(self.place.head()).load(Acquire);
            if (self.tail + total).wrapping_sub(self.head_seen) > capacity {
                return None;
            }
        }
        if skip > 0 {
            // Relaxed: published by the store of `tail` below.
            self.map.word32(self.place.at(self.tail) + STATE).store(WRAP, Relaxed);
        }
        let position = self.tail + skip as u64;
        let at = self.place.at(position);
        let mut to = at + HEADER;
        for part in parts {
            self.map.write(to, part);
            to += part.len();
        }
        // Relaxed, all of them: published by the store of `tail`.
        self.map.word32(at + LEN).store(len as u32, Relaxed);
        self.map.word64(at + KEY).store(head.key, Relaxed);
        self.map.word32(at + KIND).store(head.kind, Relaxed);
        self.map.word32(at + AUX).store(head.aux, Relaxed);
        self.map.word64(at + EXTRA).store(head.extra, Relaxed);
        self.map.word32(at + STATE).store(QUEUED, Relaxed);
        self.tail = position + need as u64;
        // SYNC(ring.publish): the record and its payload happen before this store; the consumer's Acquire load sees them.
        self.map.word64(self.place.tail()).store(self.tail, Release);
        Some(Position(position))
    }

    /// Takes a message back unless the consumer has claimed it, and gives its payload of `len` bytes again.
    pub(super) fn recall(&mut self, position: Position, len: usize) -> Option<Vec<u8>> {
        // SYNC(ring.free): see `push`.
        self.head_seen = self.map.word64(self.place.head()).load(Acquire);
        if position.0 < self.head_seen || position.0 >= self.tail {
            return None;
        }
        let at = self.place.at(position.0);
        let state = self.map.word32(at + STATE);
        // SYNC(ring.claim): decides against the consumer's compare-and-swap on the same word.
        state.compare_exchange(QUEUED, RECALLED, AcqRel, Relaxed).ok()?;
        let mut payload = Vec::new();
        self.map.read_to(at + HEADER, len, &mut payload);
        Some(payload)
    }

    /// Whether the consumer has read everything.
    #[cfg(test)]
    fn is_drained(&self) -> bool {
        self.map.word64(self.place.head()).load(Acquire) == self.tail
    }
}

/// The reading side.
#[derive(Debug)]
pub(super) struct Consumer<M = Mapping> {
    map: Arc<M>,
    place: Place,
    head: u64,
    tail_seen: u64,
}

impl<M: Memory> Consumer<M> {
    /// The consumer of a ring that nobody has read from.
    pub(super) const fn new(map: Arc<M>, place: Place) -> Self {
        Self { map, place, head: 0, tail_seen: 0 }
    }

    /// Whether there is something to claim, at the cost of one load.
    pub(super) fn is_empty(&mut self) -> bool {
        if self.head == self.tail_seen {
            // SYNC(ring.publish): pairs with the store in `push`.
            self.tail_seen = self.map.word64(self.place.tail()).load(Acquire);
        }
        self.head == self.tail_seen
    }

    /// Claims the next message and appends its payload to `into`. `before` runs between the claim and the moment at which
    /// the producer sees the room again.
    pub(super) fn claim(
        &mut self,
        into: &mut Vec<u8>,
        before: impl FnOnce(&Head),
    ) -> Result<Option<Head>, Corrupt> {
        loop {
            if self.is_empty() {
                return Ok(None);
            }
            let filled = self.tail_seen.wrapping_sub(self.head);
            if filled > self.place.capacity as u64 || !filled.is_multiple_of(8) {
                return Err(Corrupt);
            }
            let at = self.place.at(self.head);
            let state = self.map.word32(at + STATE);
            // Relaxed: the record was made visible by the load of `tail`; only its state may have changed since.
            if state.load(Relaxed) == WRAP {
                self.pass(self.place.to_end(self.head) as u64);
                continue;
            }
            let len = self.map.word32(at + LEN).load(Relaxed) as usize;
            if size(len) as u64 > filled || size(len) > self.place.to_end(self.head) {
                return Err(Corrupt);
            }
            // SYNC(ring.claim): decides against the producer's recall.
            match state.compare_exchange(QUEUED, CLAIMED, AcqRel, Acquire) {
                Ok(_) => {
                    let head = Head {
                        key: self.map.word64(at + KEY).load(Relaxed),
                        kind: self.map.word32(at + KIND).load(Relaxed),
                        aux: self.map.word32(at + AUX).load(Relaxed),
                        extra: self.map.word64(at + EXTRA).load(Relaxed),
                    };
                    self.map.read_to(at + HEADER, len, into);
                    before(&head);
                    self.pass(size(len) as u64);
                    return Ok(Some(head));
                }
                Err(RECALLED) => self.pass(size(len) as u64),
                Err(_) => return Err(Corrupt),
            }
        }
    }

    fn pass(&mut self, bytes: u64) {
        self.head += bytes;
        // SYNC(ring.free): everything read from the record happens before this store; the producer reuses the room after it.
        self.map.word64(self.place.head()).store(self.head, Release);
    }
}

#[cfg(test)]
mod tests;

#[cfg(all(test, loom))]
mod interleavings;
