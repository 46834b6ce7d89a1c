//! Descriptors: keeping them off the standard streams' numbers, and those that come from outside of Rust as bare numbers.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};

/// The first number that is no standard stream's.
const FIRST_OTHER: RawFd = 3;

/// Moves a descriptor that was just opened off the numbers of the standard streams, and has it closed on exec.
///
/// A program may have closed a stream, and what is opened next gets its number. Whoever still writes to that stream, an
/// interpreter that prints or a library that logs, would then write into shared memory, or ring a bell.
///
/// # Errors
/// No descriptor is left.
pub fn above_standard(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() >= FIRST_OTHER { Ok(fd) } else { Ok(fcntl_dupfd_cloexec(&fd, FIRST_OTHER)?) }
}

/// Borrows the descriptor with this number. Whoever owns it vouches that it stays open meanwhile.
///
/// # Errors
/// There is no such descriptor.
pub fn lend<'fd>(number: RawFd) -> io::Result<BorrowedFd<'fd>> {
    if number < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: not negative; that it is open is checked next, and that it stays so is the caller's word.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_getfd(fd)?;
    Ok(fd)
}

/// Borrows the descriptor with this number, as [`lend`] does, without asking the kernel whether it is open: if it is not, the
/// call that it is used for says so.
///
/// # Errors
/// The number is negative.
pub fn trust<'fd>(number: RawFd) -> io::Result<BorrowedFd<'fd>> {
    if number < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: not negative; that it stays open is the caller's word, and a number that is not open is refused by the kernel.
    Ok(unsafe { BorrowedFd::borrow_raw(number) })
}

/// Takes the descriptor with this number over, and marks it to be closed on exec. Whoever had it must not use it any more.
///
/// # Errors
/// There is no such descriptor.
pub fn claim(number: RawFd) -> io::Result<OwnedFd> {
    fcntl_setfd(lend(number)?, FdFlags::CLOEXEC)?;
    // SAFETY: it is open, and the caller has given it up.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes a descriptor by its number, in a child that will never use the value that owns it.
pub fn close_raw(fd: RawFd) {
    // SAFETY: the caller vouches that nobody in this process uses the number any more; a wrong number is refused.
    unsafe { libc::close(fd) };
}
