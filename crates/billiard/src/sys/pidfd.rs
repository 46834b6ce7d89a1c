//! Process descriptors: exact exits and signals that cannot hit a stranger.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};

use super::clock::Deadline;
use super::descriptor::above_standard;
use super::exit_info;
use super::ident::{Identity, me};
use super::poll::{self, Woken};
use crate::failpoint;
use rustix::process::{Pid, PidfdFlags, Signal};

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
}

/// The end of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// The most memory it ever had resident, where the kernel has told.
    pub peak_rss_kib: Option<u64>,
}

impl Ended {
    /// Ended, and nobody knows how.
    pub const UNKNOWN: Self = Self { status: ExitStatus::Unknown, peak_rss_kib: None };
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
        if failpoint::is_denied("pidfd") {
            return Ok(Self { pid, opener: me(), fd: None });
        }
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => Ok(Self { pid, opener: me(), fd: Some(above_standard(fd)?) }),
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
                Ok(Self { pid, opener: me(), fd: None })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The process `pid`, whose descriptor somebody has sent us.
    pub fn from_descriptor(pid: i32, fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { pid: pid_of(pid)?, opener: me(), fd: Some(fd) })
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

    /// Whether the process has ended, whoever's child it is.
    pub fn has_ended(&self) -> io::Result<bool> {
        match self.descriptor() {
            Some(fd) => Ok(poll::readable(&[fd], Deadline::AT_ONCE, None)? == Woken::Ready),
            // KERNEL: without pidfd only the number can be asked, and one that is not reaped yet still answers to it.
            None => {
                let gone = rustix::process::test_kill_process(self.pid) == Err(rustix::io::Errno::SRCH);
                Ok(gone || exit_info::is_unreaped(self.pid()))
            }
        }
    }

    /// Whether the descriptor is still one of a process: a program may have closed it, and opened something else under its
    /// number.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let Some(fd) = &self.fd else { return false };
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: signal 0 is never sent; the kernel only looks whether it could be.
        let rc = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), 0, none, 0) };
        let lost = [Some(libc::EBADF), Some(libc::EINVAL)];
        rc == 0 || !lost.contains(&io::Error::last_os_error().raw_os_error())
    }

    /// Takes the exit status of a child if it has ended. Does not wait. A status is handed out once; remember it.
    pub fn try_wait(&self) -> io::Result<Option<Ended>> {
        self.wait_with(libc::WEXITED | libc::WNOHANG)
    }

    /// Waits until the child has ended and takes its status.
    ///
    /// # Blocking
    /// Until the child ends; a signal handler that runs ends the wait with `EINTR`.
    pub fn wait(&self) -> io::Result<Option<Ended>> {
        self.wait_with(libc::WEXITED)
    }

    fn wait_with(&self, options: i32) -> io::Result<Option<Ended>> {
        let (kind, id) = match &self.fd {
            Some(fd) => (libc::P_PIDFD, fd.as_raw_fd()),
            None => (libc::P_PID, self.pid()),
        };
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // The library's `waitid` has no place for the resources used, the kernel's has.
        // SAFETY: both structures are valid for writing, and the kernel knows their layout from libc.
        let rc = unsafe {
            libc::syscall(libc::SYS_waitid, kind, id, info.as_mut_ptr(), options, usage.as_mut_ptr())
        };
        if rc != 0 {
            let error = io::Error::last_os_error();
            // Somebody else reaped it: ended, status unknown.
            let gone = error.raw_os_error() == Some(libc::ECHILD);
            return if gone { Ok(Some(Ended::UNKNOWN)) } else { Err(error) };
        }
        // SAFETY: zeroes are a valid siginfo_t, and the kernel has written a valid one over them.
        let info = unsafe { info.assume_init() };
        // SAFETY: as above.
        let usage = unsafe { usage.assume_init() };
        // SAFETY: `waitid` fills the fields of a child's end; all zeroes mean that none has ended.
        let pid = unsafe { info.si_pid() };
        if pid == 0 {
            return Ok(None);
        }
        // SAFETY: as above.
        let number = unsafe { info.si_status() };
        let status = match info.si_code {
            libc::CLD_EXITED => ExitStatus::Code(number),
            libc::CLD_KILLED | libc::CLD_DUMPED => ExitStatus::Signal(number),
            _ => ExitStatus::Unknown,
        };
        Ok(Some(Ended { status, peak_rss_kib: u64::try_from(usage.ru_maxrss).ok() }))
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
