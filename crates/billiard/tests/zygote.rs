//! A zygote and its owner, with real processes: who is born, how they end, and who is told, also when one of them is killed at
//! the worst moment.
//!
//! This program has its own `main`: processes are forked while it has a single thread. Each scene is played in a process of its
//! own.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test program of its own talks to who runs it"
)]

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

mod runner;

use billiard::process::zygote::{Order, Progress, Server, Zygote, ZygoteError};
use billiard::process::{Child, Parent, Waited};
use billiard::sys::{
    Deadline, ExitStatus, Forked, PidFd, exit_now, fork, now, packet, poll, signal::raise, thread,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// KERNEL: marks a scene that is played as on a kernel without process descriptors.
const BLIND: &str = "_without_pidfd";

type Scene = (&'static str, fn());

const SCENES: [Scene; 15] = [
    ("children_end_as_they_end", children_end_as_they_end),
    ("descriptors_and_data_arrive", descriptors_and_data_arrive),
    ("signals_hit_the_child", signals_hit_the_child),
    ("many_threads_ask_at_once", many_threads_ask_at_once),
    ("silent_children_are_told_of", silent_children_are_told_of),
    ("an_abandoned_child_is_killed", an_abandoned_child_is_killed),
    ("a_stopped_zygote_withholds_no_end", a_stopped_zygote_withholds_no_end),
    ("the_end_of_the_zygote_ends_no_child", the_end_of_the_zygote_ends_no_child),
    ("the_zygote_leaves_with_its_owner", the_zygote_leaves_with_its_owner),
    ("a_forked_copy_is_refused", a_forked_copy_is_refused),
    ("one_that_is_sent_away_leaves_its_children", one_that_is_sent_away_leaves_its_children),
    ("something_is_loaded", something_is_loaded),
    ("a_child_that_cannot_be_watched_is_no_child", a_child_that_cannot_be_watched_is_no_child),
    ("killed_at_unintroduced", killed_at_unintroduced),
    ("killed_at_forked", killed_at_forked),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = args.iter().position(|a| a == "--scene") {
        let (_, play) = SCENES.iter().find(|(name, _)| *name == args[at + 1]).expect("a known scene");
        play();
        return ExitCode::SUCCESS;
    }
    let mut tests: Vec<runner::Test<'_>> = Vec::new();
    for (name, _) in SCENES {
        for test in [name.to_string(), format!("{name}{BLIND}")] {
            tests.push((test.clone(), Box::new(move || play_alone(&test))));
        }
    }
    runner::run(&tests)
}

/// Plays one scene in a process of its own, and ends it if it takes too long.
fn play_alone(test: &str) -> bool {
    let program = std::env::current_exe().expect("a running program has a path");
    let mut command = Command::new(program);
    let name = test.strip_suffix(BLIND).unwrap_or(test);
    command.args(["--scene", name]);
    if name != test {
        command.env("BILLIARD_DENY", "pidfd");
    }
    match name {
        // Every child passes the place for the first time.
        "killed_at_unintroduced" => drop(command.env("BILLIARD_FAILPOINT", "unintroduced:1")),
        "killed_at_forked" => drop(command.env("BILLIARD_FAILPOINT", "forked:3")),
        _ => {}
    }
    let mut child = command.spawn().expect("a process can be started");
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("our own child can be waited for") {
            return status.success();
        }
        if start.elapsed() > PATIENCE {
            eprintln!("{test}: hangs");
            let _ = child.kill();
            let _ = child.wait();
            return false;
        }
        nap();
    }
}

fn nap() {
    let _ = poll::readable(&[], Deadline::from_seconds(Some(0.005)), None);
}

// --- the cast ---

/// The zygote's process: forks on demand, and its children do what their data says.
fn serve(control: OwnedFd, owner: Parent) -> ! {
    let mut server = Server::new(control, owner).expect("the zygote can be set up");
    loop {
        match server.next_order().expect("the zygote can listen") {
            Order::Leave => exit_now(0),
            Order::Load { id, what } => {
                assert!(what.starts_with(b"everything"));
                server.loaded(id).expect("the owner can be told");
            }
            Order::Fork(birth) => match fork() {
                Ok(Forked::Parent(child)) => server.born(birth.id, child).expect("a child can be watched"),
                Err(error) => server.failed(birth.id, &error).expect("the owner can be told"),
                Ok(Forked::Child) => {
                    if !server.introduce(birth.id).expect("a child can be shown") {
                        exit_now(99);
                    }
                    exit_now(act(&birth.data, &birth.fds));
                }
            },
        }
    }
}

fn act(data: &[u8], fds: &[OwnedFd]) -> i32 {
    match data {
        [b'e', code] => i32::from(*code),
        [b'k', signal] => {
            raise(i32::from(*signal));
            0
        }
        b"sleep" => {
            let _ = poll::readable(&[], Deadline::Never, None);
            0
        }
        large => {
            let told = format!("{} {}", large.len(), large.iter().map(|byte| u64::from(*byte)).sum::<u64>());
            i32::from(rustix::io::write(&fds[0], told.as_bytes()).is_err())
        }
    }
}

/// Starts a zygote; answers it, and its process.
fn zygote() -> (Arc<Zygote>, Arc<Child>) {
    let (ours, theirs) = packet::pair().expect("descriptors are left");
    let owner = Parent::own().expect("a descriptor is left");
    match fork().expect("a process can be forked") {
        Forked::Child => {
            drop(ours);
            serve(theirs, owner)
        }
        Forked::Parent(child) => {
            let child = Arc::new(Child::adopt(child).expect("a child can be watched"));
            (Zygote::new(ours, Arc::clone(&child)).expect("a descriptor is left"), child)
        }
    }
}

fn start(zygote: &Arc<Zygote>, data: &[u8]) -> Result<Child, ZygoteError> {
    started(zygote, data, &[])
}

fn started(
    zygote: &Arc<Zygote>,
    data: &[u8],
    keep: &[std::os::fd::BorrowedFd<'_>],
) -> Result<Child, ZygoteError> {
    let mut start = zygote.start(data, keep)?;
    loop {
        match start.step(Deadline::Never, None)? {
            Progress::Done(child) => return Ok(child.expect("a start makes a child")),
            Progress::TimedOut => unreachable!("there was no deadline"),
            Progress::Interrupted => {}
        }
    }
}

fn ended(child: &Child) -> ExitStatus {
    loop {
        match child.wait(Deadline::Never, None).expect("a child can be waited for") {
            Waited::Ended(status) => return status,
            Waited::TimedOut => unreachable!("there was no deadline"),
            Waited::Interrupted => {}
        }
    }
}

fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        nap();
    }
}

