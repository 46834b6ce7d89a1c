//! Waiting on descriptors, interruptible by signals.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::clock::Deadline;
use super::signal::Mask;

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// At least one descriptor is readable.
    Ready,
    /// The deadline passed first.
    TimedOut,
    /// A signal handler ran first.
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

/// Sleeps until one of `fds` is readable or has hung up. With `open`, the signal mask is replaced by it for exactly the
/// length of the wait, so that a signal that arrived just before ends the wait too.
///
/// # Blocking
/// Until a descriptor is ready, the deadline, or a signal handler.
pub fn readable(fds: &[BorrowedFd<'_>], deadline: Deadline, open: Option<&Mask>) -> io::Result<Woken> {
    const MOST: usize = 4;
    let mut set = [libc::pollfd { fd: -1, events: 0, revents: 0 }; MOST];
    assert!(fds.len() <= MOST, "at most {MOST} descriptors");
    for (slot, fd) in set.iter_mut().zip(fds) {
        *slot = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    }
    let left = deadline.left().map(|d| libc::timespec {
        tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(d.subsec_nanos()),
    });
    let left_ptr = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let mask_ptr = open.map_or(std::ptr::null(), Mask::as_ptr);
    // SAFETY: the array holds at least `fds.len()` entries whose descriptors are borrowed for the call; both optional
    // pointers are null or point to live values.
    let n = unsafe { libc::ppoll(set.as_mut_ptr(), fds.len() as libc::nfds_t, left_ptr, mask_ptr) };
    match n {
        0 => Ok(Woken::TimedOut),
        n if n > 0 => Ok(Woken::Ready),
        _ => {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted { Ok(Woken::Interrupted) } else { Err(error) }
        }
    }
}
