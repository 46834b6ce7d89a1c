//! Busy waiting that knows when it pays: a short spin saves two system calls and a wake-up, but only if what is waited for
//! comes soon, and only if another processor can bring it.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use super::{cpu, now, thread};

/// Longer than a round trip between two busy processes, shorter than two context switches and a wake-up.
const USUAL: Duration = Duration::from_micros(50);
/// Two sides that have both fallen asleep find back to spinning only if one of them waits out the other's wake-up.
const LONGEST: Duration = Duration::from_micros(200);
/// So long we keep the processor to ourselves: a peer that runs answers within it.
const ALONE: Duration = Duration::from_micros(3);
const FULL_CREDIT: u8 = 16;
/// What a short sleep earns.
const EARNED: u8 = 4;

/// What a look costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// A word of memory is read: many looks fit between two glances at the clock.
    Memory,
    /// The kernel is asked. One that is asked takes as long as one that gives way, so both are done each time.
    Kernel,
}

/// The experience of those who wait for one thing. Several threads may share it, since all it says is a guess.
#[derive(Debug)]
pub struct Spin {
    allowed: bool,
    look: Look,
    /// Spins that may fail before we stop trying. Relaxed, as all of it: nothing depends on it but how a wait begins.
    credit: AtomicU8,
    limit_us: AtomicU32,
}

impl Spin {
    /// Waits for what memory tells. Spinning is taken to be worth it until it turns out not to be.
    ///
    /// `allowed`: more than one processor is usable.
    pub(crate) const fn new(allowed: bool) -> Self {
        Self::with(allowed, Look::Memory, FULL_CREDIT)
    }

    /// Waits for what only the kernel tells. Spinning has to earn its credit by sleeps that turn out short.
    #[must_use]
    pub fn over_kernel() -> Self {
        Self::with(cpu::several(), Look::Kernel, 0)
    }

    const fn with(allowed: bool, look: Look, credit: u8) -> Self {
        let limit_us = AtomicU32::new(USUAL.as_micros() as u32);
        Self { allowed, look, credit: AtomicU8::new(credit), limit_us }
    }

    /// Whether looking again is worth a try.
    #[must_use]
    pub fn is_worth_it(&self) -> bool {
        self.allowed && self.credit.load(Ordering::Relaxed) > 0
    }

    /// Looks, as [`Spin::find`] does, until `there`. Whether it was there.
    pub(crate) fn until(&self, mut there: impl FnMut() -> bool) -> bool {
        self.find(|| there().then_some(())).is_some()
    }

    /// Looks, once at least, until `look` finds something or for too long. Somebody who needs this processor gets it in between.
    pub fn find<T>(&self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        if let Some(found) = look() {
            return Some(found);
        }
        if !self.is_worth_it() {
            return None;
        }
        let start = now();
        let end = start.after(Duration::from_micros(self.limit_us.load(Ordering::Relaxed).into()));
        let (alone, looks) = match self.look {
            Look::Memory => (start.after(ALONE), 32),
            Look::Kernel => (start, 1),
        };
        if self.look == Look::Kernel {
            // A second look at once would tell the same.
            thread::give_way();
        }
        loop {
            for _ in 0..looks {
                std::hint::spin_loop();
                if let Some(found) = look() {
                    self.credit.store(FULL_CREDIT, Ordering::Relaxed);
                    self.limit_us.store(USUAL.as_micros() as u32, Ordering::Relaxed);
                    return Some(found);
                }
            }
            let time = now();
            if time >= end {
                self.credit.store(self.credit.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
                return None;
            }
            if time >= alone {
                // The one we wait for may be waiting for our processor.
                thread::give_way();
            }
        }
    }

    /// A sleep has ended with what was waited for: if it was so short that spinning would have done, spinning is worth
    /// another try.
    pub fn slept(&self, time: Duration) {
        if time < LONGEST {
            let credit = self.credit.load(Ordering::Relaxed).saturating_add(EARNED).min(FULL_CREDIT);
            self.credit.store(credit, Ordering::Relaxed);
            let limit = (time * 2).clamp(USUAL, LONGEST);
            self.limit_us.store(limit.as_micros() as u32, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credit(spin: &Spin) -> u8 {
        spin.credit.load(Ordering::Relaxed)
    }

    #[test]
    fn short_sleeps_earn_a_spin_and_vain_spins_use_it_up() {
        for look in [Look::Memory, Look::Kernel] {
            let spin = Spin::with(true, look, 0);
            assert!(!spin.is_worth_it());
            spin.slept(Duration::from_millis(1));
            assert!(!spin.is_worth_it());
            spin.slept(Duration::from_micros(20));
            assert_eq!(credit(&spin), EARNED);
            for left in (0..EARNED).rev() {
                let start = now();
                assert_eq!(spin.find(|| None::<()>), None);
                assert!(now().since(start) >= USUAL);
                assert_eq!(credit(&spin), left);
            }
            assert!(!spin.is_worth_it());
        }
    }

    #[test]
    fn what_is_found_by_spinning_gives_full_credit() {
        let spin = Spin::with(true, Look::Kernel, 1);
        let mut looks = 0;
        let found = spin.find(|| {
            looks += 1;
            (looks == 2).then_some(looks)
        });
        assert_eq!(found, Some(2));
        assert_eq!(credit(&spin), FULL_CREDIT);
    }

    #[test]
    fn a_spin_that_was_too_short_is_made_longer_and_never_too_long() {
        let spin = Spin::new(true);
        for (slept, limit) in [(10, 50), (60, 120), (190, 200), (500, 200)] {
            spin.slept(Duration::from_micros(slept));
            assert_eq!(spin.limit_us.load(Ordering::Relaxed), limit);
        }
    }

    #[test]
    fn with_one_processor_one_look_is_all() {
        let spin = Spin::new(false);
        let mut looks = 0;
        let found = spin.until(|| {
            looks += 1;
            false
        });
        assert_eq!((found, looks), (false, 1));
    }
}
