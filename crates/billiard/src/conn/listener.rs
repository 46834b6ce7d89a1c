//! Listening for connections, and connecting.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::auth::Md5Policy;
use super::connection::Connection;
use super::conversation::Conversation;
use super::doorman::{Admitted, Doorman};
use super::error::{ConnError, os};
use super::handshake::Role;
use super::transport::Pause;
use super::wait::{Awaitable, WaitSet};
use crate::sys::Interrupts;
use crate::sys::poll::Awaited;
use crate::sys::{Deadline, Identity, listening, me};

/// Where connections are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// At a path in the file system.
    Unix(PathBuf),
    /// At an internet address.
    Tcp(SocketAddr),
}

/// Takes connections, of those who hold the key if there is one.
///
/// ```
/// use billiard::conn::{Address, Listener, Md5Policy, Received, connect};
/// use billiard::sys::Deadline;
///
/// let key = b"secret".as_slice();
/// let mut listener =
///     Listener::bind(&Address::Tcp("127.0.0.1:0".parse()?), Some(key), Md5Policy::Refused)?;
/// let address = listener.address().clone();
/// let client = std::thread::spawn(move || {
///     let connected = connect(&address, Some(key), Md5Policy::Refused, Deadline::Never)?;
///     connected.expect("there is no deadline").send(b"hello", Deadline::Never)
/// });
/// let mut connection = listener.accept(Deadline::Never)?.expect("there is no deadline");
/// assert_eq!(connection.receive(Deadline::Never)?, Received::Message(b"hello".to_vec()));
/// client.join().expect("it does not panic")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Fork
/// A forked copy takes connections from the same queue. The path is removed by the process that made the listener.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    address: Address,
    doorman: Doorman,
    owner: Identity,
}

impl Listener {
    /// Listens at an address; a port 0 stands for any that is free.
    ///
    /// # Errors
    /// `AddrInUse`, or whatever else the kernel says.
    pub fn bind(address: &Address, key: Option<&[u8]>, md5: Md5Policy) -> io::Result<Self> {
        let (socket, address) = match address {
            Address::Unix(path) => (listening::listen_unix(path, BACKLOG)?, address.clone()),
            Address::Tcp(address) => {
                let socket = std::net::TcpListener::from(listening::listen_tcp(*address, BACKLOG)?);
                let address = Address::Tcp(socket.local_addr()?);
                (socket.into(), address)
            }
        };
        Ok(Self { socket, address, doorman: Doorman::new(key, md5), owner: me() })
    }

    /// Shows those out who take longer than this to prove that they hold the key; 20 seconds otherwise.
    #[must_use]
    pub fn with_patience(self, patience: std::time::Duration) -> Self {
        let mut this = self;
        this.doorman.set_patience(patience);
        this
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Waits for the next one who holds the key, or until the bell is readable.
    ///
    /// # Blocking
    /// Until then, or the deadline. Signals may interrupt it.
    ///
    /// # Errors
    /// As [`Listener::accept`].
    pub(crate) fn admit(
        &mut self,
        bell: std::os::fd::BorrowedFd<'_>,
        deadline: Deadline,
    ) -> Result<Admitted, ConnError> {
        self.doorman.admit(self.socket.as_fd(), Some(bell), deadline, None)
    }

    /// Takes the next connection. None: the deadline has passed first.
    ///
    /// # Blocking
    /// Until then. Who connects and says nothing keeps nobody else waiting. Signals do not interrupt it.
    ///
    /// # Errors
    /// Somebody did not hold the key; the others are still waiting, and the listener goes on. Or the kernel refused something.
    pub fn accept(&mut self, deadline: Deadline) -> Result<Option<Connection>, ConnError> {
        loop {
            match self.doorman.admit(self.socket.as_fd(), None, deadline, None)? {
                Admitted::Socket(socket) => return Connection::over(socket).map(Some).map_err(os("accept")),
                Admitted::Paused(Pause::Interrupted) => {}
                Admitted::Paused(_) => return Ok(None),
            }
        }
    }
}

/// Ready when [`Listener::accept`] gets further, which need not mean that it has a connection at once: with a key, somebody may have
/// come, or said something, who still has to prove that it holds it. Accept with a deadline, then.
impl Awaitable for Listener {
    fn enlist(&self, set: &mut WaitSet) {
        set.watch(self.socket.as_raw_fd(), Awaited::Data);
        self.doorman.watch(|socket, what| set.watch(socket.as_raw_fd(), what));
    }
}

/// How many may be waiting to be let in.
const BACKLOG: i32 = 128;

impl Drop for Listener {
    fn drop(&mut self) {
        if let Address::Unix(path) = &self.address
            && self.owner == me()
        {
            remove(path);
        }
    }
}

fn remove(path: &Path) {
    // Somebody else may have tidied up before.
    let _ = std::fs::remove_file(path);
}

/// Connects to a listener. None: the deadline has passed first.
///
/// # Blocking
/// Until it has let us in, or the deadline. Signals do not interrupt it.
///
/// # Errors
/// Nobody listens there, or it holds another key.
pub fn connect(
    address: &Address,
    key: Option<&[u8]>,
    md5: Md5Policy,
    deadline: Deadline,
) -> Result<Option<Connection>, ConnError> {
    let socket = match address {
        Address::Unix(path) => listening::connect_unix(path, deadline),
        Address::Tcp(address) => listening::connect_tcp(*address, deadline),
    };
    let Some(mut socket) = socket.map_err(os("connect"))? else { return Ok(None) };
    if let Some(key) = key {
        let mut introduction = Introduction::begin(socket, key, md5)?;
        socket = loop {
            match introduction.go_on(deadline, None)? {
                Introduced::Socket(socket) => break socket,
                Introduced::Paused(Pause::Interrupted) => {}
                Introduced::Paused(_) => return Ok(None),
            }
        };
    }
    Connection::over(socket).map(Some).map_err(os("connect"))
}

/// What somebody who has connected does to be let in.
#[derive(Debug)]
pub struct Introduction(Option<Conversation>);

impl Introduction {
    /// Begins over a socket that is connected.
    ///
    /// # Errors
    /// The kernel has no randomness to give.
    pub fn begin(socket: OwnedFd, key: &[u8], md5: Md5Policy) -> Result<Self, ConnError> {
        Ok(Self(Some(Conversation::begin(socket, Role::Client, key, md5)?)))
    }

