//! Looking again, for a moment, instead of going to sleep. Two processes that answer each other at once find each other awake;
//! a wake-up across processors takes longer than the answer. `README.md` tells what it brings, under "What a wait begins with".

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::sys::{cpu, now, thread};

/// Longer than a round trip between two busy processes, shorter than two context switches and a wake-up.
const USUAL: Duration = Duration::from_micros(50);
/// A sleep that was no longer than this might have been spared.
const SHORT_SLEEP: Duration = Duration::from_micros(150);
const FULL_CREDIT: u8 = 8;

/// The experience of those who wait for one connection. It begins with none, and is gained by sleeps that turn out short.
#[derive(Debug, Default)]
pub struct Spin {
    /// Spins that may fail before we stop trying. Relaxed: it is a guess, and nothing depends on it.
    credit: AtomicU8,
}

impl Spin {
    /// Whether looking again is worth a try.
    #[must_use]
    pub fn is_worth_it(&self) -> bool {
        self.credit.load(Ordering::Relaxed) > 0 && cpu::several()
    }

    /// Looks until `look` finds something, or for too long. Somebody who needs this processor gets it in between.
    pub fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        let end = now().after(USUAL);
        loop {
            if let Some(found) = look() {
                self.credit.store(FULL_CREDIT, Ordering::Relaxed);
                return Some(found);
            }
            if now() >= end {
                self.credit.store(self.credit.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
                return None;
            }
            thread::give_way();
        }
    }

    /// A sleep has ended with what was waited for.
    pub fn slept(&self, time: Duration) {
        if time < SHORT_SLEEP {
            let credit = self.credit.load(Ordering::Relaxed).saturating_add(2).min(FULL_CREDIT);
            self.credit.store(credit, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_sleeps_earn_a_spin_and_vain_spins_use_it_up() {
        let spin = Spin::default();
        assert_eq!(spin.credit.load(Ordering::Relaxed), 0);
        spin.slept(Duration::from_millis(1));
        assert_eq!(spin.credit.load(Ordering::Relaxed), 0);
        spin.slept(Duration::from_micros(20));
        assert_eq!(spin.credit.load(Ordering::Relaxed), 2);
        for left in [1, 0, 0] {
            let start = now();
            assert_eq!(spin.until(|| None::<()>), None);
            assert!(now().since(start) >= USUAL);
            assert_eq!(spin.credit.load(Ordering::Relaxed), left);
        }
        assert!(!spin.is_worth_it());
        let mut looks = 0;
        let found = spin.until(|| {
            looks += 1;
            (looks == 2).then_some(looks)
        });
        assert_eq!(found, Some(2));
        assert_eq!(spin.credit.load(Ordering::Relaxed), FULL_CREDIT);
    }
}
