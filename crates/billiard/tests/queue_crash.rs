//! Processes that are killed while they put into a queue, get from it, sleep or wake others: one place after the other, and at
//! random. The others go on; nothing is torn, got twice, or lost, except what somebody had got who was killed before
//! it could tell.
//!
//! This program has its own `main`: it runs itself again, in the roles of those who put and those who get.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::panic,
    reason = "a test program of its own talks to who runs it"
)]

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, ExitCode};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

mod runner;

use billiard::arena::Mapping;
use billiard::queue::{Got, Message, Messages, Put, Queue};
use billiard::sys::descriptor::claim;
use billiard::sys::{Deadline, Forked, PidFd, exit_now, fork, memfd, now, pid};

/// Where a process can be killed, and whether it may have got a message by then that it has not told of.
const PLACES: [(&str, bool); 19] = [
    ("queue_put_locked", false),
    ("queue_segment_taken", false),
    ("queue_reserved", false),
    ("queue_lent_to_write", false),
    ("queue_half_written", false),
    ("queue_placed", false),
    ("queue_put", false),
    ("queue_get_locked", false),
    ("queue_copied", false),
    ("queue_got", true),
    ("queue_taken", true),
    // Of those who put and of those who get.
    ("queue_owns_watch", false),
    ("queue_committed", true),
    ("queue_quiet", true),
    ("queue_armed", false),
    ("queue_up", false),
    ("queue_on_duty", false),
    ("queue_passing_on", true),
    ("none", false),
];
/// Where a process can be killed that uses messages where they lie, or gives memory back.
const KEEPERS_PLACES: [&str; 6] =
    ["queue_window_open", "window_private", "queue_given_back", "queue_cold_taken", "queue_cooling", "none"];
