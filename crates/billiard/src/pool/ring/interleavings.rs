//! Every interleaving of the two sides, on the heap. Payloads are plain bytes there, so loom also reports a byte that one
//! side reads while the other one may write it. See `make loom`.

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
