//! Lets in who holds the key. Several visitors prove it at a time, so that one who says nothing keeps nobody waiting.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::auth::Md5Policy;
use super::conversation::{Conversation, Standing};
use super::error::{ConnError, os};
use super::handshake::Role;
use super::transport::Pause;
use crate::failpoint;
use crate::sys::Deadline;
use crate::sys::Interrupts;
use crate::sys::poll::{Awaited, Readiness, Woken, any_ready};
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

    pub(super) const fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Takes over who is at another's door.
    pub fn join(&mut self, other: Self) {
        self.visitors.extend(other.visitors);
        self.visitors.make_contiguous().sort_by_key(|visitor| visitor.until);
        while self.visitors.len() > MOST_VISITORS {
            self.visitors.pop_front();
        }
    }

    /// Whether nobody is at the door.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.visitors.is_empty()
    }

    /// Waits for the next one who holds the key. The listening socket is put into non-blocking mode: processes may share it.
    ///
    /// # Blocking
    /// Until there is one, the bell rings, the deadline or a signal handler.
    ///
    /// # Errors
    /// A visitor failed; its connection is closed, and the others are still at the door. Or the listening socket did.
    pub fn admit(
        &mut self,
        listener: BorrowedFd<'_>,
        bell: Option<BorrowedFd<'_>>,
        deadline: Deadline,
        interrupts: Option<Interrupts<'_>>,
    ) -> Result<Admitted, ConnError> {
        listening::unblock(listener).map_err(os("listen"))?;
        loop {
            let mut awaited = vec![Readiness::of(listener.as_raw_fd(), Awaited::Data)];
            awaited.extend(bell.map(|bell| Readiness::of(bell.as_raw_fd(), Awaited::Data)));
            let others = awaited.len();
            awaited.extend(
                self.visitors.iter().map(|v| Readiness::of(v.conversation.socket().as_raw_fd(), v.awaited)),
            );
            let patience =
                self.visitors.front().map_or(Deadline::Never, |visitor| Deadline::At(visitor.until));
            let woken = any_ready(&mut awaited, deadline.sooner(patience), interrupts);
            match woken.map_err(os("wait for a visitor"))? {
                Woken::Interrupted => return Ok(Admitted::Paused(Pause::Interrupted)),
                Woken::Ready | Woken::TimedOut => {}
            }
            self.show_out_the_late();
            if let Some(socket) = self.hear(&awaited[others..])? {
                return Ok(Admitted::Socket(socket));
            }
            if awaited[0].is_ready()
                && let Some(socket) = self.let_in(listener)?
            {
                return Ok(Admitted::Socket(socket));
            }
            if awaited[1..others].iter().any(Readiness::is_ready) {
                return Ok(Admitted::Paused(Pause::Interrupted));
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

    /// Names everybody at the door, and what each is to say or to hear next.
    pub(super) fn watch(&self, mut each: impl FnMut(BorrowedFd<'_>, Awaited)) {
        self.visitors.iter().for_each(|visitor| each(visitor.conversation.socket().as_fd(), visitor.awaited));
    }

    fn let_in(&mut self, listener: BorrowedFd<'_>) -> Result<Option<OwnedFd>, ConnError> {
        let socket = match listening::accept(listener) {
            Ok(socket) => socket,
            // Somebody else has let it in, or it is gone.
            Err(error) if is_nothing(&error) => return Ok(None),
            Err(source) => return Err(ConnError::Os { doing: "accept a connection", source }),
        };
        failpoint::pass("conn.let_in");
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

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::thread::JoinHandle;

    use super::super::listener::{Introduced, Introduction};
    use super::super::{Connection, Received};
    use super::*;
    use crate::conn::auth::AuthError;

    fn door() -> (TcpListener, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[expect(clippy::disallowed_methods, reason = "these threads end with the test")]
    fn spawned<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        std::thread::spawn(body)
    }

    fn client(address: std::net::SocketAddr, key: &'static [u8]) -> JoinHandle<Result<OwnedFd, ConnError>> {
        spawned(move || {
            let socket = TcpStream::connect(address).unwrap();
            let mut introduction = Introduction::begin(socket.into(), key, Md5Policy::Refused)?;
            match introduction.go_on(Deadline::Never, None)? {
                Introduced::Socket(socket) => Ok(socket),
                Introduced::Paused(pause) => panic!("no signal arrives here: {pause:?}"),
            }
        })
    }

    fn admitted(doorman: &mut Doorman, listener: &TcpListener) -> Result<OwnedFd, ConnError> {
        let deadline = Deadline::from_seconds(Some(30.0));
        match doorman.admit(listener.as_fd(), None, deadline, None)? {
            Admitted::Socket(socket) => Ok(socket),
            Admitted::Paused(pause) => panic!("nobody came in: {pause:?}"),
        }
    }

    #[test]
    fn who_says_nothing_keeps_nobody_waiting() {
        let (listener, address) = door();
        let silent: Vec<_> = (0..MOST_VISITORS + 5).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut doorman = Doorman::new(Some(b"key"), Md5Policy::Accepted);
        let client = client(address, b"key");
        let ours = admitted(&mut doorman, &listener).unwrap();
        let theirs = client.join().unwrap().unwrap();
        let mut writer = Connection::over(theirs).unwrap();
        writer.send(b"in", Deadline::Never).unwrap();
        let mut reader = Connection::over(ours).unwrap();
        assert_eq!(reader.receive(Deadline::Never).unwrap(), Received::Message(b"in".to_vec()));
        assert!(doorman.visitors.len() <= MOST_VISITORS);
        drop(silent);
    }

    #[test]
    fn who_takes_too_long_is_shown_out() {
        let (listener, address) = door();
        let mut silent = TcpStream::connect(address).unwrap();
        let patience = Duration::from_millis(50);
        let mut doorman = Doorman::new(Some(b"key"), Md5Policy::Accepted).with_patience(patience);
        let start = now();
        let admitted =
            doorman.admit(listener.as_fd(), None, Deadline::from_seconds(Some(0.2)), None).unwrap();
        assert!(matches!(admitted, Admitted::Paused(Pause::TimedOut)));
        assert!(now().since(start) >= Duration::from_millis(200));
        assert!(doorman.visitors.is_empty());
        let mut said = Vec::new();
        std::io::Read::read_to_end(&mut silent, &mut said).unwrap();
        assert!(said[4..].starts_with(b"#CHALLENGE#{sha256}"));
    }

    #[test]
    fn a_stranger_is_told_and_the_next_one_comes_in() {
        let (listener, address) = door();
        let mut doorman = Doorman::new(Some(b"key"), Md5Policy::Accepted);
        let stranger = client(address, b"other");
        let error = admitted(&mut doorman, &listener).unwrap_err();
        assert!(matches!(error, ConnError::Auth(AuthError::Wrong)), "{error:?}");
        let error = stranger.join().unwrap().unwrap_err();
        assert!(matches!(error, ConnError::Auth(AuthError::Rejected)), "{error:?}");
        let friend = client(address, b"key");
        admitted(&mut doorman, &listener).unwrap();
        friend.join().unwrap().unwrap();
    }

    #[test]
    fn garbage_and_hanging_up_end_one_handshake_only() {
        for (garbage, error) in [
            (b"".as_slice(), AuthError::HungUp),
            (b"\0\0\0\x10half of", AuthError::HungUp),
            (b"GET / HTTP/1.1\r\n\r\n", AuthError::NoChallenge),
            (b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", AuthError::NoChallenge),
            (b"\xff\xff\xff\xfe", AuthError::NoChallenge),
            (b"\0\0\x01\x01", AuthError::NoChallenge),
            (b"\0\0\0\x04nope", AuthError::Wrong),
            (b"\0\0\0\0", AuthError::Wrong),
        ] {
            let (listener, address) = door();
            let mut doorman = Doorman::new(Some(b"key"), Md5Policy::Accepted);
            let mut visitor = TcpStream::connect(address).unwrap();
            std::io::Write::write_all(&mut visitor, garbage).unwrap();
            visitor.shutdown(Shutdown::Write).unwrap();
            let found = admitted(&mut doorman, &listener).unwrap_err();
            assert!(matches!(found, ConnError::Auth(auth) if auth == error), "{garbage:?}: {found:?}");
            assert!(doorman.visitors.is_empty());
        }
    }

    #[test]
    fn doors_are_joined_without_losing_anybody() {
        let (listener, address) = door();
        let mut doormen = [0, 1].map(|_| Doorman::new(Some(b"key"), Md5Policy::Accepted));
        let mut waiting = Vec::new();
        for doorman in &mut doormen {
            waiting.push(TcpStream::connect(address).unwrap());
            let deadline = Deadline::from_seconds(Some(0.05));
            assert!(matches!(
                doorman.admit(listener.as_fd(), None, deadline, None).unwrap(),
                Admitted::Paused(_)
            ));
        }
        let [mut one, other] = doormen;
        one.join(other);
        assert_eq!(one.visitors.len(), 2);
        assert!(one.visitors[0].until <= one.visitors[1].until);
    }
}
