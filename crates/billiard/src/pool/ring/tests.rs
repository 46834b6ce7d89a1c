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
