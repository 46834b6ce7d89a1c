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
mod tests {
    use super::*;
    use crate::sys::memfd;
    use proptest::prelude::*;

    fn ring(capacity: usize) -> (Producer, Consumer) {
        let fd = memfd::create(8192 + capacity as u64, 8192 + capacity as u64).unwrap();
        let map = Arc::new(Mapping::new(&fd, 0, 8192 + capacity).unwrap());
        let place = Place { control: 0, data: 4096, capacity };
        (Producer::new(Arc::clone(&map), place), Consumer::new(map, place))
    }

    fn take(consumer: &mut Consumer) -> Option<(u64, Vec<u8>)> {
        let mut payload = Vec::new();
        consumer.claim(&mut payload, |_| {}).unwrap().map(|head| (head.key, payload))
    }

    fn head(key: u64) -> Head {
        Head { key, ..Head::default() }
    }

    #[test]
    fn a_recalled_message_is_never_claimed() {
        let (mut p, mut c) = ring(1024);
        let first = p.push(head(1), &[b"one"]).unwrap();
        let second = p.push(head(2), &[b"two"]).unwrap();
        assert_eq!(p.recall(second, 3).unwrap(), b"two");
        assert_eq!(take(&mut c), Some((1, b"one".to_vec())));
        assert_eq!(p.recall(first, 3), None);
        assert_eq!(take(&mut c), None);
        assert!(p.is_drained());
    }

    #[test]
    fn a_message_of_exactly_the_greatest_size_passes_at_every_offset() {
        let (mut p, mut c) = ring(1024);
        let most = p.most();
        for i in 0..100u64 {
            let payload = vec![i as u8; most - (i as usize % 3)];
            p.push(head(i), &[&payload]).unwrap();
            assert_eq!(take(&mut c), Some((i, payload)));
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_queue(ops in prop::collection::vec((0u8..4, 0usize..200), 1..400)) {
            let (mut p, mut c) = ring(2048);
            let mut model: std::collections::VecDeque<(u64, Vec<u8>, Position)> = Default::default();
            for (key, (op, len)) in ops.into_iter().enumerate() {
                let key = key as u64;
                match op {
                    0 | 1 => {
                        let payload = vec![key as u8; len];
                        if let Some(at) = p.push(head(key), &[&payload[..len / 2], &payload[len / 2..]]) {
                            model.push_back((key, payload, at));
                        } else {
                            prop_assert!(!model.is_empty() || !p.is_drained());
                            // What was recalled still takes room until the consumer has passed it.
                            let got = take(&mut c);
                            prop_assert_eq!(got, model.pop_front().map(|(k, b, _)| (k, b)));
                        }
                    }
                    2 => prop_assert_eq!(take(&mut c), model.pop_front().map(|(k, b, _)| (k, b))),
                    _ => if let Some((_, payload, at)) = model.pop_back() {
                        prop_assert_eq!(p.recall(at, payload.len()), Some(payload));
                    },
                }
            }
        }

        #[test]
        fn garbage_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 256), tail in any::<u64>()) {
            let (p, mut c) = ring(256);
            p.map.write(p.place.data, &bytes);
            p.map.word64(p.place.tail()).store(tail, Release);
            let mut payload = Vec::new();
            for _ in 0..100 {
                match c.claim(&mut payload, |_| {}) {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(Corrupt) => break,
                }
            }
        }
    }

    #[test]
    fn two_threads_pass_a_million_messages_in_order() {
        let (mut p, mut c) = ring(65_536);
        let writer = std::thread::Builder::new().spawn(move || {
            let mut i = 0u64;
            while i < 1_000_000 {
                if p.push(head(i), &[&i.to_ne_bytes()]).is_some() { i += 1 } else { std::thread::yield_now() }
            }
        });
        let mut want = 0u64;
        while want < 1_000_000 {
            match take(&mut c) {
                Some((key, payload)) => {
                    assert_eq!(key, want);
                    assert_eq!(payload, want.to_ne_bytes());
                    want += 1;
                }
                None => std::thread::yield_now(),
            }
        }
        writer.unwrap().join().unwrap();
    }

    #[test]
    fn claim_and_recall_never_both_succeed() {
        let (mut p, mut c) = ring(65_536);
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let reader = std::thread::Builder::new().spawn(move || {
            let mut seen = Vec::new();
            loop {
                let over = stopped.load(Acquire);
                match take(&mut c) {
                    Some((key, _)) => seen.push(key),
                    None if over => return seen,
                    None => {}
                }
            }
        });
        let mut kept = Vec::new();
        for i in 0..200_000u64 {
            let at = loop {
                if let Some(at) = p.push(head(i), &[&i.to_ne_bytes()]) {
                    break at;
                }
            };
            if p.recall(at, 8).is_none() {
                kept.push(i);
            }
        }
        stop.store(true, Release);
        assert_eq!(reader.unwrap().join().unwrap(), kept);
    }
}

/// Every interleaving of the two sides, on the heap. Payloads are plain bytes there, so loom also reports a byte that one
/// side reads while the other one may write it. See `make loom`.
#[cfg(test)]
#[cfg(loom)]
mod interleavings {
    use loom::cell::UnsafeCell;
    use loom::sync::atomic::{AtomicU32, AtomicU64};
    use loom::thread;