/// A victim dies when it passes the place for this time.
const TIMES: [u32; 3] = [1, 2, 20];
const PATIENCE: Duration = Duration::from_secs(60);
const EACH: u32 = 300;
const KILLS: u32 = 1000;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "--role") {
        play(&args[1], &args[2], args[3].parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    let mut tests: Vec<runner::Test<'_>> = Vec::new();
    for (place, costs) in PLACES {
        for (kind, most) in [("bounded", Some(3)), ("unbounded", None)] {
            let body = move || {
                TIMES.iter().for_each(|times| try_place(place, *times, costs, most));
                true
            };
            tests.push((format!("killed_at_{place}_{kind}"), Box::new(body)));
        }
    }
    tests.push((
        "killed_at_random_unbounded".into(),
        Box::new(|| {
            kill_at_random(None);
            true
        }),
    ));
    tests.push((
        "killed_at_random_bounded".into(),
        Box::new(|| {
            kill_at_random(Some(4));
            true
        }),
    ));
    for place in KEEPERS_PLACES {
        let body = move || {
            [1, 2].iter().for_each(|times| killed_keeper(place, *times));
            true
        };
        tests.push((format!("a_keeper_killed_at_{place}"), Box::new(body)));
    }
    tests.push((
        "deaths_in_a_row_wake_whoever_is_left".into(),
        Box::new(|| {
            deaths_in_a_row();
            true
        }),
    ));
    runner::run(&tests)
}

fn soon() -> Deadline {
    Deadline::At(now().after(PATIENCE))
}

fn nap(seconds: f64) {
    let _ = billiard::sys::poll::readable(&[], Deadline::from_seconds(Some(seconds)), None);
}

/// Numbers that look random, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Message `n` of producer `who`: its head, and a body that tells whether it is torn.
fn message(who: u32, n: u32) -> Vec<u8> {
    // Now and then one that needs segments of its own.
    let len = if n % 50 == 49 { 150_000 } else { (n as usize * 37) % 3000 };
    let mut bytes = vec![(who ^ n) as u8; 8 + len];
    bytes[..4].copy_from_slice(&who.to_ne_bytes());
    bytes[4..8].copy_from_slice(&n.to_ne_bytes());
    bytes
}

/// What the players share besides the queue: how much each producer has put for sure, and who has got what.
struct Stage {
    queue: Queue,
    put: OwnedFd,
    map: Mapping,
    log: File,
}

const PRODUCERS: usize = 8192;

impl Stage {
    fn new(most: Option<u32>) -> Self {
        let put = memfd::create(PRODUCERS as u64 * 4, PRODUCERS as u64 * 4).expect("shared memory");
        let path = std::env::temp_dir().join(format!("billiard-queue-crash-{}", pid()));
        let mut options = OpenOptions::new();
        let log = options.create_new(true).read(true).append(true).open(&path).expect("a folder for files");
        std::fs::remove_file(path).expect("our own file can be removed");
        let queue = Queue::new(most).expect("a queue");
        Self { queue, map: Mapping::new(&put, 0, PRODUCERS * 4).expect("a mapping"), put, log }
    }

    fn start(&self, role: &str, who: u32, doom: Option<(&str, u32)>) -> Child {
        let [queue, bell] = self.queue.shared();
        let fds = [queue, bell, self.put.as_fd(), self.log.as_fd()];
        for fd in fds {
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).expect("an open descriptor");
        }
        let fds = fds.map(|fd| fd.as_raw_fd().to_string()).join(",");
        let program = std::env::current_exe().expect("a running program has a path");
        let mut command = Command::new(program);
        command.args(["--role", role, &fds, &who.to_string()]);
        if let Some((place, times)) = doom {
            command.env("BILLIARD_FAILPOINT", format!("{place}:{times}"));
        }
        command.spawn().expect("a process can be started")
    }

    /// Has the consumers leave who are left. One may take the word that was meant for two.
    fn finish(&self, mut consumers: Vec<&mut Child>, what: &str) {
        let end = soon();
        while consumers.iter_mut().any(|consumer| matches!(consumer.try_wait(), Ok(None))) {
            assert!(!end.passed(), "{what}: a consumer hangs");
            if self.queue.is_empty() {
                assert_eq!(self.queue.put(&[b""], soon()).expect("a sound queue"), Put::Done(1), "{what}");
            }
            nap(0.001);
        }
    }

    /// Everything that was got, checked against what was put. At most `lost` messages may be missing.
    fn check(&mut self, lost: usize, what: &str) {
        let mut text = String::new();
        self.log.rewind().expect("a file can be rewound");
        self.log.read_to_string(&mut text).expect("the log is text");
        let mut got = HashSet::new();
        let mut last = HashMap::new();
        for line in text.lines() {
            let numbers: Vec<u32> = line.split(' ').map(|word| word.parse().expect("a number")).collect();
            let [consumer, who, n] = numbers[..] else { panic!("{what}: torn line {line:?}") };
            assert!(got.insert((who, n)), "{what}: message {n} of {who} was got twice");
            let before = last.insert((consumer, who), n);
            assert!(
                before.is_none_or(|before| before < n),
                "{what}: {n} of {who} was overtaken by {before:?}"
            );
        }
        let mut missing = Vec::new();
        for who in 0..PRODUCERS as u32 {
            let put = self.map.word32(who as usize * 4).load(SeqCst);
            missing.extend((0..put).filter(|n| !got.contains(&(who, *n))).map(|n| (who, n)));
        }
        assert!(missing.len() <= lost, "{what}: {missing:?} are lost, at most {lost} may be");
    }
}

impl Stage {
    /// What the dead had on loan goes back as soon as somebody looks, and what was kept for others after a second.
    fn check_memory(&self, what: &str) {
        const WARM: u64 = 4 << 20;
        const CONTROL: u64 = 128 << 10;
        nap(1.1);
        let mut messages = Messages::default();
        self.queue.put(&[b"sweep"], soon()).expect("a sound queue");
        self.queue.get(usize::MAX, &mut messages, soon()).expect("a sound queue");
        let used = rustix::fs::fstat(self.queue.shared()[0]).expect("an open file").st_blocks as u64 * 512;
        assert!(used <= WARM + CONTROL, "{what}: {used} bytes are left");
    }
}