/// Whether the kernel tells how a process has ended to those who are not its parent.
fn kernel_tells() -> bool {
    match fork().expect("a process can be forked") {
        Forked::Child => exit_now(7),
        Forked::Parent(child) => {
            let pidfd = PidFd::open(child).expect("a descriptor is left");
            until(|| pidfd.try_wait().expect("our own child can be waited for").is_some());
            pidfd.outcome() == Some(ExitStatus::Code(7))
        }
    }
}

/// Whether there are process descriptors.
fn sees() -> bool {
    PidFd::open(billiard::sys::pid()).is_ok_and(|own| own.descriptor().is_some())
}

// --- the scenes ---

fn children_end_as_they_end() {
    let (zygote, process) = zygote();
    for code in [0, 1, 7, 155, 255] {
        let child = start(&zygote, &[b'e', code]).expect("a child can be started");
        assert_eq!(ended(&child), ExitStatus::Code(i32::from(code)));
        // KERNEL: without pidfd the zygote looks so rarely that the kernel may have told before, and it tells less.
        assert!(!sees() || child.peak_rss_kib().is_some_and(|kib| kib > 0));
    }
    for signal in [9, 15, 6] {
        let child = start(&zygote, &[b'k', signal]).expect("a child can be started");
        assert_eq!(ended(&child), ExitStatus::Signal(i32::from(signal)));
    }
    // Ended before anybody looks, and out of order.
    let children: Vec<_> =
        (0..50).map(|code| start(&zygote, &[b'e', code]).expect("a child can be started")).collect();
    for (code, child) in children.iter().enumerate().rev() {
        assert_eq!(ended(child), ExitStatus::Code(i32::try_from(code).expect("a small number")));
        assert_eq!(child.poll().expect("an ended child answers"), Some(ended(child)));
    }
    drop(children);
    drop(zygote);
    assert_eq!(ended(&process), ExitStatus::Code(0));
}

