//! One sleep for many descriptors, each known by a number of the caller's.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::descriptor::above_standard;
use super::interrupts::BRIEF;
use super::poll::Awaited;
use rustix::event::{Timespec, epoll};

/// A set of descriptors to wait for.
///
/// # Fork
/// The set is shared with a forked copy: a child closes its descriptor and never uses it.
#[derive(Debug)]
pub struct Poller(OwnedFd);

impl Poller {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        above_standard(epoll::create(epoll::CreateFlags::CLOEXEC)?).map(Self)
    }

    /// Adds a descriptor. It is reported as `token` for as long as it is readable.
    pub fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.0, fd, epoll::EventData::new_u64(token), epoll::EventFlags::IN)?)
    }

    /// Takes a descriptor out. Closing it is not enough where a forked process holds a copy.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.0, fd)?)
    }

    /// Sleeps until something is readable and appends its tokens.
    ///
    /// # Blocking
    /// Until then; a signal handler that runs ends the wait with `EINTR`.
    pub fn wait(&self, tokens: &mut Vec<u64>) -> io::Result<()> {
        self.wait_for(tokens, None)
    }

    /// The same, for a moment at most.
    ///
    /// # Blocking
    /// So long; a signal handler that runs ends the wait with `EINTR`.
    pub fn wait_briefly(&self, tokens: &mut Vec<u64>) -> io::Result<()> {
        self.wait_for(tokens, Some(&Timespec { tv_sec: 0, tv_nsec: BRIEF.subsec_nanos().into() }))
    }

    fn wait_for(&self, tokens: &mut Vec<u64>, time: Option<&Timespec>) -> io::Result<()> {
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); 32];
        let (ready, _) = epoll::wait(&self.0, &mut events, time)?;
        tokens.extend(ready.iter().map(|event| event.data.u64()));
        Ok(())
    }

    /// Reports a descriptor that is in the set for something else than before.
    pub fn watch(&self, fd: impl AsFd, token: u64, what: Awaited) -> io::Result<()> {
        let flags = match what {
            Awaited::Data => epoll::EventFlags::IN,
            Awaited::Room => epoll::EventFlags::OUT,
        };
        Ok(epoll::modify(&self.0, fd, epoll::EventData::new_u64(token), flags)?)
    }

    /// Appends the tokens of what is ready, without waiting.
    pub fn look(&self, tokens: &mut Vec<u64>) -> io::Result<()> {
        self.wait_for(tokens, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))
    }

    /// The descriptor's number, for a child that closes it.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Poller {
    /// Readable when anything in the set is ready.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
