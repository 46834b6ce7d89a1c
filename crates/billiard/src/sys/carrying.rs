//! Streams between processes of one machine that carry a descriptor beside some of their bytes. Nothing here waits.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg, sockopt,
};

use super::descriptor::above_standard;

const SPACE: usize = rustix::cmsg_space!(ScmRights(1));

/// Whether a descriptor is of a stream that can carry others.
#[must_use]
pub fn can_carry(fd: BorrowedFd<'_>) -> bool {
    sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(fd) == Ok(rustix::net::SocketType::STREAM)
}

/// Sends the first of some bytes, at least one, with a descriptor beside them. How many were sent.
///
/// # Errors
/// `WouldBlock` if there is no room now; `BrokenPipe` if the other end is gone.
pub fn send(stream: BorrowedFd<'_>, bytes: &[u8], beside: BorrowedFd<'_>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [beside];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    match sendmsg(stream, &[IoSlice::new(bytes)], &mut control, flags) {
        Err(rustix::io::Errno::CONNRESET) => Err(io::ErrorKind::BrokenPipe.into()),
        sent => Ok(sent?),
    }
}

/// Takes what there is of some bytes, and the descriptor that was sent beside the first of them. No bytes: the other end is closed.
///
/// # Errors
/// `WouldBlock` if there is nothing now; `InvalidData` if more came beside them than one descriptor, or one for which no number is left.
pub fn receive(stream: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = match recvmsg(stream, &mut [IoSliceMut::new(bytes)], &mut control, flags) {
        Err(rustix::io::Errno::CONNRESET) => return Ok((0, None)),
        got => got?,
    };
    let mut beside = None;
    let mut many = got.flags.contains(ReturnFlags::CTRUNC);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            for fd in fds {
                many |= beside.replace(above_standard(fd)?).is_some();
            }
        }
    }
    if many { Err(io::ErrorKind::InvalidData.into()) } else { Ok((got.bytes, beside)) }
}

/// About how much memory what was sent and not received takes in the kernel, in bytes.
pub fn unread(stream: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one number to where it is told.
    let rc = unsafe { libc::ioctl(stream.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if rc == 0 { Ok(usize::try_from(bytes).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::listening;

    #[test]
    fn a_descriptor_stays_with_its_bytes() {
        let (a, b) = listening::pair().unwrap();
        let (r, w) = rustix::pipe::pipe().unwrap();
        assert!(can_carry(a.as_fd()) && !can_carry(r.as_fd()));
        assert_eq!(rustix::io::write(&a, b"before").unwrap(), 6);
        assert_eq!(send(a.as_fd(), b"with", w.as_fd()).unwrap(), 4);
        assert_eq!(rustix::io::write(&a, b"after").unwrap(), 5);
        assert!(unread(a.as_fd()).unwrap() > 0);
        let mut bytes = [0; 4];
        assert!(matches!(receive(b.as_fd(), &mut bytes), Ok((4, None))));
        assert!(matches!(receive(b.as_fd(), &mut bytes[..2]), Ok((2, None))));
        let (got, beside) = receive(b.as_fd(), &mut bytes[..1]).unwrap();
        assert_eq!((got, bytes[0]), (1, b'w'));
        rustix::io::write(beside.unwrap(), b"x").unwrap();
        rustix::io::read(&r, &mut bytes[..1]).unwrap();
        assert_eq!(bytes[0], b'x');
        assert!(matches!(receive(b.as_fd(), &mut [0; 9]), Ok((8, None))));
        assert_eq!(unread(a.as_fd()).unwrap(), 0);
        assert_eq!(receive(b.as_fd(), &mut bytes).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(b);
        assert_eq!(send(a.as_fd(), b"x", w.as_fd()).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(matches!(receive(a.as_fd(), &mut bytes), Ok((0, None))));
    }
}