    /// Waits for the listener.
    ///
    /// # Blocking
    /// Until it has let us in, the deadline or a signal handler.
    ///
    /// # Errors
    /// It does not let us in, or does not hold the key itself. The socket is closed.
    pub fn go_on(
        &mut self,
        deadline: Deadline,
        interrupts: Option<Interrupts<'_>>,
    ) -> Result<Introduced, ConnError> {
        let Some(mut conversation) = self.0.take() else { return Err(ConnError::Closed) };
        if let Some(pause) = conversation.finish(deadline, interrupts)? {
            self.0 = Some(conversation);
            return Ok(Introduced::Paused(pause));
        }
        Ok(Introduced::Socket(conversation.into_socket()))
    }
}

/// How a wait to be let in has ended.
#[derive(Debug)]
pub enum Introduced {
    /// We are in.
    Socket(OwnedFd),
    /// Not yet.
    Paused(Pause),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::now;

    #[test]
    fn a_listener_that_says_nothing_keeps_a_client_for_as_long_as_it_wants() {
        let path = std::env::temp_dir().join(format!("billiard-silent-{}", crate::sys::pid()));
        for address in [Address::Unix(path), Address::Tcp(([127, 0, 0, 1], 0).into())] {
            // It lets visitors wait, since nobody accepts.
            let listener = Listener::bind(&address, Some(b"key"), Md5Policy::Refused).unwrap();
            let start = now();
            let soon = Deadline::from_seconds(Some(0.02));
            let outcome = connect(listener.address(), Some(b"key"), Md5Policy::Refused, soon).unwrap();
            assert!(outcome.is_none());
            assert!(now().since(start) >= std::time::Duration::from_millis(20));
            let late = Deadline::from_seconds(Some(30.0));
            let without = connect(listener.address(), None, Md5Policy::Refused, late).unwrap();
            assert!(without.is_some(), "without a key there is nothing to wait for");
        }
    }

    #[test]
    fn where_nobody_is_let_in_a_client_does_not_wait_longer_than_it_wants() {
        let path = std::env::temp_dir().join(format!("billiard-full-{}", crate::sys::pid()));
        let listener = listening::listen_unix(&path, 0).unwrap();
        let address = Address::Unix(path.clone());
        let mut waiting = Vec::new();
        let outcome = loop {
            let soon = Deadline::from_seconds(Some(0.02));
            match connect(&address, None, Md5Policy::Refused, soon) {
                Ok(Some(connection)) if waiting.len() < 100 => waiting.push(connection),
                other => break other,
            }
        };
        remove(&path);
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        drop(listener);
    }
}