fn play(role: &str, fds: &str, who: u32) {
    let mut fds =
        fds.split(',').map(|fd| claim(fd.parse().expect("a number")).expect("an inherited descriptor"));
    let mut next = || fds.next().expect("four descriptors");
    let queue = Queue::received([next(), next()]).expect("a queue");
    let map = Mapping::new(next(), 0, PRODUCERS * 4).expect("a mapping");
    let log = File::from(next());
    let mut dice = Dice(u64::from(who) * 7919 + 1);
    if role == "keep" {
        keep(&queue, &map, who);
        return;
    }
    if role == "put" {
        let mut n = 0;
        while n < EACH {
            let end = EACH.min(n + 1 + dice.roll(3) as u32);
            let batch: Vec<_> = (n..end).map(|n| message(who, n)).collect();
            match queue.put(&batch, soon()).expect("a sound queue") {
                Put::Done(count) => n += count as u32,
                other => panic!("producer {who}: {other:?}"),
            }
            map.word32(who as usize * 4).store(n, SeqCst);
            if dice.roll(4) == 0 {
                // So that those who get fall asleep.
                nap(dice.roll(10) as f64 / 10_000.0);
            }
        }
        return;
    }
    loop {
        let mut messages = Messages::default();
        let got = queue.get(1 + dice.roll(4) as usize, &mut messages, soon()).expect("a sound queue");
        assert!(matches!(got, Got::Some(_)), "consumer {who} has got nothing in all that time");
        for bytes in messages.iter() {
            if bytes.is_empty() {
                return;
            }
            let number = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
            let (from, n) = (number(0), number(4));
            assert_eq!(bytes, message(from, n), "a torn message");
            // One write of a line that is appended: never torn.
            (&log).write_all(format!("{who} {from} {n}\n").as_bytes()).expect("the log can be written");
        }
        if dice.roll(50) == 0 {
            nap(0.002);
        }
    }
}

/// Waits for a player. Whether it has played to the end; otherwise it was killed.
fn ended(child: &mut Child, what: &str) -> bool {
    let end = soon();
    loop {
        if let Some(status) = child.try_wait().expect("our own child can be waited for") {
            let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
            assert!(status.success() || killed, "{what}: {status}");
            return status.success();
        }
        if end.passed() {
            let _ = child.kill();
            eprintln!("{what}: a player hangs");
            std::process::abort();
        }
        nap(0.001);
    }
}

fn try_place(place: &str, times: u32, costs: bool, most: Option<u32>) {
    let what = format!("{place}:{times}, {most:?} messages at most");
    let mut stage = Stage::new(most);
    let doom = (place != "none").then_some((place, times));
    // Those who get first, so that they sleep when the first message comes.
    let mut consumers: Vec<_> = (0..5).map(|who| stage.start("get", who, doom.filter(|_| who < 3))).collect();
    nap(0.02);
    let mut producers: Vec<_> = (0..5).map(|who| stage.start("put", who, doom.filter(|_| who < 3))).collect();
    for (who, producer) in producers.iter_mut().enumerate() {
        let whole = ended(producer, &what);
        assert!(whole || who < 3, "{what}: a producer was killed that was not to be");
    }
    stage.finish(consumers.iter_mut().collect(), &what);
    let killed = consumers.iter_mut().filter_map(|consumer| (!ended(consumer, &what)).then_some(())).count();
    assert!(killed <= 3);
    // Each may have got four at once.
    stage.check(if costs { killed * 4 } else { 0 }, &what);
}

/// One who has got up is killed with the duty to wake others, the next before it has done anything, and so on: one is left. It does not
/// look around by itself, so it is woken or never comes.
fn deaths_in_a_row() {
    let stage = Stage::new(None);
    let dooms = [Some("queue_on_duty"), Some("queue_up"), Some("queue_on_duty"), Some("queue_up"), None];
    let mut consumers = Vec::new();
    for (who, doom) in dooms.iter().enumerate() {
        consumers.push(stage.start("get", who as u32, doom.map(|place| (place, 1))));
        // So that they lie down one after the other, and are woken in that order.
        nap(0.1);
    }
    assert_eq!(stage.queue.put(&[b""], soon()).expect("a sound queue"), Put::Done(1));
    for (consumer, doom) in consumers.iter_mut().zip(dooms) {
        assert_eq!(ended(consumer, "deaths in a row"), doom.is_none());
    }
}