fn descriptors_and_data_arrive() {
    let (zygote, _process) = zygote();
    for len in [3, 1000, 32 * 1024, 32 * 1024 + 1, 5_000_000] {
        let data = vec![3; len];
        let (r, w) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("descriptors are left");
        let child = started(&zygote, &data, &[w.as_fd()]).expect("a child can be started");
        drop(w);
        let mut told = [0; 64];
        let n = rustix::io::read(&r, &mut told).expect("the pipe can be read");
        assert_eq!(std::str::from_utf8(&told[..n]), Ok(format!("{len} {}", 3 * len).as_str()));
        assert_eq!(ended(&child), ExitStatus::Code(0));
        assert_eq!(rustix::io::read(&r, &mut told), Ok(0), "nobody else holds the other end");
    }
    let many = vec![rustix::stdio::stdin(); 253];
    assert!(matches!(zygote.start(b"x", &many), Err(ZygoteError::TooManyDescriptors(253))));
    // With the data, too, beside them.
    let most = started(&zygote, &vec![0; 40_000], &many[1..]).expect("a child can be started");
    ended(&most);
}

fn signals_hit_the_child() {
    let (zygote, _process) = zygote();
    for signal in [2, 9, 15] {
        let child = start(&zygote, b"sleep").expect("a child can be started");
        assert_eq!(child.poll().expect("a child answers"), None);
        assert_eq!(child.wait(Deadline::At(now()), None).expect("a child answers"), Waited::TimedOut);
        child.signal(signal).expect("a child can be signalled");
        assert_eq!(ended(&child), ExitStatus::Signal(signal));
    }
}

fn many_threads_ask_at_once() {
    let (zygote, _process) = zygote();
    let sleepers: Vec<_> =
        (0..4).map(|_| start(&zygote, b"sleep").expect("a child can be started")).collect();
    let threads: Vec<_> = (0..4u8)
        .map(|number| {
            let zygote = Arc::clone(&zygote);
            let (r, w) = rustix::pipe::pipe().expect("descriptors are left");
            thread::spawn("asks", 256 * 1024, move || {
                for round in 0..40 {
                    let child = start(&zygote, &[b'e', number * 50 + round]).expect("a child can be started");
                    assert_eq!(ended(&child), ExitStatus::Code(i32::from(number * 50 + round)));
                }
                let _ = rustix::io::write(&w, b"!");
            })
            .expect("a thread can be started");
            r
        })
        .collect();
    for done in threads {
        assert_eq!(rustix::io::read(&done, &mut [0; 1]), Ok(1), "a thread has failed");
    }
    for sleeper in &sleepers {
        assert_eq!(sleeper.poll().expect("a child answers"), None);
        sleeper.signal(9).expect("a child can be signalled");
        assert_eq!(ended(sleeper), ExitStatus::Signal(9));
    }
}

fn an_abandoned_child_is_killed() {
    let (zygote, process) = zygote();
    // It cannot answer for now.
    process.signal(19).expect("a child can be stopped");
    let mut start_ = zygote.start(b"sleep", &[]).expect("a start can be prepared");
    let soon = Deadline::from_seconds(Some(0.02));
    assert!(matches!(start_.step(soon, None), Ok(Progress::TimedOut)));
    drop(start_);
    process.signal(18).expect("a child can be continued");
    // Later requests are answered later: by now the other child is there, and unwanted.
    let child = start(&zygote, &[b'e', 3]).expect("a child can be started");
    assert_eq!(ended(&child), ExitStatus::Code(3));
    // Nobody has to look for it: the request was called off before the zygote had begun with it.
    let children = format!("/proc/{0}/task/{0}/children", process.pid());
    until(|| std::fs::read_to_string(&children).expect("the zygote lives").trim().is_empty());
}

