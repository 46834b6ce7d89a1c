//! What a queue promises, with nobody killed; `tests/queue_crash.rs` has the rest.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;

use proptest::prelude::*;

use super::layout::{AT_HEAD, DATA, LOANS_TO_PUT, MAPPED, Mark, SEGMENT};
use super::*;
use crate::arena::Mapping;
use crate::sys::poll::{Woken, readable};
use crate::sys::stream::{Piece, Room};
use crate::sys::{Deadline, memfd, now};

const NOW: Deadline = Deadline::AT_ONCE;

fn soon() -> Deadline {
    Deadline::At(now().after(std::time::Duration::from_secs(60)))
}

fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::Builder::new().spawn(body).unwrap()
}

fn get_one(queue: &Queue, deadline: Deadline) -> Option<Vec<u8>> {
    let mut messages = Messages::default();
    match queue.get(1, &mut messages, deadline).unwrap() {
        Got::Some(1) => Some(messages.bytes),
        Got::Empty => None,
        other => panic!("{other:?}"),
    }
}

fn other_handle(queue: &Queue) -> Queue {
    Queue::received(queue.shared().map(|fd| fd.try_clone_to_owned().unwrap())).unwrap()
}

#[test]
fn messages_of_every_size_pass_whole_and_in_order() {
    let queue = Queue::new(None).unwrap();
    let other = other_handle(&queue);
    let around = |at: usize| [at - 9, at - 8, at - 1, at, at + 1, at + 8, at + 9];
    let sizes: Vec<usize> = [0, 1, 7, 8, 9, 100]
        .into_iter()
        .chain(around(SEGMENT as usize))
        .chain(around(3 * SEGMENT as usize))
        .chain([MAPPED as usize + 5, 1])
        .collect();
    for round in 0..3u8 {
        for (i, &len) in sizes.iter().enumerate() {
            let message = vec![round.wrapping_mul(31).wrapping_add(i as u8); len];
            assert_eq!(queue.put(&[&message], NOW).unwrap(), Put::Done(1));
        }
        assert_eq!(queue.len(), sizes.len());
        for (i, &len) in sizes.iter().enumerate() {
            let message = get_one(&other, NOW).unwrap();
            let want = round.wrapping_mul(31).wrapping_add(i as u8);
            assert_eq!(message.len(), len);
            assert!(message.iter().all(|byte| *byte == want), "message {i} of round {round} is torn");
        }
        assert_eq!(get_one(&queue, NOW), None);
    }
}

#[test]
fn memory_beyond_what_stays_warm_goes_back_to_the_system() {
    let queue = Queue::new(None).unwrap();
    let used = || rustix::fs::fstat(queue.shared()[0]).unwrap().st_blocks as u64 * 512;
    for _ in 0..100 {
        queue.put(&[vec![1; 1 << 20]], NOW).unwrap();
    }
    assert!(used() > 100 << 20);
    let mut messages = Messages::default();
    assert_eq!(queue.get(1000, &mut messages, NOW).unwrap(), Got::Some(100));
    // Large messages may have others on their heels.
    assert!(used() < 18 << 20, "{} bytes are left", used());
    readable(&[], Deadline::from_seconds(Some(1.1)), None).unwrap();
    queue.put(&[b"small"], NOW).unwrap();
    assert!(used() < 6 << 20, "{} bytes are left", used());
}

#[test]
fn whoever_waits_for_a_message_gives_kept_memory_back() {
    let queue = Arc::new(Queue::new(None).unwrap());
    let used = || rustix::fs::fstat(queue.shared()[0]).unwrap().st_blocks as u64 * 512;
    queue.put(&[vec![1; 12 << 20]], NOW).unwrap();
    assert_eq!(get_one(&queue, NOW).unwrap().len(), 12 << 20);
    assert!(used() > 7 << 20, "the next large message would have to wait for memory");
    assert!(used() < 9 << 20, "nobody may ever come again, and {} bytes would stay", used());
    let waiting = spawn({
        let queue = Arc::clone(&queue);
        move || get_one(&queue, soon())
    });
    let end = soon();
    while used() > 6 << 20 {
        assert!(!end.passed(), "{} bytes are left", used());
        readable(&[], Deadline::from_seconds(Some(0.01)), None).unwrap();
    }
    queue.put(&[b"last"], NOW).unwrap();
    assert_eq!(waiting.join().unwrap().unwrap(), b"last");
}

