//! A connection: whole messages in both directions.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::error::{ConnError, os};
use super::frame::{Head, HeadReader};
use super::transport::{Heard, Line, Moved, Pause, drain, fill, prepare, read_head};
use crate::sys::poll::{Awaited, Woken, poll_one};
use crate::sys::stream::{Kind, Piece, Room};
use crate::sys::{Deadline, listening};

/// No message gets more memory at a time than has arrived of it, plus this: what a head says may be a lie.
const GROWTH: usize = 4 << 20;

/// A message that has arrived in part.
#[derive(Debug, Default)]
struct Partial {
    head: HeadReader,
    bytes: Vec<u8>,
    arrived: usize,
}

/// One end of a stream of messages. It works over everything that bytes go through in order: pipes, sockets, terminals.
///
/// ```
/// use billiard::conn::{Received, pipe};
/// use billiard::sys::Deadline;
///
/// let (mut reader, mut writer) = pipe()?;
/// writer.send(b"hello", Deadline::Never)?;
/// let Received::Message(message) = reader.receive(Deadline::Never)? else { unreachable!() };
/// assert_eq!(message, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Fork
/// A forked copy is another end of the same stream. Only one of the two should go on with it, from where a message begins.
#[derive(Debug)]
pub struct Connection {
    fd: OwnedFd,
    kind: Kind,
    partial: Partial,
    /// The peer has got a part of a message and not the rest.
    broken: bool,
    limit: u64,
}

/// How a wait for a message has ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// With one.
    Message(Vec<u8>),
    /// Without. What has arrived of one is kept for the next call.
    Paused(Pause),
}

impl Connection {
    /// A connection over a descriptor.
    ///
    /// # Errors
    /// The kernel does not say what it is.
    pub fn over(fd: OwnedFd) -> io::Result<Self> {
        let kind = Kind::of(fd.as_fd())?;
        Ok(Self { fd, kind, partial: Partial::default(), broken: false, limit: u64::MAX })
    }

    /// Accepts no messages longer than this.
    #[must_use]
    pub const fn with_limit(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    /// Sends a message. False: the deadline has passed before the first byte.
    ///
    /// # Blocking
    /// Until the kernel has taken all of it. Signals do not interrupt it.
    ///
    /// # Errors
    /// `BrokenPipe` in `Os` if the peer is gone. [`ConnError::Broken`], from then on, if the deadline passes in the middle.
    pub fn send(&mut self, message: &[u8], deadline: Deadline) -> Result<bool, ConnError> {
        if self.broken {
            return Err(ConnError::Broken);
        }
        prepare(self.fd.as_fd(), self.kind, message.len());
        let head = Head::of(message.len());
        let whole = head.as_bytes().len() + message.len();
        let mut pieces = [Piece::of(head.as_bytes()), Piece::of(message)];
        let line = Line { fd: self.fd.as_fd(), kind: self.kind, deadline, open: None };
        loop {
            let moved = drain(line, &mut pieces);
            let untouched = pieces[0].len() + pieces[1].len() == whole;
            match moved {
                Ok(Moved::All) => return Ok(true),
                Ok(Moved::Paused(Pause::Interrupted)) => {}
                Ok(Moved::Paused(pause)) if untouched => {
                    return if pause == Pause::NotNow { Err(ConnError::WouldBlock) } else { Ok(false) };
                }
                Ok(_) => {
                    self.broken = true;
                    return Err(ConnError::Broken);
                }
                Err(error) => {
                    self.broken = !untouched;
                    return Err(os("send")(error));
                }
            }
        }
    }

    /// Receives a message.
    ///
    /// # Blocking
    /// Until one is there, the end of the stream, or the deadline. Signals do not interrupt it.
    ///
    /// # Errors
    /// The peer has closed its end or has said what is no message. After anything but [`ConnError::WouldBlock`], close the connection.
    pub fn receive(&mut self, deadline: Deadline) -> Result<Received, ConnError> {
        let line = Line { fd: self.fd.as_fd(), kind: self.kind, deadline, open: None };
        loop {
            match step(line, &mut self.partial, self.limit)? {
                Received::Paused(Pause::Interrupted) => {}
                other => return Ok(other),
            }
        }
    }

    /// Waits until there is something to receive, or the end of the stream; whether there is.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn poll(&self, deadline: Deadline) -> io::Result<bool> {
        loop {
            match poll_one(self.fd.as_fd(), Awaited::Data, deadline, None)? {
                Woken::Ready => return Ok(true),
                Woken::TimedOut => return Ok(false),
                Woken::Interrupted => {}
            }
        }
    }

    /// Gives the descriptor up.
    #[must_use]
    pub fn into_descriptor(self) -> OwnedFd {
        self.fd
    }
}

fn step(line: Line<'_>, partial: &mut Partial, limit: u64) -> Result<Received, ConnError> {
    let announced = match read_head(line, &mut partial.head)? {
        Heard::Length(length) => length,
        Heard::Paused(pause) => return Ok(Received::Paused(pause)),
    };
    let len = usize::try_from(announced).ok().filter(|_| announced <= limit);
    let len = len.ok_or(ConnError::TooLong { announced, limit })?;
    loop {
        let grown = len.min(partial.arrived + GROWTH);
        partial.bytes.resize(grown, 0);
        let mut room = Room::of(&mut partial.bytes[partial.arrived..]);
        let moved = fill(line, &mut room).map_err(os("receive"))?;
        partial.arrived = grown - room.left();
        match moved {
            Moved::All if grown == len => return Ok(Received::Message(std::mem::take(partial).bytes)),
            Moved::All => {}
            Moved::Ended => return Err(ConnError::Torn { got: partial.arrived as u64, want: announced }),
            Moved::Paused(pause) => return Ok(Received::Paused(pause)),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Two connections with each other; either may send and receive.
///
/// # Errors
/// No descriptor is left.
pub fn duplex() -> io::Result<(Connection, Connection)> {
    let (one, other) = listening::pair()?;
    Ok((Connection::over(one)?, Connection::over(other)?))
}

/// A connection to receive from, and one that sends to it.
///
/// # Errors
/// No descriptor is left.
pub fn pipe() -> io::Result<(Connection, Connection)> {
    let (reader, writer) = listening::pipe()?;
    Ok((Connection::over(reader)?, Connection::over(writer)?))
}
