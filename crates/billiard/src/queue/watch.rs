//! Sleeping until what a lock guards changes, so that whoever is killed, and wherever, takes no wake-up with it. See "Who
//! wakes whom" in the README of this room for the states of the words and why they are enough.

use std::io;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::lock::{Held, Locked, Spot, lock, lock_until};
use crate::failpoint;
use crate::primitives::Word;
use crate::sys::Deadline;
use crate::sys::poll::Woken;
use crate::sys::robust::{DIED, OWNER, WAITERS};

/// Of a bed: somebody sleeps, and nobody was told to get up.
const ARMED: u32 = WAITERS;
/// Of a bed: nobody sleeps, or whoever was told to get up will look after the others. Of a duty: nobody has it.
const QUIET: u32 = 0;

/// A watch: the two words that threads sleep on, and about how many do. Those who were killed are counted too.
pub(super) struct Watch<'a, S: Spot, W> {
    /// Armed or quiet. Nobody owns it.
    pub(super) bed: &'a S,
    /// Owned by whoever is about to wake somebody, or has got up.
    pub(super) duty: &'a S,
    pub(super) sleepers: &'a W,
}

impl<S: Spot, W> Clone for Watch<'_, S, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Spot, W> Copy for Watch<'_, S, W> {}

/// The duty of whoever was told to get up: to look after the other sleepers once it has what it came for.
#[must_use]
pub(super) struct Duty<'a, S: Spot, W> {
    watch: Watch<'a, S, W>,
    here: S::Here,
    chain: S::Chain,
}

/// How a rest ended.
pub(super) enum Rest<'a, S: Spot, W> {
    /// It is there, or may be: look again.
    Up(Option<Duty<'a, S, W>>),
    TimedOut,
    Interrupted,
}

/// Whether nobody living has the duty; what a dead one has left there is removed. Whoever calls this is not about to take the
/// duty: killed in the middle, it is to wake somebody for another word, or nobody.
fn is_vacant<S: Spot>(duty: &S) -> bool {
    // Relaxed: the exchange decides.
    let seen = duty.word().load(Relaxed);
    seen & OWNER == 0
        && (seen & DIED == 0 || duty.word().compare_exchange(seen, QUIET, AcqRel, Relaxed).is_ok())
}

/// Takes the duty, which the thread has announced, if nobody has it.
fn try_own<S: Spot>(duty: &S, here: S::Here) -> bool {
    duty.word().compare_exchange(QUIET, S::tid(here) | WAITERS, AcqRel, Relaxed).is_ok()
}

