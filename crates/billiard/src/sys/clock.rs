//! The monotonic clock, as nanoseconds that may travel through shared memory.

use std::time::Duration;

/// A point on the monotonic clock, in nanoseconds. Comparable between processes of one machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// This moment moved into the future; saturates at the end of the clock.
    #[must_use]
    pub const fn after(self, span: Duration) -> Self {
        let nanos = span.as_nanos();
        if nanos > (u64::MAX - self.0) as u128 { Self(u64::MAX) } else { Self(self.0 + nanos as u64) }
    }

    /// The time from `earlier` to this moment; zero if `earlier` is in fact later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Seconds on the clock, as Python's `time.monotonic()` counts them.
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        Duration::from_nanos(self.0).as_secs_f64()
    }
}

/// The present.
#[must_use]
pub fn now() -> Moment {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Moment((t.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(t.tv_nsec as u64))
}

/// When a wait gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// The wait ends only by what is waited for.
    Never,
    /// The wait ends at this moment at the latest.
    At(Moment),
}

impl Deadline {
    /// The deadline of those who do not wait: it has always passed.
    pub const AT_ONCE: Self = Self::At(Moment(0));

    /// The deadline `seconds` from now. `None`, `inf`, `nan` and what the clock cannot hold mean never; negative means at once.
    #[must_use]
    pub fn from_seconds(seconds: Option<f64>) -> Self {
        match seconds {
            None => Self::Never,
            Some(s) if s.is_nan() => Self::Never,
            Some(s) if s <= 0.0 => Self::AT_ONCE,
            Some(s) => Duration::try_from_secs_f64(s).map_or(Self::Never, |span| {
                let at = now().after(span);
                if at.0 == u64::MAX { Self::Never } else { Self::At(at) }
            }),
        }
    }

    /// What is left; `None` means for ever.
    #[must_use]
    pub fn left(self) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::At(at) => Some(at.since(now())),
        }
    }

    /// This deadline, or `span` from now if that is sooner.
    #[must_use]
    pub fn or_after(self, span: Duration) -> Self {
        let soon = now().after(span);
        match self {
            Self::At(at) if at < soon => self,
            _ => Self::At(soon),
        }
    }

    /// The one of the two that comes first.
    #[must_use]
    pub fn sooner(self, other: Self) -> Self {
        match (self, other) {
            (Self::At(one), Self::At(two)) => Self::At(one.min(two)),
            (Self::Never, at) | (at, Self::Never) => at,
        }
    }

    /// Whether the time is up.
    #[must_use]
    pub fn passed(self) -> bool {
        matches!(self, Self::At(at) if now() >= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_timeouts_do_not_panic() {
        for s in [f64::NAN, f64::INFINITY, 1e300, f64::MAX] {
            assert_eq!(Deadline::from_seconds(Some(s)), Deadline::Never);
        }
        for s in [-1.0, 0.0, -0.0, f64::NEG_INFINITY] {
            assert_eq!(Deadline::from_seconds(Some(s)), Deadline::AT_ONCE);
            assert!(Deadline::AT_ONCE.passed());
        }
        assert!(!Deadline::from_seconds(Some(3600.0)).passed());
    }

    #[test]
    fn moments_saturate() {
        assert_eq!(Moment(5).after(Duration::MAX), Moment(u64::MAX));
        assert_eq!(Moment(5).since(Moment(7)), Duration::ZERO);
    }
}
