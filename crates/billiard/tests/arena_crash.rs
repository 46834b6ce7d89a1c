//! Processes that are killed in the middle of what they do with memory, one place after the other. The others go on, nothing of
//! theirs changes, and nothing is left of the dead.
//!
//! This program has its own `main`, as `sync_crash.rs` has, and for the same reason.
#![expect(clippy::print_stdout, clippy::panic, reason = "a test program of its own talks to who runs it")]

use std::process::{Command, ExitCode};
use std::sync::atomic::Ordering::SeqCst;

mod runner;

use billiard::arena::{Cell, Usage, trim, usage};
use billiard::sys::named::{self, Sweep};
use billiard::sys::{Deadline, ExitStatus, Forked, PidFd, exit_now, fork, pid, poll};

const PATIENCE: f64 = 60.0;
const MIB: usize = 1 << 20;

/// The places, and how often whoever is killed there has passed them before.
const PLACES: [(&str, u32); 6] = [
    ("arena.backing", 3),
    ("arena.taken", 40),
    ("arena.taken", 400),
    ("arena.returned", 60),
    ("arena.returned", 300),
    ("arena.released", 2),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|a| a == flag);
    if has("--killed") {
        killed_at_a_place();
        return ExitCode::SUCCESS;
    }
    if has("--named") {
        killed_with_a_name();
        return ExitCode::SUCCESS;
    }
    if has("--sweep") {
        named::sweep(Sweep::Passing);
        return ExitCode::SUCCESS;
    }
    if has("--holders") {
        a_hundred_killed_holders();
        return ExitCode::SUCCESS;
    }
    let mut tests: Vec<runner::Test<'_>> = Vec::new();
    for (place, times) in PLACES {
        let name = format!("killed_at_{}_{times}", place.replace('.', "_"));
        tests.push((name, Box::new(move || alone("--killed", Some(format!("{place}:{times}"))))));
    }
    for place in ["named.furnished", "named.sweeping"] {
        let name = format!("killed_at_{}", place.replace('.', "_"));
        tests.push((name, Box::new(move || alone("--named", Some(format!("{place}:1"))))));
    }
    let name = "a_hundred_killed_holders_leave_nothing";
    tests.push((name.into(), Box::new(|| alone("--holders", None))));
    runner::run(&tests)
}

/// Runs a part of this program in a process of its own.
fn alone(what: &str, place: Option<String>) -> bool {
    let mut program = Command::new(std::env::current_exe().expect("a running program has a path"));
    match place {
        Some(place) => program.env("BILLIARD_FAILPOINT", place),
        None => program.env_remove("BILLIARD_FAILPOINT"),
    };
    program.arg(what).status().expect("a process can be started").success()
}

fn child(body: impl FnOnce()) -> PidFd {
    match fork().expect("a process can be forked") {
        Forked::Child => {
            body();
            exit_now(0)
        }
        Forked::Parent(pid) => PidFd::open(pid).expect("a child has a descriptor"),
    }
}

fn end_of(child: &PidFd) -> ExitStatus {
    let fd = child.descriptor().expect("this kernel has process descriptors");
    let deadline = Deadline::from_seconds(Some(PATIENCE));
    let woken = poll::readable(&[fd], deadline, None).expect("a descriptor can be waited for");
    assert_eq!(woken, poll::Woken::Ready, "a process hangs");
    child.wait().expect("a child can be waited for").expect("it has ended").status
}

/// What passes every place often.
fn churn(rounds: usize) {
    let mut out: Vec<Option<Cell>> = (0..200).map(|_| None).collect();
    for round in 0..rounds {
        let (place, power) = (round * 7919 % out.len(), round * 104_729 % 16);
        out[place] = None;
        out[place] = Some(Cell::uncleared(64 << power).expect("there is memory"));
    }
    // Enough to go back to the system, beside some that stay.
    let large: Vec<_> = (0..200).map(|_| Cell::uncleared(MIB).expect("there is memory")).collect();
    drop(large.into_iter().step_by(50).collect::<Vec<_>>());
}

/// The one that is killed shares cells with one that is not, and both with their parent.
fn killed_at_a_place() {
    // The place counts in this process too: it passes each of them less often, or not at all.
    let shared: Vec<_> = (1..30).map(|len| Cell::new(len * 100).expect("there is memory")).collect();
    let victims: Vec<_> = (0..4).map(|_| child(|| churn(2000))).collect();
    let go_on = || shared.iter().all(|cell| cell.word64(0).fetch_add(1, SeqCst) < 10);
    let witness = child(|| assert!(go_on(), "a shared cell has changed"));
    for victim in &victims {
        match end_of(victim) {
            ExitStatus::Signal(9) => {}
            other => panic!("not killed: {other:?}"),
        }
    }
    assert_eq!(end_of(&witness), ExitStatus::Code(0));
    assert!(shared.iter().all(|cell| cell.word64(0).load(SeqCst) == 1));
    assert_eq!(usage().cells, shared.len());
    drop(shared);
    trim();
    assert_eq!(usage(), Usage::default());
}

/// Makes shared memory with a name, or removes what the dead have left.
fn killed_with_a_name() {
    let name = format!("billiard-crash-{}", pid());
    let path = format!("/dev/shm/{name}");
    // The first one is killed while it makes it, or at its end; the second one while it sweeps.
    let maker = child(|| {
        let made = named::create(&name, 4096, Some(pid())).expect("there is memory");
        named::let_go(&made).expect("it is open");
        billiard::sys::signal::raise(9);
    });
    assert_eq!(end_of(&maker), ExitStatus::Signal(9));
    let sweeper = child(|| named::sweep(Sweep::Passing));
    end_of(&sweeper);
    // Whatever has happened to them, the next one that passes by, and is not killed, finds nothing in its way.
    assert!(alone("--sweep", None));
    assert!(!std::path::Path::new(&path).exists(), "the name is left");
}

/// Shared memory of the whole system, in KiB.
fn shared_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("this is Linux");
    let line = text.lines().find(|line| line.starts_with("Shmem:")).expect("the kernel tells it");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// Each holds memory of its own and of its parent when it is killed.
fn a_hundred_killed_holders() {
    let before = shared_kib();
    for _ in 0..100 {
        let given = Cell::new(4 * MIB).expect("there is memory");
        let holder = child(|| {
            let own: Vec<_> = (0..16).map(|_| Cell::new(MIB)).collect();
            given.word64(0).store(own.len() as u64, SeqCst);
            billiard::sys::signal::raise(9);
        });
        assert_eq!(end_of(&holder), ExitStatus::Signal(9));
        assert_eq!(given.word64(0).load(SeqCst), 16);
    }
    assert_eq!(usage(), Usage::default(), "what a dead child may have known is let go of");
    // Others use this machine too: of 2000 MiB that were held, a third would be too much.
    let more = shared_kib().saturating_sub(before) / 1024;
    assert!(more < 650, "{more} MiB are left");
}