/// The thread whose answer another one has read must be woken, even if nothing more is said by anybody.
fn silent_children_are_told_of() {
    let (zygote, _process) = zygote();
    for _ in 0..80 {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let zygote = Arc::clone(&zygote);
                let (r, w) = rustix::pipe::pipe().expect("descriptors are left");
                let asks = move || {
                    let child = start(&zygote, b"sleep").expect("a child can be started");
                    let _ = rustix::io::write(&w, b"!");
                    // The end of a child would wake everybody, so it lives until all have their answer.
                    let _ = poll::readable(&[], Deadline::from_seconds(Some(0.05)), None);
                    child.signal(9).expect("a child can be signalled");
                };
                (r, thread::spawn("asks", 256 * 1024, asks).expect("a thread can be started"))
            })
            .collect();
        for (answered, thread) in threads {
            let soon = Deadline::from_seconds(Some(20.0));
            assert_eq!(poll::readable(&[answered.as_fd()], soon, None).expect("a pipe"), poll::Woken::Ready);
            assert_eq!(rustix::io::read(&answered, &mut [0; 1]), Ok(1));
            thread.join().expect("it has done its work");
        }
    }
}

fn a_stopped_zygote_withholds_no_end() {
    let (zygote, process) = zygote();
    let child = start(&zygote, b"sleep").expect("a child can be started");
    process.signal(19).expect("a child can be stopped");
    child.signal(9).expect("a child can be signalled");
    assert_eq!(ended(&child), ExitStatus::Signal(9));
    process.signal(9).expect("a child can be killed");
    assert_eq!(ended(&process), ExitStatus::Signal(9));
}

fn the_end_of_the_zygote_ends_no_child() {
    let tells = kernel_tells();
    let (zygote, process) = zygote();
    let child = start(&zygote, b"sleep").expect("a child can be started");
    process.signal(9).expect("a child can be killed");
    assert_eq!(ended(&process), ExitStatus::Signal(9));
    until(|| zygote.is_gone());
    assert!(matches!(start(&zygote, &[b'e', 0]), Err(ZygoteError::Gone)));
    assert_eq!(child.poll().expect("a child answers"), None);
    child.signal(15).expect("a child can be signalled");
    let status = ended(&child);
    assert!(status == ExitStatus::Signal(15) || (!tells && status == ExitStatus::Unknown), "{status:?}");
}

fn the_zygote_leaves_with_its_owner() {
    let (r, w) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("descriptors are left");
    match fork().expect("a process can be forked") {
        Forked::Child => {
            // A copy of the owner's end of the socket stays open elsewhere: the end of the owner alone must do.
            let (zygote, process) = zygote();
            let Ok(Forked::Parent(copy)) = fork() else {
                let _ = poll::readable(&[], Deadline::Never, None);
                exit_now(0);
            };
            let told = [process.pid().to_ne_bytes(), copy.to_ne_bytes()].concat();
            let _ = rustix::io::write(&w, &told);
            raise(9);
            drop(zygote);
        }
        Forked::Parent(owner) => {
            let owner = Child::adopt(owner).expect("a child can be watched");
            let mut told = [0; 8];
            assert_eq!(rustix::io::read(&r, &mut told), Ok(8));
            let number = |at: usize| i32::from_ne_bytes([told[at], told[at + 1], told[at + 2], told[at + 3]]);
            assert_eq!(ended(&owner), ExitStatus::Signal(9));
            let zygote = PidFd::open(number(0));
            until(|| zygote.as_ref().map_or(true, |zygote| zygote.has_ended().unwrap_or(true)));
            PidFd::open(number(4))
                .and_then(|copy| copy.signal(9).map_err(std::io::Error::other))
                .expect("it lives");
        }
    }
}

