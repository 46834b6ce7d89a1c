//! Doorbells: descriptors that one process rings and another one sleeps on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::descriptor::above_standard;
use rustix::event::{EventfdFlags, eventfd};

/// A doorbell. Ringing an already ringing bell is free of effect; [`EventFd::clear`] silences it.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A new silent bell, closed on exec, inherited by fork.
    pub fn new() -> io::Result<Self> {
        above_standard(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?).map(Self)
    }

    /// A bell that somebody else has made and sent here.
    #[must_use]
    pub const fn received(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The descriptor alone.
    #[must_use]
    pub fn into_descriptor(self) -> OwnedFd {
        self.0
    }

    /// Makes the descriptor readable.
    pub fn ring(&self) {
        // The only refusal a valid eventfd knows is a full counter, and then it is ringing already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Makes the descriptor unreadable until the next ring.
    pub fn clear(&self) {
        // Nothing to read means silent already.
        let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