#[test]
fn a_wait_that_gives_memory_back_ends_when_it_should() {
    let queue = Queue::new(None).unwrap();
    queue.put(&[vec![1; 12 << 20]], NOW).unwrap();
    assert!(get_one(&queue, NOW).is_some());
    let start = now();
    assert_eq!(get_one(&queue, Deadline::from_seconds(Some(1.5))), None);
    assert!(now().since(start).as_secs_f64() >= 1.5);
}

#[test]
fn several_megabytes_pass_whole_wherever_they_begin() {
    let queue = Queue::new(None).unwrap();
    let message: Vec<u8> = (0..5_000_000_u32).map(|n| (n.wrapping_mul(7) >> 3) as u8).collect();
    for at in [0, 1, 17, 64] {
        let Drafting::Draft(draft) = queue.draft(message.len(), NOW).unwrap() else { panic!("no draft") };
        draft.write(0, Piece::of(&message[..at])).unwrap();
        draft.write(at, Piece::of(&message[at..])).unwrap();
        assert_eq!(queue.put(&[draft], NOW).unwrap(), Put::Done(1));
        let mut messages = Messages::default();
        assert_eq!(queue.take(1, &mut messages, NOW).unwrap(), Got::Some(1));
        let Some(Message::Parcel(parcel)) = messages.each().next() else { panic!("no parcel") };
        let mut bytes = vec![0; message.len() - at];
        parcel.read(at, &mut Room::of(&mut bytes)).unwrap();
        assert!(bytes == message[at..], "torn at {at}");
    }
}

#[test]
fn a_bound_in_bytes_is_kept_up_to_one_message() {
    let queue = Queue::bounded(None, Some(1000)).unwrap();
    // Each takes 8 more.
    let message = [7; 392];
    assert_eq!(queue.put(&[message; 5], NOW).unwrap(), Put::Done(3));
    assert!(queue.is_full());
    assert_eq!(other_handle(&queue).put(&[b""], NOW).unwrap(), Put::Full);
    assert_eq!(get_one(&queue, NOW).unwrap(), message);
    assert!(!queue.is_full());
    assert_eq!(queue.put(&[vec![1; 1 << 20]], NOW).unwrap(), Put::Done(1));
    assert!(queue.is_full());
    let mut messages = Messages::default();
    assert_eq!(queue.get(10, &mut messages, NOW).unwrap(), Got::Some(3));
    assert_eq!(messages.bytes.len(), 2 * 392 + (1 << 20));
    assert_eq!(queue.put(&[b"x"], NOW).unwrap(), Put::Done(1));
}

#[test]
fn many_threads_keep_a_bound_in_bytes() {
    const EACH: usize = 5000;
    let queue = Arc::new(Queue::bounded(None, Some(400)).unwrap());
    let putting: Vec<_> = (0..3)
        .map(|_| {
            let queue = Arc::clone(&queue);
            spawn(move || {
                for n in 0..EACH {
                    assert_eq!(queue.put(&[vec![0; n % 100]], soon()).unwrap(), Put::Done(1));
                }
            })
        })
        .collect();
    let getting: Vec<_> = (0..3)
        .map(|_| {
            let queue = Arc::clone(&queue);
            spawn(move || (0..EACH).for_each(|_| drop(get_one(&queue, soon()).expect("a message in time"))))
        })
        .collect();
    putting.into_iter().chain(getting).for_each(|thread| thread.join().unwrap());
    assert!(queue.is_empty() && !queue.is_full());
}

#[test]
fn a_draft_that_is_dropped_leaves_nothing_and_a_parcel_is_read_where_it_lies() {
    let queue = Queue::new(None).unwrap();
    let draft = || match queue.draft(200_000, NOW).unwrap() {
        Drafting::Draft(draft) => draft,
        other => panic!("{other:?}"),
    };
    drop(draft());
    let draft = draft();
    draft.write(0, Piece::of(&[1; 100_000])).unwrap();
    draft.write(100_000, Piece::of(&[2; 100_000])).unwrap();
    assert!(queue.is_empty());
    assert_eq!(queue.put(&[draft], NOW).unwrap(), Put::Done(1));
    let mut messages = Messages::default();
    assert_eq!(queue.take(1, &mut messages, NOW).unwrap(), Got::Some(1));
    let Some(Message::Parcel(parcel)) = messages.each().next() else { panic!("no parcel") };
    let mut bytes = [0; 2];
    parcel.read(99_999, &mut Room::of(&mut bytes)).unwrap();
    assert_eq!((bytes, parcel.len()), ([1, 2], 200_000));
}

