//! A connection on which questions and answers take turns. So what is read ahead is nobody else's, and one call of the kernel
//! reads a whole message.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::conn::frame::{Head, HeadReader};
use crate::conn::transport::{Moved, drain};
use crate::conn::{ConnError, transport};
use crate::sys::poll::{Awaited, Woken, poll_one};
use crate::sys::spin::Spin;
use crate::sys::stream::{self, Kind, Piece, Room};
use crate::sys::{BRIEF, Deadline, Interrupts, now};

/// Room for what is read at a time; most messages are shorter.
const USUAL: usize = 8 * 1024;
/// No message gets more memory at a time than has arrived of it, plus this: what a head says may be a lie.
const GROWTH: usize = 1 << 20;
/// After so much the caller gets to do something else.
const STRETCH: usize = 1 << 20;

fn os(doing: &'static str) -> impl FnOnce(io::Error) -> ConnError {
    move |source| ConnError::Os { doing, source }
}

/// How a look for a message has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is one: [`Line::message`].
    Message,
    /// Not yet, or not all of it.
    Nothing,
    /// Not yet; much has arrived of one, and perhaps more is there.
    Part,
}

/// How a wait for a message has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// There is one: [`Line::message`].
    Message,
    /// A signal handler has run, or may want to.
    Interrupted,
    /// The deadline has passed.
    TimedOut,
}

/// One end.
///
/// # Fork
/// A forked copy shares the socket, and must not go on with the conversation.
#[derive(Debug)]
pub struct Line {
    socket: OwnedFd,
    kind: Kind,
    bytes: Vec<u8>,
    /// What has been taken, and what has arrived: in between is what is to be looked at.
    taken: usize,
    arrived: usize,
    /// Where in `bytes` the message is that was found.
    found: Option<(usize, usize)>,
    unsent: Vec<u8>,
    spin: Spin,
    /// How long a message may be.
    limit: u64,
    /// Whether the kernel knows how long a brief read may take.
    is_limited: bool,
}

/// Whether a read may wait.
#[derive(Clone, Copy)]
enum Patience {
    None,
    Brief,
}

impl Line {
    /// Over a socket.
    ///
    /// # Errors
    /// The kernel does not say what it is.
    pub fn over(socket: OwnedFd) -> io::Result<Self> {
        let kind = Kind::of(socket.as_fd())?;
        let (bytes, unsent) = (vec![0; USUAL], Vec::new());
        let spin = Spin::over_kernel();
        Ok(Self {
            socket,
            kind,
            bytes,
            taken: 0,
            arrived: 0,
            found: None,
            unsent,
            spin,
            limit: u64::MAX,
            is_limited: false,
        })
    }

    /// Refuses messages that are longer, in bytes.
    #[must_use]
    pub const fn with_limit(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    /// What it leads through.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Reads what there is, without waiting, until there is a message.
    ///
    /// # Errors
    /// The stream has ended, or what has arrived is no message.
    pub fn look(&mut self) -> Result<Found, ConnError> {
        self.read_on(Patience::None)
    }

    fn read_on(&mut self, mut patience: Patience) -> Result<Found, ConnError> {
        let mut read = 0;
        while !self.find()? {
            if read >= STRETCH {
                return Ok(Found::Part);
            }
            let want = self.bytes.len() - self.arrived;
            let mut room = Room::of(&mut self.bytes[self.arrived..]);
            let socket = self.socket.as_fd();
            let got = match std::mem::replace(&mut patience, Patience::None) {
                Patience::None => stream::read(socket, self.kind, &mut room),
                Patience::Brief => stream::read_briefly(socket, &mut room),
            };
            match got {
                Ok(0) if self.taken == self.arrived => return Err(ConnError::Closed),
                Ok(0) => return Err(self.torn()),
                Ok(got) => {
                    self.arrived += got;
                    read += got;
                    // What is less than was asked for is all there is; then another call would be in vain.
                    if got < want && !self.find()? {
                        return Ok(Found::Nothing);
                    }
                }
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
                {
                    return Ok(Found::Nothing);
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(ConnError::Closed);
                }
                Err(error) => return Err(os("receive")(error)),
            }
        }
        Ok(Found::Message)
    }

    fn torn(&self) -> ConnError {
        let got = (self.arrived - self.taken) as u64;
        ConnError::Torn { got, want: self.announced().ok().flatten().map_or(4, |(_, len)| len) }
    }

    /// How long head and message are, if the head is there.
    fn announced(&self) -> Result<Option<(usize, u64)>, ConnError> {
        let mut head = HeadReader::default();
        let mut from = self.taken;
        while let Some(place) = head.missing() {
            let len = place.len();
            let Some(bytes) = self.bytes[..self.arrived].get(from..from + len) else { return Ok(None) };
            place.copy_from_slice(bytes);
            head.arrived(len);
            from += len;
        }
        match head.length()? {
            Some(announced) if announced > self.limit => {
                Err(ConnError::TooLong { announced, limit: self.limit })
            }
            length => Ok(length.map(|length| (from - self.taken, length))),
        }
    }

    /// Whether all of a message is there. If not, there is room for more of it afterwards.
    fn find(&mut self) -> Result<bool, ConnError> {
        if self.found.is_some() {
            return Ok(true);
        }
        let whole = match self.announced()? {
            None => USUAL as u64,
            Some((head, length)) => {
                let from = self.taken + head;
                if (self.arrived - from) as u64 >= length {
                    // It fits, since it is there.
                    self.found = Some((from, from + length as usize));
                    return Ok(true);
                }
                head as u64 + length
            }
        };
        if self.taken > 0 {
            self.bytes.copy_within(self.taken..self.arrived, 0);
            self.arrived -= self.taken;
            self.taken = 0;
        }
        let most = (self.arrived + GROWTH) as u64;
        let len = whole.min(most).max(USUAL as u64) as usize;
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
        Ok(false)
    }

    /// The message that was found; empty if there is none.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        self.found.map_or(&[], |(from, to)| &self.bytes[from..to])
    }

