//! Processes that are killed while they send or receive a message with large buffers beside it. The other end is told, and the memory is not
//! used again under anybody's hands, nor lost.
//!
//! This program has its own `main`: it runs itself again, as the one that is killed.
#![expect(clippy::print_stdout, clippy::panic, reason = "a test program of its own talks to who runs it")]

use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

mod runner;

use billiard::conn::cargo::{Stock, unload};
use billiard::sys::descriptor::claim;
use billiard::sys::poll::{Awaited, Woken, poll_one};
use billiard::sys::stream::Piece;
use billiard::sys::{Deadline, carrying, listening, now};

const LEN: usize = 300_000;
const MESSAGES: u8 = 40;
const PATIENCE: Duration = Duration::from_secs(60);
/// Who dies, where, and when it passes that place for this time.
const PLACES: [(&str, &str, u32); 8] = [
    ("send", "conn.loaded", 1),
    ("send", "conn.loaded", 20),
    ("send", "conn.cargo_sent", 1),
    ("send", "conn.cargo_sent", 20),
    ("receive", "conn.cargo_arrived", 1),
    ("receive", "conn.cargo_arrived", 20),
    ("receive", "conn.cargo_done", 1),
    ("receive", "conn.cargo_done", 20),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, role, number] = args.as_slice()
        && flag == "--role"
    {
        let end = claim(number.parse().expect("a number")).expect("an inherited descriptor");
        play(role, end.as_fd());
        return ExitCode::SUCCESS;
    }
    let mut tests: Vec<runner::Test<'_>> = Vec::new();
    for (role, place, times) in PLACES {
        let name = format!("{role}_killed_at_{}_{times}", place.replace('.', "_"));
        let body = move || {
            killed(role, place, times);
            true
        };
        tests.push((name, Box::new(body)));
    }
    runner::run(&tests)
}

fn wait(end: BorrowedFd<'_>, what: Awaited) {
    let deadline = Deadline::At(now().after(PATIENCE));
    assert_eq!(poll_one(end, what, deadline, None).expect("a descriptor"), Woken::Ready, "the peer hangs");
}

/// Sends messages of one byte with much beside them, until the other end is gone. How many.
fn send(end: BorrowedFd<'_>) -> u8 {
    let (stock, start) = (Stock::default(), now());
    for n in 0..MESSAGES {
        let cargo = stock.find(LEN).expect("there is memory");
        cargo.load(0, Piece::of(&vec![n; LEN]));
        loop {
            match cargo.send(end, &[n]) {
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(now().since(start) < PATIENCE, "the receiver hangs");
                    std::thread::yield_now();
                }
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return n,
                Err(error) => panic!("{error}"),
            }
        }
        stock.keep(cargo);
    }
    MESSAGES
}

/// Receives them, keeps some, and looks that nobody changes these. How many.
fn receive(end: BorrowedFd<'_>) -> u8 {
    let mut kept = Vec::new();
    for n in 0..MESSAGES {
        wait(end, Awaited::Data);
        let mut byte = [0];
        let (got, beside) = carrying::receive(end, &mut byte).expect("a sound stream");
        if got == 0 {
            return n;
        }
        assert_eq!(byte, [n]);
        let window = unload(beside.expect("something came beside it"), LEN).expect("a sound message");
        kept.push((n, window));
        for (n, window) in &kept {
            let mut bytes = [0; 2];
            for (byte, at) in bytes.iter_mut().zip([0, LEN - 1]) {
                *byte = window.byte(at);
            }
            assert_eq!(bytes, [*n; 2], "somebody else has used the memory");
        }
        if kept.len() > 5 {
            kept.remove(usize::from(n % 5));
        }
    }
    MESSAGES
}

fn play(role: &str, end: BorrowedFd<'_>) {
    let count = if role == "send" { send(end) } else { receive(end) };
    panic!("{role} has come to its end, after {count}");
}

fn start(role: &str, end: OwnedFd, place: &str, times: u32) -> Child {
    rustix::io::fcntl_setfd(&end, rustix::io::FdFlags::empty()).expect("an open descriptor");
    let program = std::env::current_exe().expect("a running program has a path");
    let mut command = Command::new(program);
    command.args(["--role", role, &end.as_raw_fd().to_string()]);
    command.env("BILLIARD_FAILPOINT", format!("{place}:{times}"));
    command.spawn().expect("a process can be started")
}

fn killed(role: &str, place: &str, times: u32) {
    let (ours, theirs) = listening::pair().expect("there are descriptors");
    let open = || std::fs::read_dir("/proc/self/fd").expect("a folder").count();
    let before = open();
    let mut victim = start(role, theirs, place, times);
    let count = if role == "send" { receive(ours.as_fd()) } else { send(ours.as_fd()) };
    let status = victim.wait().expect("our own child can be waited for");
    assert_eq!(status.signal(), Some(9), "{place}: it was not killed there");
    let times = u8::try_from(times).expect("a small number");
    match place {
        "conn.loaded" => assert_eq!(count, times - 1, "what was not sent has not come"),
        "conn.cargo_sent" => assert_eq!(count, times, "what was sent has come"),
        // What lay between both is gone with the receiver; how much that was depends on who was faster.
        _ => assert!(count >= times, "{place}: only {count} were sent"),
    }
    assert_eq!(open(), before - 1, "{place}: descriptors are left");
}