/// More than a queue keeps that nobody uses.
const MANY: usize = 40;
const MUCH: usize = 1 << 20;

/// Puts large messages, uses them where they lie, forks meanwhile, and lets go of them, until it is killed or has done it often enough.
fn keep(queue: &Queue, map: &Mapping, who: u32) {
    // The first one is to be killed, the second to find what that has left.
    for round in 0..if who == 0 { 3 } else { 1_u8 } {
        for n in 0..MANY as u8 {
            let put = queue.put(&[vec![round ^ n; MUCH]], soon()).expect("a sound queue");
            assert_eq!(put, Put::Done(1));
        }
        let mut windows = Vec::new();
        while windows.len() < MANY {
            let mut messages = Messages::default();
            queue.take(1, &mut messages, soon()).expect("a sound queue");
            let parcel = messages.each().next();
            let Some(Message::Parcel(parcel)) = parcel else { panic!("keeper {who}: not where it lies") };
            windows.push(parcel.window().expect("not much is kept"));
        }
        if round % 2 == 1 {
            match fork().expect("a process can be forked") {
                Forked::Child => exit_now(0),
                Forked::Parent(pid) => drop(PidFd::open(pid).expect("our child").wait()),
            }
        }
        drop(windows);
        map.word32(who as usize * 4).store(u32::from(round) + 1, SeqCst);
    }
}

/// Whatever it was doing, somebody else goes on with the queue, and nothing of what it had is left.
fn killed_keeper(place: &str, times: u32) {
    let what = format!("keeper, {place}:{times}");
    let stage = Stage::new(None);
    let mut keeper = stage.start("keep", 0, (place != "none").then_some((place, times)));
    assert_eq!(ended(&mut keeper, &what), place == "none", "{what}: it did not come by there");
    // What it has put is still there, and whole.
    let mut messages = Messages::default();
    while !stage.queue.is_empty() {
        messages.clear();
        stage.queue.get(1, &mut messages, soon()).expect("a sound queue");
        let same = messages.bytes.chunks(4096).all(|page| page == &messages.bytes[..4096]);
        assert!(same && messages.bytes.len() == MUCH, "{what}: a torn message");
    }
    stage.check_memory(&what);
    // Nor is anything lost that was there before.
    let mut other = stage.start("keep", 1, None);
    assert!(ended(&mut other, &what), "{what}: the next one was killed");
}

fn kill_at_random(most: Option<u32>) {
    let what = format!("random, {most:?} messages at most");
    let mut stage = Stage::new(most);
    let mut dice = Dice(4711);
    let mut names = 0..;
    let mut start = |role: &'static str| {
        let who = names.next().expect("numbers never end");
        (role, stage.start(role, who, None))
    };
    let mut players: Vec<(&str, Child)> =
        ["put", "get", "put", "get", "put", "get", "put", "get"].map(&mut start).into();
    let mut killed_consumers = 0;
    for _ in 0..KILLS {
        nap(0.001 + dice.roll(40) as f64 / 10_000.0);
        let victim = dice.roll(players.len() as u64) as usize;
        let (role, player) = &mut players[victim];
        let role = *role;
        let _ = player.kill();
        if !ended(player, &what) && role == "get" {
            killed_consumers += 1;
        }
        players[victim] = start(role);
    }
    for (_, player) in players.iter_mut().filter(|(role, _)| *role == "put") {
        assert!(ended(player, &what), "{what}: a producer was killed that was not to be");
    }
    let consumers = players.iter_mut().filter(|(role, _)| *role == "get");
    stage.finish(consumers.map(|(_, player)| player).collect(), &what);
    for (_, player) in players.iter_mut().filter(|(role, _)| *role == "get") {
        assert!(ended(player, &what), "{what}: a consumer was killed that was not to be");
    }
    stage.check(killed_consumers * 4, &what);
    stage.check_memory(&what);
}
