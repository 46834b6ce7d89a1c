//! Sockets between two related processes that keep messages whole and carry descriptors with them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::descriptor::above_standard;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// How many descriptors the kernel lets travel with one message.
pub const MOST_DESCRIPTORS: usize = 253;
const SPACE: usize = rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS));

/// What a look at a socket has found.
#[derive(Debug)]
pub enum Arrival {
    /// A message.
    Packet(Packet),
    /// Nothing now.
    Nothing,
    /// The other end is gone.
    Closed,
}

/// One message.
#[derive(Debug)]
pub struct Packet {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The descriptors that came with it, closed on exec.
    pub fds: Vec<OwnedFd>,
    /// Not all descriptors that were sent have arrived, since there was no room for them; then none is handed out.
    pub torn: bool,
}

/// Two connected ends, without a name, closed on exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((above_standard(a)?, above_standard(b)?))
}

/// Sends one message with its descriptors. Does not wait: `WouldBlock` if the other side is behind with reading.
///
/// # Errors
/// `InvalidInput` for more than [`MOST_DESCRIPTORS`]; `BrokenPipe` if the other end is gone.
pub fn send(socket: impl AsFd, parts: &[&[u8]], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty()
        && (fds.len() > MOST_DESCRIPTORS || !control.push(SendAncillaryMessage::ScmRights(fds)))
    {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    match sendmsg(socket, &parts, &mut control, flags) {
        Err(rustix::io::Errno::CONNRESET) => Err(io::ErrorKind::BrokenPipe.into()),
        sent => Ok(sent.map(drop)?),
    }
}

/// Says that nothing more will be sent; what the other side has sent can still be read.
pub fn finish(socket: impl AsFd) -> io::Result<()> {
    Ok(rustix::net::shutdown(socket, rustix::net::Shutdown::Write)?)
}

/// Takes the next message, of at most `most` bytes, if there is one. Does not wait.
///
/// # Errors
/// `InvalidData` for a message that is longer.
pub fn receive(socket: impl AsFd, most: usize) -> io::Result<Arrival> {
    let mut bytes = vec![0; most];
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
        Ok(got) => got,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(Arrival::Nothing),
        Err(rustix::io::Errno::CONNRESET) => return Ok(Arrival::Closed),
        Err(error) => return Err(error.into()),
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(arrived) = message {
            for fd in arrived {
                fds.push(above_standard(fd)?);
            }
        }
    }
    if got.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let torn = got.flags.contains(ReturnFlags::CTRUNC);
    if got.bytes == 0 && fds.is_empty() && !torn {
        return Ok(Arrival::Closed);
    }
    bytes.truncate(got.bytes);
    if torn {
        fds.clear();
    }
    Ok(Arrival::Packet(Packet { bytes, fds, torn }))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn arrived(socket: &OwnedFd) -> Packet {
        match receive(socket, 1024).unwrap() {
            Arrival::Packet(packet) => packet,
            other => panic!("no packet but {other:?}"),
        }
    }

    #[test]
    fn messages_stay_whole_and_keep_their_descriptors() {
        let (a, b) = pair().unwrap();
        let (r, w) = rustix::pipe::pipe().unwrap();
        send(&a, &[b"one", b" two"], &[]).unwrap();
        send(&a, &[b"three"], &[w.as_fd(), r.as_fd()]).unwrap();
        assert_eq!(arrived(&b).bytes, b"one two");
        let packet = arrived(&b);
        assert_eq!((packet.bytes.as_slice(), packet.fds.len()), (b"three".as_slice(), 2));
        rustix::io::write(&packet.fds[0], b"x").unwrap();
        let mut byte = [0];
        rustix::io::read(&packet.fds[1], &mut byte).unwrap();
        assert_eq!(&byte, b"x");
        assert!(matches!(receive(&b, 16).unwrap(), Arrival::Nothing));
        drop(a);
        assert!(matches!(receive(&b, 16).unwrap(), Arrival::Closed));
        assert_eq!(send(&b, &[b"x"], &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn as_many_descriptors_as_the_kernel_allows_and_no_more() {
        let (a, b) = pair().unwrap();
        let many = vec![a.as_fd(); MOST_DESCRIPTORS + 1];
        assert_eq!(send(&a, &[b"x"], &many).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        send(&a, &[b"x"], &many[1..]).unwrap();
        assert_eq!(arrived(&b).fds.len(), MOST_DESCRIPTORS);
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_and_the_next_one_is_read() {
        let (a, b) = pair().unwrap();
        send(&a, &[&[0; 100]], &[a.as_fd()]).unwrap();
        send(&a, &[b"next"], &[]).unwrap();
        assert_eq!(receive(&b, 10).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(arrived(&b).bytes, b"next");
    }
}