/// Makes a change under the lock that sleepers wait for: `commit` makes it with one store. Of each watch one sleeper, or
/// `most`, gets up.
#[inline]
pub(super) fn publish<S: Spot, W: Word<u32>>(
    held: &Held<'_, S>,
    watches: &[Watch<'_, S, W>],
    most: u32,
    commit: impl FnOnce(),
) {
    // Relaxed: a watch is only armed under the lock, which we hold.
    if !watches.iter().any(|watch| watch.bed.word().load(Relaxed) == ARMED) {
        commit();
        return;
    }
    wake_with(held, watches, most, commit);
}

#[cold]
fn wake_with<S: Spot, W: Word<u32>>(
    held: &Held<'_, S>,
    watches: &[Watch<'_, S, W>],
    most: u32,
    commit: impl FnOnce(),
) {
    let here = held.here;
    let chain = S::chain(here);
    held.spot().keep(here);
    let mut owned = [None; 2];
    // Whoever is killed while it owns a duty wakes a sleeper by that: so the duty is taken before the change is made.
    for (watch, owned) in watches.iter().zip(&mut owned) {
        if watch.bed.word().load(Relaxed) != ARMED {
            continue;
        }
        // Taken by somebody who has just got up: then that one looks after the others, once it gets the lock.
        is_vacant(watch.duty);
        watch.duty.announce(here);
        // Quiet first: when whoever is woken from now on is killed in bed, the kernel wakes the next. Killed here, it wakes one: the
        // duty is announced, and zero.
        watch.bed.word().store(QUIET, Release);
        if try_own(watch.duty, here) {
            *owned = Some(S::chain(here));
            watch.duty.keep(here);
        }
    }
    held.spot().announce(here);
    failpoint::pass("queue_owns_watch");
    commit();
    failpoint::pass("queue_committed");
    for (watch, before) in watches.iter().zip(owned).rev() {
        let Some(before) = before else { continue };
        watch.duty.announce(here);
        // Out of the chain before anybody else can put it into his: its place in the chain lies beside the word.
        S::restore(here, before);
        watch.duty.word().store(QUIET, Release);
        // Killed here, the kernel wakes one: the duty is announced, and zero.
        failpoint::pass("queue_quiet");
        watch.bed.wake(most);
    }
    held.spot().announce(here);
    S::restore(here, chain);
}

/// Sleeps until somebody publishes, unless it is `ready` already. `ready` is asked under the lock.
///
/// # Blocking
/// Until a change, the deadline, or a signal handler.
pub(super) fn rest<'a, S: Spot, W: Word<u32>>(
    guard: &'a S,
    watch: Watch<'a, S, W>,
    here: S::Here,
    spin: bool,
    deadline: Deadline,
    ready: impl FnOnce() -> bool,
) -> io::Result<Rest<'a, S, W>> {
    let held = match lock_until(guard, here, spin, deadline)? {
        Locked::Held(held) => held,
        Locked::TimedOut => return Ok(Rest::TimedOut),
        Locked::Interrupted => return Ok(Rest::Interrupted),
    };
    if ready() {
        return Ok(Rest::Up(None));
    }
    if is_vacant(watch.duty) {
        // Otherwise somebody has just got up, and arms it or wakes us before it leaves.
        watch.bed.word().store(ARMED, Release);
    }
    // Under the lock, so that whoever counts the sleepers under it counts this one.
    watch.sleepers.fetch_add(1, AcqRel);
    let (bed, duty) = (watch.bed.word().load(Acquire), watch.duty.word().load(Acquire));
    failpoint::pass("queue_armed");
    drop(held);
    watch.bed.announce(here);
    let cared_for = bed == ARMED || duty & OWNER != 0;
    let woken =
        if cared_for { watch.bed.sleep_beside(bed, watch.duty, duty, deadline) } else { Ok(Woken::Ready) };
    failpoint::pass("queue_up");
    watch.sleepers.fetch_sub(1, AcqRel);
    let up = match woken {
        Ok(Woken::Ready) => Ok(Rest::Up(take_duty(watch, here))),
        Ok(Woken::TimedOut) => Ok(Rest::TimedOut),
        Ok(Woken::Interrupted) => Ok(Rest::Interrupted),
        Err(error) => Err(error),
    };
    S::retract(here);
    up
}

/// Of somebody who has got up, whose bed is announced: killed while it is quiet, the kernel wakes the next.
fn take_duty<'a, S: Spot, W: Word<u32>>(watch: Watch<'a, S, W>, here: S::Here) -> Option<Duty<'a, S, W>> {
    if watch.bed.word().load(Acquire) == ARMED || !is_vacant(watch.duty) {
        // There was nothing left to get up for, or somebody else has the duty.
        return None;
    }
    // Killed from here on, the kernel finds the duty to be zero, or ours.
    watch.duty.announce(here);
    if !try_own(watch.duty, here) {
        return None;
    }
    let chain = S::chain(here);
    watch.duty.keep(here);
    failpoint::pass("queue_on_duty");
    Some(Duty { watch, here, chain })
}

