//! Processes that are killed in the middle of what they do with a lock, a semaphore, a condition, an event or a barrier, one
//! place after the other. Whoever is left goes on.
//!
//! This program has its own `main`: processes are forked while it has a single thread. Each place is tried in a process of
//! its own, with the environment that arms it. What arms the children arms their parent too, so it passes each place less
//! often than kills.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::panic,
    reason = "a test program of its own talks to who runs it"
)]

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

mod runner;

use billiard::sync::{Acquired, Arrival, Barrier, BarrierState, Condition, Event, Lock, Semaphore};
use billiard::sys::{Deadline, ExitStatus, Forked, PidFd, Wait, exit_now, fork, poll};

/// Longer than anything here takes, unless it hangs.
const PATIENCE: f64 = 20.0;
/// What is promised is [`PROMPT`]; the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(3);
/// So long it takes at most, in most of several rounds, until those who sleep notice that somebody was killed.
const PROMPT: Duration = Duration::from_millis(100);
const ROUNDS: usize = 5;

type Scenario = fn();

/// The place, how often it is passed by those who are killed there, and what they do.
const PLACES: [(&str, u32, Scenario); 28] = [
    ("lock.taken", 5, contended_lock),
    ("lock.releasing", 5, contended_lock),
    ("lock.released", 5, contended_lock),
    ("lock.woken", 5, contended_lock),
    ("lock.inheriting", 2, inherited_lock),
    ("lock.inherited", 2, inherited_lock),
    ("semaphore.noted", 5, contended_semaphore),
    ("semaphore.taken", 5, contended_semaphore),
    ("semaphore.woken", 5, contended_semaphore),
    ("semaphore.released", 5, contended_semaphore),
    ("semaphore.waking", 5, contended_semaphore),
    ("condition.entered", 5, condition),
    ("condition.taking", 5, condition),
    ("condition.taken", 5, condition),
    ("condition.granted", 5, condition),
    ("event.set", 5, event),
    ("barrier.noted", 5, barrier),
    ("barrier.arrived", 5, barrier),
    ("barrier.opening", 5, barrier),
    ("barrier.changed", 5, barrier),
    ("nothing", 1, holder_and_watcher_at_once),
    ("lock.released", 1, lock_of_sleepers),
    ("watch.taken", 1, watchers),
    ("watch.left", 1, watchers),
    ("semaphore.released", 1, semaphore_of_sleepers),
    ("condition.granted", 1, condition_of_sleepers),
    ("event.set", 1, event_of_sleepers),
    ("barrier.opening", 1, barrier_of_sleepers),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = args.iter().position(|a| a == "--place") {
        let (_, _, scenario) =
            PLACES.iter().find(|(name, n, _)| test(name, *n) == args[at + 1]).expect("known");
        scenario();
        return ExitCode::SUCCESS;
    }
    let mut tests: Vec<runner::Test<'_>> = Vec::new();
    for (name, times, _) in PLACES {
        tests.push((test(name, times), Box::new(move || alone(name, times))));
    }
    runner::run(&tests)
}

/// Runs one place in a process of its own.
fn alone(name: &str, times: u32) -> bool {
    let program = std::env::current_exe().expect("a running program has a path");
    Command::new(program)
        .args(["--place", &test(name, times)])
        .env("BILLIARD_FAILPOINT", format!("{name}:{times}"))
        .status()
        .expect("a process can be started")
        .success()
}

/// Those who are killed at once leave others asleep who have slept for long.
fn test(name: &str, times: u32) -> String {
    let kind = if times == 1 { "sleepers_are_told_of_a_death" } else { "one_killed" };
    format!("{kind}_at_{}", name.replace('.', "_"))
}

fn patience() -> Deadline {
    Deadline::from_seconds(Some(PATIENCE))
}

fn child(body: impl FnOnce() -> bool) -> PidFd {
    match fork().expect("a process can be forked") {
        Forked::Child => exit_now(i32::from(!body())),
        Forked::Parent(pid) => PidFd::open(pid).expect("a child has a descriptor"),
    }
}

