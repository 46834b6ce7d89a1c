//! Waiting on descriptors, interruptible by signals.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::clock::Deadline;
use super::interrupts::{BRIEF, GLANCE, Interrupts};

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// At least one descriptor is ready.
    Ready,
    /// The deadline passed first.
    TimedOut,
    /// A signal came first.
    Interrupted,
}

/// Sleeps until `fd` can be written to, or `or` is readable. Signals do not interrupt it.
pub fn writable(fd: BorrowedFd<'_>, or: Option<BorrowedFd<'_>>) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut set = vec![PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    set.extend(or.map(|or| PollFd::from_borrowed_fd(or, PollFlags::IN)));
    match poll(&mut set, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What of a descriptor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// Something to read, or the end of it.
    Data,
    /// Room to write something, or nobody who could read it.
    Room,
}

impl Awaited {
    const fn events(self) -> libc::c_short {
        match self {
            Self::Data => libc::POLLIN,
            Self::Room => libc::POLLOUT,
        }
    }
}

/// No descriptor at all: the kernel skips it.
const NOTHING: libc::pollfd = libc::pollfd { fd: -1, events: 0, revents: 0 };

const fn entry(number: RawFd, what: Awaited) -> libc::pollfd {
    libc::pollfd { fd: number, events: what.events(), revents: 0 }
}

/// Sleeps until one of `fds` is readable or has hung up, or a signal wants to be handled.
///
/// # Blocking
/// Until a descriptor is ready, the deadline, or a signal.
pub fn readable(
    fds: &[BorrowedFd<'_>],
    deadline: Deadline,
    interrupts: Option<Interrupts<'_>>,
) -> io::Result<Woken> {
    const MOST: usize = 4;
    let mut set = [NOTHING; MOST + 1];
    assert!(fds.len() <= MOST, "at most {MOST} descriptors");
    for (slot, fd) in set.iter_mut().zip(fds) {
        *slot = entry(fd.as_raw_fd(), Awaited::Data);
    }
    sleep(&mut set[..=fds.len()], deadline, interrupts)
}

/// Sleeps until one descriptor can be read from or written to, or has hung up; see [`readable`].
///
/// # Blocking
/// Until then, the deadline, or a signal.
pub fn poll_one(
    fd: BorrowedFd<'_>,
    what: Awaited,
    deadline: Deadline,
    interrupts: Option<Interrupts<'_>>,
) -> io::Result<Woken> {
    sleep(&mut [entry(fd.as_raw_fd(), what), NOTHING], deadline, interrupts)
}

/// One of many descriptors: what is waited for, and what was found.
#[derive(Clone, Copy)]
pub struct Readiness(libc::pollfd);

impl std::fmt::Debug for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Readiness({}, {:#x})", self.0.fd, self.0.revents)
    }
}

impl Readiness {
    /// Waits for this of the descriptor with this number. One that is not open is found to be so.
    #[must_use]
    pub const fn of(number: RawFd, what: Awaited) -> Self {
        Self(entry(number, what))
    }

    /// The number.
    #[must_use]
    pub const fn number(&self) -> RawFd {
        self.0.fd
    }

    /// Whether it is ready, or has hung up.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.0.revents != 0
    }

    /// Whether it is not open.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        self.0.revents & libc::POLLNVAL != 0
    }
}

/// Sleeps until one of many descriptors is ready, has hung up, or is not open; see [`readable`].
///
/// # Blocking
/// Until then, the deadline, or a signal.
pub fn any_ready(
    set: &mut [Readiness],
    deadline: Deadline,
    interrupts: Option<Interrupts<'_>>,
) -> io::Result<Woken> {
    let mut whole: Vec<_> = set.iter().map(|one| one.0).chain([NOTHING]).collect();
    let woken = sleep(&mut whole, deadline, interrupts)?;
    for (one, found) in set.iter_mut().zip(whole) {
        one.0 = found;
    }
    Ok(woken)
}

/// The last entry of the set is there for the bell of the interrupts.
fn sleep(
    set: &mut [libc::pollfd],
    deadline: Deadline,
    interrupts: Option<Interrupts<'_>>,
) -> io::Result<Woken> {
    let awaited = set.len() - 1;
    let mut until = deadline;
    match interrupts {
        Some(Interrupts::Bell(bell)) => set[awaited] = entry(bell.as_raw_fd(), Awaited::Data),
        Some(Interrupts::Glances) => until = deadline.or_after(GLANCE),
        Some(Interrupts::Briefly) => until = deadline.or_after(BRIEF),
        None => {}
    }
    let left = until.left().map(|d| libc::timespec {
        tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(d.subsec_nanos()),
    });
    let left_ptr = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let count = set.len() as libc::nfds_t;
    // SAFETY: the slice holds `count` entries; numbers that are no descriptors are told and not touched; the optional pointer
    // is null or points to a live value; no mask is given.
    let n = unsafe { libc::ppoll(set.as_mut_ptr(), count, left_ptr, std::ptr::null()) };
    match n {
        0 if deadline.passed() => Ok(Woken::TimedOut),
        0 => Ok(Woken::Interrupted),
        n if n > 0 && set[..awaited].iter().any(|fd| fd.revents != 0) => Ok(Woken::Ready),
        n if n > 0 => Ok(Woken::Interrupted),
        _ => {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted { Ok(Woken::Interrupted) } else { Err(error) }
        }
    }
}
