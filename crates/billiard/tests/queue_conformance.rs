//! The queue, taken through the cases that Python's queues are taken through as well; `queue_conformance.txt` has them.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says by a panic what is wrong, and prints which step it was"
)]

use billiard::queue::{Got, Messages, Put, Queue};
use billiard::sys::Deadline;

const CASES: &str = include_str!("queue_conformance.txt");

/// What a word of the table stands for.
fn value(word: &str) -> Vec<u8> {
    match word.split_once('*') {
        _ if word == "-" => Vec::new(),
        None => word.into(),
        Some((part, times)) => part.repeat(times.parse().expect("a number follows the star")).into(),
    }
}

fn values(words: &str) -> Vec<Vec<u8>> {
    words.split_whitespace().map(value).collect()
}

fn truth(word: &str) -> bool {
    match word {
        "yes" => true,
        "no" => false,
        other => panic!("{other} is neither yes nor no"),
    }
}

fn got(queue: &Queue, most: usize, deadline: Deadline) -> Vec<Vec<u8>> {
    let mut messages = Messages::default();
    match queue.get(most, &mut messages, deadline).unwrap() {
        Got::Some(count) => assert_eq!(messages.iter().count(), count),
        Got::Empty => assert_eq!(messages.iter().count(), 0),
        Got::Interrupted => panic!("nobody has sent a signal"),
    }
    messages.iter().map(<[u8]>::to_vec).collect()
}

/// Long enough for a busy machine: a step that is to succeed never needs it.
fn soon() -> Deadline {
    Deadline::from_seconds(Some(30.0))
}

fn step(queue: &Queue, verb: &str, rest: &str) {
    match verb {
        "put" => assert_eq!(queue.put(&[value(rest)], soon()).unwrap(), Put::Done(1)),
        "refuse" => assert_eq!(queue.put(&[value(rest)], Deadline::AT_ONCE).unwrap(), Put::Full),
        "get" => assert!(got(queue, 1, soon()) == [value(rest)], "something else came out"),
        "nothing" => assert!(got(queue, 1, Deadline::AT_ONCE).is_empty(), "something came out"),
        "put_many" => {
            let messages = values(rest);
            let mut done = 0;
            while done < messages.len() {
                match queue.put(&messages[done..], soon()).unwrap() {
                    Put::Done(count) => done += count,
                    other => panic!("{other:?} after {done}"),
                }
            }
        }
        "get_many" => {
            let (most, wanted) = rest.split_once(' ').expect("a number and messages");
            let got = got(queue, most.parse().expect("a number"), soon());
            assert!(got == values(wanted), "something else came out");
        }
        "length" => assert_eq!(queue.len(), rest.parse().expect("a number")),
        "empty" => assert_eq!(queue.is_empty(), truth(rest)),
        "full" => assert_eq!(queue.is_full(), truth(rest)),
        other => panic!("there is no step {other}"),
    }
}

/// Takes a queue through the cases. Two handles take turns in `turn`, as two processes would.
fn run(turn: impl Fn(usize) -> usize) {
    let lines = CASES.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut handles: Vec<Queue> = Vec::new();
    let mut case = "";
    for (number, line) in lines.enumerate() {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        if matches!(verb, "case" | "bound") {
            case = if verb == "case" { rest } else { case };
            let bound = (verb == "bound").then(|| rest.parse().expect("a number"));
            let queue = Queue::new(bound).unwrap();
            let shared = queue.shared().map(|fd| fd.try_clone_to_owned().unwrap());
            handles = vec![queue, Queue::received(shared).unwrap()];
            continue;
        }
        println!("{case}: {line}");
        step(&handles[turn(number) % 2], verb, rest);
    }
}

#[test]
fn in_one_process() {
    run(|_| 0);
}

#[test]
fn between_two_who_take_turns() {
    run(|number| number);
}