/// Waits for children; each is killed at the place, or does what it should. Answers how many were killed.
fn ended(children: Vec<PidFd>) -> usize {
    let killed = children.into_iter().filter(|child| {
        let fd = child.descriptor().expect("this kernel has process descriptors");
        let woken = poll::readable(&[fd], patience(), None).expect("a descriptor can be waited for");
        assert_eq!(woken, poll::Woken::Ready, "a process hangs");
        match child.wait().expect("a child can be waited for").expect("it has ended").status {
            ExitStatus::Signal(9) => true,
            ExitStatus::Code(0) => false,
            other => panic!("{other:?}"),
        }
    });
    killed.count()
}

fn takes(lock: &Lock) -> Option<Acquired> {
    match lock.acquire(patience()) {
        Ok(Wait::Ready(acquired)) => Some(acquired),
        other => {
            eprintln!("{other:?}");
            None
        }
    }
}

fn nap() {
    let _ = poll::readable(&[], Deadline::from_seconds(Some(0.002)), None);
}

fn contended_lock() {
    let lock = Lock::new().expect("a lock");
    let children = (0..3).map(|_| {
        child(|| {
            (0..100).all(|_| {
                let taken = takes(&lock).is_some();
                // Somebody else comes and has to wait.
                nap();
                taken && lock.release().is_ok()
            })
        })
    });
    let children: Vec<_> = children.collect();
    assert!(ended(children) > 0, "nobody was killed");
    let start = Instant::now();
    assert!(takes(&lock).is_some());
    assert!(start.elapsed() < SOON, "it took {:?}", start.elapsed());
    assert!(lock.release().is_ok());
}

fn inherited_lock() {
    let lock = Lock::new().expect("a lock");
    let heir = child(|| {
        (0..3).all(|_| {
            let holder = child(|| takes(&lock).is_some());
            ended(vec![holder]) == 0
                && matches!(takes(&lock), Some(Acquired::Abandoned { .. }))
                && lock.release().is_ok()
        })
    });
    assert_eq!(ended(vec![heir]), 1);
    let start = Instant::now();
    assert!(matches!(takes(&lock), Some(Acquired::Abandoned { .. })));
    assert!(start.elapsed() < SOON);
    assert!(lock.abandoned_by().is_some());
}

fn contended_semaphore() {
    let semaphore = Semaphore::new(2, 2).expect("a semaphore");
    let children: Vec<_> = (0..4)
        .map(|_| {
            child(|| {
                (0..40).all(|_| {
                    // Once two are dead with what they have taken, there is nothing left to take.
                    let acquired = semaphore.acquire(Deadline::from_seconds(Some(0.5)));
                    if matches!(acquired, Ok(Wait::TimedOut)) {
                        return semaphore.abandoned() >= 1;
                    }
                    nap();
                    matches!(acquired, Ok(Wait::Ready(()))) && semaphore.release().is_ok()
                })
            })
        })
        .collect();
    assert!(ended(children) > 0, "nobody was killed");
    // What is missing is known to be so; what is said to be missing may have been just about to be taken, or to be noted.
    let (value, abandoned) = (u64::from(semaphore.value()), semaphore.abandoned());
    assert!(value + abandoned >= 2, "{value} are there, {abandoned} are said to be lost");
    while semaphore.value() < 2 {
        assert!(semaphore.release().is_ok());
    }
    assert!(semaphore.try_acquire());
}

fn waits(condition: &Condition, lock: &Lock, deadline: Deadline) -> bool {
    let ticket = condition.enter();
    let released = lock.release().is_ok();
    let served = matches!(condition.sleep(&ticket, deadline, Some(lock)), Ok(Wait::Ready(())));
    let back = matches!(lock.acquire_returning(patience()), Ok(Wait::Ready(_)));
    condition.leave(&ticket, served) && released && back
}