fn a_forked_copy_is_refused() {
    let (zygote, _process) = zygote();
    let child = start(&zygote, b"sleep").expect("a child can be started");
    match fork().expect("a process can be forked") {
        Forked::Child => {
            let refused = matches!(start(&zygote, &[b'e', 0]), Err(ZygoteError::WrongProcess));
            let silent = matches!(child.poll(), Ok(None)) && child.signal(9).is_err();
            drop(child);
            drop(zygote);
            exit_now(i32::from(!(refused && silent)));
        }
        Forked::Parent(copy) => {
            let copy = Child::adopt(copy).expect("a child can be watched");
            assert_eq!(ended(&copy), ExitStatus::Code(0));
        }
    }
    assert_eq!(child.poll().expect("a child answers"), None);
    child.signal(9).expect("a child can be signalled");
    assert_eq!(ended(&child), ExitStatus::Signal(9));
}

fn one_that_is_sent_away_leaves_its_children() {
    let tells = kernel_tells();
    let (zygote, process) = zygote();
    let child = start(&zygote, b"sleep").expect("a child can be started");
    zygote.dismiss();
    assert_eq!(ended(&process), ExitStatus::Code(0));
    assert!(matches!(start(&zygote, &[b'e', 0]), Err(ZygoteError::Gone)));
    assert_eq!(child.poll().expect("a child answers"), None);
    child.signal(9).expect("a child can be signalled");
    let status = ended(&child);
    assert!(status == ExitStatus::Signal(9) || (!tells && status == ExitStatus::Unknown), "{status:?}");
}

fn something_is_loaded() {
    let (zygote, _process) = zygote();
    let mut load = zygote.load(b"everything").expect("a request can be made");
    assert!(matches!(load.step(Deadline::Never, None), Ok(Progress::Done(None))));
    let much = b"everything".repeat(10_000);
    let mut load = zygote.load(&much).expect("a request can be made");
    assert!(matches!(load.step(Deadline::Never, None), Ok(Progress::Done(None))));
}

fn a_child_that_cannot_be_watched_is_no_child() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let sees = sees();
    let (zygote, process) = zygote();
    let few = Rlimit { current: Some(64), maximum: Some(64) };
    setrlimit(Resource::Nofile, few).expect("a limit can be lowered");
    let mut all = Vec::new();
    while let Ok(copy) = rustix::io::dup(rustix::stdio::stdin()) {
        all.push(copy);
    }
    match start(&zygote, b"sleep") {
        Err(ZygoteError::Os { source, .. }) if sees => assert_eq!(source.raw_os_error(), Some(24)),
        // KERNEL: without process descriptors there is none that could be missing.
        Ok(child) if !sees => child.signal(9).expect("a child can be signalled"),
        other => unreachable!("{other:?}"),
    }
    drop(all);
    let children = format!("/proc/{0}/task/{0}/children", process.pid());
    until(|| std::fs::read_to_string(&children).expect("the zygote lives").trim().is_empty());
    assert_eq!(ended(&start(&zygote, &[b'e', 5]).expect("there is room again")), ExitStatus::Code(5));
}

/// Every child dies before it can introduce itself.
fn killed_at_unintroduced() {
    let (zygote, process) = zygote();
    for number in 0..6 {
        assert!(matches!(start(&zygote, &[b'e', number]), Err(ZygoteError::Stillborn)));
    }
    drop(zygote);
    assert_eq!(ended(&process), ExitStatus::Code(0));
}

/// The zygote dies right after its third fork, before it has taken charge of the child.
fn killed_at_forked() {
    let tells = kernel_tells();
    let (zygote, process) = zygote();
    for number in 0..3 {
        let child = start(&zygote, &[b'e', number]).expect("a child that was forked introduces itself");
        let status = ended(&child);
        let known = status == ExitStatus::Code(i32::from(number));
        assert!(known || (number == 2 && !tells && status == ExitStatus::Unknown), "{status:?}");
    }
    assert_eq!(ended(&process), ExitStatus::Signal(9));
    assert!(matches!(start(&zygote, &[b'e', 0]), Err(ZygoteError::Gone)));
}
