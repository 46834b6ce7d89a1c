//! A lock that is free again when its owner dies, and says so to the next one. Its word holds the owner's number; the kernel
//! clears it when the owner ends (see `sys/robust.rs`).

use std::io;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use std::time::Duration;

use crate::primitives::Word;
use crate::sys::poll::Woken;
use crate::sys::robust::{Block, Chain, DIED, Here, OWNER, WAITERS};
use crate::sys::{Alarm, Deadline, futex, robust, thread};

/// A word that the kernel watches for its owner's death, and on which threads sleep. In the models it is a stand-in.
pub(super) trait Spot {
    type Here: Copy;
    type Chain: Copy;

    fn tid(here: Self::Here) -> u32;
    fn word(&self) -> &impl Word<u32>;
    /// The thread is about to take the word, to give it up, or to sleep on it.
    fn announce(&self, here: Self::Here);
    fn retract(here: Self::Here);
    /// The thread owns the word beside others.
    fn keep(&self, here: Self::Here);
    /// The word is first in the chain; what follows it from now on is `chain`.
    fn link(&self, here: Self::Here, chain: Self::Chain);
    fn chain(here: Self::Here) -> Self::Chain;
    fn restore(here: Self::Here, chain: Self::Chain);
    fn sleep(&self, expected: u32, deadline: Deadline) -> io::Result<Woken>;
    /// Sleeps on two words, until either changes or is woken.
    fn sleep_beside(
        &self,
        expected: u32,
        other: &Self,
        expected_there: u32,
        deadline: Deadline,
    ) -> io::Result<Woken>;
    fn wake(&self, most: u32);
}

impl Spot for Block {
    type Here = Here;
    type Chain = Chain;

    #[inline(always)]
    fn tid(here: Here) -> u32 {
        here.tid()
    }

    #[inline(always)]
    fn word(&self) -> &impl Word<u32> {
        self.word()
    }

    #[inline(always)]
    fn announce(&self, here: Here) {
        here.announce(self);
    }

    #[inline(always)]
    fn retract(here: Here) {
        here.retract();
    }

    fn keep(&self, here: Here) {
        here.keep(self);
    }

    fn link(&self, here: Here, chain: Chain) {
        here.link(self, chain);
    }

    fn chain(here: Here) -> Chain {
        here.chain()
    }

    fn restore(here: Here, chain: Chain) {
        here.restore(chain);
    }

    fn sleep(&self, expected: u32, deadline: Deadline) -> io::Result<Woken> {
        futex::wait(self.word(), expected, deadline)
    }

    fn sleep_beside(
        &self,
        expected: u32,
        other: &Self,
        expected_there: u32,
        deadline: Deadline,
    ) -> io::Result<Woken> {
        futex::wait_either((self.word(), expected), (other.word(), expected_there), deadline)
    }

    fn wake(&self, most: u32) {
        // A valid word is never refused.
        let _ = futex::wake(self.word(), most);
    }
}

/// The calling thread, if its owned words can be watched.
#[inline(always)]
pub(super) fn here() -> io::Result<Here> {
    robust::here()
}

/// How long one sleep for a lock lasts at most. What locks guard takes microseconds. Only one thing makes a sleep that long:
/// a sleeper was woken and killed before it took the lock, while somebody who did not know of the others took it instead.
const SLEEP: Duration = Duration::from_millis(20);
const SPINS: u32 = 100;
const YIELDS: u32 = if cfg!(loom) { 0 } else { 3 };

/// A lock that is held; dropping it gives it up.
pub(super) struct Held<'a, S: Spot> {
    spot: &'a S,
    pub(super) here: S::Here,
    /// Whoever held it before has died.
    pub(super) inherited: bool,
}

/// How an attempt ended.
pub(super) enum Locked<'a, S: Spot> {
    Held(Held<'a, S>),
    /// The deadline passed.
    TimedOut,
    /// A signal handler ran.
    Interrupted,
}

/// Takes the lock if nobody has it. `marked`: with the sign that others may sleep for it.
#[inline(always)]
fn attempt<S: Spot>(spot: &S, here: S::Here, marked: u32) -> Option<Held<'_, S>> {
    // Relaxed: the exchange decides.
    let seen = spot.word().load(Relaxed);
    if seen & OWNER != 0 {
        return None;
    }
    let mine = S::tid(here) | (seen & WAITERS) | marked;
    // SYNC(queue.lock): what the owner before has done, or what it had done when it died, happens before this. Release keeps
    // the announcement in front of it.
    spot.word().compare_exchange(seen, mine, AcqRel, Relaxed).ok()?;
    Some(Held { spot, here, inherited: seen & DIED != 0 })
}

/// Takes the lock if that takes no sleep. `spin`: another processor may be about to give it up.
#[inline]
pub(super) fn try_lock<S: Spot>(spot: &S, here: S::Here, spin: bool) -> Option<Held<'_, S>> {
    spot.announce(here);
    let held = attempt(spot, here, 0);
    if held.is_some() {
        return held;
    }
    if spin {
        for _ in 0..SPINS {
            std::hint::spin_loop();
            let held = attempt(spot, here, 0);
            if held.is_some() {
                return held;
            }
        }
    }
    S::retract(here);
    None
}

