//! Process descriptors: exact exits and signals that cannot hit a stranger.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};

use super::ident::{Identity, me};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExitStatus {
    /// It left with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// It is gone, and somebody else took its status.
    Unknown,
}

impl ExitStatus {
    /// The number Python shows: the code, the negated signal, or 255 when nobody knows.
    #[must_use]
    pub const fn exitcode(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => -signal,
            Self::Unknown => 255,
        }
    }

    fn from_wait(status: &WaitIdStatus) -> Self {
        if let Some(signal) = status.terminating_signal() {
            Self::Signal(signal)
        } else {
            status.exit_status().map_or(Self::Unknown, Self::Code)
        }
    }
}

/// Why a signal was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignalError {
    /// The process has ended.
    #[error("the process has already ended")]
    Gone,
    /// The kernel refused.
    #[error("cannot send signal {signal}")]
    Os {
        /// The signal's number.
        signal: i32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

fn signal_of(number: i32) -> Result<Signal, SignalError> {
    if (1..=64).contains(&number) {
        // SAFETY: the number is in the kernel's range; signals that libc reserves for itself are only sent, never handled, here.
        Ok(unsafe { Signal::from_raw_unchecked(number) })
    } else {
        Err(SignalError::Os { signal: number, source: io::Error::from_raw_os_error(libc::EINVAL) })
    }
}

fn pid_of(pid: i32) -> io::Result<Pid> {
    Pid::from_raw(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}

/// A process that stays itself: the descriptor keeps meaning the same process even when its number is used again.
#[derive(Debug)]
pub struct PidFd {
    pid: Pid,
    opener: Identity,
    // KERNEL: pidfd_open since 5.3. Where it is missing or forbidden, the process is known by its number only.
    fd: Option<OwnedFd>,
}

impl PidFd {
    /// Opens the process `pid`: a child that was not yet waited for, or any living process.
    pub fn open(pid: i32) -> io::Result<Self> {
        let pid = pid_of(pid)?;
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => Ok(Self { pid, opener: me(), fd: Some(fd) }),
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
                Ok(Self { pid, opener: me(), fd: None })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Knows the process by its number only, as on kernels without pidfd. For tests of that path.
    pub fn without_descriptor(pid: i32) -> io::Result<Self> {
        Ok(Self { pid: pid_of(pid)?, opener: me(), fd: None })
    }

    /// The process id.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// A descriptor that is readable once the process has ended, where the kernel has them.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Takes the exit status of a child if it has ended. Does not wait. A status is handed out once; remember it.
    pub fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        self.wait_with(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    /// Waits until the child has ended and takes its status.
    ///
    /// # Blocking
    /// Until the child ends; a signal handler that runs ends the wait with `EINTR`.
    pub fn wait(&self) -> io::Result<Option<ExitStatus>> {
        self.wait_with(WaitIdOptions::EXITED)
    }

    fn wait_with(&self, options: WaitIdOptions) -> io::Result<Option<ExitStatus>> {
        let id = match &self.fd {
            Some(fd) => WaitId::PidFd(fd.as_fd()),
            None => WaitId::Pid(self.pid),
        };
        match rustix::process::waitid(id, options) {
            Ok(status) => Ok(status.as_ref().map(ExitStatus::from_wait)),
            // Somebody else reaped it: ended, status unknown.
            Err(rustix::io::Errno::CHILD) => Ok(Some(ExitStatus::Unknown)),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends `signal` to exactly this process. A child must not have been reaped if there is no descriptor.
    pub fn signal(&self, signal: i32) -> Result<(), SignalError> {
        let number = signal_of(signal)?;
        let sent = match &self.fd {
            Some(fd) => rustix::process::pidfd_send_signal(fd, number),
            None => rustix::process::kill_process(self.pid, number),
        };
        translate(sent, signal)
    }

    /// Sends `signal` to the process group that this process leads. Answers whether it leads one.
    pub fn signal_group(&self, signal: i32) -> Result<bool, SignalError> {
        let number = signal_of(signal)?;
        match rustix::process::getpgid(Some(self.pid)) {
            Ok(group) if group == self.pid => {
                translate(rustix::process::kill_process_group(self.pid, number), signal).map(|()| true)
            }
            _ => Ok(false),
        }
    }
}

impl Drop for PidFd {
    fn drop(&mut self) {
        // FORK: a child may have closed everything it inherited and opened something else under this number, so it must
        // not be closed again there. Left open it costs that child one descriptor.
        if !self.opener.is_me() {
            let _ = self.fd.take().map(IntoRawFd::into_raw_fd);
        }
    }
}

/// Whether this kernel gives out process descriptors (and the sandbox lets it).
#[must_use]
pub fn has_pidfd() -> bool {
    let own = rustix::process::getpid();
    !matches!(
        rustix::process::pidfd_open(own, PidfdFlags::empty()),
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM)
    )
}

fn translate(sent: rustix::io::Result<()>, signal: i32) -> Result<(), SignalError> {
    match sent {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::SRCH) => Err(SignalError::Gone),
        Err(error) => Err(SignalError::Os { signal, source: error.into() }),
    }
}