    use super::*;

    const DATA: usize = 256;
    const CAPACITY: usize = 64;
    const PLACE: Place = Place { control: 0, data: DATA, capacity: CAPACITY };

    struct Heap {
        /// Of one size of record, so that a word is always of the same width.
        words32: Vec<AtomicU32>,
        words64: Vec<AtomicU64>,
        bytes: Vec<UnsafeCell<u8>>,
    }

    impl Heap {
        fn ring() -> (Producer<Self>, Consumer<Self>) {
            let heap = Arc::new(Self {
                words32: (0..CAPACITY / 4).map(|_| AtomicU32::new(0)).collect(),
                words64: (0..2 + CAPACITY / 8).map(|_| AtomicU64::new(0)).collect(),
                bytes: (0..CAPACITY).map(|_| UnsafeCell::new(0)).collect(),
            });
            (Producer::new(Arc::clone(&heap), PLACE), Consumer::new(heap, PLACE))
        }
    }

    // SAFETY: loom checks every access to the cells.
    #[expect(unsafe_code, reason = "loom's cells are shared on purpose")]
    unsafe impl Sync for Heap {}

    impl Memory for Heap {
        fn word32(&self, offset: usize) -> &impl Word<u32> {
            &self.words32[(offset - DATA) / 4]
        }

        fn word64(&self, offset: usize) -> &impl Word<u64> {
            let control = [PLACE.tail(), PLACE.head()].iter().position(|at| *at == offset);
            &self.words64[control.unwrap_or_else(|| 2 + (offset - DATA) / 8)]
        }

        fn read_to(&self, offset: usize, len: usize, into: &mut Vec<u8>) {
            for byte in &self.bytes[offset - DATA..offset - DATA + len] {
                // SAFETY: loom reports it if the other side writes meanwhile.
                #[expect(unsafe_code, reason = "reading one byte of a checked cell")]
                into.push(byte.with(|byte| unsafe { *byte }));
            }
        }

        fn write(&self, offset: usize, from: &[u8]) {
            for (byte, value) in self.bytes[offset - DATA..].iter().zip(from) {
                // SAFETY: loom reports it if the other side looks meanwhile.
                #[expect(unsafe_code, reason = "writing one byte of a checked cell")]
                byte.with_mut(|byte| unsafe { *byte = *value });
            }
        }
    }

    fn model(body: impl Fn() + Sync + Send + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.max_branches = 10_000;
        model.check(body);
    }

    fn take(consumer: &mut Consumer<Heap>) -> Option<(u64, Vec<u8>)> {
        let mut payload = Vec::new();
        consumer.claim(&mut payload, |_| {}).unwrap().map(|head| (head.key, payload))
    }

    fn head(key: u64) -> Head {
        Head { key, ..Head::default() }
    }

    /// Two records do not fit at once, so the second one waits for room and begins behind the end of the ring.
    #[test]
    fn messages_pass_in_order_and_whole() {
        model(|| {
            let (mut producer, mut consumer) = Heap::ring();
            let writer = thread::spawn(move || {
                for key in 1..=2 {
                    while producer.push(head(key), &[&[key as u8; 2]]).is_none() {
                        thread::yield_now();
                    }
                }
            });
            for key in 1..=2 {
                let got = loop {
                    match take(&mut consumer) {
                        Some(got) => break got,
                        None => thread::yield_now(),
                    }
                };
                assert_eq!(got, (key, vec![key as u8; 2]));
            }
            writer.join().unwrap();
        });
    }

    #[test]
    fn a_message_is_claimed_or_recalled_and_never_both() {
        model(|| {
            let (mut producer, mut consumer) = Heap::ring();
            let at = producer.push(head(1), &[b"ab"]).unwrap();
            let reader = thread::spawn(move || {
                let first = take(&mut consumer);
                (first, consumer)
            });
            let recalled = producer.recall(at, 2);
            let (first, mut consumer) = reader.join().unwrap();
            let claimed = first.or_else(|| take(&mut consumer));
            assert!(claimed.is_some() != recalled.is_some(), "{claimed:?} {recalled:?}");
            assert!(recalled.is_none_or(|payload| payload == b"ab"));
            assert!(producer.push(head(2), &[b"cd"]).is_some(), "the room is free again");
        });
    }

    /// The room of a recalled message is used again only after the consumer has passed it.
    #[test]
    fn what_follows_a_recalled_message_is_whole() {
        model(|| {
            let (mut producer, mut consumer) = Heap::ring();
            let writer = thread::spawn(move || {
                let at = producer.push(head(1), &[b"ab"]).unwrap();
                let recalled = producer.recall(at, 2).is_some();
                while producer.push(head(2), &[b"cd"]).is_none() {
                    thread::yield_now();
                }
                recalled
            });
            let mut got = Vec::new();
            while got.last().is_none_or(|(key, _)| *key != 2) {
                match take(&mut consumer) {
                    Some(message) => got.push(message),
                    None => thread::yield_now(),
                }
            }
            let recalled = writer.join().unwrap();
            assert_eq!(got.len(), if recalled { 1 } else { 2 });
            assert_eq!(got.last(), Some(&(2, b"cd".to_vec())));
        });
    }
}