fn condition() {
    let lock = Lock::new().expect("a lock");
    let condition = Condition::new().expect("a condition");
    let waiter = |times: u32| {
        (0..times).all(|_| {
            let taken = takes(&lock).is_some();
            waits(&condition, &lock, Deadline::from_seconds(Some(0.3)));
            taken && lock.release().is_ok()
        })
    };
    let notifier = || {
        (0..60).all(|_| {
            let taken = takes(&lock).is_some();
            condition.notify(1, Some(&lock));
            nap();
            taken && lock.release().is_ok()
        })
    };
    let mut children: Vec<_> = (0..2).map(|_| child(|| waiter(20))).collect();
    children.push(child(notifier));
    assert!(ended(children) > 0, "nobody was killed");
    assert!(condition.sleepers() <= 2, "only those who were counted and not noted yet may be left");
    // One who lives is notified, whoever is still counted.
    let told = Event::new().expect("an event");
    let survivor = child(|| {
        let served = takes(&lock).is_some() && {
            told.set();
            waits(&condition, &lock, patience())
        };
        lock.release().is_ok() && served
    });
    assert!(matches!(told.wait(patience()), Ok(Wait::Ready(()))));
    let start = Instant::now();
    assert!(takes(&lock).is_some());
    condition.notify(1, Some(&lock));
    assert!(lock.release().is_ok());
    assert_eq!(ended(vec![survivor]), 0);
    assert!(start.elapsed() < SOON, "it took {:?}", start.elapsed());
}

fn event() {
    let event = Event::new().expect("an event");
    let waiter = child(|| matches!(event.wait(patience()), Ok(Wait::Ready(()))));
    let setter = child(|| {
        for _ in 0..4 {
            event.clear();
            event.set();
        }
        nap();
        event.clear();
        nap();
        event.set();
        false
    });
    assert_eq!(ended(vec![setter]), 1);
    assert_eq!(ended(vec![waiter]), 0);
    assert!(event.is_set());
}

/// Passes a barrier of two. `None`: it is broken.
fn passes(barrier: &Barrier) -> Option<u32> {
    loop {
        match barrier.arrive(2) {
            Arrival::Broken => return None,
            Arrival::Later(seen) => drop(barrier.wait_for_turn(seen, patience())),
            Arrival::Last(index) => return barrier.open().then_some(index),
            Arrival::Waits { index, round } => {
                let waited = barrier.wait(round, patience());
                return matches!(waited, Ok(Wait::Ready(true))).then_some(index);
            }
        }
    }
}

fn barrier() {
    let barrier = Barrier::new(2).expect("a barrier");
    let party = |times: u32| {
        // Once it is broken there is nothing left to pass.
        child(|| (0..times).all(|_| passes(&barrier).is_some()) || barrier.state() == BarrierState::Broken)
    };
    let start = Instant::now();
    let killed = ended(vec![party(30), party(30)]);
    assert!(killed > 0, "nobody was killed");
    assert!(start.elapsed() < SOON, "it took {:?}", start.elapsed());
    barrier.reset();
    // Nobody of the dead is counted any more, or it breaks once more as they are found.
    for _ in 0..2 {
        assert_eq!(ended(vec![party(2), party(2)]), 0);
        barrier.reset();
    }
    assert_eq!(barrier.waiting(), 0);
}

/// Has somebody killed while others sleep, again and again, and measures how long it takes until they notice.
fn noticed(round: impl FnMut() -> Duration) {
    let mut times: Vec<_> = std::iter::repeat_with(round).take(ROUNDS).collect();
    times.sort();
    assert!(times[ROUNDS / 2] < PROMPT && times[ROUNDS - 1] < SOON, "it took {times:?}");
}

/// Until those who wait have slept for so long that they do not look for themselves any more.
fn until_they_sleep() {
    let _ = poll::readable(&[], Deadline::from_seconds(Some(0.12)), None);
}

/// How long the sleepers sleep on after all victims are dead.
fn sleep_on(sleepers: Vec<PidFd>, victims: Vec<PidFd>) -> Duration {
    let count = victims.len();
    assert_eq!(ended(victims), count, "not all were killed");
    let start = Instant::now();
    assert_eq!(ended(sleepers), 0);
    start.elapsed()
}