#[test]
fn more_large_messages_than_there_are_loans_pass_as_well() {
    let queue = Queue::new(None).unwrap();
    let message = vec![5; 70_000];
    let drafts: Vec<_> = (0..LOANS_TO_PUT).map(|_| queue.draft(message.len(), NOW).unwrap()).collect();
    assert!(matches!(queue.draft(message.len(), NOW).unwrap(), Drafting::Refused));
    assert_eq!(queue.put(&[&message; 20], NOW).unwrap(), Put::Done(20));
    drop(drafts);
    let mut messages = Messages::default();
    assert_eq!(queue.get(20, &mut messages, NOW).unwrap(), Got::Some(20));
    assert!(messages.iter().all(|got| got == message));
}

#[test]
fn a_bounded_queue_is_full_exactly_at_its_bound_and_has_room_after_a_get() {
    let queue = Queue::new(Some(3)).unwrap();
    assert_eq!(queue.put(&[b"a", b"b", b"c", b"d"], NOW).unwrap(), Put::Done(3));
    assert!(queue.is_full());
    assert_eq!(queue.put(&[b"d"], NOW).unwrap(), Put::Full);
    assert_eq!(get_one(&queue, NOW).unwrap(), b"a");
    assert!(!queue.is_full());
    assert_eq!(queue.put(&[b"d"], NOW).unwrap(), Put::Done(1));
    assert_eq!(queue.len(), 3);
}

#[test]
fn waits_end_at_their_deadline_and_not_before() {
    let queue = Queue::new(Some(1)).unwrap();
    let span = std::time::Duration::from_millis(30);
    let start = now();
    assert_eq!(get_one(&queue, Deadline::At(start.after(span))), None);
    assert!(now().since(start) >= span);
    queue.put(&[b"x"], NOW).unwrap();
    let start = now();
    assert_eq!(queue.put(&[b"y"], Deadline::At(start.after(span))).unwrap(), Put::Full);
    assert!(now().since(start) >= span);
}

#[test]
fn many_threads_put_and_get_every_message_once_and_each_producers_in_order() {
    for (producers, consumers, most) in
        [(1, 1, None), (4, 4, None), (4, 4, Some(3)), (1, 4, Some(1)), (6, 1, None)]
    {
        const EACH: u32 = 20_000;
        let queue = Arc::new(Queue::new(most).unwrap());
        let putting: Vec<_> = (0..producers)
            .map(|who: u32| {
                let queue = Arc::new(other_handle(&queue));
                spawn(move || {
                    for n in 0..EACH {
                        let message = [who.to_ne_bytes(), n.to_ne_bytes()].concat();
                        assert_eq!(queue.put(&[message], soon()).unwrap(), Put::Done(1));
                    }
                })
            })
            .collect();
        let getting: Vec<_> = (0..consumers)
            .map(|_| {
                let queue = Arc::new(other_handle(&queue));
                spawn(move || {
                    let mut got = Vec::new();
                    loop {
                        let message = get_one(&queue, soon()).expect("a message before the deadline");
                        if message.is_empty() {
                            return got;
                        }
                        let number = |at: usize| u32::from_ne_bytes(message[at..at + 4].try_into().unwrap());
                        got.push((number(0), number(4)));
                    }
                })
            })
            .collect();
        putting.into_iter().for_each(|thread| thread.join().unwrap());
        for _ in 0..consumers {
            assert_eq!(queue.put(&[b""], soon()).unwrap(), Put::Done(1));
        }
        let got: Vec<Vec<(u32, u32)>> = getting.into_iter().map(|thread| thread.join().unwrap()).collect();
        for by_one in &got {
            let mut last = vec![None; producers as usize];
            for &(who, n) in by_one {
                assert!(last[who as usize].is_none_or(|last| last < n), "overtaken");
                last[who as usize] = Some(n);
            }
        }
        let mut all: Vec<_> = got.into_iter().flatten().collect();
        all.sort_unstable();
        let want: Vec<_> = (0..producers).flat_map(|who| (0..EACH).map(move |n| (who, n))).collect();
        assert_eq!(all, want);
        assert!(queue.is_empty());
    }
}

