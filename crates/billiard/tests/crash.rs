//! Workers that are killed in the middle of their critical sections, one place after the other. Exactly what was being run is
//! lost; everything else is run, and nothing is run twice.
//!
//! This program has its own `main`: pools are forked while it has a single thread. Each place is tried in a process of its
//! own, with the environment that arms it.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::panic,
    reason = "a test program of its own talks to who runs it"
)]

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

mod runner;

use billiard::pool::scheduler::Failure;
use billiard::pool::{Pool, RequestError, Settings};
use billiard::sys::{ExitStatus, pid};

/// What a death at a place costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cost {
    /// The task that was claimed.
    Task,
    /// The task, which has not even begun to run.
    TaskNotRun,
    /// Nothing.
    Nothing,
}

const PLACES: [(&str, Cost); 10] = [
    ("claimed", Cost::TaskNotRun),
    ("begun", Cost::TaskNotRun),
    ("freed", Cost::TaskNotRun),
    ("ran", Cost::Task),
    ("published", Cost::Nothing),
    ("announced", Cost::Nothing),
    ("ended", Cost::Nothing),
    ("dozing", Cost::Nothing),
    // Right after a task's arguments were given back; the task itself then runs no more.
    ("released", Cost::TaskNotRun),
    ("none", Cost::Nothing),
];
const TASKS: u32 = 300;
const WORKERS: u32 = 3;
/// Each worker dies when it passes the place for the fifth time.
const TIMES: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = args.iter().position(|a| a == "--place") {
        let (place, cost) = *PLACES.iter().find(|(name, _)| *name == args[at + 1]).expect("a known place");
        try_place(place, cost);
        return ExitCode::SUCCESS;
    }
    let mut tests: Vec<runner::Test<'_>> = Vec::new();
    for (name, _) in PLACES {
        tests.push((format!("killed_at_{name}"), Box::new(move || run_alone(name))));
    }
    runner::run(&tests)
}

/// Runs one place in a process of its own, and ends it if it takes too long.
fn run_alone(place: &str) -> bool {
    let program = std::env::current_exe().expect("a running program has a path");
    let mut child = Command::new(program)
        .args(["--place", place])
        .env("BILLIARD_FAILPOINT", format!("{place}:{TIMES}"))
        .spawn()
        .expect("a process can be started");
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("our own child can be waited for") {
            return status.success();
        }
        if start.elapsed() > PATIENCE {
            eprintln!("killed_at_{place}: hangs");
            let _ = child.kill();
            let _ = child.wait();
            return false;
        }
        nap();
    }
}

fn nap() {
    let _ = billiard::sys::poll::readable(&[], billiard::sys::Deadline::from_seconds(Some(0.005)), None);
}

fn try_place(place: &'static str, cost: Cost) {
    let mut log = tempfile();
    let writer = log.try_clone().expect("a descriptor is left");
    let settings = Settings { workers: WORKERS, requests_per_worker: None };
    let pool = Pool::start(settings, move |request: &[u8]| {
        let number = u32::from_le_bytes(request[..4].try_into().map_err(|_| Vec::new())?);
        // One write of a line that is appended: never torn.
        let line = format!("{number} {}\n", pid());
        (&writer).write_all(line.as_bytes()).map_err(|e| e.to_string().into_bytes())?;
        Ok(answer(place, number))
    })
    .expect("the pool starts");

    let pending: Vec<_> =
        (0..TASKS).map(|n| pool.submit(&request(n), None).expect("the pool runs")).collect();
    let mut lost = HashMap::new();
    for (number, pending) in (0..TASKS).zip(&pending) {
        match pending.wait(Some(PATIENCE)) {
            Ok(response) => assert_eq!(response, answer(place, number), "task {number}"),
            Err(RequestError::Ended(report)) => {
                let Failure::Lost { status, .. } = report.why else { panic!("task {number}: {report:?}") };
                assert_eq!(status, ExitStatus::Signal(9), "task {number}");
                lost.insert(number, report.pid.expect("a task is lost by somebody"));
            }
            Err(error) => panic!("task {number}: {error}"),
        }
    }
    pool.join().expect("the pool ends");

    let mut text = String::new();
    log.rewind().expect("a file can be rewound");
    log.read_to_string(&mut text).expect("the log is text");
    let runs: Vec<(u32, i32)> = text
        .lines()
        .map(|line| line.split_once(' ').expect("two numbers"))
        .map(|(number, pid)| (number.parse().expect("a number"), pid.parse().expect("a pid")))
        .collect();
    let ran: HashSet<u32> = runs.iter().map(|(number, _)| *number).collect();
    let workers: HashSet<i32> = runs.iter().map(|(_, pid)| *pid).collect();
    assert_eq!(ran.len(), runs.len(), "{place}: a task has run twice");
    let killers: HashSet<i32> = lost.values().copied().collect();
    assert_eq!(killers.len(), lost.len(), "{place}: a death has cost more than one task");
    match cost {
        Cost::Nothing => assert_eq!(lost.len(), 0, "{place}: something was lost"),
        Cost::Task | Cost::TaskNotRun => {
            // Every fifth task of a worker is its last one.
            assert!(lost.len() as u32 >= TASKS / TIMES / 2, "{place}: only {} were lost", lost.len());
            let lost_ran = lost.keys().filter(|number| ran.contains(number)).count();
            let want = if cost == Cost::Task { lost.len() } else { 0 };
            assert_eq!(lost_ran, want, "{place}: of the lost tasks have run");
        }
    }
    let done = (0..TASKS).filter(|number| !lost.contains_key(number)).all(|number| ran.contains(&number));
    assert!(done, "{place}: a response to what did not run");
    if place == "none" {
        assert_eq!(workers.len() as u32, WORKERS);
    } else if place != "dozing" {
        assert!(workers.len() as u32 > WORKERS, "{place}: nobody was killed");
    }
}

/// Large enough to travel in an extent, so that these are part of the game.
fn request(number: u32) -> Vec<u8> {
    let mut bytes = vec![number as u8; 20_000];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Some of them large too. Where lease holders are killed, none: the parent would be one of them.
fn answer(place: &str, number: u32) -> Vec<u8> {
    let large = !number.is_multiple_of(2) && place != "released";
    vec![!(number as u8); if large { 12_000 } else { 10 }]
}

/// A file without a name, that is written to at its end only.
fn tempfile() -> File {
    let path = std::env::temp_dir().join(format!("billiard-crash-{}", pid()));
    let file = OpenOptions::new()
        .create_new(true)
        .read(true)
        .append(true)
        .open(&path)
        .expect("a folder for temporary files");
    std::fs::remove_file(path).expect("our own file can be removed");
    file
}
