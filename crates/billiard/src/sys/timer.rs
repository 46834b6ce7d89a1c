//! A timer behind a descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::Moment;
use super::descriptor::above_standard;

/// A timer on the monotonic clock; its descriptor is readable from the moment it was set for until it is cleared.
#[derive(Debug)]
pub struct Timer(OwnedFd);

impl Timer {
    /// A timer that is not set.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        above_standard(timerfd_create(TimerfdClockId::Monotonic, flags)?).map(Self)
    }

    /// Sets it for `at`, whatever it was set for before.
    pub fn set(&self, at: Moment) {
        // Zero would mean never.
        let nanos = at.0.max(1);
        let value = Timespec {
            tv_sec: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: (nanos % 1_000_000_000) as i64,
        };
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        // A timer refuses only a malformed time, and this one is not.
        let _ = timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &spec);
    }

    /// Makes it unreadable until it goes off again.
    pub fn clear(&self) {
        // Nothing to read means that it has not gone off.
        let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
    }

    /// The descriptor's number, for a child that closes it.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