#[test]
fn the_bell_is_readable_exactly_while_there_is_a_message() {
    let queue = Queue::new(None).unwrap();
    queue.put(&[b"before anybody asked"], NOW).unwrap();
    let rings = || readable(&[queue.bell().unwrap()], NOW, None).unwrap() == Woken::Ready;
    assert!(rings());
    for round in 0..3 {
        get_one(&queue, NOW).unwrap();
        assert!(!rings(), "round {round}");
        other_handle(&queue).put(&[b"one", b"two"], NOW).unwrap();
        assert!(rings(), "round {round}");
        get_one(&queue, NOW).unwrap();
        assert!(rings(), "round {round}");
    }
}

#[test]
fn tasks_are_done_once() {
    let queue = Arc::new(Queue::new(None).unwrap());
    assert!(matches!(queue.task_done(), Err(QueueError::TooManyDone)));
    queue.put(&[b"a", b"b"], NOW).unwrap();
    let since = queue.times_done();
    assert_eq!(queue.wait_done(since, NOW).unwrap(), Woken::TimedOut);
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let queue = Arc::clone(&queue);
            spawn(move || queue.wait_done(since, soon()).unwrap())
        })
        .collect();
    queue.task_done().unwrap();
    assert_eq!(queue.unfinished(), 1);
    queue.task_done().unwrap();
    queue.put(&[b"c"], NOW).unwrap();
    waiting.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), Woken::Ready));
    assert_eq!(queue.unfinished(), 1);
    queue.task_done().unwrap();
    assert!(matches!(queue.task_done(), Err(QueueError::TooManyDone)));
}

#[test]
fn what_is_no_queue_is_refused() {
    let bell = || other_handle(&Queue::new(None).unwrap()).shared()[1].try_clone_to_owned().unwrap();
    for fd in [memfd::create(4096, 4096).unwrap(), memfd::create(DATA + MAPPED, 8192).unwrap()] {
        assert!(matches!(Queue::received([fd, bell()]), Err(QueueError::Foreign)));
    }
}

proptest! {
    #[test]
    fn behaves_like_a_list(ops in prop::collection::vec((0u8..5, 0usize..40_000, 1usize..5), 1..120)) {
        let queue = Queue::new(Some(50)).unwrap();
        let mut model: VecDeque<Vec<u8>> = VecDeque::new();
        for (number, (op, len, count)) in ops.into_iter().enumerate() {
            let batch: Vec<_> = (0..count).map(|i| vec![(number + i) as u8; len / count + i]).collect();
            if op < 3 {
                let fits = count.min(50 - model.len());
                let want = if fits == 0 { Put::Full } else { Put::Done(fits) };
                prop_assert_eq!(queue.put(&batch, NOW).unwrap(), want);
                model.extend(batch.into_iter().take(fits));
            } else {
                let mut messages = Messages::default();
                let there = count.min(model.len());
                let want = if there == 0 { Got::Empty } else { Got::Some(there) };
                prop_assert_eq!(queue.get(count, &mut messages, NOW).unwrap(), want);
                let want: Vec<_> = model.drain(..there).collect();
                prop_assert_eq!(messages.iter().map(<[u8]>::to_vec).collect::<Vec<_>>(), want);
            }
            prop_assert_eq!(queue.len(), model.len());
        }
    }

    #[test]
    fn garbage_is_refused_without_a_panic(words in prop::collection::vec(any::<u64>(), 64), mark in any::<u64>()) {
        let queue = Queue::new(None).unwrap();
        let (fd, bytes) = (queue.shared()[0], words.iter().flat_map(|w| w.to_ne_bytes()).collect::<Vec<_>>());
        let map = Mapping::new(fd, 0, (DATA + MAPPED) as usize).unwrap();
        queue.put(&[&bytes], NOW).unwrap();
        map.write(DATA as usize, &bytes);
        map.word64(AT_HEAD).store(mark | 0xffff_ffff << 32, std::sync::atomic::Ordering::Release);
        let mut messages = Messages::default();
        let got = queue.get(1, &mut messages, NOW);
        let refused = matches!(got, Err(QueueError::Corrupt | QueueError::Os { .. }));
        prop_assert!(refused || got.is_ok());
    }

    #[test]
    fn marks_survive_packing(count in any::<u32>(), unit in any::<u32>()) {
        let mark = Mark { count, offset: u64::from(unit) * 8 };
        prop_assert_eq!(Mark::unpack(mark.pack()), mark);
    }
}