impl<S: Spot, W: Word<u32>> Duty<'_, S, W> {
    /// Hands the duty on, if there is `more`, or sees to it that the next change wakes somebody.
    pub(super) fn pass_on(self, guard: &S, spin: bool, more: impl FnOnce() -> bool) -> io::Result<()> {
        let Self { watch, here, chain } = self;
        let locked = lock(guard, here, spin);
        if locked.is_ok() {
            guard.keep(here);
        }
        watch.duty.announce(here);
        // Out of the chain before anybody else can put it into his.
        match locked {
            Ok(_) => guard.link(here, chain),
            Err(_) => S::restore(here, chain),
        }
        if locked.is_err() || more() {
            watch.bed.word().store(QUIET, Release);
            watch.duty.word().store(QUIET, Release);
            failpoint::pass("queue_passing_on");
            watch.bed.wake(1);
        } else {
            let left = if watch.sleepers.load(Acquire) > 0 { ARMED } else { QUIET };
            watch.bed.word().store(left, Release);
            watch.duty.word().store(QUIET, Release);
        }
        if locked.is_ok() {
            guard.announce(here);
            S::restore(here, chain);
        } else {
            S::retract(here);
        }
        locked.map(drop)
    }
}

/// Every interleaving of those who publish and those who sleep; loom reports a sleeper whom nobody wakes as a deadlock. See
/// `make loom`.
#[cfg(test)]
#[cfg(loom)]
mod interleavings {
    use loom::sync::atomic::AtomicU32;
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    use super::*;

    /// Who sleeps, and on which words; all in one place, as one sleeper may sleep on two.
    #[derive(Default)]
    struct Kernel {
        beds: Mutex<Beds>,
        changed: Condvar,
    }

    #[derive(Default)]
    struct Beds {
        next: u32,
        /// Each sleeper with the words that it sleeps on.
        asleep: Vec<(u32, [usize; 2])>,
    }

    /// A word to sleep on, as the kernel has it.
    #[derive(Default)]
    struct Word32 {
        word: AtomicU32,
        kernel: Arc<Kernel>,
    }

    impl Word32 {
        fn on(kernel: &Arc<Kernel>) -> Arc<Self> {
            Arc::new(Self { word: AtomicU32::new(0), kernel: Arc::clone(kernel) })
        }

        fn name(&self) -> usize {
            std::ptr::from_ref(self) as usize
        }

        fn wake(&self, most: u32) {
            let mut beds = self.kernel.beds.lock().unwrap();
            for _ in 0..most {
                let Some(at) = beds.asleep.iter().position(|(_, words)| words.contains(&self.name())) else {
                    break;
                };
                beds.asleep.remove(at);
            }
            self.kernel.changed.notify_all();
        }

        fn sleep(&self, expected: u32, other: &Self, expected_there: u32) {
            let mut beds = self.kernel.beds.lock().unwrap();
            if self.word.load(Acquire) != expected || other.word.load(Acquire) != expected_there {
                return;
            }
            let number = beds.next;
            beds.next += 1;
            beds.asleep.push((number, [self.name(), other.name()]));
            while beds.asleep.iter().any(|(asleep, _)| *asleep == number) {
                beds = self.kernel.changed.wait(beds).unwrap();
            }
        }
    }

    /// The word in the hands of one thread. A doomed one is killed as soon as it is woken.
    #[derive(Clone)]
    struct Fake {
        word: Arc<Word32>,
        doomed: bool,
    }

    impl Spot for Fake {
        type Here = u32;
        type Chain = ();

        fn tid(here: u32) -> u32 {
            here
        }

        fn word(&self) -> &impl Word<u32> {
            &self.word.word
        }

        fn announce(&self, _: u32) {}
        fn retract(_: u32) {}
        fn keep(&self, _: u32) {}
        fn link(&self, _: u32, (): ()) {}
        fn chain(_: u32) {}
        fn restore(_: u32, (): ()) {}

        fn sleep(&self, expected: u32, _: Deadline) -> io::Result<Woken> {
            self.word.sleep(expected, &self.word, expected);
            Ok(Woken::Ready)
        }

        fn sleep_beside(
            &self,
            expected: u32,
            other: &Self,
            expected_there: u32,
            _: Deadline,
        ) -> io::Result<Woken> {
            self.word.sleep(expected, &other.word, expected_there);
            if self.doomed {
                // What the kernel does for the word that was announced.
                if self.word.word.load(Acquire) == 0 {
                    self.word.wake(1);
                }
                return Err(io::ErrorKind::Other.into());
            }
            Ok(Woken::Ready)
        }

        fn wake(&self, most: u32) {
            self.word.wake(most);
        }
    }