fn holder_and_watcher_at_once() {
    noticed(|| {
        let (lock, taken) = (Lock::new().expect("a lock"), Event::new().expect("an event"));
        let holder = child(|| {
            let _ = takes(&lock);
            taken.set();
            poll::readable(&[], patience(), None).is_ok()
        });
        assert!(matches!(taken.wait(patience()), Ok(Wait::Ready(()))));
        // The first to come keeps watch, then the second.
        let mut waiters: Vec<_> = (0..3).map(|_| child(|| takes(&lock).is_some())).collect();
        until_they_sleep();
        let survivor = waiters.pop().expect("there are three");
        waiters.push(holder);
        for victim in &waiters {
            victim.signal(9).expect("it runs");
        }
        sleep_on(vec![survivor], waiters)
    });
}

fn lock_of_sleepers() {
    noticed(|| {
        let (lock, taken) = (Lock::new().expect("a lock"), Event::new().expect("an event"));
        let victim = child(|| {
            let _ = takes(&lock);
            taken.set();
            until_they_sleep();
            until_they_sleep();
            lock.release().is_ok()
        });
        assert!(matches!(taken.wait(patience()), Ok(Wait::Ready(()))));
        // It ends with the lock, as it would be killed when it releases it.
        let sleeper = child(|| takes(&lock).is_some());
        sleep_on(vec![sleeper], vec![victim])
    });
}

/// Whoever takes the watch over, or hands it over, is killed: all others notice, one after the other.
fn watchers() {
    noticed(|| {
        let (lock, taken) = (Lock::new().expect("a lock"), Event::new().expect("an event"));
        let holder = child(|| {
            let _ = takes(&lock);
            taken.set();
            until_they_sleep();
            true
        });
        assert!(matches!(taken.wait(patience()), Ok(Wait::Ready(()))));
        let waiters: Vec<_> = (0..4).map(|_| child(|| takes(&lock).is_some())).collect();
        assert_eq!(ended(vec![holder]), 0);
        let start = Instant::now();
        let killed = ended(waiters);
        assert!(killed > 0, "nobody was killed");
        // Not by waiting, where this process would be killed as well.
        while lock.try_acquire().is_none() && start.elapsed() < SOON {
            nap();
        }
        // For each of them it may take that long.
        start.elapsed() / u32::try_from(killed + 1).expect("a few")
    });
}

fn semaphore_of_sleepers() {
    noticed(|| {
        let semaphore = Semaphore::new(0, 9).expect("a semaphore");
        let acquires = || matches!(semaphore.acquire(patience()), Ok(Wait::Ready(())));
        let sleepers = vec![child(acquires), child(acquires)];
        until_they_sleep();
        let victim = || child(|| semaphore.release().is_ok());
        sleep_on(sleepers, vec![victim(), victim()])
    });
}

fn condition_of_sleepers() {
    noticed(|| {
        let lock = Lock::new().expect("a lock");
        let condition = Condition::new().expect("a condition");
        let sleeps =
            || takes(&lock).is_some() && waits(&condition, &lock, patience()) && lock.release().is_ok();
        let sleepers = vec![child(sleeps), child(sleeps), child(sleeps)];
        until_they_sleep();
        let victim = child(|| {
            let taken = takes(&lock).is_some();
            condition.notify(3, Some(&lock));
            taken
        });
        sleep_on(sleepers, vec![victim])
    });
}

fn event_of_sleepers() {
    noticed(|| {
        let event = Event::new().expect("an event");
        let sleeps = || matches!(event.wait(patience()), Ok(Wait::Ready(())));
        let sleepers = vec![child(sleeps), child(sleeps), child(sleeps)];
        until_they_sleep();
        let victim = child(|| {
            event.set();
            true
        });
        sleep_on(sleepers, vec![victim])
    });
}

fn barrier_of_sleepers() {
    noticed(|| {
        let barrier = Barrier::new(3).expect("a barrier");
        let sleeps = || match barrier.arrive(3) {
            Arrival::Waits { round, .. } => matches!(barrier.wait(round, patience()), Ok(Wait::Ready(_))),
            _ => false,
        };
        let sleepers = vec![child(sleeps), child(sleeps)];
        until_they_sleep();
        let victim = child(|| matches!(barrier.arrive(3), Arrival::Last(_)) && barrier.open());
        sleep_on(sleepers, vec![victim])
    });
}
