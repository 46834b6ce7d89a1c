//! Listening for connections, and connecting.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
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
///     connect(&address, Some(key), Md5Policy::Refused).and_then(|mut c| c.send(b"hello", Deadline::Never))
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

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
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

/// Connects to a listener.
///
/// # Blocking
/// Until it has let us in. Signals do not interrupt it.
///
/// # Errors
/// Nobody listens there, or it holds another key.
pub fn connect(address: &Address, key: Option<&[u8]>, md5: Md5Policy) -> Result<Connection, ConnError> {
    let socket: OwnedFd = match address {
        Address::Unix(path) => UnixStream::connect(path).map_err(os("connect"))?.into(),
        Address::Tcp(address) => TcpStream::connect(address).map_err(os("connect"))?.into(),
    };
    let socket = match key {
        None => socket,
        Some(key) => {
            let mut introduction = Introduction::begin(socket, key, md5)?;
            loop {
                if let Some(socket) = introduction.go_on(None)? {
                    break socket;
                }
            }
        }
    };
    Connection::over(socket).map_err(os("connect"))
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

    /// Waits for the listener. None: a signal handler has run first.
    ///
    /// # Errors
    /// It does not let us in, or does not hold the key itself. The socket is closed.
    pub fn go_on(&mut self, interrupts: Option<Interrupts<'_>>) -> Result<Option<OwnedFd>, ConnError> {
        let Some(mut conversation) = self.0.take() else { return Err(ConnError::Closed) };
        if conversation.finish(Deadline::Never, interrupts)?.is_some() {
            self.0 = Some(conversation);
            return Ok(None);
        }
        Ok(Some(conversation.into_socket()))
    }
}
