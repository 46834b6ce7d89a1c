//! The table of tasks beside a naive one.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use crate::pool::scheduler::tasks::{Place, Tasks};
use crate::pool::scheduler::{Limits, TaskKey};

#[derive(Debug, Clone)]
enum Op {
    Insert(Option<u64>),
    Remove(usize),
    /// Look a key up that has been given at some time.
    Get(usize),
    Garbage(u64),
    Drain,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => proptest::option::of(1u64..1_000).prop_map(Op::Insert),
        4 => any::<usize>().prop_map(Op::Remove),
        2 => any::<usize>().prop_map(Op::Get),
        1 => any::<u64>().prop_map(Op::Garbage),
        1 => Just(Op::Drain),
    ]
}

proptest! {
    #[test]
    fn the_table_behaves_like_a_map_and_never_repeats_a_key(ops in prop::collection::vec(op(), 1..300)) {
        let mut table = Tasks::new();
        let mut model: HashMap<TaskKey, (usize, Limits)> = HashMap::new();
        let mut given: Vec<TaskKey> = Vec::new();
        let mut most = 0;
        for (tag, op) in ops.into_iter().enumerate() {
            match op {
                Op::Insert(hard) => {
                    let limits = Limits { soft: None, hard: hard.map(Duration::from_millis) };
                    let key = table.insert(tag, tag, limits);
                    prop_assert!(!given.contains(&key), "a key is given twice");
                    prop_assert_ne!(key.to_bits(), 0);
                    given.push(key);
                    model.insert(key, (tag, limits));
                }
                Op::Remove(n) if !given.is_empty() => {
                    let key = given[n % given.len()];
                    let removed = table.remove(key).map(|task| task.tag);
                    prop_assert_eq!(removed, model.remove(&key).map(|(tag, _)| tag));
                }
                Op::Get(n) if !given.is_empty() => {
                    let key = given[n % given.len()];
                    let got = table.get(key).map(|task| (task.tag, task.limits()));
                    prop_assert_eq!(got, model.get(&key).copied());
                    prop_assert_eq!(table.get_mut(key).map(|task| task.place), got.map(|_| Place::Queued));
                }
                Op::Garbage(bits) => {
                    let key = TaskKey::from_bits(bits);
                    prop_assert_eq!(table.get(key).is_some(), model.contains_key(&key));
                }
                Op::Drain => {
                    let mut tags: Vec<_> = table.drain().into_iter().map(|task| task.tag).collect();
                    tags.sort_unstable();
                    let mut expected: Vec<_> = model.drain().map(|(_, (tag, _))| tag).collect();
                    expected.sort_unstable();
                    prop_assert_eq!(tags, expected);
                }
                Op::Remove(_) | Op::Get(_) => {}
            }
            most = most.max(model.len());
            prop_assert_eq!(table.len(), model.len());
            prop_assert!(table.capacity() <= most, "rows are not used again");
        }
    }
}

#[test]
fn keys_of_a_flood_name_nothing_after_it() {
    let mut table = Tasks::new();
    let keys: Vec<_> = (0..70_000u32).map(|n| table.insert(n, (), Limits::NONE)).collect();
    for key in &keys {
        assert!(table.remove(*key).is_some());
    }
    assert_eq!(table.capacity(), 0);
    let again: Vec<_> = (0..100u32).map(|n| table.insert(n, (), Limits::NONE)).collect();
    assert!(keys.iter().all(|key| table.get(*key).is_none()));
    assert!(again.iter().all(|key| table.get(*key).is_some()));
}
