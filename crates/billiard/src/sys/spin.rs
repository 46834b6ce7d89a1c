//! Busy waiting that knows when it pays: a short spin saves two system calls and a wake-up, but only if what is waited for
//! comes soon, and only if another processor can bring it.

use std::time::Duration;

use super::{now, thread};

/// Longer than a round trip between two busy processes, shorter than two context switches and a wake-up.
const USUAL: Duration = Duration::from_micros(50);
/// Two sides that have both fallen asleep find back to spinning only if one of them waits out the other's wake-up.
const LONGEST: Duration = Duration::from_micros(200);
/// So long we keep the processor to ourselves: a peer that runs answers within it.
const ALONE: Duration = Duration::from_micros(3);
const FULL_CREDIT: u8 = 16;

/// The experience of one waiter.
#[derive(Debug)]
pub(crate) struct Spin {
    allowed: bool,
    /// Spins that may fail before we stop trying.
    credit: u8,
    limit: Duration,
}

impl Spin {
    /// `allowed`: more than one processor is usable.
    pub(crate) const fn new(allowed: bool) -> Self {
        Self { allowed, credit: FULL_CREDIT, limit: USUAL }
    }

    /// Looks until `there` or until it has taken too long. Whether it was there.
    pub(crate) fn until(&mut self, mut there: impl FnMut() -> bool) -> bool {
        if there() {
            return true;
        }
        if !self.allowed || self.credit == 0 {
            return false;
        }
        let start = now();
        let (alone, end) = (start.after(ALONE), start.after(self.limit));
        loop {
            for _ in 0..32 {
                std::hint::spin_loop();
                if there() {
                    self.credit = FULL_CREDIT;
                    self.limit = USUAL;
                    return true;
                }
            }
            let time = now();
            if time >= end {
                self.credit -= 1;
                return false;
            }
            if time >= alone {
                // The one we wait for may be waiting for our processor.
                thread::give_way();
            }
        }
    }

    /// A sleep has ended with what was waited for: if it was so short that spinning would have done, spinning is worth
    /// another try.
    pub(crate) fn slept(&mut self, time: Duration) {
        if time < LONGEST {
            self.credit = (self.credit + 4).min(FULL_CREDIT);
            self.limit = (time * 2).clamp(USUAL, LONGEST);
        }
    }
}
