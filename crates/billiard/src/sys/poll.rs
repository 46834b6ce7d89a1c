//! Waiting on descriptors, interruptible by signals.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::clock::Deadline;
use super::interrupts::{GLANCE, Interrupts};

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// At least one descriptor is readable.
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
    let mut set = [libc::pollfd { fd: -1, events: 0, revents: 0 }; MOST + 1];
    assert!(fds.len() <= MOST, "at most {MOST} descriptors");
    for (slot, fd) in set.iter_mut().zip(fds) {
        *slot = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    }
    let mut count = fds.len();
    let mut until = deadline;
    match interrupts {
        Some(Interrupts::Bell(bell)) => {
            set[count] = libc::pollfd { fd: bell.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            count += 1;
        }
        Some(Interrupts::Glances) => until = deadline.or_after(GLANCE),
        None => {}
    }
    let left = until.left().map(|d| libc::timespec {
        tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(d.subsec_nanos()),
    });
    let left_ptr = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the array holds at least `count` entries whose descriptors are borrowed for the call; the optional pointer is
    // null or points to a live value; no mask is given.
    let n = unsafe { libc::ppoll(set.as_mut_ptr(), count as libc::nfds_t, left_ptr, std::ptr::null()) };
    match n {
        0 if deadline.passed() => Ok(Woken::TimedOut),
        0 => Ok(Woken::Interrupted),
        n if n > 0 && set[..fds.len()].iter().any(|fd| fd.revents != 0) => Ok(Woken::Ready),
        n if n > 0 => Ok(Woken::Interrupted),
        _ => {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted { Ok(Woken::Interrupted) } else { Err(error) }
        }
    }
}