    /// Drops the message that was found.
    pub fn take(&mut self) {
        let Some((_, to)) = self.found.take() else { return };
        self.taken = to;
        if self.taken == self.arrived {
            (self.taken, self.arrived) = (0, 0);
            if self.bytes.len() > STRETCH {
                self.bytes = vec![0; USUAL];
            }
        }
    }

    /// Whether something has arrived behind the messages that were taken.
    #[must_use]
    pub const fn is_ahead(&self) -> bool {
        self.taken < self.arrived
    }

    /// Looks for a message again and again, for a while, where experience says that it comes so soon. Whether there is one.
    ///
    /// # Errors
    /// As [`Line::look`].
    pub fn expect_soon(&mut self) -> Result<bool, ConnError> {
        // Who sleeps looks first.
        if self.find()? || !self.spin.is_worth_it() {
            return Ok(self.found.is_some());
        }
        let spin = std::mem::replace(&mut self.spin, Spin::over_kernel());
        // The peer had no time yet: the first look is spared.
        let mut is_early = true;
        let found = spin.find(|| {
            if std::mem::take(&mut is_early) {
                return None;
            }
            match self.look() {
                Ok(Found::Nothing) => None,
                found => Some(found),
            }
        });
        self.spin = spin;
        Ok(found.transpose()? == Some(Found::Message))
    }

    /// Sleeps until there is a message.
    ///
    /// # Blocking
    /// Until then, the deadline or a signal.
    ///
    /// # Errors
    /// As [`Line::look`].
    pub fn hear(
        &mut self,
        deadline: Deadline,
        interrupts: Option<Interrupts<'_>>,
    ) -> Result<Heard, ConnError> {
        let start = now();
        if matches!(interrupts, Some(Interrupts::Briefly))
            && deadline == Deadline::Never
            && self.can_be_brief()
        {
            if self.read_on(Patience::Brief)? != Found::Message {
                return Ok(Heard::Interrupted);
            }
            self.spin.slept(now().since(start));
            return Ok(Heard::Message);
        }
        while self.look()? != Found::Message {
            let woken = poll_one(self.socket.as_fd(), Awaited::Data, deadline, interrupts);
            match woken.map_err(os("wait for a message"))? {
                Woken::Ready => {}
                Woken::TimedOut => return Ok(Heard::TimedOut),
                Woken::Interrupted => return Ok(Heard::Interrupted),
            }
        }
        self.spin.slept(now().since(start));
        Ok(Heard::Message)
    }

    /// Whether one call of the kernel can wait for a moment and read.
    fn can_be_brief(&mut self) -> bool {
        if !self.is_limited && self.kind == Kind::Socket {
            self.is_limited = stream::limit_reads(self.socket.as_fd(), BRIEF).is_ok();
        }
        self.is_limited
    }

    /// Sends a message as far as it can be sent without waiting, and keeps a copy of the rest. Whether nothing is left.
    ///
    /// # Errors
    /// The peer is gone.
    pub fn say(&mut self, pieces: &mut [Piece<'_>]) -> Result<bool, ConnError> {
        if self.unsent.is_empty() {
            let line = transport::Line {
                fd: self.socket.as_fd(),
                kind: self.kind,
                deadline: Deadline::AT_ONCE,
                interrupts: None,
            };
            if drain(line, pieces).map_err(os("send"))? == Moved::All {
                return Ok(true);
            }
        }
        for piece in pieces {
            piece.append_to(&mut self.unsent);
        }
        Ok(false)
    }

    /// Sends what was kept, as far as it can be sent without waiting. Whether nothing is left.
    ///
    /// # Errors
    /// The peer is gone.
    pub fn flush(&mut self) -> Result<bool, ConnError> {
        let line = transport::Line {
            fd: self.socket.as_fd(),
            kind: self.kind,
            deadline: Deadline::AT_ONCE,
            interrupts: None,
        };
        let mut pieces = [Piece::of(&self.unsent)];
        drain(line, &mut pieces).map_err(os("send"))?;
        let left = pieces[0].len();
        self.unsent.drain(..self.unsent.len() - left);
        if left == 0 {
            self.unsent = Vec::new();
        }
        Ok(left == 0)
    }

    /// How much memory what has arrived takes, in bytes.
    #[cfg(test)]
    pub(super) fn holds(&self) -> usize {
        self.bytes.capacity()
    }

    /// Whether something was kept that the peer has not taken.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Sends a message. False: the deadline has passed first; then nothing can follow.
    ///
    /// # Blocking
    /// Until the kernel has taken all of it. Signals do not interrupt it.
    ///
    /// # Errors
    /// The peer is gone.
    pub fn send(&mut self, message: &[u8], deadline: Deadline) -> Result<bool, ConnError> {
        let head = Head::of(message.len());
        let mut done = self.say(&mut [Piece::of(head.as_bytes()), Piece::of(message)])?;
        while !done {
            let woken = poll_one(self.socket.as_fd(), Awaited::Room, deadline, None);
            if woken.map_err(os("wait for room"))? == Woken::TimedOut {
                return Ok(false);
            }
            done = self.flush()?;
        }
        Ok(true)
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
