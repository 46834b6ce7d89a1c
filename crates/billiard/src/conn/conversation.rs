//! A handshake over a socket, that goes on whenever the socket is ready.

use std::os::fd::{AsFd, OwnedFd};

use super::auth::{AuthError, LONGEST, Md5Policy};
use super::error::{ConnError, os};
use super::frame::{Head, HeadReader};
use super::handshake::{Handshake, Next, Role};
use super::transport::{Heard, Line, Moved, Pause, drain, fill, read_head};
use crate::failpoint;
use crate::sys::Deadline;
use crate::sys::Interrupts;
use crate::sys::poll::{Awaited, Woken, poll_one};
use crate::sys::stream::{Kind, Piece, Room};

/// How a handshake stands.
#[derive(Debug)]
pub(super) enum Standing {
    /// It goes on when the socket is ready for this.
    Waiting(Awaited),
    /// Both have proved that they hold the key.
    Trusted,
}

/// One handshake and its socket. The socket is closed if this is dropped.
#[derive(Debug)]
pub(super) struct Conversation {
    socket: OwnedFd,
    handshake: Handshake,
    head: HeadReader,
    message: Vec<u8>,
    arrived: usize,
    unsent: Vec<u8>,
    /// What is to happen when all has been sent.
    then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Listen,
    Trust,
    Part(AuthError),
}

impl Conversation {
    pub(super) fn begin(socket: OwnedFd, role: Role, key: &[u8], md5: Md5Policy) -> Result<Self, ConnError> {
        let (handshake, first) = Handshake::begin(role, key, md5).map_err(os("make a challenge"))?;
        let mut conversation = Self {
            socket,
            handshake,
            head: HeadReader::default(),
            message: Vec::new(),
            arrived: 0,
            unsent: Vec::new(),
            then: Then::Listen,
        };
        conversation.say(first, Then::Listen);
        Ok(conversation)
    }

    pub(super) const fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    pub(super) fn into_socket(self) -> OwnedFd {
        self.socket
    }

    fn say(&mut self, message: Option<Vec<u8>>, then: Then) {
        if let Some(message) = message {
            self.unsent.extend_from_slice(Head::of(message.len()).as_bytes());
            self.unsent.extend_from_slice(&message);
        }
        self.then = then;
    }

    /// Waits until the handshake has ended. None: something else came first.
    pub(super) fn finish(
        &mut self,
        deadline: Deadline,
        interrupts: Option<Interrupts<'_>>,
    ) -> Result<Option<Pause>, ConnError> {
        loop {
            let Standing::Waiting(what) = self.go_on()? else { return Ok(None) };
            match poll_one(self.socket.as_fd(), what, deadline, interrupts)
                .map_err(os("wait for the peer"))?
            {
                Woken::Ready => {}
                Woken::TimedOut => return Ok(Some(Pause::TimedOut)),
                Woken::Interrupted => return Ok(Some(Pause::Interrupted)),
            }
        }
    }

    /// Goes as far as it can without waiting.
    pub(super) fn go_on(&mut self) -> Result<Standing, ConnError> {
        loop {
            let speaks = !self.unsent.is_empty();
            if !self.send().map_err(hung_up)? {
                return Ok(Standing::Waiting(Awaited::Room));
            }
            if speaks {
                failpoint::pass("conn.said");
            }
            match self.then {
                Then::Trust => return Ok(Standing::Trusted),
                Then::Part(error) => return Err(error.into()),
                Then::Listen => {}
            }
            if !self.receive().map_err(hung_up)? {
                return Ok(Standing::Waiting(Awaited::Data));
            }
            failpoint::pass("conn.heard");
            self.head = HeadReader::default();
            self.arrived = 0;
            match self.handshake.hear(&self.message).map_err(os("make a challenge"))? {
                Next::Listen(say) => self.say(say, Then::Listen),
                Next::Trust(say) => self.say(say, Then::Trust),
                Next::Part(say, error) => self.say(say, Then::Part(error)),
            }
        }
    }

    const fn line<'a>(socket: std::os::fd::BorrowedFd<'a>) -> Line<'a> {
        Line { fd: socket, kind: Kind::Socket, deadline: Deadline::AT_ONCE, interrupts: None }
    }

    /// Whether all has been sent.
    fn send(&mut self) -> Result<bool, ConnError> {
        let mut pieces = [Piece::of(&self.unsent)];
        let moved = drain(Self::line(self.socket.as_fd()), &mut pieces).map_err(os("send"))?;
        let sent = self.unsent.len() - pieces[0].len();
        self.unsent.drain(..sent);
        Ok(moved == Moved::All)
    }

    /// Whether a whole message is there.
    fn receive(&mut self) -> Result<bool, ConnError> {
        let line = Self::line(self.socket.as_fd());
        let Heard::Length(announced) = read_head(line, &mut self.head)? else { return Ok(false) };
        let len = usize::try_from(announced).ok().filter(|_| announced <= LONGEST);
        let len = len.ok_or(ConnError::TooLong { announced, limit: LONGEST })?;
        self.message.resize(len, 0);
        let mut room = Room::of(&mut self.message[self.arrived..]);
        let moved = fill(line, &mut room).map_err(os("receive"))?;
        self.arrived = len - room.left();
        match moved {
            Moved::All => Ok(true),
            Moved::Ended => Err(ConnError::Closed),
            Moved::Paused(_) => Ok(false),
        }
    }
}

/// A peer that goes away now has not proved anything, whichever way it goes.
fn hung_up(error: ConnError) -> ConnError {
    match error {
        ConnError::Closed | ConnError::Torn { .. } => AuthError::HungUp.into(),
        ConnError::Os { source, .. }
            if matches!(
                source.kind(),
                std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
            ) =>
        {
            AuthError::HungUp.into()
        }
        // Not a head, or too long a message: it does not speak as we do.
        ConnError::Frame(_) | ConnError::TooLong { .. } => AuthError::NoChallenge.into(),
        other => other,
    }
}
