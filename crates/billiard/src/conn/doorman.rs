//! Lets in who holds the key. Several visitors prove it at a time, so that one who says nothing keeps nobody waiting.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::auth::Md5Policy;
use super::conversation::{Conversation, Standing};
use super::error::{ConnError, os};
use super::handshake::Role;
use super::transport::Pause;
use crate::sys::Deadline;
use crate::sys::poll::{Awaited, Readiness, Woken, any_ready};
use crate::sys::signal::Mask;
use crate::sys::{Moment, listening, now};

/// So many prove themselves at a time; with one more, the one that has taken longest is shown out.
pub const MOST_VISITORS: usize = 64;
/// How long a visitor may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Visitor {
    conversation: Conversation,
    awaited: Awaited,
    until: Moment,
}

/// Who is at the door.
///
/// # Fork
/// A child that is forked while visitors prove themselves shares their sockets, and should drop its doorman.
#[derive(Debug)]
pub struct Doorman {
    key: Option<Vec<u8>>,
    md5: Md5Policy,
    patience: Duration,
    visitors: VecDeque<Visitor>,
}

/// How a wait at the door has ended.
#[derive(Debug)]
pub enum Admitted {
    /// Somebody may come in.
    Socket(OwnedFd),
    /// Nobody yet.
    Paused(Pause),
}

impl Doorman {
    /// Somebody who asks for this key; without one everybody may come in.
    #[must_use]
    pub fn new(key: Option<&[u8]>, md5: Md5Policy) -> Self {
        Self { key: key.map(<[u8]>::to_vec), md5, patience: PATIENCE, visitors: VecDeque::new() }
    }

    /// Shows visitors out after this time.
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Takes over who is at another's door.
    pub fn join(&mut self, other: Self) {
        self.visitors.extend(other.visitors);
        self.visitors.make_contiguous().sort_by_key(|visitor| visitor.until);
        while self.visitors.len() > MOST_VISITORS {
            self.visitors.pop_front();
        }
    }

    /// Waits for the next one who holds the key. The listening socket is put into non-blocking mode: processes may share it.
    ///
    /// # Blocking
    /// Until there is one, the deadline or a signal handler.
    ///
    /// # Errors
    /// A visitor failed; its connection is closed, and the others are still at the door. Or the listening socket did.
    pub fn admit(
        &mut self,
        listener: BorrowedFd<'_>,
        deadline: Deadline,
        open: Option<&Mask>,
    ) -> Result<Admitted, ConnError> {
        listening::unblock(listener).map_err(os("listen"))?;
        loop {
            let mut awaited = vec![Readiness::of(listener.as_raw_fd(), Awaited::Data)];
            awaited.extend(
                self.visitors.iter().map(|v| Readiness::of(v.conversation.socket().as_raw_fd(), v.awaited)),
            );
            let patience =
                self.visitors.front().map_or(Deadline::Never, |visitor| Deadline::At(visitor.until));
            let woken = any_ready(&mut awaited, deadline.sooner(patience), open);
            match woken.map_err(os("wait for a visitor"))? {
                Woken::Interrupted => return Ok(Admitted::Paused(Pause::Interrupted)),
                Woken::Ready | Woken::TimedOut => {}
            }
            self.show_out_the_late();
            if let Some(socket) = self.hear(&awaited[1..])? {
                return Ok(Admitted::Socket(socket));
            }
            if awaited[0].is_ready()
                && let Some(socket) = self.let_in(listener)?
            {
                return Ok(Admitted::Socket(socket));
            }
            if deadline.passed() {
                return Ok(Admitted::Paused(Pause::TimedOut));
            }
        }
    }

    /// They came in this order, so the first is the first to be late.
    fn show_out_the_late(&mut self) {
        while self.visitors.front().is_some_and(|visitor| visitor.until <= now()) {
            self.visitors.pop_front();
        }
    }

    /// Goes on with those who have something to say. Returns the first who has proved what it had to.
    fn hear(&mut self, found: &[Readiness]) -> Result<Option<OwnedFd>, ConnError> {
        for readiness in found.iter().filter(|readiness| readiness.is_ready()) {
            let number = readiness.number();
            // Some were shown out meanwhile.
            let at = self.visitors.iter().position(|v| v.conversation.socket().as_raw_fd() == number);
            let Some(mut visitor) = at.and_then(|at| self.visitors.remove(at)) else { continue };
            match visitor.conversation.go_on()? {
                Standing::Trusted => return Ok(Some(visitor.conversation.into_socket())),
                Standing::Waiting(awaited) => {
                    visitor.awaited = awaited;
                    self.visitors.insert(at.unwrap_or_default(), visitor);
                }
            }
        }
        Ok(None)
    }

    fn let_in(&mut self, listener: BorrowedFd<'_>) -> Result<Option<OwnedFd>, ConnError> {
        let socket = match listening::accept(listener) {
            Ok(socket) => socket,
            // Somebody else has let it in, or it is gone.
            Err(error) if is_nothing(&error) => return Ok(None),
            Err(source) => return Err(ConnError::Os { doing: "accept a connection", source }),
        };
        let Some(key) = &self.key else { return Ok(Some(socket)) };
        let mut conversation = Conversation::begin(socket, Role::Listener, key, self.md5)?;
        match conversation.go_on()? {
            Standing::Trusted => Ok(Some(conversation.into_socket())),
            Standing::Waiting(awaited) => {
                if self.visitors.len() == MOST_VISITORS {
                    self.visitors.pop_front();
                }
                let until = now().after(self.patience);
                self.visitors.push_back(Visitor { conversation, awaited, until });
                Ok(None)
            }
        }
    }
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted)
}
