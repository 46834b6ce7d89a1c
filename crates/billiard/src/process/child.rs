//! A child process, shared by everybody who waits for it.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Mutex;

use crate::sys::{ExitStatus, PidFd, SignalError};

/// A child of this process. Whoever reaps it first leaves the status here for the others.
#[derive(Debug)]
pub struct Child {
    pidfd: PidFd,
    status: Mutex<Option<ExitStatus>>,
}

impl Child {
    /// Takes charge of a child that nobody has waited for yet.
    pub fn adopt(pid: i32) -> io::Result<Self> {
        Ok(Self { pidfd: PidFd::open(pid)?, status: Mutex::new(None) })
    }

    /// The process id.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pidfd.pid()
    }

    /// A descriptor that becomes readable when the child ends, and stays so. `None` where the kernel has no pidfd.
    #[must_use]
    pub fn sentinel(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.descriptor()
    }

    /// How the child ended, or `None` while it runs. Reaps it the first time.
    pub fn poll(&self) -> io::Result<Option<ExitStatus>> {
        let mut status = self.lock();
        if status.is_none() {
            *status = self.pidfd.try_wait()?;
        }
        Ok(*status)
    }

    /// Sends a signal, never to anybody else: a child that was reaped gets nothing.
    pub fn signal(&self, signal: i32) -> Result<(), SignalError> {
        // The lock keeps others from reaping it, and so its number from being used again, until the signal is sent.
        let status = self.lock();
        if status.is_some() { Err(SignalError::Gone) } else { self.pidfd.signal(signal) }
    }

    /// Sends a signal to the whole group if the child leads one, else to the child alone.
    pub fn signal_group(&self, signal: i32) -> Result<(), SignalError> {
        let status = self.lock();
        if status.is_some() {
            return Err(SignalError::Gone);
        }
        if self.pidfd.signal_group(signal)? { Ok(()) } else { self.pidfd.signal(signal) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<ExitStatus>> {
        self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
