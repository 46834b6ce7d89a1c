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
        let line = Line { fd: self.fd.as_fd(), kind: self.kind, deadline, interrupts: None };
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
        let line = Line { fd: self.fd.as_fd(), kind: self.kind, deadline, interrupts: None };
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn soon() -> Deadline {
        Deadline::from_seconds(Some(0.001))
    }

    fn message(received: Result<Received, ConnError>) -> Vec<u8> {
        match received.unwrap() {
            Received::Message(bytes) => bytes,
            Received::Paused(pause) => panic!("no message: {pause:?}"),
        }
    }

    #[test]
    fn what_has_arrived_of_a_message_is_kept_for_the_next_call() {
        for (mut reader, writer) in [pipe().unwrap(), duplex().unwrap()] {
            let stream = [Head::of(5).as_bytes(), b"hello", Head::of(0).as_bytes()].concat();
            for byte in &stream[..8] {
                rustix::io::write(&writer, &[*byte]).unwrap();
                assert_eq!(reader.receive(soon()).unwrap(), Received::Paused(Pause::TimedOut));
            }
            rustix::io::write(&writer, &stream[8..]).unwrap();
            assert_eq!(message(reader.receive(soon())), b"hello");
            assert_eq!(message(reader.receive(soon())), b"");
            assert_eq!(reader.receive(soon()).unwrap(), Received::Paused(Pause::TimedOut));
        }
    }

    #[test]
    fn ends_are_told_apart() {
        for cut in 0..9 {
            let (mut reader, writer) = pipe().unwrap();
            let stream = [Head::of(5).as_bytes(), b"hello"].concat();
            rustix::io::write(&writer, &stream[..cut]).unwrap();
            drop(writer);
            let error = reader.receive(Deadline::Never).unwrap_err();
            assert_eq!(cut == 0, matches!(error, ConnError::Closed), "{cut}: {error:?}");
            assert_eq!(cut != 0, matches!(error, ConnError::Torn { .. }), "{cut}: {error:?}");
        }
    }

    #[test]
    fn a_message_over_the_limit_is_refused_unread() {
        let (reader, mut writer) = pipe().unwrap();
        writer.send(&[1; 11], Deadline::Never).unwrap();
        let error = reader.with_limit(10).receive(Deadline::Never).unwrap_err();
        assert!(matches!(error, ConnError::TooLong { announced: 11, limit: 10 }), "{error:?}");
    }

    #[test]
    fn a_head_that_lies_costs_no_memory() {
        let (mut reader, writer) = pipe().unwrap();
        rustix::io::write(&writer, Head::of(1 << 60).as_bytes()).unwrap();
        drop(writer);
        let error = reader.receive(Deadline::Never).unwrap_err();
        assert!(matches!(error, ConnError::Torn { got: 0, .. }), "{error:?}");
    }

    #[test]
    fn a_message_that_was_cut_off_lets_nothing_follow() {
        let (_reader, mut writer) = pipe().unwrap();
        let error = writer.send(&vec![0; 4 << 20], soon()).unwrap_err();
        assert!(matches!(error, ConnError::Broken), "{error:?}");
        let error = writer.send(b"x", Deadline::Never).unwrap_err();
        assert!(matches!(error, ConnError::Broken), "{error:?}");
    }

    #[test]
    fn a_deadline_before_the_first_byte_breaks_nothing() {
        let (mut reader, mut writer) = pipe().unwrap();
        while writer.send(&[7; 1020], soon()).unwrap() {}
        assert_eq!(message(reader.receive(soon())), [7; 1020]);
        for _ in 0..3 {
            assert_eq!(message(reader.receive(soon())), [7; 1020]);
        }
        assert!(writer.send(b"more", soon()).unwrap());
    }

    #[test]
    fn without_blocking_nothing_is_waited_for() {
        let (mut reader, mut writer) = duplex().unwrap();
        for end in [&reader, &writer] {
            listening::unblock(end.as_fd()).unwrap();
        }
        assert_eq!(reader.receive(Deadline::Never).unwrap(), Received::Paused(Pause::NotNow));
        assert!(writer.send(b"x", Deadline::Never).unwrap());
        assert_eq!(message(reader.receive(Deadline::Never)), b"x");
        let error = loop {
            if let Err(error) = writer.send(&[0; 4096], Deadline::Never) {
                break error;
            }
        };
        assert!(matches!(error, ConnError::WouldBlock | ConnError::Broken), "{error:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn any_stream_is_read_to_its_end_and_harms_nothing(
            stream in proptest::collection::vec(prop_oneof![3 => Just(0_u8), 1 => any::<u8>()], 0..300),
        ) {
            let (mut reader, writer) = pipe().unwrap();
            rustix::io::write(&writer, &stream).unwrap();
            drop(writer);
            let mut consumed = 0;
            loop {
                match reader.receive(Deadline::Never) {
                    Ok(Received::Message(bytes)) => {
                        consumed += Head::of(bytes.len()).as_bytes().len() + bytes.len();
                        prop_assert!(consumed <= stream.len() + 8);
                    }
                    Ok(Received::Paused(pause)) => prop_assert!(false, "{:?}", pause),
                    Err(ConnError::Closed) => break,
                    Err(ConnError::Torn { .. } | ConnError::Frame(_)) => break,
                    Err(other) => prop_assert!(false, "{:?}", other),
                }
            }
        }

        #[test]
        fn messages_arrive_as_they_were_sent(messages in proptest::collection::vec(any::<Vec<u8>>(), 0..20)) {
            let (mut one, mut other) = duplex().unwrap();
            for message in &messages {
                prop_assert!(one.send(message, Deadline::Never).unwrap());
            }
            drop(one);
            for expected in messages {
                prop_assert_eq!(message(other.receive(Deadline::Never)), expected);
            }
            prop_assert!(matches!(other.receive(Deadline::Never), Err(ConnError::Closed)));
        }
    }
}
