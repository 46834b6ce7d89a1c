//! How a sleeping thread learns that a signal has come which somebody wants to handle.
//!
//! A signal is delivered to any thread that does not block it, so `EINTR` is no way to tell the one that handles them. And
//! the one that looks first and then goes to sleep misses what comes in between. A byte in a pipe is missed by nobody.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};

use super::descriptor::{above_standard, lend};
use super::ident::{Identity, me};

/// What ends a wait besides what is waited for.
#[derive(Clone, Copy, Debug)]
pub enum Interrupts<'a> {
    /// This descriptor is readable once a signal has come.
    Bell(BorrowedFd<'a>),
    /// Nobody tells: whoever handles signals has to look every 50 milliseconds.
    Glances,
    /// The same every 2 milliseconds. Most waits are over before, and having somebody tell takes several calls of the kernel.
    Briefly,
}

/// How long a wait is at most where nobody tells of signals.
pub(super) const GLANCE: Duration = Duration::from_millis(50);
/// The same at the beginning of a wait.
pub(crate) const BRIEF: Duration = Duration::from_millis(2);

/// A pipe into which the C handler of a signal writes: it needs no lock and no memory for that.
#[derive(Debug)]
pub struct SignalPipe {
    read: ManuallyDrop<OwnedFd>,
    write: ManuallyDrop<OwnedFd>,
    owner: Identity,
}

impl Drop for SignalPipe {
    fn drop(&mut self) {
        // FORK: a copy may have closed what it inherited and opened something else under these numbers.
        if self.owner.is_me() {
            for end in [&mut self.read, &mut self.write] {
                // SAFETY: dropped here and nowhere else, and not used afterwards.
                unsafe { ManuallyDrop::drop(end) };
            }
        }
    }
}

impl SignalPipe {
    /// A new pipe; neither end waits.
    pub fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let (read, write) = (above_standard(read)?, above_standard(write)?);
        Ok(Self { read: ManuallyDrop::new(read), write: ManuallyDrop::new(write), owner: me() })
    }

    /// Whether the calling process has made it. A forked copy would wake the other process, and be woken by it.
    #[must_use]
    pub fn is_mine(&self) -> bool {
        self.owner.is_me()
    }

    /// Where the handler writes.
    #[must_use]
    pub fn writer(&self) -> RawFd {
        self.write.as_raw_fd()
    }

    /// For the one who sleeps.
    #[must_use]
    pub fn interrupts(&self) -> Interrupts<'_> {
        Interrupts::Bell(self.read.as_fd())
    }

    /// Takes out what the handlers have written, and passes it on to the descriptor that would have got it.
    pub fn drain(&self, to: Option<RawFd>) {
        let mut bytes = [0; 64];
        while let Ok(count @ 1..) = rustix::io::read(&*self.read, &mut bytes) {
            if let Some(to) = to.and_then(|to| lend(to).ok()) {
                // As when a handler writes there: what finds no room is lost, and somebody is awake anyway.
                let _ = rustix::io::write(to, &bytes[..count]);
            }
        }
    }
}
