//! Sockets on both sides of a door.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};

use super::Deadline;

/// Puts a descriptor, and every copy of it, into non-blocking mode.
pub fn unblock(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = fcntl_getfl(fd)?;
    if !flags.contains(OFlags::NONBLOCK) {
        fcntl_setfl(fd, flags | OFlags::NONBLOCK)?;
    }
    Ok(())
}

/// Takes a visitor in, by a socket that is closed on exec and in blocking mode.
///
/// # Errors
/// `WouldBlock` if there is none and the listening socket is in non-blocking mode.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    loop {
        match accept_with(listener, SocketFlags::CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            done => return Ok(done?),
        }
    }
}

/// Two connected sockets without a name, closed on exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// The two ends of a pipe, closed on exec: the one to read from and the one to write to.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Listens at a path in the file system.
///
/// # Errors
/// `AddrInUse` if something is there already.
pub fn listen_unix(path: &Path, backlog: i32) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, backlog)?;
    Ok(socket)
}

/// Connects to a path in the file system. None: nobody was let in before the deadline.
///
/// # Errors
/// Nobody listens there.
pub fn connect_unix(path: &Path, deadline: Deadline) -> io::Result<Option<OwnedFd>> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let address = SocketAddrUnix::new(path)?;
    loop {
        // KERNEL: what limits sending limits a wait for room among those who want to be let in, too. None at all means for ever.
        let left = deadline.left().map(|left| left.max(SHORTEST));
        set_socket_timeout(&socket, Timeout::Send, left)?;
        match connect(&socket, &address) {
            Ok(()) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) if deadline.passed() => return Ok(None),
            Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    set_socket_timeout(&socket, Timeout::Send, None)?;
    Ok(Some(socket))
}

/// Connects to an internet address. None: nobody has answered before the deadline.
///
/// # Errors
/// Nobody listens there.
pub fn connect_tcp(address: SocketAddr, deadline: Deadline) -> io::Result<Option<OwnedFd>> {
    let stream = match deadline.left() {
        None => TcpStream::connect(address),
        Some(left) => TcpStream::connect_timeout(&address, left.max(SHORTEST)),
    };
    match stream {
        Err(error) if error.kind() == io::ErrorKind::TimedOut && deadline.passed() => Ok(None),
        stream => stream.map(|stream| Some(stream.into())),
    }
}

/// Less than this is no limit to the kernel, or refused.
const SHORTEST: Duration = Duration::from_micros(1);

/// Listens at an internet address.
///
/// # Errors
/// `AddrInUse` if somebody else does.
pub fn listen_tcp(address: SocketAddr, backlog: i32) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, backlog)?;
    Ok(socket)
}