/// Takes the lock before the deadline.
///
/// # Blocking
/// While somebody else has it, which is a matter of microseconds unless that one is stopped.
pub(super) fn lock_until<S: Spot>(
    spot: &S,
    here: S::Here,
    spin: bool,
    deadline: Deadline,
) -> io::Result<Locked<'_, S>> {
    if let Some(held) = try_lock(spot, here, spin) {
        return Ok(Locked::Held(held));
    }
    spot.announce(here);
    for _ in 0..YIELDS {
        // Its owner may be waiting for our processor.
        thread::give_way();
        if let Some(held) = attempt(spot, here, 0) {
            return Ok(Locked::Held(held));
        }
    }
    loop {
        // Others may sleep as well: whoever has slept once says so when it takes the lock.
        if let Some(held) = attempt(spot, here, WAITERS) {
            return Ok(Locked::Held(held));
        }
        let seen = spot.word().load(Relaxed);
        if seen & OWNER == 0 {
            continue;
        }
        // Relaxed: nothing is read that it guards.
        if seen & WAITERS == 0
            && spot.word().compare_exchange(seen, seen | WAITERS, Relaxed, Relaxed).is_err()
        {
            continue;
        }
        let woken = spot.sleep(seen | WAITERS, deadline.or_after(SLEEP));
        match woken {
            Ok(Woken::TimedOut) if deadline.passed() => {
                S::retract(here);
                return Ok(Locked::TimedOut);
            }
            Ok(Woken::Interrupted) => {
                S::retract(here);
                return Ok(Locked::Interrupted);
            }
            Ok(_) => {}
            Err(error) => {
                S::retract(here);
                return Err(error);
            }
        }
    }
}

/// Takes the lock, whatever signals arrive: what it is for has to be finished.
pub(super) fn lock<S: Spot>(spot: &S, here: S::Here, spin: bool) -> io::Result<Held<'_, S>> {
    if let Some(held) = try_lock(spot, here, spin) {
        return Ok(held);
    }
    Alarm::ignored(|| {
        loop {
            if let Locked::Held(held) = lock_until(spot, here, spin, Deadline::Never)? {
                return Ok(held);
            }
        }
    })
}

impl<'a, S: Spot> Held<'a, S> {
    pub(super) const fn spot(&self) -> &'a S {
        self.spot
    }

    /// Does something under another lock as well.
    pub(super) fn beside<T>(&self, other: &S, spin: bool, body: impl FnOnce() -> T) -> io::Result<T> {
        let chain = S::chain(self.here);
        self.spot.keep(self.here);
        let done = lock(other, self.here, spin).map(|_held| body());
        self.spot.announce(self.here);
        S::restore(self.here, chain);
        done
    }
}

impl<S: Spot> Drop for Held<'_, S> {
    #[inline]
    fn drop(&mut self) {
        // SYNC(queue.lock): what was done under it happens before this.
        if self.spot.word().swap(0, Release) & WAITERS != 0 {
            // Killed here, the kernel wakes one instead: the word is announced, and zero.
            self.spot.wake(1);
        }
        S::retract(self.here);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;
    use crate::arena::Mapping;
    use crate::sys::{Forked, PidFd, exit_now, fork, memfd, now, signal};

    fn map() -> Arc<Mapping> {
        let fd = memfd::create(4096, 4096).unwrap();
        Arc::new(Mapping::new(&fd, 0, 4096).unwrap())
    }

    #[test]
    fn it_excludes_threads() {
        let map = map();
        let adders: Vec<_> = (0..4)
            .map(|_| {
                let map = Arc::clone(&map);
                std::thread::Builder::new().spawn(move || {
                    for _ in 0..50_000 {
                        let _held = lock(map.block(0), here().unwrap(), true).unwrap();
                        // Relaxed: the lock orders it; a load and a store would lose counts without one.
                        let count = map.word64(1024).load(Relaxed);
                        map.word64(1024).store(count + 1, Relaxed);
                    }
                })
            })
            .collect();
        adders.into_iter().for_each(|adder| adder.unwrap().join().unwrap());
        assert_eq!(map.word64(1024).load(SeqCst), 200_000);
        assert_eq!(map.block(0).word().load(SeqCst), 0);
    }

    #[test]
    fn a_killed_owner_leaves_it_to_the_next_who_is_told() {
        let map = map();
        match fork().unwrap() {
            Forked::Child => {
                let _held = lock(map.block(0), here().unwrap(), true);
                map.word32(1024).store(1, SeqCst);
                let deadline = Deadline::At(now().after(Duration::from_secs(20)));
                // Until somebody sleeps for it.
                while map.block(0).word().load(SeqCst) & WAITERS == 0 && !deadline.passed() {}
                signal::raise(signal::SIGKILL);
                exit_now(1)
            }
            Forked::Parent(pid) => {
                while map.word32(1024).load(SeqCst) == 0 {
                    std::hint::spin_loop();
                }
                let held = lock(map.block(0), here().unwrap(), true).unwrap();
                assert!(held.inherited);
                drop(held);
                assert!(!lock(map.block(0), here().unwrap(), true).unwrap().inherited);
                PidFd::open(pid).unwrap().wait().unwrap();
            }
        }
    }

    #[test]
    fn an_attempt_ends_at_its_deadline() {
        let map = map();
        let held = lock(map.block(0), here().unwrap(), true).unwrap();
        let elsewhere = Arc::clone(&map);
        let other = std::thread::Builder::new().spawn(move || {
            let start = now();
            let deadline = Deadline::At(start.after(Duration::from_millis(50)));
            let locked = lock_until(elsewhere.block(0), here().unwrap(), true, deadline).unwrap();
            (matches!(locked, Locked::Held(_)), now().since(start))
        });
        let (taken, time) = other.unwrap().join().unwrap();
        assert!(!taken);
        assert!(time >= Duration::from_millis(50), "{time:?}");
        drop(held);
    }
}