    /// A queue of nothing but numbers: how many were put and how many were got.
    struct Shared {
        put_lock: Arc<Word32>,
        bed: Arc<Word32>,
        duty: Arc<Word32>,
        sleepers: AtomicU32,
        put: AtomicU32,
        got: AtomicU32,
    }

    impl Shared {
        fn new() -> Arc<Self> {
            let kernel = Arc::new(Kernel::default());
            let word = || Word32::on(&kernel);
            let zero = || AtomicU32::new(0);
            let [put_lock, bed, duty] = [word(), word(), word()];
            Arc::new(Self { put_lock, bed, duty, sleepers: zero(), put: zero(), got: zero() })
        }

        fn spot(word: &Arc<Word32>, doomed: bool) -> Fake {
            Fake { word: Arc::clone(word), doomed }
        }

        fn put(&self, me: u32) {
            let [guard, bed, duty] =
                [&self.put_lock, &self.bed, &self.duty].map(|word| Self::spot(word, false));
            let held = lock(&guard, me, false).unwrap();
            let watch = Watch { bed: &bed, duty: &duty, sleepers: &self.sleepers };
            publish(&held, &[watch], 1, || self.put.store(self.put.load(Relaxed) + 1, Release));
        }

        fn is_empty(&self) -> bool {
            self.got.load(Acquire) == self.put.load(Acquire)
        }

        fn take(&self) -> bool {
            let got = self.got.load(Acquire);
            got != self.put.load(Acquire) && self.got.compare_exchange(got, got + 1, AcqRel, Relaxed).is_ok()
        }

        /// As `Queue::get` does it. A doomed one ends when it is woken, if it ever sleeps.
        fn get(&self, me: u32, doomed: bool) -> bool {
            let (guard, bed) = (Self::spot(&self.put_lock, false), Self::spot(&self.bed, doomed));
            let owned = Self::spot(&self.duty, false);
            let watch = Watch { bed: &bed, duty: &owned, sleepers: &self.sleepers };
            let mut duty = None;
            loop {
                let got = self.take();
                if let Some(duty) = Option::take(&mut duty) {
                    Duty::pass_on(duty, &guard, false, || !self.is_empty()).unwrap();
                }
                if got {
                    return true;
                }
                match rest(&guard, watch, me, false, Deadline::Never, || !self.is_empty()) {
                    Ok(Rest::Up(given)) => duty = given,
                    Ok(_) => unreachable!("no deadline, no signals"),
                    Err(_) => return false,
                }
            }
        }
    }

    /// Three threads have more interleavings than anybody can wait for: of those with few preemptions, as many are tried as
    /// can be in a minute.
    fn model(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions);
        model.max_duration = Some(std::time::Duration::from_secs(60));
        model.max_branches = 20_000;
        model.check(body);
    }

    #[test]
    fn a_sleeper_gets_every_message() {
        model(2, || {
            let shared = Shared::new();
            let putting = Arc::clone(&shared);
            let producer = thread::spawn(move || (0..2).for_each(|_| putting.put(1)));
            (0..2).for_each(|_| assert!(shared.get(2, false)));
            producer.join().unwrap();
        });
    }

    #[test]
    fn two_sleepers_get_a_message_each() {
        model(1, || {
            let shared = Shared::new();
            let getting = Arc::clone(&shared);
            let other = thread::spawn(move || getting.get(3, false));
            let putting = Arc::clone(&shared);
            let producer = thread::spawn(move || (0..2).for_each(|_| putting.put(1)));
            assert!(shared.get(2, false));
            assert!(other.join().unwrap());
            producer.join().unwrap();
        });
    }

    #[test]
    fn a_sleeper_that_is_killed_when_it_is_woken_takes_no_wake_up_with_it() {
        model(1, || {
            let shared = Shared::new();
            let getting = Arc::clone(&shared);
            let doomed = thread::spawn(move || getting.get(3, true));
            let putting = Arc::clone(&shared);
            let producer = thread::spawn(move || (0..2).for_each(|_| putting.put(1)));
            assert!(shared.get(2, false));
            producer.join().unwrap();
            doomed.join().unwrap();
        });
    }
}
